"""Reading OpenPose's files, and what counts as not seen."""

import numpy as np
import pytest

from models.skeleton import Joint
from tasks.errors import SourceError
from tasks.people import drop_unseen
from tasks.pose import PoseSequence, read_openpose
from tests.tasks.openpose_samples import person_at, write


def sequence(frames, images=None):
    """Frames whose pictures, where none are given, show nobody's colours."""
    return PoseSequence("truth", list(frames), images or [np.zeros((1, 1, 3), np.uint8)] * len(frames))


def test_openpose_frames_become_joints_of_one_person(tmp_path):
    for frame in range(0, 24, 8):
        people = [person_at(600, 210), person_at(100 + frame, 200, hands=True)]
        write(tmp_path, frame, people if frame != 8 else people[::-1])
    write(tmp_path, 5, "not read")
    result = read_openpose(tmp_path, sequence([0, 8, 16]))
    assert (result.name, result.frames, result.mattes) == ("truth", (0, 8, 16), [None] * 3)
    assert result.repaired().shape == (3, 19, 3)
    assert result.repaired().dtype == result.keypoints_TK.dtype == np.float32
    assert result.keypoints_TK.shape == (3, 201)
    np.testing.assert_allclose(result.repaired()[:, Joint.NECK], [[100, 200, 0.9], [108, 200, 0.9], [116, 200, 0.9]])
    np.testing.assert_allclose(result.repaired()[1, Joint.LEFT_HAND], [188, 260, 0.5])
    np.testing.assert_array_equal(result.repaired()[:, [Joint.RIGHT_HAND, Joint.LEFT_KNEE]], 0)


def test_openpose_frame_without_people_is_not_seen(tmp_path):
    for frame in range(3):
        write(tmp_path, frame, [] if frame == 1 else [person_at(100, 200)])
    result = read_openpose(tmp_path, sequence(range(3)))
    np.testing.assert_array_equal(result.repaired()[1], 0)
    assert result.repaired()[[0, 2], Joint.NECK, 2].all()
    write(tmp_path, 0, [])
    write(tmp_path, 2, [])
    assert not read_openpose(tmp_path, sequence(range(3))).repaired().any()


def test_openpose_people_are_told_apart_by_colour(tmp_path):
    """Two of the same size change places between two frames: only their shirts tell."""
    images = [np.full((400, 400, 3), 128, np.uint8) for _ in range(6)]
    for frame, image in enumerate(images):
        red, blue = (100, 300) if frame < 3 else (240, 140)
        image[190:310, red - 40 : red + 40] = (40, 40, 200)
        image[190:310, blue - 40 : blue + 40] = (200, 40, 40)
        write(tmp_path, frame, [person_at(red, 200, hands=True), person_at(blue, 200)])
    joints = read_openpose(tmp_path, sequence(range(6), images)).repaired()
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
        read_openpose(tmp_path, sequence([7]))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_missing_openpose_files_are_named(tmp_path):
    with pytest.raises(SourceError, match="no such folder"):
        read_openpose(tmp_path / "nowhere", sequence([0]))
    write(tmp_path, 0, [])
    with pytest.raises(SourceError, match="for frame 8; run OpenPose on the whole video"):
        read_openpose(tmp_path, sequence([0, 8]))
    (tmp_path / "other_000000000000_keypoints.json").write_text("{}")
    with pytest.raises(SourceError, match="frame 0 is there twice"):
        read_openpose(tmp_path, sequence([0]))


def test_guessed_and_far_outside_joints_are_not_seen():
    joints = np.zeros((1, 19, 3))
    joints[0, :5] = [(50, 50, 0.04), (50, 50, 0.06), (-15, 50, 1), (-25, 50, 1), (50, 119, 1)]
    kept = drop_unseen(joints, (200, 100))
    np.testing.assert_array_equal(kept[0, :5, 2], [0, 0.06, 1, 0, 1])
    np.testing.assert_array_equal(kept[0, 3], 0)
