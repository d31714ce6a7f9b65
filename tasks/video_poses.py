"""Poses of every frame of a video of any length, shot by shot, from pictures that are decoded as they are needed.

The chunks, who is followed through them, and which are done again are tasks/pose_passes.py's. Here each shot is one
pass, and the pictures of a few chunks at a time stand in a table beside the work while the estimator needs them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.skeleton import NUM_JOINTS, torso_length
from tasks.items import Item, ItemStore, do_group
from tasks.pose import MediapipeSettings
from tasks.pose_passes import LEAD_FRAMES, PassSpec, estimate_group, plan_again, read_joints
from tasks.tables import CLIP_SCHEMA, Image, decode_png, encode_png, picture_column, write_table
from tasks.video import read_frames, resize_image

# Of a chunk. A call of the estimator loads its models for seconds, and what a kill loses is at most a chunk a process.
CHUNK_KEYS = 128
# The estimator looks at a person at no more than this; larger pictures only cost time.
MAX_SIDE_PX = 1280
# Frames this close together may be smoothed over time by the estimator; others lag behind (tasks/pose.py).
DENSE_STEP_S = 1 / 48


@dataclass(frozen=True)
class PoseSize:
    """width, height: px of the pictures that the estimator is given, which it enlarges by `upscale`."""

    width: int
    height: int
    upscale: float


def choose_size(width: int, height: int, upscale: float) -> PoseSize:
    """A picture's own size where its longer side is at most MAX_SIDE_PX, enlarged at most to there."""
    longer = max(width, height)
    scale = min(1.0, MAX_SIDE_PX / longer)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return PoseSize(*size, max(1.0, min(upscale, MAX_SIDE_PX / (longer * scale))))


@dataclass(frozen=True)
class VideoPoses:
    """What is known of the person at every key.

    joints_px_KJD: (K, 19, 3) float32, px of the video; (0, 0, 0) = not seen.
    torso_px_K: of the key's shot; NaN = never seen.
    """

    joints_px_KJD: npt.NDArray[np.float32]
    torso_px_K: npt.NDArray[np.float64]
    chunks: Sequence[Item]
    store: ItemStore
    num_apart: int

    def mattes(self, keys: range, width: int, height: int) -> list[Image | None]:
        """(H, W) uint8, 255 = person, in the video's size; None = the estimator has none."""
        found: dict[int, Image | None] = {}
        for item in self.chunks:
            rows = item.args.rows[item.args.num_lead :]
            if rows[0] >= keys.stop or rows[-1] < keys.start:
                continue
            chunk = self.store.get(item.key)
            for number, cell in zip(chunk["frame"].to_pylist(), chunk["matte"], strict=True):
                key, matte = number // self.num_apart, cell.as_py()
                if key in keys:
                    found[key] = None if matte is None else resize_image(decode_png(matte, grey=True), width, height)
        return [found.get(key) for key in keys]


def plan_video_poses(shots: Sequence[range], key: Callable[..., str]) -> list[list[Item]]:
    """The chunks of each shot's pass; none for a shot of one key, in which nothing is rendered.

    Args: key: (*parts) -> item key.
    """
    passes = []
    for shot in shots:
        items = []
        for start in range(shot.start, shot.stop if len(shot) > 1 else shot.start, CHUNK_KEYS):
            lead = min(start - shot.start, LEAD_FRAMES)
            rows = tuple(range(start - lead, min(start + CHUNK_KEYS, shot.stop)))
            spec = PassSpec("clip", "video", Path(), "observed", rows, lead, None, len(shot) > CHUNK_KEYS)
            items.append(Item(f"frames {start}-", key("pose", rows, lead, spec.is_part), spec))
        passes.append(items)
    return passes


def follow_again(passes: Sequence[Sequence[Item]], store: ItemStore) -> list[list[Item]]:
    """As plan_again: the final chunks of each pass, some of them other ones that are still to be done."""
    return [plan_again(chunks, store) for chunks in passes]


@dataclass(frozen=True)
class PoseJob:
    """Chunks that one call of the estimator does, and the table with their pictures, which goes when they are done."""

    items: list[Item]
    table: Path


def pose_jobs(
    video: Path, items: Sequence[Item], folder: Path, size: PoseSize, num_apart: int, ffmpeg: str
) -> Iterator[PoseJob]:
    """Decode a video once and hand out its chunks, in the order of their frames.

    Args: num_apart: what frame numbers are multiplied by, for the estimator to know neighbours from key frames.
    """
    folder.mkdir(parents=True, exist_ok=True)
    batches = list(_batches(sorted(items, key=lambda item: item.args.rows)))
    needed = sorted({row for batch in batches for item in batch for row in item.args.rows})
    frames = read_frames(video, needed, None, ffmpeg)
    kept: dict[int, tuple[float, bytes]] = {}
    for number, batch in enumerate(batches):
        rows = sorted({row for item in batch for row in item.args.rows})
        kept = {row: value for row, value in kept.items() if row >= rows[0]}
        while rows[-1] not in kept:
            frame = next(frames)
            kept[frame.frame] = (frame.time_s, encode_png(resize_image(frame.image_HWC, size.width, size.height)))
        path = folder / f"{number:06d}.parquet"
        write_table("clip", path, [_picture_table(rows, kept, num_apart)], {"clip": "video"})
        local = {row: index for index, row in enumerate(rows)}
        yield PoseJob(
            [
                replace(item, args=replace(item.args, path=path, rows=tuple(local[row] for row in item.args.rows)))
                for item in batch
            ],
            path,
        )


def _batches(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Neighbouring chunks together, up to CHUNK_KEYS frames: short shots do not cost a call each."""
    batch: list[Item] = []
    total = 0
    for item in items:
        if batch and total + len(item.args.rows) > CHUNK_KEYS + LEAD_FRAMES:
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += len(item.args.rows)
    if batch:
        yield batch


def _picture_table(rows: Sequence[int], kept: dict[int, tuple[float, bytes]], num_apart: int) -> pa.Table:
    columns = [
        pa.array([row * num_apart for row in rows], pa.int32()),
        pa.array([kept[row][0] for row in rows], pa.float64()),
        picture_column((kept[row][1] for row in rows), (f"{row:06d}.png" for row in rows)),
    ]
    return pa.Table.from_arrays(columns, schema=CLIP_SCHEMA)


def do_pose_job(
    job: PoseJob, advance: Callable[[int], None], settings: MediapipeSettings, store: ItemStore, work_dir: Path
) -> None:
    """Estimate the poses of a job's chunks and keep them."""
    do_group(partial(estimate_group, work_dir=work_dir, settings=settings), job.items, store)
    advance(sum(len(item.args.rows) - item.args.num_lead for item in job.items))
    job.table.unlink(missing_ok=True)


def read_video_poses(
    passes: Sequence[Sequence[Item]],
    shots: Sequence[range],
    store: ItemStore,
    num_apart: int,
    scale_xy: tuple[float, float],
) -> VideoPoses:
    """Every key's joints, left and right put right over each shot. scale_xy: from the estimator's px to the video's."""
    num_keys = shots[-1].stop
    joints = np.zeros((num_keys, NUM_JOINTS, 3), np.float32)
    torso = np.full(num_keys, np.nan)
    scale = np.array([*scale_xy, 1.0], np.float32)
    for shot, chunks in zip(shots, passes, strict=True):
        if not chunks:
            continue
        for number, joints_JD in read_joints(chunks, store).items():
            joints[number // num_apart] = joints_JD * scale
        torso[shot.start : shot.stop] = torso_length(joints[shot.start : shot.stop])
    return VideoPoses(joints, torso, [item for chunks in passes for item in chunks], store, num_apart)
