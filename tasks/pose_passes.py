"""The passes of a batch's poses: over the key frames of each key step alone ("observed-K"), and over all ("truth").

Rendering and training may read observed passes only, evaluation reads the truth; so the two are estimated apart, from
pictures that the other has not seen.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.skeleton import NUM_JOINTS
from tasks.items import Item, ItemStore, hash_file
from tasks.pose import MediapipeSettings, PoseResult, PoseSequence, estimate_mediapipe, read_openpose
from tasks.tables import MAX_CHUNK_FRAMES, POSE_SCHEMA, Table, hash_rows, write_table

# A long pass is cut into chunks. Each begins some frames early, so that the estimator's tracker has found the person,
# and we have seen who it is, when the chunk's own frames come.
LEAD_FRAMES = 8
# A worker call loads its model for seconds: enough frames to make up for it, few enough that a kill costs little.
FRAMES_PER_CALL = 256
MAX_CALLS = 200


@dataclass(frozen=True)
class PassSpec:
    """A chunk of one pass over the pictures of a table. rows: the first num_lead only to warm up."""

    kind: str
    clip: str
    path: Path
    which: str
    rows: tuple[int, ...]
    num_lead: int
    openpose: Path | None


@dataclass(frozen=True)
class PosePlan:
    clip: str
    items: list[Item]
    metadata: dict[str, str]


def plan_poses(
    path: Path,
    key_steps: Sequence[int],
    worker: Literal["mediapipe", "openpose"],
    openpose: Path,
    version: str,
    key: Callable[..., str],
) -> PosePlan:
    """Cut the passes over one clip into items.

    Args:
        openpose: folder of folders of OpenPose JSON, one a clip; read where the worker is openpose.
        version: of the estimator, for the record.
        key: (*parts) -> item key.
    """
    table = Table("clip", path)
    clip = table.metadata["clip"]
    folder = openpose / clip if worker == "openpose" else None
    given = [(each.name, hash_file(each)) for each in list_openpose(folder)] if folder else []
    passes = [(f"observed-{step}", range(0, table.num_rows, step)) for step in sorted(key_steps)]
    items = [
        item
        for which, rows in [*passes, ("truth", range(table.num_rows))]
        for item in plan_pass(table, which, rows, folder, partial(key, given))
    ]
    metadata = {name: table.metadata[name] for name in ("clip", "batch", "video", "source_sha256")}
    return PosePlan(clip, items, metadata | {"estimator": worker, "estimator_version": version})


def plan_pass(
    table: Table, which: str, rows: Sequence[int], openpose: Path | None, key: Callable[..., str]
) -> list[Item]:
    """Cut one pass, over the pictures of some rows of a clip or render, into items. which: the pass's name."""
    items = []
    clip = table.metadata["clip"]
    for start in range(0, len(rows), MAX_CHUNK_FRAMES):
        lead = min(start, LEAD_FRAMES)
        chunk = tuple(rows[start - lead : start + MAX_CHUNK_FRAMES])
        spec = PassSpec(table.kind, clip, table.path, which, chunk, lead, openpose)
        inputs = hash_rows(table, chunk, ("frame", "image"))
        items.append(Item(f"{clip} {which} {start}-", key(inputs, which, lead), spec))
    return items


def list_openpose(folder: Path) -> list[Path]:
    """A clip's OpenPose JSON files, in the order of their names."""
    return sorted(folder.glob("*_keypoints.json"))


def group_calls(items: Sequence[Item], num_workers: int) -> list[list[Item]]:
    """Items as worker calls of about equal length: no fewer than there are workers, where there is work for them."""
    total = sum(len(item.args.rows) for item in items)
    limit = max(FRAMES_PER_CALL, -(-total // MAX_CALLS))
    num_calls = min(len(items), max(num_workers, -(-total // limit)))
    calls: list[list[Item]] = [[] for _ in range(num_calls)]
    lengths = [0] * num_calls
    for item in sorted(items, key=lambda item: -len(item.args.rows)):
        shortest = lengths.index(min(lengths))
        calls[shortest].append(item)
        lengths[shortest] += len(item.args.rows)
    return calls


def estimate_group(
    items: Sequence[Item], work_dir: Path, settings: MediapipeSettings
) -> Iterator[tuple[int, pa.Table]]:
    """The poses of a group of chunks; with mediapipe, by one call of its worker."""
    specs: list[PassSpec] = [item.args for item in items]
    if specs[0].openpose is not None:
        for index, spec in enumerate(specs):
            sequence = _read_sequence(spec)
            assert spec.openpose is not None
            found = read_openpose(spec.openpose, sequence.name, sequence.frames, sequence.images)
            yield index, _pose_table(spec, found)
        return
    work_dir.mkdir(parents=True, exist_ok=True)
    sequences = [_read_sequence(spec) for spec in specs]
    for index, found in enumerate(estimate_mediapipe(sequences, work_dir, settings)):
        yield index, _pose_table(specs[index], found)


def _read_sequence(spec: PassSpec) -> PoseSequence:
    table = Table(spec.kind, spec.path)
    frames = table.frames[list(spec.rows)].tolist()
    return PoseSequence(f"{spec.clip} {spec.which}", frames, (table.read_image(row) for row in spec.rows))


def _pose_table(spec: PassSpec, found: PoseResult) -> pa.Table:
    own = slice(spec.num_lead, None)
    joints = found.joints_px_TJD[own].astype(np.float32)
    columns = [
        pa.array(found.frames[own], pa.int32()),
        pa.array([spec.which] * len(joints), pa.string()),
        pa.FixedSizeListArray.from_arrays(pa.array(joints.reshape(-1)), joints.shape[1] * joints.shape[2]),
        pa.array(list(found.keypoints_TK[own].astype(np.float32)), pa.list_(pa.float32())),
        pa.array(found.mattes[own], pa.binary()),
    ]
    return pa.Table.from_arrays(columns, schema=POSE_SCHEMA)


def write_poses(plan: PosePlan, store: ItemStore, folder: Path) -> None:
    """CLIP.parquet: every observed pass, then the truth, each in the order of its frames."""
    write_table("pose", folder / f"{plan.clip}.parquet", (store.get(item.key) for item in plan.items), plan.metadata)


def read_joints(tables: Sequence[pa.Table]) -> dict[int, npt.NDArray[np.float32]]:
    """Frame -> (19, 3) joints px, from the items' tables of one pass."""
    found: dict[int, npt.NDArray[np.float32]] = {}
    for table in tables:
        joints = np.array(table["joints"].to_pylist(), np.float32).reshape(-1, NUM_JOINTS, 3)
        found |= dict(zip(table["frame"].to_pylist(), joints, strict=True))
    return found
