"""Reading OpenPose's files, and what counts as not seen."""

import json

import numpy as np
import pytest

from models.skeleton import Joint
from tasks.errors import SourceError
from tasks.pose import drop_unseen, read_openpose

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


def test_openpose_frames_become_joints_of_one_person(tmp_path):
    for frame in range(0, 24, 8):
        people = [person_at(600, 210), person_at(100 + frame, 200, hands=True)]
        write(tmp_path, frame, people if frame != 8 else people[::-1])
    write(tmp_path, 5, "not read")
    result = read_openpose(tmp_path, "observed-8", [0, 8, 16])
    assert (result.name, result.frames, result.mattes) == ("observed-8", (0, 8, 16), [None] * 3)
    assert result.joints_px_TJD.shape == (3, 19, 3)
    assert result.joints_px_TJD.dtype == result.keypoints_TK.dtype == np.float32
    assert result.keypoints_TK.shape == (3, 201)
    np.testing.assert_allclose(result.joints_px_TJD[:, Joint.NECK], [[100, 200, 0.9], [108, 200, 0.9], [116, 200, 0.9]])
    np.testing.assert_allclose(result.joints_px_TJD[1, Joint.LEFT_HAND], [188, 260, 0.5])
    np.testing.assert_array_equal(result.joints_px_TJD[:, [Joint.RIGHT_HAND, Joint.LEFT_KNEE]], 0)


def test_openpose_frame_without_people_is_not_seen(tmp_path):
    for frame in range(3):
        write(tmp_path, frame, [] if frame == 1 else [person_at(100, 200)])
    result = read_openpose(tmp_path, "truth", range(3))
    np.testing.assert_array_equal(result.joints_px_TJD[1], 0)
    assert result.joints_px_TJD[[0, 2], Joint.NECK, 2].all()
    write(tmp_path, 0, [])
    write(tmp_path, 2, [])
    assert not read_openpose(tmp_path, "truth", range(3)).joints_px_TJD.any()


def test_openpose_people_are_told_apart_by_colour(tmp_path):
    """Two of the same size change places between two frames: only their shirts tell."""
    images = [np.full((400, 400, 3), 128, np.uint8) for _ in range(6)]
    for frame, image in enumerate(images):
        red, blue = (100, 300) if frame < 3 else (240, 140)
        image[190:310, red - 40 : red + 40] = (40, 40, 200)
        image[190:310, blue - 40 : blue + 40] = (200, 40, 40)
        write(tmp_path, frame, [person_at(red, 200, hands=True), person_at(blue, 200)])
    joints = read_openpose(tmp_path, "truth", range(6), images).joints_px_TJD
    x = joints[joints[:, Joint.NECK, 2] > 0, Joint.NECK, 0]
    assert set(x.tolist()) <= {100.0, 240.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a JSON file as OpenPose writes it"),
        ("[]", "not a JSON file as OpenPose writes it"),
        ('{"people": [{"pose_keypoints_2d": ["a"]}]}', "not a JSON file as OpenPose writes it"),
        ('{"people": [{"pose_keypoints_2d": [1, 2, 3]}]}', "pose_keypoints_2d has 3 numbers, not 75; .*BODY_25"),
    ],
)
def test_damaged_openpose_file_is_named(tmp_path, text, message):
    path = write(tmp_path, 7, [])
    path.write_text(text)
    with pytest.raises(SourceError, match=message) as caught:
        read_openpose(tmp_path, "truth", [7])
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_missing_openpose_files_are_named(tmp_path):
    with pytest.raises(SourceError, match="no such folder"):
        read_openpose(tmp_path / "nowhere", "truth", [0])
    write(tmp_path, 0, [])
    with pytest.raises(SourceError, match="for frame 8; run OpenPose on the whole video"):
        read_openpose(tmp_path, "observed-8", [0, 8])
    (tmp_path / "other_000000000000_keypoints.json").write_text("{}")
    with pytest.raises(SourceError, match="frame 0 is there twice"):
        read_openpose(tmp_path, "truth", [0])


def test_guessed_and_far_outside_joints_are_not_seen():
    joints = np.zeros((1, 19, 3))
    joints[0, :5] = [(50, 50, 0.04), (50, 50, 0.06), (-15, 50, 1), (-25, 50, 1), (50, 119, 1)]
    kept = drop_unseen(joints, (200, 100))
    np.testing.assert_array_equal(kept[0, :5, 2], [0, 0.06, 1, 0, 1])
    np.testing.assert_array_equal(kept[0, 3], 0)
