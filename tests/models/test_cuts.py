from itertools import pairwise

import cv2
import numpy as np
import pytest

from models.cuts import find_cuts, make_thumbnail, measure_likeness


def scene(seed, height=360, width=1200):
    """A picture with detail at every size, as real ones have."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.float32)
    for side in (6, 12, 24, 48, 96):
        noise = rng.normal(size=(height // side + 2, width // side + 2, 3)).astype(np.float32)
        image += side**0.7 * cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    image = 128 + image * 3 + rng.uniform(-40, 40, 3)
    return np.clip(image, 0, 255).astype(np.uint8)


def likeness(pictures):
    thumbnails = [make_thumbnail(picture) for picture in pictures]
    return [measure_likeness(a, b) for a, b in pairwise(thumbnails)]


def walker(background, x, size=60):
    image = background.copy()
    cv2.rectangle(image, (x, 100), (x + size, 300), (20, 30, 200), -1)
    return image


def test_another_scene_is_a_cut_and_nothing_else():
    first, second = scene(1)[:, :640], scene(2)[:, :640]
    shown = [walker(first, 20 + 50 * n) for n in range(5)] + [walker(second, 20 + 50 * n) for n in range(5)]
    assert np.flatnonzero(find_cuts(likeness(shown))).tolist() == [4]


def test_pans_and_changes_of_light_are_no_cuts():
    wide = scene(3)
    pan = [wide[:, 100 * n : 100 * n + 640] for n in range(5)]  # a sixth of the width each time
    assert not find_cuts(likeness(pan)).any()
    still = wide[:, :640]
    light = [cv2.convertScaleAbs(still, alpha=alpha) for alpha in (1.0, 0.9, 0.8, 0.7, 0.6)]
    assert not find_cuts(likeness(light)).any()


def test_a_cut_to_a_similar_picture_shows_beside_quiet_neighbours():
    assert find_cuts([0.97, 0.98, 0.7, 0.97, 0.96]).tolist() == [False, False, True, False, False]
    # As much as elsewhere: fast motion.
    assert not find_cuts([0.75, 0.8, 0.7, 0.78, 0.72]).any()
    # A sure cut beside it is no measure of how much the scene moves.
    assert find_cuts([0.97, 0.98, 0.7, 0.3, 0.96]).tolist() == [False, False, True, True, False]


@pytest.mark.parametrize("likeness_G", [[], [0.2], [0.9], [0.7]])
def test_short_videos(likeness_G):
    assert find_cuts(likeness_G).tolist() == [value < 0.5 for value in likeness_G]


def test_pictures_of_any_size_have_a_thumbnail():
    assert make_thumbnail(scene(1, 360, 640)).shape == (54, 96, 3)
    assert make_thumbnail(scene(1, 20, 30)).shape == (20, 30, 3)
    assert make_thumbnail(np.zeros((2, 2000, 3), np.uint8)).shape == (1, 96, 3)
    tiny = np.zeros((1, 3, 3), np.uint8)
    assert measure_likeness(tiny, tiny) == pytest.approx(1)
