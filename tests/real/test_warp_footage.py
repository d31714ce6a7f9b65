"""The warp on real footage, with the keypoints that came with it. Skipped without the shared footage."""

from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest

from models.measures import person_mask, psnr
from models.motion.classical import interpolate_joints
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
