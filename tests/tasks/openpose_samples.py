"""OpenPose's JSON files of people whose place is known."""

import json

import numpy as np

TORSO = {1: (0, 0), 2: (-30, 0), 5: (30, 0), 8: (0, 100), 9: (-20, 100), 12: (20, 100), 0: (0, -40)}


def person_at(x, y, hands=False):
    body = np.zeros((25, 3))
    for point, (dx, dy) in TORSO.items():
        body[point] = (x + dx, y + dy, 0.9)
    hand = np.tile([x + 80.0, y + 60, 0.5], (21, 1)) if hands else np.zeros((0, 3))
    return {
        "pose_keypoints_2d": body.ravel().tolist(),
        "hand_left_keypoints_2d": hand.ravel().tolist(),
        "hand_right_keypoints_2d": [],
    }


def write(folder, frame, people):
    path = folder / f"clip_1_{frame:012d}_keypoints.json"
    path.write_text(json.dumps({"version": 1.3, "people": people}))
    return path
