"""Pose of a clip's frames: one person's 19 joints, from MediaPipe run as a worker, or from a JSON file a frame.

Axes: T frames, J joints (19), P points of the estimator (33 body, 21 left hand, 21 right hand), D (x px, y px,
score 0..1). (0, 0, 0) = not seen.
"""

import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from models.pose.follow import Anchor, Candidate, Track, appearance, crop_around_track, find_tracks, follow_person
from models.pose.repair import repair_poses
from models.skeleton import (
    NUM_HAND_POINTS,
    NUM_JOINTS,
    Joint,
    is_seen,
    joints_from_mediapipe,
    torso_length,
)
from tasks.errors import SourceError
from tasks.people import NUM_OPENPOSE_POINTS, Person, drop_unseen, read_people
from tasks.workers.contract import run_worker, write_request
from tasks.workers.environment import prepare_mediapipe

Image = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

MAX_SAME_PERSON = 0.5  # torsos between the trunks of two detections of one person in one frame
NUM_BODY_POINTS = 33
NUM_POINTS = NUM_BODY_POINTS + 2 * NUM_HAND_POINTS
_OPENPOSE_NAME = re.compile(r"(\d+)_keypoints\.json$")


@dataclass(frozen=True)
class MediapipeSettings:
    """upscale: pictures are enlarged by it first.  model_complexity: 0, 1 or 2.
    timeout_s: the longest time without a finished frame.
    """

    upscale: float
    model_complexity: int
    timeout_s: float


class PoseSequence(NamedTuple):
    """One pass over a clip, or a chunk of one: its frame numbers and their pictures (H, W, 3) uint8 BGR, read once.

    num_lead: frames at the beginning that belong to the chunk before.
    is_part: True = everybody's tracks are wanted, to find the clip's person among the tracks of all chunks.
    anchors: where the clip's person is in other chunks; without them, whoever is worth most here is followed.
    """

    name: str
    frames: Sequence[int]
    images: Iterable[Image]
    num_lead: int = 0
    is_part: bool = False
    anchors: Sequence[Anchor] = ()


class PoseResult(NamedTuple):
    """What was found of one person in a sequence; left and right are as the estimator has them.

    tracked_TJD (T, 19, 3) float32.  static_TJD: the same from the frame alone, or None where there is one detection.
    keypoints_TK (T, K) float32: the estimator's raw points, flattened; mediapipe: tracked then static, each body 33,
    left hand 21, right hand 21 (x px, y px, score), K = 450; openpose: body 25, left, right hand 21, K = 201;
    alphapose: K = 408.
    mattes: an 8-bit PNG a frame, or None where there is none.  tracks: of everybody, where they were wanted.
    """

    name: str
    frames: tuple[int, ...]
    tracked_TJD: Float32Array
    static_TJD: Float32Array | None
    keypoints_TK: Float32Array
    mattes: list[bytes | None]
    tracks: list[Track]

    def repaired(self) -> Float32Array:
        """(T, 19, 3) joints px, where the sequence is the whole pass."""
        return repair_pass(self.frames, self.tracked_TJD, self.static_TJD)


def repair_pass(frames: Sequence[int], tracked_TJD: Float32Array, static_TJD: Float32Array | None) -> Float32Array:
    """(T, 19, 3): left and right put right over a whole pass, and the two detections joined."""
    is_dense = static_TJD is None or _is_consecutive(frames)
    return repair_poses(tracked_TJD, static_TJD, is_dense=is_dense).astype(np.float32)


@dataclass
class _Detections:
    """What the worker found in one sequence."""

    sequence: PoseSequence
    folder: Path
    files: list[str]
    size_px: tuple[int, int]
    tracked_TPD: Float32Array
    static_TPD: Float32Array
    mattes: list[bytes]


def estimate_mediapipe(
    sequences: Sequence[PoseSequence],
    work_dir: Path,
    settings: MediapipeSettings,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[PoseResult]:
    """Poses of one person in each sequence: found twice (tracked and static), and followed.

    MediaPipe returns one person, and may jump to somebody else. Frames whose tracked detection is nobody or somebody
    else than in the rest of the sequence are run once more, on a crop around where the person should be; where that
    too finds somebody else, the person is not seen. MediaPipe's filter over time is used only where the frames are
    consecutive: among key frames it lags behind.

    The model is loaded once for all sequences, and at most once more for the crops.

    Args:   work_dir: an existing folder for the frames while they are needed (lossless PNG); left as it was.
            on_progress: called with (frames done, frames in all); starts again for the crops.
    Raises: ToolError if the worker's environment cannot be made, or the worker fails.
    """
    command = prepare_mediapipe()
    with tempfile.TemporaryDirectory(dir=work_dir, prefix="pose-") as temporary:
        folder = Path(temporary)

        def run(name: str, requests: list[dict[str, Any]]) -> None:
            if not requests:
                return
            request = folder / f"{name}.json"
            write_request(
                request,
                requests,
                {"upscale": settings.upscale, "model_complexity": settings.model_complexity},
            )
            expected = {Path(each["results"]): ["keypoints.json", *each["frames"]] for each in requests}
            run_worker(command, request, expected, settings.timeout_s, on_progress, name="pose: mediapipe")

        stored = [_store_frames(each, folder / f"{n:04d}") for n, each in enumerate(sequences)]
        requests = [
            {
                "folder": str(each.folder),
                "results": str(each.folder) + ".results",
                "frames": each.files,
                "mode": "both",
                "smooth": _is_consecutive(each.sequence.frames),
            }
            for each in stored
            if each.files
        ]
        run("whole", requests)
        for each in stored:
            _read_detections(each)
        crops = [_crops_to_rerun(each) for each in stored]
        requests = [
            {
                "folder": str(each.folder),
                "results": str(each.folder) + ".crops",
                "frames": [each.files[frame] for frame in boxes],
                "mode": "static",
                "crops": list(boxes.values()),
            }
            for each, boxes in zip(stored, crops, strict=True)
            if boxes
        ]
        run("crops", requests)
        for each, boxes in zip(stored, crops, strict=True):
            yield _finish(each, list(boxes))


def _is_consecutive(frames: Sequence[int]) -> bool:
    return len(frames) > 1 and bool(np.median(np.diff(frames)) == 1)


def _store_frames(sequence: PoseSequence, folder: Path) -> _Detections:
    folder.mkdir()
    files, size_px = [], (0, 0)
    for number, image in zip(sequence.frames, sequence.images, strict=True):
        files.append(f"{number:08d}.png")
        size_px = (image.shape[1], image.shape[0])
        # Level 1: three times as fast as the default, 5 % larger, and gone in a minute.
        cv2.imwrite(str(folder / files[-1]), image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    nothing = np.zeros((len(files), NUM_POINTS, 3), np.float32)
    return _Detections(sequence, folder, files, size_px, nothing, nothing.copy(), [])


def _read_detections(found: _Detections) -> None:
    if not found.files:
        return
    results = Path(f"{found.folder}.results")
    rows = json.loads((results / "keypoints.json").read_text(encoding="utf-8"))["frames"]
    found.tracked_TPD = np.stack([_points(row["tracked"]) for row in rows])
    found.static_TPD = np.stack([_points(row["static"]) for row in rows])
    found.mattes = [(results / name).read_bytes() for name in found.files]


def _points(pose: dict[str, Any] | None) -> Float32Array:
    """(75, 3) of one detection in the worker's JSON; zeros for what was not found."""
    pose = pose or {}
    parts = (("body", NUM_BODY_POINTS), ("left_hand", NUM_HAND_POINTS), ("right_hand", NUM_HAND_POINTS))
    return np.concatenate([np.array(pose.get(name) or np.zeros((count, 3)), np.float32) for name, count in parts])


def _to_joints(points_TPD: Float32Array, size_px: tuple[int, int]) -> Float32Array:
    body, left, right = np.split(points_TPD, [NUM_BODY_POINTS, NUM_BODY_POINTS + NUM_HAND_POINTS], axis=1)
    return drop_unseen(joints_from_mediapipe(body, left, right), size_px).astype(np.float32)


def _crops_to_rerun(found: _Detections) -> dict[int, list[int]]:
    """Where in the sequence the tracked detection is not the person, and the box to look into there."""
    tracked, static = (_to_joints(points, found.size_px) for points in (found.tracked_TPD, found.static_TPD))
    reference = _follow(found, [tracked, static], _candidates(found, [tracked, static]))
    is_tracked: BoolArray = np.asarray(is_seen(reference).any(axis=1))
    anchors = found.sequence.anchors
    if not is_tracked.any() and not anchors:
        return {}
    boxes = crop_around_track(reference, is_tracked, found.size_px, anchors=anchors)
    return {int(t): boxes[t].tolist() for t in np.flatnonzero(~_is_same_person(tracked, reference))}


def _candidates(found: _Detections, detections: list[Float32Array]) -> list[list[Candidate]]:
    """For each frame its detections, and how they look."""
    candidates = []
    for t, name in enumerate(found.files):
        image = np.asarray(cv2.imread(str(found.folder / name), cv2.IMREAD_COLOR), np.uint8)
        candidates.append([(joints[t], appearance(image, joints[t])) for joints in detections])
    return candidates


def _follow(
    found: _Detections, detections: list[Float32Array], candidates: Sequence[Sequence[Candidate]]
) -> Float32Array:
    """(T, 19, 3): of several detections a frame that of the clip's person; zeros where none is."""
    chosen_T = follow_person(candidates, found.sequence.anchors)
    picked = np.stack(detections)[np.maximum(chosen_T, 0), np.arange(len(chosen_T))]
    return np.where((chosen_T >= 0)[:, None, None], picked, np.float32(0))


def _is_same_person(joints_px_TJD: Float32Array, reference_px_TJD: Float32Array) -> BoolArray:
    """(T,) True where both show a trunk in the same place; left and right may differ."""
    trunk = [Joint.NECK, Joint.MID_HIP]
    a, b = joints_px_TJD[:, trunk], reference_px_TJD[:, trunk]
    limit_px = MAX_SAME_PERSON * torso_length(reference_px_TJD)
    distance = np.linalg.norm(a[..., :2] - b[..., :2], axis=-1).max(axis=1)
    is_same: BoolArray = (is_seen(a) & is_seen(b)).all(axis=1) & (distance <= limit_px)
    return is_same


def _finish(found: _Detections, rerun: list[int]) -> PoseResult:
    """Follow the person once more with the crops' detections, and leave out everybody else."""
    cropped_TPD = np.zeros_like(found.static_TPD)
    crop_mattes: dict[int, bytes] = {}
    if rerun:
        results = Path(f"{found.folder}.crops")
        rows = json.loads((results / "keypoints.json").read_text(encoding="utf-8"))["frames"]
        cropped_TPD[rerun] = np.stack([_points(row["static"]) for row in rows])
        crop_mattes = {t: (results / found.files[t]).read_bytes() for t in rerun}
    tracked, static, cropped = (
        _to_joints(points, found.size_px) for points in (found.tracked_TPD, found.static_TPD, cropped_TPD)
    )
    detections = [tracked, static, cropped] if rerun else [tracked, static]
    candidates = _candidates(found, detections)
    reference = _follow(found, detections, candidates)
    is_tracked, is_static, is_cropped = (_is_same_person(joints, reference) for joints in (tracked, static, cropped))
    static_TPD = np.where(is_cropped[:, None, None], cropped_TPD, found.static_TPD)
    second = np.where(is_cropped[:, None, None], cropped, np.where(is_static[:, None, None], static, np.float32(0)))
    mattes: list[bytes | None] = []
    for t, matte in enumerate(found.mattes):
        # The whole picture's matte is of whom the tracker followed, or of the static detection where it lost all.
        is_own = is_tracked[t] or (is_static[t] and not found.tracked_TPD[t].any())
        mattes.append(matte if is_own else crop_mattes.get(t) if is_cropped[t] else None)
    return PoseResult(
        name=found.sequence.name,
        frames=tuple(found.sequence.frames),
        tracked_TJD=np.where(is_tracked[:, None, None], tracked, np.float32(0)),
        static_TJD=second,
        keypoints_TK=np.concatenate([found.tracked_TPD, static_TPD], axis=1).reshape(len(tracked), -1),
        mattes=mattes,
        tracks=find_tracks(candidates, found.sequence.num_lead) if found.sequence.is_part else [],
    )


def read_openpose(folder: Path, sequence: PoseSequence) -> PoseResult:
    """One person's poses from a folder of JSON (tasks/people.py): `NAME_000000000012_keypoints.json` is frame 12.

    Of several people the same one is followed through the frames. Others than the sequence's frames are not looked at.

    Raises: SourceError if the folder or a frame's file is missing, twice there, or not what OpenPose writes.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder; name the one that OpenPose wrote with --write_json")
    files: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        match = _OPENPOSE_NAME.search(path.name)
        if match and int(match[1]) in files:
            raise SourceError(f"{path}: frame {int(match[1])} is there twice; keep one video's files in {folder}")
        if match:
            files[int(match[1])] = path
    people: list[list[Person]] = []
    candidates = []
    for frame, image in zip(sequence.frames, sequence.images, strict=True):
        if frame not in files:
            raise SourceError(
                f"{folder}: no *_{frame:012d}_keypoints.json for frame {frame}; run OpenPose on the whole video"
            )
        people.append(read_people(files[frame], (image.shape[1], image.shape[0])))
        candidates.append([(each.joints_px_JD, appearance(image, each.joints_px_JD)) for each in people[-1]])
    chosen = follow_person(candidates, sequence.anchors)
    num_points = {len(person.points_PD) for row in people for person in row} or {NUM_OPENPOSE_POINTS}
    if len(num_points) > 1:
        raise SourceError(f"{folder}: holds people of {min(num_points)} and of {max(num_points)} points; keep one kind")
    nobody = Person(np.zeros((num_points.pop(), 3), np.float32), np.zeros((NUM_JOINTS, 3), np.float32))
    followed = [row[index] if index >= 0 else nobody for row, index in zip(people, chosen, strict=True)]
    points_TPD = np.stack([nobody.points_PD, *(person.points_PD for person in followed)])[1:]
    return PoseResult(
        name=sequence.name,
        frames=tuple(sequence.frames),
        tracked_TJD=np.stack([nobody.joints_px_JD, *(person.joints_px_JD for person in followed)])[1:],
        static_TJD=None,
        keypoints_TK=points_TPD.reshape(len(points_TPD), -1),
        mattes=[None] * len(points_TPD),
        tracks=find_tracks(candidates, sequence.num_lead) if sequence.is_part else [],
    )
