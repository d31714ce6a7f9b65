"""The people of one frame's JSON: OpenPose's BODY_25 and hands, or AlphaPose's 136 points (tasks/workers/alphapose.py).

Axes: P points of the estimator, J joints (19), D (x px, y px, score).
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.skeleton import NUM_HAND_POINTS, FloatArray, joints_from_body_25, joints_from_halpe_136
from tasks.errors import SourceError

Float32Array = npt.NDArray[np.float32]

NUM_BODY_25_POINTS = 25
NUM_HALPE_POINTS = 136
_OPENPOSE_PARTS = (
    ("pose_keypoints_2d", NUM_BODY_25_POINTS),
    ("hand_left_keypoints_2d", NUM_HAND_POINTS),
    ("hand_right_keypoints_2d", NUM_HAND_POINTS),
)
NUM_OPENPOSE_POINTS = sum(count for _, count in _OPENPOSE_PARTS)
HALPE_KEY = "halpe_136"

# MediaPipe and AlphaPose place every one of their points, in the picture or not, and say how visible each is. Hidden
# limbs are kept with their low score: the guess is better than none for carrying pixels, and the score tells. Under
# this it is a guess at random.
MIN_VISIBILITY = 0.05
MAX_OUTSIDE = 0.1  # of the picture's longer side; farther out nothing can be drawn and nothing was seen


class Person(NamedTuple):
    """points_PD: as the estimator wrote them; P = 67 (body 25, left, right hand 21) or 136.  joints_px_JD: (19, 3)."""

    points_PD: Float32Array
    joints_px_JD: Float32Array


def read_people(path: Path, size_px: tuple[int, int]) -> list[Person]:
    """Everybody in one frame's file. size_px: (width, height) of the picture.

    Raises: SourceError if it is not what OpenPose or our AlphaPose worker writes; the text says what is not.
    """
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["people"]
        return [_read_person(path, person, size_px) for person in listed]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{path}: not a JSON file as OpenPose writes it ({error}); write it anew") from error


def _read_person(path: Path, person: dict[str, list[float]], size_px: tuple[int, int]) -> Person:
    if HALPE_KEY in person:
        points = _read_points(path, person, HALPE_KEY, NUM_HALPE_POINTS)
        return Person(points, _joints_of_halpe(_valid(points), size_px))
    points = np.concatenate([_read_points(path, person, key, count) for key, count in _OPENPOSE_PARTS])
    return Person(points, joints_of_openpose(_valid(points)[None])[0])


def _read_points(path: Path, person: dict[str, list[float]], key: str, count: int) -> Float32Array:
    values = np.array(person.get(key) or [0.0] * count * 3, np.float32)
    if values.shape != (count * 3,):
        raise SourceError(
            f"{path}: {key} has {values.size} numbers, not {count * 3}; run OpenPose with --model_pose BODY_25"
        )
    return values.reshape(-1, 3)


def _valid(points_PD: Float32Array) -> Float32Array:
    """Scores within 0..1, and (0, 0, 0) where a number is none."""
    is_finite = np.isfinite(points_PD).all(axis=1, keepdims=True)
    return np.where(is_finite, np.minimum(points_PD, np.array([np.inf, np.inf, 1], np.float32)), np.float32(0))


def joints_of_openpose(points_TPD: Float32Array) -> Float32Array:
    """(T, 67, 3) BODY_25, left and right hand to (T, 19, 3)."""
    body, left, right = np.split(points_TPD, [NUM_BODY_25_POINTS, NUM_BODY_25_POINTS + NUM_HAND_POINTS], axis=1)
    return joints_from_body_25(body, left, right).astype(np.float32)


def _joints_of_halpe(points_PD: Float32Array, size_px: tuple[int, int]) -> Float32Array:
    # Before a hand is summed up: every one of its points has a place, seen or not.
    is_seen = points_PD[:, 2:] >= MIN_VISIBILITY
    joints = joints_from_halpe_136(np.where(is_seen, points_PD, np.float32(0))[None])[0]
    return drop_unseen(joints, size_px).astype(np.float32)


def drop_unseen(joints_px_TJD: FloatArray, size_px: tuple[int, int]) -> FloatArray:
    """Set to (0, 0, 0) the joints that are guessed, or farther outside the picture than a tenth of its longer side."""
    margin = MAX_OUTSIDE * max(size_px)
    xy = joints_px_TJD[..., :2]
    is_near = ((xy >= -margin) & (xy <= np.array(size_px) + margin)).all(axis=-1)
    return np.where((is_near & (joints_px_TJD[..., 2] >= MIN_VISIBILITY))[..., None], joints_px_TJD, 0.0)
