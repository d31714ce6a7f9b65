"""Interpolation by flow and by mixing."""

import hashlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

from models.renderer.flow import FlowPair, blend, interpolate_flow
from models.renderer.methods import KeyPair, render_between
from tests.models.renderer.scenes import psnr, square_at, texture


def test_blend_mixes_by_time():
    dark, light = np.full((4, 5, 3), 20, np.uint8), np.full((4, 5, 3), 120, np.uint8)
    assert (blend(dark, light, 0.25) == 45).all()
    assert np.array_equal(blend(dark, light, 0.0), dark)
    assert np.array_equal(blend(dark, light, 1.0), light)


@pytest.mark.parametrize("t", [0.25, 0.5, 0.75])
def test_a_moving_square_is_on_its_way(t):
    first, last = square_at(60), square_at(76)
    truth = square_at(60 + 16 * t)
    (image,) = interpolate_flow(first, last, [t])
    assert psnr(image, truth) > 32
    assert psnr(image, truth) > psnr(blend(first, last, t), truth) + 10


def test_the_warped_inputs_show_the_same_thing_where_the_flow_is_right():
    result = FlowPair(square_at(60), square_at(72)).at(0.5)
    inside = np.s_[70:98, 76:104]  # within the square, which is 48 px wide and then at 66
    assert cv2.absdiff(result.warped_0[inside], result.warped_1[inside]).mean() < 4
    assert result.image.dtype == np.uint8
    assert result.image.shape == result.warped_0.shape == result.warped_1.shape == (160, 220, 3)


def test_flows_point_from_one_key_to_the_other():
    forth, back = FlowPair(square_at(60), square_at(72)).flows
    assert np.median(forth[70:98, 70:98, 0]) == pytest.approx(12, abs=0.5)
    assert np.median(back[70:98, 82:110, 0]) == pytest.approx(-12, abs=0.5)
    assert np.abs(forth[70:98, 70:98, 1]).mean() < 0.5


def test_background_uncovered_by_the_square_does_not_follow_it():
    """Ground that only one key shows stays as it is, on both sides of the square."""
    ground = texture(160, 220, 9)

    def scene(left):
        image = ground.copy()
        image[60:108, left : left + 48] = square_at(0, 0, 48, 48, 48)
        return image

    image = FlowPair(scene(60), scene(76)).at(0.5).image
    far = np.ones((160, 220), bool)
    far[52:116, 52:132] = False
    assert psnr(image, scene(68), far) > 38
    assert psnr(image, scene(68)) > 24


def test_keys_come_out_as_they_are():
    first, last = square_at(60), square_at(76)
    images = interpolate_flow(first, last, [0.0, 1.0])
    assert np.array_equal(images[0], first)
    assert np.array_equal(images[1], last)


def test_nothing_moves_nothing_changes():
    image = texture(97, 131, 3)
    assert np.array_equal(FlowPair(image, image).at(0.4).image, image)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 9), (33, 65), (101, 77), (64, 200)])
def test_any_size(height, width):
    image = FlowPair(texture(height, width, 1), texture(height, width, 2)).at(0.5).image
    assert image.shape == (height, width, 3)


def test_reversed_in_time_it_is_nearly_the_same():
    first, last = square_at(60), square_at(76)
    assert psnr(FlowPair(first, last).at(0.25).image, FlowPair(last, first).at(0.75).image) > 35


def test_wrong_pictures_are_refused():
    image = texture(40, 40, 1)
    with pytest.raises(ValueError, match="different size"):
        FlowPair(image, image[:30])
    with pytest.raises(ValueError, match="uint8"):
        FlowPair(image.astype(np.float32), image.astype(np.float32))
    with pytest.raises(ValueError, match="no rendering method 'magic'; there are blend, flow, rife, warp"):
        render_between("magic", KeyPair(image, image), [0.5])


def test_methods_by_name():
    first, last = square_at(60), square_at(76)
    keys = KeyPair(first, last)
    assert np.array_equal(render_between("flow", keys, [0.5])[0].image, interpolate_flow(first, last, [0.5])[0])
    assert [frame.image.shape for frame in render_between("blend", keys, [0.25, 0.5])] == [(160, 220, 3)] * 2


SCRIPT = """
import hashlib, sys, cv2
cv2.setNumThreads(int(sys.argv[1]))
from models.renderer.flow import FlowPair
from tests.models.renderer.scenes import texture
import numpy as np
cv2.setNumThreads(int(sys.argv[1]))
first = texture(300, 200, 1)
print(hashlib.sha256(FlowPair(first, np.roll(first, 7, 1)).at(0.3).image).hexdigest())
"""


def test_same_bytes_in_every_process_and_for_any_number_of_threads():
    first = texture(300, 200, 1)
    here = hashlib.sha256(FlowPair(first, np.roll(first, 7, 1)).at(0.3).image).hexdigest()
    for threads in ("1", "4"):
        there = subprocess.run([sys.executable, "-c", SCRIPT, threads], capture_output=True, text=True, check=True)
        assert there.stdout.strip() == here
