"""The passes of a batch's poses: over the key frames of each key step alone ("observed-K"), and over all ("truth").

Rendering and training may read observed passes only, evaluation reads the truth; so the two are estimated apart, from
pictures that the other has not seen.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.pose.follow import Anchor, Track, link_tracks
from models.skeleton import NUM_JOINTS
from tasks.errors import TableError
from tasks.items import Item, ItemStore, hash_file, item_key
from tasks.pose import MediapipeSettings, PoseResult, PoseSequence, estimate_mediapipe, read_openpose, repair_pass
from tasks.tables import MAX_CHUNK_FRAMES, POSE_SCHEMA, Table, hash_rows, read_poses, write_table

Worker = Literal["mediapipe", "alphapose", "openpose", "imported"]

# A long pass is cut into chunks. Each begins some frames early, so that the estimator's tracker has found the person,
# and we have seen who it is, when the chunk's own frames come. Who the clip's person is, is decided when all chunks are
# there: plan_again. Left and right are put right over the whole pass, when its rows are written.
LEAD_FRAMES = 8
# A worker call loads its model for seconds: enough frames to make up for it, few enough that a kill costs little.
FRAMES_PER_CALL = 256
# Its start takes a processor as long as so many frames: for fewer, no call is made that could be part of another.
START_FRAMES = 32
MAX_CALLS = 200

_JOINTS = pa.list_(pa.float32(), NUM_JOINTS * 3)
# What an item keeps of a chunk; in the metadata, everybody's tracks.
_CHUNK_SCHEMA = pa.schema(
    [
        ("frame", pa.int32()),
        ("tracked", _JOINTS),
        ("static", _JOINTS),  # null where the estimator has one detection
        ("keypoints", pa.list_(pa.float32())),
        ("matte", pa.binary()),
    ]
)


@dataclass(frozen=True)
class PassSpec:
    """A chunk of one pass over the pictures of a table. rows: the first num_lead only to warm up.

    given: poses that exist already, a folder of JSON files or a pose table; None = mediapipe finds them.
    is_part, anchors: see PoseSequence.
    """

    kind: str
    clip: str
    path: Path
    which: str
    rows: tuple[int, ...]
    num_lead: int
    given: Path | None
    is_part: bool
    anchors: tuple[Anchor, ...] = ()


@dataclass(frozen=True)
class PosePlan:
    """passes: the chunks of each pass, in the order in which they are written."""

    clip: str
    passes: list[list[Item]]
    metadata: dict[str, str]

    @property
    def items(self) -> list[Item]:
        return [item for chunks in self.passes for item in chunks]


def given_poses(worker: Worker, source: Path, clip: str) -> tuple[Path | None, list[Path]]:
    """Where a clip's poses are that exist already, and the files that hold them; (None, []) where mediapipe finds them.

    Args: source: folder of a folder of JSON files a clip (openpose, alphapose) or a pose table a clip (imported).
    """
    if worker == "mediapipe":
        return None, []
    if worker == "imported":
        return source / f"{clip}.parquet", [path for path in [source / f"{clip}.parquet"] if path.is_file()]
    return source / clip, list_openpose(source / clip)


def plan_poses(
    path: Path,
    key_steps: Sequence[int],
    worker: Worker,
    source: Path,
    version: str,
    key: Callable[..., str],
) -> PosePlan:
    """Cut the passes over one clip into items.

    Args:
        source: see given_poses.
        version: of the estimator, for the record.
        key: (*parts) -> item key.
    """
    table = Table("clip", path)
    clip = table.metadata["clip"]
    place, files = given_poses(worker, source, clip)
    given = [(each.name, hash_file(each)) for each in files]
    passes = [(f"observed-{step}", range(0, table.num_rows, step)) for step in sorted(key_steps)]
    chunks = [
        plan_pass(table, which, rows, place, partial(key, worker, given))
        for which, rows in [*passes, ("truth", range(table.num_rows))]
    ]
    metadata = {name: table.metadata[name] for name in ("clip", "batch", "video", "source_sha256")}
    return PosePlan(clip, chunks, metadata | {"estimator": worker, "estimator_version": version})


def plan_pass(
    table: Table,
    which: str,
    rows: Sequence[int],
    given: Path | None,
    key: Callable[..., str],
    chunk_frames: int = MAX_CHUNK_FRAMES,
) -> list[Item]:
    """Cut one pass, over the pictures of some rows of a clip or render, into items. which: the pass's name."""
    items = []
    clip = table.metadata["clip"]
    for start in range(0, len(rows), chunk_frames):
        lead = min(start, LEAD_FRAMES)
        chunk = tuple(rows[start - lead : start + chunk_frames])
        spec = PassSpec(table.kind, clip, table.path, which, chunk, lead, given, len(rows) > chunk_frames)
        inputs = hash_rows(table, chunk, ("frame", "image"))
        items.append(Item(f"{clip} {which} {start}-", key(inputs, which, lead, spec.is_part), spec))
    return items


def plan_again(chunks: Sequence[Item], store: ItemStore) -> list[Item]:
    """The chunks of one pass, those in whose place another must be done instead, planned again.

    That are the chunks in which somebody else was followed than the clip's person, who is the same in all: there the
    person is looked for from where they are in the nearest chunks before and after, and not seen where they are not.

    Args: chunks: done, in the order of their frames.
    """
    if len(chunks) < 2:
        return list(chunks)
    starts = [0, *accumulate(len(item.args.rows) - item.args.num_lead for item in chunks)]
    tracks = [_read_tracks(store.get(item.key), start) for item, start in zip(chunks, starts, strict=False)]
    chosen = [row[index] if index >= 0 else None for row, index in zip(tracks, link_tracks(tracks), strict=True)]
    again = list(chunks)
    for n, (item, track) in enumerate(zip(chunks, chosen, strict=True)):
        if track.is_followed if track else not tracks[n]:
            continue
        before = next((each.last for each in reversed(chosen[:n]) if each), None)
        after = next((each.first for each in chosen[n + 1 :] if each), None)
        anchors = tuple(_move(anchor, -starts[n]) for anchor in (before, after) if anchor)
        spec = replace(item.args, rows=item.args.rows[item.args.num_lead :], num_lead=0, is_part=False, anchors=anchors)
        facts = [[each.position, each.joints_px_JD.tolist(), each.look.tolist()] for each in anchors]
        again[n] = Item(f"{item.name} again", item_key(item.key, facts), spec)
    return again


def _move(anchor: Anchor, offset: int) -> Anchor:
    return anchor._replace(position=anchor.position + offset)


def _write_tracks(tracks: Sequence[Track]) -> bytes:
    def plain(value: object) -> object:
        return value.tolist() if isinstance(value, np.ndarray) else value

    return json.dumps(tracks, default=plain).encode()


def _read_tracks(chunk: pa.Table, start: int) -> list[Track]:
    """A chunk's tracks, their positions counted from the first frame of the pass. start: of the chunk."""

    def anchor(position: int, joints: list[list[float]], look: list[float]) -> Anchor:
        return Anchor(start + position, np.array(joints, np.float32), np.array(look, np.float32))

    rows = json.loads(chunk.schema.metadata[b"tracks"])
    return [Track(anchor(*first), anchor(*last), *rest) for first, last, *rest in rows]


def list_openpose(folder: Path) -> list[Path]:
    """A clip's OpenPose JSON files, in the order of their names."""
    return sorted(folder.glob("*_keypoints.json"))


def group_calls(items: Sequence[Item], num_workers: int) -> list[list[Item]]:
    """Items as worker calls of about equal length: no fewer than there are workers, where each is worth its start."""
    total = sum(len(item.args.rows) for item in items)
    limit = max(FRAMES_PER_CALL, -(-total // MAX_CALLS))
    num_calls = min(len(items), max(1, min(num_workers, total // START_FRAMES), -(-total // limit)))
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
    if specs[0].given is not None:
        for index, spec in enumerate(specs):
            assert spec.given is not None
            read = read_imported if spec.given.suffix == ".parquet" else read_openpose
            yield index, _chunk_table(spec, read(spec.given, _read_sequence(spec)))
        return
    work_dir.mkdir(parents=True, exist_ok=True)
    sequences = [_read_sequence(spec) for spec in specs]
    for index, found in enumerate(estimate_mediapipe(sequences, work_dir, settings)):
        yield index, _chunk_table(specs[index], found)


def read_imported(path: Path, sequence: PoseSequence) -> PoseResult:
    """One person's poses from a pose table that was imported; who the person is was decided where it was made.

    Of its passes the one over every frame is taken. Raises: TableError where it lacks a frame of the clip.
    """
    table = Table("pose", path)
    rows, joints_px_TJD = read_poses(table, "truth")
    row_of = dict(zip(table.frames[rows].tolist(), range(len(rows)), strict=True))
    missing = [frame for frame in sequence.frames if frame not in row_of]
    if missing:
        raise TableError(
            f"{path}: lacks frame {missing[0]} of the clip; import it with --batch, which gives its rows the frame"
            " numbers of the catalogue"
        )
    wanted = [row_of[frame] for frame in sequence.frames]
    keypoints = [table.read_cell("keypoints", int(rows[row])) for row in wanted]
    return PoseResult(
        name=sequence.name,
        frames=tuple(sequence.frames),
        tracked_TJD=joints_px_TJD[wanted].astype(np.float32),
        static_TJD=None,
        keypoints_TK=np.array(keypoints, np.float32),
        mattes=[None] * len(wanted),
        tracks=[],
    )


def _read_sequence(spec: PassSpec) -> PoseSequence:
    table = Table(spec.kind, spec.path)
    frames = table.frames[list(spec.rows)].tolist()
    images = (table.read_image(row) for row in spec.rows)
    return PoseSequence(f"{spec.clip} {spec.which}", frames, images, spec.num_lead, spec.is_part, spec.anchors)


def _chunk_table(spec: PassSpec, found: PoseResult) -> pa.Table:
    own = slice(spec.num_lead, None)
    frames = found.frames[own]
    static = pa.nulls(len(frames), _JOINTS) if found.static_TJD is None else _joints_column(found.static_TJD[own])
    columns = [
        pa.array(frames, pa.int32()),
        _joints_column(found.tracked_TJD[own]),
        static,
        pa.array(list(found.keypoints_TK[own].astype(np.float32)), pa.list_(pa.float32())),
        pa.array(found.mattes[own], pa.binary()),
    ]
    return pa.Table.from_arrays(columns, schema=_CHUNK_SCHEMA.with_metadata({"tracks": _write_tracks(found.tracks)}))


def _joints_column(joints_px_TJD: npt.NDArray[np.float32]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(joints_px_TJD.astype(np.float32).reshape(-1)), NUM_JOINTS * 3)


def _read_joints(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    joints: npt.NDArray[np.float32] = column.combine_chunks().flatten().to_numpy().reshape(-1, NUM_JOINTS, 3)
    return joints


def _repair(chunks: Sequence[Item], store: ItemStore) -> tuple[list[int], npt.NDArray[np.float32]]:
    """A whole pass's frames, and their joints (T, 19, 3): half a kilobyte a frame, so all are held at once."""
    frames: list[int] = []
    tracked, static = [np.zeros((0, NUM_JOINTS, 3), np.float32)], []
    for item in chunks:
        chunk = store.get(item.key)
        frames += chunk["frame"].to_pylist()
        tracked.append(_read_joints(chunk["tracked"]))
        if not chunk["static"].null_count:
            static.append(_read_joints(chunk["static"]))
    return frames, repair_pass(frames, np.concatenate(tracked), np.concatenate(static) if static else None)


def write_poses(plan: PosePlan, store: ItemStore, folder: Path) -> None:
    """CLIP.parquet: every observed pass, then the truth, each in the order of its frames."""

    def rows() -> Iterator[pa.Table]:
        for chunks in plan.passes:
            _, joints_px_TJD = _repair(chunks, store)
            start = 0
            for item in chunks:
                chunk = store.get(item.key)
                stop = start + chunk.num_rows
                which = pa.array([item.args.which] * chunk.num_rows, pa.string())
                joints = _joints_column(joints_px_TJD[start:stop])
                columns = [chunk["frame"], which, joints, chunk["keypoints"], chunk["matte"]]
                yield pa.Table.from_arrays(columns, schema=POSE_SCHEMA)
                start = stop

    write_table("pose", folder / f"{plan.clip}.parquet", rows(), plan.metadata)


def read_joints(chunks: Sequence[Item], store: ItemStore) -> dict[int, npt.NDArray[np.float32]]:
    """Frame -> (19, 3) joints px of one pass, whose chunks are done."""
    frames, joints_px_TJD = _repair(chunks, store)
    return dict(zip(frames, joints_px_TJD, strict=True))
