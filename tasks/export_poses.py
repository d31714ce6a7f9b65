"""Our poses as OpenPose JSON (BODY_25 and hands), a folder a clip and a file a frame: what the 2021 scripts read."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.skeleton import NUM_HAND_POINTS, NUM_JOINTS, Joint, joints_from_body_25
from tasks.errors import SourceError
from tasks.people import NUM_BODY_25_POINTS
from tasks.tables import Table, list_tables, read_poses

_NOTHING = (
    "face_keypoints_2d",
    "pose_keypoints_3d",
    "face_keypoints_3d",
    "hand_left_keypoints_3d",
    "hand_right_keypoints_3d",
)


def _body_points() -> list[int]:
    """BODY_25's number of each of the first 17 joints, found by sending each of the 25 points through the reader."""
    nothing = np.zeros((NUM_BODY_25_POINTS, NUM_HAND_POINTS, 3))
    marked = np.zeros((NUM_BODY_25_POINTS, NUM_BODY_25_POINTS, 3))
    marked[range(NUM_BODY_25_POINTS), range(NUM_BODY_25_POINTS), 2] = 1
    joints = joints_from_body_25(marked, nothing, nothing)
    return [int(np.flatnonzero(joints[:, joint, 2])[0]) for joint in range(Joint.LEFT_HAND)]


def person_of(joints_px_JD: npt.NDArray[np.float64], body_points: list[int]) -> dict[str, object]:
    """One person; a hand's 21 points are all where its one joint is, as the 2021 code writes them.

    Args: joints_px_JD: (19, 3) x px, y px, score.
    """
    body = np.zeros((NUM_BODY_25_POINTS, 3))
    body[body_points] = joints_px_JD[: Joint.LEFT_HAND]
    hands = {
        f"hand_{side}_keypoints_2d": np.tile(joints_px_JD[joint], NUM_HAND_POINTS).tolist()
        for side, joint in (("left", Joint.LEFT_HAND), ("right", Joint.RIGHT_HAND))
    }
    nothing: dict[str, list[float]] = {name: [] for name in _NOTHING}
    return {"person_id": [-1], "pose_keypoints_2d": body.ravel().tolist(), **hands, **nothing}


def export_poses(poses: Path, which: str, folder: Path, on_done: Callable[[int], None]) -> str:
    """Write FOLDER/CLIP/CLIP_000000000012_keypoints.json of every pose table; a frame without a person has no people.

    Args:
        poses: data/B/poses, or an import's poses.  which: the pass: "truth" or "observed-K".
        folder: made; a clip's folder that is there already is refused.
        on_done: called with the clips just done.
    Returns: a line that says what was written.
    Raises: TableError where there is no such pass; SourceError where a clip's folder is there already.
    """
    tables = [Table("pose", path) for path in list_tables(poses)]
    body_points = _body_points()
    total = 0
    for table in tables:
        clip = table.path.stem
        if (folder / clip).exists():
            raise SourceError(f"{folder / clip}: is there already; name another folder, or remove it first")
        rows, joints_px_TJD = read_poses(table, which)
        frames = table.frames[rows].tolist()
        temporary = folder / f".{clip}.tmp"
        temporary.mkdir(parents=True)
        for frame, joints_px_JD in zip(frames, joints_px_TJD.reshape(-1, NUM_JOINTS, 3), strict=True):
            people = [person_of(joints_px_JD, body_points)] if (joints_px_JD[:, 2] > 0).any() else []
            text = json.dumps({"version": 1.3, "people": people})
            (temporary / f"{clip}_{frame:012d}_keypoints.json").write_text(text)
        temporary.rename(folder / clip)
        total += len(frames)
        on_done(1)
    return f"{folder}: {total} frames of {len(tables)} clips, pass {which}"
