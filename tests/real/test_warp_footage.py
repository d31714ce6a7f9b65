"""The warp on real footage, with the keypoints that came with it. Skipped without the shared footage."""

from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pytest

from models.measures import person_mask, psnr
from models.motion.classical import interpolate_joints
from models.renderer.camera import find_camera
from models.renderer.methods import KeyPair, render_between
from models.skeleton import joints_from_body_25, torso_length

FOOTAGE = Path(__file__).parents[3] / "shared" / "footage"
pytestmark = pytest.mark.skipif(not FOOTAGE.is_dir(), reason=f"no footage in {FOOTAGE}")
STEP, NUM_FRAMES = 8, 41


@pytest.fixture(scope="module")
def kick():
    with av.open(str(FOOTAGE / "kick_front.mp4")) as video:
        frames = [
            frame.to_ndarray(format="bgr24") for frame, _ in zip(video.decode(video=0), range(NUM_FRAMES), strict=False)
        ]
    table = pd.read_parquet(FOOTAGE / "kick_front.keypoints.parquet").iloc[:NUM_FRAMES]
    body, left, right = (
        np.stack(table[name]).reshape(NUM_FRAMES, -1, 3) for name in ("body", "left_hand", "right_hand")
    )
    return frames, joints_from_body_25(body, left, right)


def test_at_step_8_warp_paints_the_person_better_than_flow_and_blend(kick):
    """Only every eighth pose is used, and no matte: it is drawn from the skeleton."""
    frames, joints = kick
    keys, rows = np.arange(0, NUM_FRAMES, STEP), np.arange(NUM_FRAMES)
    predicted = interpolate_joints(keys, joints[keys], rows, "robust")
    torso_px = torso_length(joints[keys])
    scores = {"blend": [], "flow": [], "warp": []}
    for start in keys[:-1]:
        middle, end = start + STEP // 2, start + STEP
        height, width = frames[middle].shape[:2]
        is_person = person_mask(None, joints[middle], height, width, 0.15, torso_px)
        pair = KeyPair(
            frames[start], frames[end], joints_0_px_JD=joints[start], joints_1_px_JD=joints[end], torso_px=torso_px
        )
        for method, found in scores.items():
            (frame,) = render_between(method, pair, [0.5], [predicted[middle]])
            found.append(psnr(frame.image, frames[middle], is_person))
    means = {method: np.mean(found) for method, found in scores.items()}
    assert means["warp"] > means["flow"] + 0.5
    assert means["flow"] > means["blend"] + 1


def test_behind_a_camera_that_pans_and_zooms_warp_still_wins_over_flow(kick):
    """The clip through a window that moves as no object in it does; mattes by the difference from the empty room."""
    frames, joints = kick
    height, width = frames[0].shape[:2]
    room = np.median(frames[::4], axis=0)
    size = (270, 480)
    windows = []
    for number in range(NUM_FRAMES):
        share = number / (NUM_FRAMES - 1)
        part = 0.85 * (1 - 0.1 * share)
        scale = size[0] / (part * width)
        left, top = 0.5 * share * (1 - part) * width, share * (1 - part) * height
        windows.append(np.array([[scale, 0, -scale * left], [0, scale, -scale * top]]))
    moved, mattes, seen = [], [], []
    for frame, window, pose in zip(frames, windows, joints, strict=True):
        moved.append(cv2.warpAffine(frame, window, size, flags=cv2.INTER_AREA))
        is_person = (np.abs(frame - room).max(axis=2) > 24).astype(np.uint8)
        is_person = cv2.morphologyEx(is_person, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
        mattes.append(cv2.warpAffine(255 * cv2.medianBlur(is_person, 5), window, size, flags=cv2.INTER_AREA))
        here = pose.copy()
        here[:, :2] = np.where(pose[:, 2:] > 0, pose[:, :2] @ window[:, :2].T + window[:, 2], 0)
        seen.append(here)
    joints = np.stack(seen)
    keys, rows = np.arange(0, NUM_FRAMES, STEP), np.arange(NUM_FRAMES)
    predicted = interpolate_joints(keys, joints[keys], rows, "robust")
    torso_px = torso_length(joints[keys])
    gains = []
    for start in keys[:-1]:
        middle, end = start + STEP // 2, start + STEP
        is_background = tuple(mattes[row] == 0 for row in (start, end))
        camera = find_camera((moved[start], moved[end]), is_background)
        assert camera is not None
        step = np.vstack([windows[end], [0, 0, 1]]) @ np.linalg.inv(np.vstack([windows[start], [0, 0, 1]]))
        corners = np.float64([[[0, 0], [size[0], 0], [size[0], size[1]], [0, size[1]]]])
        error_px = cv2.perspectiveTransform(corners, camera.to_keys[1]) - cv2.perspectiveTransform(corners, step)
        assert np.abs(error_px).max() < 2
        pair = KeyPair(
            moved[start], moved[end], (mattes[start], mattes[end]), joints[start], joints[end], torso_px=torso_px
        )
        is_person = person_mask(mattes[middle], joints[middle], size[1], size[0], 0.15, torso_px)
        warped, plain = (render_between(name, pair, [0.5], [predicted[middle]])[0] for name in ("warp", "flow"))
        assert 0 < warped.posed_share < 1
        gains.append(psnr(warped.image, moved[middle], is_person) - psnr(plain.image, moved[middle], is_person))
    assert np.mean(gains) > 0.5
