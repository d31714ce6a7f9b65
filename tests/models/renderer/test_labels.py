import subprocess
import sys

import numpy as np
import pytest

import models.renderer
from benchmarks import plain_labels
from models.renderer import LabelCanvas, draw_human_masks, draw_labels, draw_pose_maps, draw_skeletons
from models.renderer.labels import LIMBS
from models.skeleton import Joint
from tests.models.renderer.reference import load_arrays, needs_reference

DRAW = ("draw_pose_maps", "draw_skeletons", "draw_human_masks")


def poses(seed, height, width, num_frames=2):
    """Joints in, on and outside the borders, some on whole pixels, some close together, some not seen."""
    rng = np.random.default_rng(seed)
    joints = np.ones((num_frames, 19, 3))
    joints[..., :2] = rng.uniform(-0.2, 1.2, (num_frames, 19, 2)) * (width, height)
    joints[0, ::2, :2] = joints[0, 0, :2] + rng.normal(0, 2, (10, 2))
    joints[-1, :, :2] = joints[-1, :, :2].round()
    joints[..., 2] = rng.choice([0.0, 0.001, 0.5, 1.0], joints.shape[:2], p=[0.1, 0.1, 0.4, 0.4])
    joints[rng.random(joints.shape[:2]) < 0.1] = 0
    return joints


def one_joint(joint, x, y, score=1.0):
    joints = np.zeros((1, 19, 3))
    joints[0, joint] = x, y, score
    return joints


@needs_reference
def test_labels_are_the_fixtures():
    io = load_arrays("labels_io.npz")
    height, width = io["human_mask"].shape
    joints = io["landmarks"][None]
    np.testing.assert_allclose(draw_pose_maps(joints, height, width)[0], io["pose_map"], atol=1e-6, rtol=0)
    np.testing.assert_array_equal(draw_skeletons(joints, height, width)[0], io["skeleton"])
    np.testing.assert_array_equal(draw_human_masks(joints, height, width)[0], io["human_mask"])
    labels = draw_labels(joints, height, width)[0]
    assert labels.dtype == np.float32
    picture = io["skeleton"].transpose(2, 0, 1) / 255 * 2 - 1
    np.testing.assert_allclose(labels, np.concatenate([picture, io["pose_map"]]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [(96, 144), (40, 60), (7, 9), (64, 20), (1, 1)])
@pytest.mark.parametrize("name", DRAW)
def test_drawings_are_those_of_the_plain_way(name, size):
    for seed in range(4):
        joints = poses(seed, *size)
        ours, plain = getattr(models.renderer, name)(joints, *size), getattr(plain_labels, name)(joints, *size)
        assert (ours.dtype, ours.shape) == (plain.dtype, plain.shape)
        np.testing.assert_allclose(ours.astype(float), plain, atol=1e-6 * (name == "draw_pose_maps"), rtol=0)


def test_a_spot_is_a_gaussian_in_a_window_of_41_and_mirrored_at_a_border():
    offset = np.arange(-20, 21)
    expected = np.exp(-(offset[:, None] ** 2 + offset**2) / 50)
    inside = draw_pose_maps(one_joint(Joint.NECK, 30.9, 32), 64, 64)[0, Joint.NECK]
    np.testing.assert_allclose(inside[12:53, 10:51], expected, atol=1e-6)
    assert np.count_nonzero(inside) == 41 * 41
    corner = draw_pose_maps(one_joint(Joint.NECK, 0, 0), 64, 64)[0, Joint.NECK]
    # Cell i of a mirrored line holds exp(-i^2 / 50) and its image's exp(-(i + 1)^2 / 50), and cell 0 is the largest.
    line = (np.exp(-(np.arange(21) ** 2) / 50) + np.exp(-(np.arange(1, 22) ** 2) / 50) * (np.arange(21) < 20)) / (
        1 + np.exp(-1 / 50)
    )
    np.testing.assert_allclose(corner[:21, :21], line[:, None] * line, atol=1e-6)
    assert np.count_nonzero(corner) == 21 * 21


def test_training_draws_what_it_is_told():
    joints = poses(0, 80, 120)
    joints[..., :2] = np.clip(joints[..., :2], 5, 75)
    joints[..., 2] = 1
    sigma_px, is_dropped = np.full((2, 19), 5.0), np.zeros((2, 19), bool)
    sigma_px[0, 3], is_dropped[1, 4] = 4, True
    maps = draw_pose_maps(joints, 80, 120, sigma_px_TJ=sigma_px, is_dropped_TJ=is_dropped)
    usual = draw_pose_maps(joints, 80, 120)
    assert not maps[1, 4].any()
    assert np.count_nonzero(maps[0, 3]) < np.count_nonzero(usual[0, 3])
    differs = np.argwhere((maps != usual).any(axis=(2, 3))).tolist()
    assert differs == [[0, 3], [1, 4]]
    is_drawn = np.ones((2, 18), bool)
    is_drawn[0] = False
    is_drawn[0, 5] = True
    alone = draw_skeletons(joints, 80, 120, is_drawn_TL=is_drawn)
    moved = np.zeros((1, 19, 3))
    for joint in LIMBS[5][:2]:
        moved[0, joint] = joints[0, joint]
    np.testing.assert_array_equal(alone[0], draw_skeletons(moved, 80, 120)[0])
    labels = draw_labels(joints, 80, 120, sigma_px_TJ=sigma_px, is_dropped_TJ=is_dropped, is_drawn_TL=is_drawn)
    np.testing.assert_array_equal(labels[:, 3:], maps)
    np.testing.assert_allclose(labels[:, :3], alone.transpose(0, 3, 1, 2) / 255 * 2 - 1, atol=1e-6)


def test_a_joint_that_does_not_count_is_in_nothing():
    for x, y, score in ((-1, 9, 1), (60, 9, 1), (9, -0.5, 1), (9, 40, 1), (9, 9, 0.001), (0, 0, 0)):
        joints = one_joint(Joint.NECK, x, y, score)
        joints[0, Joint.NOSE] = 20, 20, 0.002
        assert not draw_pose_maps(joints, 40, 60)[0, Joint.NECK].any()
        assert draw_pose_maps(joints, 40, 60)[0, Joint.NOSE].max() == 1
        assert not draw_skeletons(joints, 40, 60).any()
        np.testing.assert_array_equal(
            draw_human_masks(joints, 40, 60), draw_human_masks(one_joint(Joint.NOSE, 20, 20), 40, 60)
        )


def test_no_frames_and_frames_together():
    none = np.zeros((0, 19, 3))
    assert draw_labels(none, 20, 30).shape == (0, 22, 20, 30)
    assert draw_pose_maps(none, 20, 30).shape == (0, 19, 20, 30)
    assert draw_skeletons(none, 20, 30).shape == (0, 20, 30, 3)
    assert draw_human_masks(none, 20, 30).shape == (0, 20, 30)
    joints = poses(3, 40, 60, num_frames=3)
    together = draw_labels(joints, 40, 60)
    for t in range(3):
        np.testing.assert_array_equal(together[t], draw_labels(joints[t : t + 1], 40, 60)[0])


def test_what_cannot_be_drawn_is_refused():
    joints = one_joint(Joint.NECK, 9, 9)
    for draw in (draw_labels, draw_pose_maps, draw_skeletons, draw_human_masks):
        with pytest.raises(ValueError, match=r"joints have shape \(19, 3\); \(frames, 19, 3\) is needed"):
            draw(joints[0], 20, 30)
        with pytest.raises(ValueError, match="a picture of 0 x 30 px"):
            draw(joints, 0, 30)
        with pytest.raises(ValueError, match="not finite"):
            draw(joints * np.nan, 20, 30)
    with pytest.raises(ValueError, match=r"sigma_px_TJ has shape \(19,\); \(1, 19\) is needed"):
        draw_pose_maps(joints, 20, 30, sigma_px_TJ=np.ones(19))
    with pytest.raises(ValueError, match="sigma_px_TJ has a value that is not above 0"):
        draw_pose_maps(joints, 20, 30, sigma_px_TJ=np.zeros((1, 19)))
    with pytest.raises(ValueError, match=r"is_drawn_TL has shape \(1, 19\); \(1, 18\) is needed"):
        draw_labels(joints, 20, 30, is_drawn_TL=np.ones((1, 19), bool))


def test_importing_the_renderer_imports_no_torch_and_no_opencv():
    code = "import sys, models.renderer; sys.exit(bool({'torch', 'cv2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_canvas_that_is_drawn_on_again_holds_the_last_labels_alone():
    canvas = LabelCanvas(3, 40, 60)
    rng = np.random.default_rng(0)
    for seed, num_frames in ((0, 3), (1, 1), (2, 2), (3, 3)):
        joints = poses(seed, 40, 60, num_frames)
        varied = {
            "sigma_px_TJ": rng.choice([4.0, 5.0], (num_frames, 19)),
            "is_dropped_TJ": rng.random((num_frames, 19)) < 0.3,
            "is_drawn_TL": rng.random((num_frames, 18)) < 0.7,
        }
        drawn = canvas.draw_labels(joints, **varied)
        np.testing.assert_array_equal(drawn, draw_labels(joints, 40, 60, **varied))
        assert np.shares_memory(drawn, canvas.draw_labels(joints))
        maps = canvas.draw_pose_maps(joints)
        np.testing.assert_array_equal(maps, draw_pose_maps(joints, 40, 60))
        picture = draw_skeletons(joints, 40, 60).transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(draw_labels(joints, 40, 60)[:, :3], (picture / 255 * 2 - 1).astype(np.float32))
    with pytest.raises(ValueError, match="4 poses for a canvas of 3"):
        canvas.draw_labels(np.zeros((4, 19, 3)))
