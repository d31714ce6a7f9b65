"""The two HDF5 sets that the 2021 authors published, as tables of ours; a few pictures or one motion in memory.

HumanSlomo.h5          /CLIP/{gt,train}_images, {gt,train}_dain: encoded pictures, variable-length uint8
                       /CLIP/{gt,train}_poses: (frames, 19, 3) float64: x px, y px, score
AMASS_3D_joints.h5     /DATASET/MOTION/joints: (frames, 52, 3) float64, m
Neither tells frame numbers or rates: pictures stand in the order of their files, motions as they were recorded.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.skeleton import NUM_JOINTS
from tasks.errors import SourceError
from tasks.hdf5_direct import DamagedError, DirectFile, Packed, allocate, find_cells, find_values, pack
from tasks.import_ahead import Job, do_ahead, no_collection, no_table
from tasks.import_record import Import, picture_array
from tasks.tables import (
    BACKGROUND_SCHEMA,
    CLIP_SCHEMA,
    POSE_SCHEMA,
    Image,
    column_settings,
    encode_png,
    sync_file,
    write_table,
)

if TYPE_CHECKING:
    import h5py

NUM_SMPL_H_JOINTS = 52  # as models/body.py, which takes seconds to import
CHUNK_PICTURES = 16  # some MB of PNG: a row group
SHARD_BYTES = 64 * 2**20  # of joints in a file
GROUP_BYTES = 8 * 2**20  # of joints in a row group
FRAME_BYTES = NUM_SMPL_H_JOINTS * 3 * 4
WRITERS = 3  # threads that write tables; another reads what HDF5 must, a fifth hashes the file
READ_AHEAD = 2  # parts of a table that wait to be written
_END = object()
_Loaded = TypeVar("_Loaded")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_PNG = b"\x89PNG\r\n\x1a\n"
_SIDES = {"gt": "test", "train": "train"}

_POSITIONS = pa.schema(
    [
        ("sequence_id", pa.string()),
        ("subject", pa.string()),
        ("licence", pa.string()),
        ("fps", pa.float64()),
        ("num_frames", pa.int32()),
        ("joints", pa.list_(pa.float32())),
    ]
)


class Options(NamedTuple):
    """What the files do not tell.

    frames: clip -> its frames' numbers in the video (a batch's catalogue); others are numbered from 0.
    fps: rate of every clip or motion, or of one dataset's: {"": 60, "CMU": 120}.  licence: of the motions.
    """

    frames: Mapping[str, Sequence[int]]
    fps: Mapping[str, float]
    licence: str


@contextmanager
def _opened(path: Path) -> "Iterator[h5py.File]":
    try:
        import h5py  # here: only imports need it
    except ImportError as error:
        raise SourceError("h5py is not installed; run `make env`") from error
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise SourceError(f"{path}: not a whole HDF5 file ({reason}); get it again") from error
    with file:
        yield file


def _read(path: Path, dataset: "h5py.Dataset", row: int | slice) -> "np.ndarray[Any, Any]":
    """Raises: SourceError naming dataset and row where its bytes are damaged."""
    try:
        return np.asarray(dataset[row])
    except (OSError, RuntimeError) as error:
        first = row.start if isinstance(row, slice) else row
        raise _damaged(f"{path}: {dataset.name}", first, error) from error


def _damaged(where: str, row: int, error: Exception) -> SourceError:
    reason = str(error).splitlines()[0]
    return SourceError(f"{where} row {row} is damaged ({reason}); get the file again")


def find_layout(path: Path) -> str:
    """ "HumanSlomo" or "AMASS_3D_joints". Raises: SourceError where it is neither."""
    with _opened(path) as file:
        for group in file.values():
            members = list(group) if hasattr(group, "keys") else []
            if any(name in members for name in ("gt_images", "train_images", "gt_poses", "train_poses")):
                return "HumanSlomo"
            if any(hasattr(group[name], "keys") and "joints" in group[name] for name in members[:1]):
                return "AMASS_3D_joints"
    raise SourceError(
        f"{path}: neither HumanSlomo.h5 (CLIP/gt_images, ...) nor AMASS_3D_joints.h5 (DATASET/MOTION/joints)"
    )


def count_work(path: Path, layout: str) -> int:
    """How much there is to do: pictures, or frames of motion."""
    with _opened(path) as file:
        if layout == "HumanSlomo":
            names = [f"{side}_{kind}" for side in _SIDES for kind in ("images", "dain")]
            return sum(len(group[name]) for group in file.values() for name in names if name in group)
        return sum(motion["joints"].shape[0] for group in file.values() for motion in group.values())


def import_h5(path: Path, layout: str, work: Import, options: Options, on_done: Callable[[int], None]) -> str:
    """Fill an import from a file, and finish it; what an earlier run wrote is not written again.

    Args: on_done: called with the pictures or frames just done.
    Returns: a line that says what was imported and what was left out.
    Raises: SourceError naming dataset and row of what is damaged or of another form.
    """
    list_jobs = _list_clips if layout == "HumanSlomo" else _list_motions
    contents: dict[str, Any] = {}
    with (
        no_collection(),
        _opened(path) as file,
        work.hashing_along() as tell,
        closing(DirectFile(path, tell)) as direct,
    ):
        for job in do_ahead(list_jobs(_Source(path, file, direct), work.folder, options, contents)):
            on_done(job.amount)
    work.finish(contents)
    counts = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in contents.items() if what != "left_out")
    left_out = [f"{name} ({reason})" for name, reason in contents["left_out"].items()]
    return counts + (f"; left out: {'; '.join(left_out[:5])}{', ...' if left_out[5:] else ''}" if left_out else "")


class _Source(NamedTuple):
    """A file, as HDF5 and as bytes."""

    path: Path
    file: "h5py.File"
    direct: DirectFile


def _list_clips(source: _Source, folder: Path, options: Options, contents: dict[str, Any]) -> Iterator[Job]:
    contents |= {"clips": 0, "frames": 0, "poses": 0, "backgrounds": 0, "left_out": {}}
    for group_name, group in source.file.items():
        sides = [side for side in _SIDES if f"{side}_images" in group or f"{side}_poses" in group]
        for side in sides:
            clip = group_name if len(sides) == 1 else f"{group_name}-{side}"
            if not _NAME.fullmatch(clip):
                raise SourceError(f"{source.path}: {group_name!r} is no name for a clip: letters, digits, - _ . alone")
            yield from _list_tables(source, group, side, clip, folder, options, contents)


def _list_tables(
    source: _Source,
    group: "h5py.Group",
    side: str,
    clip: str,
    folder: Path,
    options: Options,
    contents: dict[str, Any],
) -> Iterator[Job]:
    """A clip's three tables. Frames of the clip are its pictures, or its poses where it has none."""
    path = source.path
    images, poses, dain = (group.get(f"{side}_{kind}") for kind in ("images", "poses", "dain"))
    num_frames = len(images) if images is not None else len(poses)
    if not num_frames:
        contents["left_out"][clip] = "no frame"
        return
    frames = options.frames.get(clip, range(num_frames))
    if len(frames) != num_frames:
        raise SourceError(
            f"{path}: {clip} has {num_frames} frames and {len(frames)} in the catalogue; import it without --batch, or"
            " mend clips.csv"
        )
    metadata = {"clip": clip, "batch": "", "video": "", "split": _SIDES[side], "subject": "", "source_sha256": ""}
    contents["clips"] += 1
    contents["frames"] += num_frames
    if images is not None:
        target = folder / "clips" / f"{clip}.parquet"
        read = partial(_read_cells, source, images, range(num_frames))
        yield Job(target, num_frames, read, partial(_write_clip, target, frames, options.fps.get("", 30.0), metadata))
    if poses is not None:
        if poses.shape != (num_frames, NUM_JOINTS, 3):
            contents["left_out"][f"{clip} poses"] = f"{poses.shape}, not ({num_frames}, {NUM_JOINTS}, 3)"
        else:
            contents["poses"] += 1
            target = folder / "poses" / f"{clip}.parquet"
            facts = metadata | {"estimator": "imported", "estimator_version": path.name}
            yield Job(target, 0, partial(_read_poses, path, poses), partial(_write_poses, target, frames, facts))
    if dain is not None and len(dain):
        target = folder / "backgrounds" / f"{clip}.parquet"
        wanted = _dain_rows(side, len(dain), num_frames)
        if wanted is None:
            contents["left_out"][f"{clip} backgrounds"] = f"{len(dain)} pictures for {num_frames} frames"
        if wanted is None or not wanted.rows:
            yield no_table(len(dain))
        else:
            contents["backgrounds"] += 1
            numbers = [frames[row + wanted.shift] for row in wanted.rows]
            facts = metadata | {"interpolator": "dain", "key_step": str(wanted.key_step)}
            read = partial(_read_cells, source, dain, wanted.rows)
            yield Job(target, len(dain), read, partial(_write_backgrounds, target, numbers, wanted.use, facts))


class _DainRows(NamedTuple):
    """rows: of the DAIN set.  shift: from each to the clip's row that it stands for.  use: see docs/formats.md."""

    rows: range
    shift: int
    use: str
    key_step: int


def _dain_rows(side: str, num_pictures: int, num_frames: int) -> _DainRows | None:
    """Which are the interpolated pictures; None where the counts do not fit.

    gt: keys are every second frame, and stand between the pictures made of them. train: the picture made of a frame and
    the one after the next stands for the frame between them.
    """
    if side == "train":
        return _DainRows(range(num_pictures), 1, "train", 1) if num_pictures == num_frames - 2 else None
    if num_pictures not in (num_frames, 2 * ((num_frames + 1) // 2) - 1):
        return None
    return _DainRows(range(1, num_pictures, 2), 0, "render", 2)


class _Cells(NamedTuple):
    """Some pictures of a dataset as they are there.

    start: the first one's place among those read.  rows: of the dataset.  where: what to call it.
    load: their bytes; of any thread.
    """

    start: int
    rows: range
    where: str
    load: Callable[[], Packed]


def _read_cells(source: _Source, dataset: "h5py.Dataset", rows: range) -> Iterator[_Cells]:
    """Raises: SourceError naming the row that is damaged."""
    where = f"{source.path}: {dataset.name}"
    cells = find_cells(source.path, dataset)
    for start in range(0, len(rows), CHUNK_PICTURES):
        some = rows[start : start + CHUNK_PICTURES]
        load = partial(_load_cells, source.direct, where, some, cells) if cells is not None else None
        if load is None:
            packed = pack([_read(source.path, dataset, row).astype(np.uint8, copy=False) for row in some])
            source.direct.tell(len(packed.data))
            load = partial(_same, packed)
        yield _Cells(start, some, where, load)


def _same(loaded: _Loaded) -> _Loaded:
    return loaded


def _load_cells(direct: DirectFile, where: str, rows: range, cells: np.ndarray[Any, Any]) -> Packed:
    try:
        return direct.read_cells(cells[rows.start : rows.stop : rows.step])
    except DamagedError as error:
        raise _damaged(where, rows[error.index], error) from error


def _write_clip(
    target: Path, frames: Sequence[int], fps: float, metadata: dict[str, str], parts: Iterator[_Cells]
) -> None:
    def chunk(cells: _Cells, pictures: Packed) -> pa.Table:
        some = frames[cells.start : cells.start + len(cells.rows)]
        columns = [
            pa.array(list(some), pa.int32()),
            pa.array([(frame - frames[0]) / fps for frame in some], pa.float64()),
            picture_array(pictures, [f"{frame:06d}.png" for frame in some]),
        ]
        return pa.Table.from_arrays(columns, schema=CLIP_SCHEMA)

    first = next(parts)
    pictures = _load_png(first)
    height, width = decode_size(pictures.data[:24].tobytes())
    facts = metadata | {"fps": str(fps), "width": str(width), "height": str(height)}
    others = (chunk(cells, _load_png(cells)) for cells in parts)
    write_table("clip", target, chain([chunk(first, pictures)], others), facts, is_synced=True)


def _write_backgrounds(
    target: Path, frames: Sequence[int], use: str, metadata: dict[str, str], parts: Iterator[_Cells]
) -> None:
    def chunk(cells: _Cells) -> pa.Table:
        some = frames[cells.start : cells.start + len(cells.rows)]
        columns = [
            pa.array(some, pa.int32()),
            pa.array([use] * len(some), pa.string()),
            picture_array(_load_png(cells), [f"{frame:06d}.{use}.png" for frame in some]),
        ]
        return pa.Table.from_arrays(columns, schema=BACKGROUND_SCHEMA)

    write_table("background", target, map(chunk, parts), metadata, is_synced=True)


def _load_png(cells: _Cells) -> Packed:
    """Pictures as PNG: their own bytes where they are. Raises: SourceError naming the row that is none."""
    packed = cells.load()
    given = [packed.string(index) for index in range(len(cells.rows))]
    if all(data[: len(_PNG)].tobytes() == _PNG for data in given):
        return packed
    return pack([_as_png(cells.where, row, data) for row, data in zip(cells.rows, given, strict=True)])


def _as_png(where: str, row: int, data: Image) -> Image:
    if data[: len(_PNG)].tobytes() == _PNG:
        return data
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if image is None:
        raise SourceError(f"{where} row {row} is no picture; get the file again")
    return np.frombuffer(encode_png(np.asarray(image, np.uint8)), np.uint8)


def _read_poses(path: Path, poses: "h5py.Dataset") -> Iterator["np.ndarray[Any, Any]"]:
    yield _read(path, poses, slice(0, len(poses)))


def _write_poses(
    target: Path, frames: Sequence[int], metadata: dict[str, str], parts: Iterator["np.ndarray[Any, Any]"]
) -> None:
    rows = (_pose_rows(joints.astype(np.float64), frames) for joints in parts)
    write_table("pose", target, rows, metadata, is_synced=True)


def decode_size(data: bytes) -> tuple[int, int]:
    """(height, width) of a PNG, from its header."""
    return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")


def _pose_rows(joints_px_TJD: np.ndarray[Any, np.dtype[np.float64]], frames: Sequence[int]) -> pa.Table:
    """A pose table's rows; a joint that is no number, or has no score, is not seen."""
    is_seen = np.isfinite(joints_px_TJD).all(axis=2) & (joints_px_TJD[..., 2] > 0)
    joints = np.where(is_seen[..., None], np.minimum(joints_px_TJD, [np.inf, np.inf, 1]), 0).astype(np.float32)
    raw = joints_px_TJD.astype(np.float32).reshape(len(joints), -1)
    columns = [
        pa.array(list(frames), pa.int32()),
        pa.array(["truth"] * len(joints), pa.string()),
        pa.FixedSizeListArray.from_arrays(pa.array(joints.reshape(-1)), NUM_JOINTS * 3),
        pa.array(list(raw), pa.list_(pa.float32())),
        pa.nulls(len(joints), pa.binary()),
    ]
    return pa.Table.from_arrays(columns, schema=POSE_SCHEMA)


class _Motion(NamedTuple):
    """offset: of its joints in the file; None = HDF5 reads them."""

    name: str
    num_frames: int
    offset: int | None


def _list_motions(source: _Source, folder: Path, options: Options, contents: dict[str, Any]) -> Iterator[Job]:
    contents |= {"datasets": 0, "motions": 0, "motion_frames": 0, "left_out": {}}
    for dataset, group in source.file.items():
        if not _NAME.fullmatch(dataset):
            raise SourceError(f"{source.path}: {dataset!r} is no name for a folder: letters, digits, - _ . alone")
        contents["datasets"] += 1
        motions = []
        for name, motion in group.items():
            joints = motion.get("joints") if hasattr(motion, "keys") else None
            if joints is None or joints.shape[1:] != (NUM_SMPL_H_JOINTS, 3) or not len(joints):
                contents["left_out"][f"{dataset}/{name}"] = f"joints are {getattr(joints, 'shape', 'not there')}"
                yield no_table(0 if joints is None else joints.shape[0])
            else:
                motions.append(_Motion(name, len(joints), find_values(source.path, joints)))
        for number, shard in enumerate(_fill(motions, SHARD_BYTES)):
            target = folder / dataset / f"{dataset}-{number:05d}.parquet"
            num_frames = sum(motion.num_frames for motion in shard)
            contents["motions"] += len(shard)
            contents["motion_frames"] += num_frames
            fps = options.fps.get(dataset, options.fps.get("", 60.0))
            read = partial(_read_shard, source, group, shard)
            yield Job(target, num_frames, read, partial(_write_shard, target, dataset, fps, options.licence))


def _fill(motions: Sequence[_Motion], num_bytes: int) -> list[list[_Motion]]:
    """Motions in their order, in parts of at most so many bytes of joints, or of one motion."""
    parts: list[list[_Motion]] = []
    room = 0
    for motion in motions:
        size = motion.num_frames * FRAME_BYTES
        if not parts or size > room:
            parts.append([])
            room = num_bytes
        parts[-1].append(motion)
        room -= size
    return parts


class _Motions(NamedTuple):
    """A row group's. load: (values,) float32, of one motion after the other; of any thread."""

    motions: list[_Motion]
    load: Callable[[], np.ndarray[Any, np.dtype[np.float32]]]


def _read_shard(source: _Source, group: "h5py.Group", shard: Sequence[_Motion]) -> Iterator[_Motions]:
    for motions in _fill(shard, GROUP_BYTES):
        if all(motion.offset is not None for motion in motions):
            yield _Motions(motions, partial(_load_joints, source, group.name, motions))
        else:
            datasets = [group[motion.name]["joints"] for motion in motions]
            parts = [_read(source.path, dataset, slice(0, len(dataset))) for dataset in datasets]
            source.direct.tell(sum(part.nbytes for part in parts))
            joints_m = np.concatenate([part.astype(np.float32).reshape(-1) for part in parts])
            yield _Motions(motions, partial(_same, joints_m))


def _load_joints(source: _Source, group: str, motions: Sequence[_Motion]) -> np.ndarray[Any, np.dtype[np.float32]]:
    ends = np.cumsum([0, *(motion.num_frames * NUM_SMPL_H_JOINTS * 3 for motion in motions)])
    joints_m = allocate(int(ends[-1]) * 4).view(np.float32)
    for motion, start, end in zip(motions, ends, ends[1:], strict=False):
        assert motion.offset is not None
        try:
            source.direct.read_values(motion.offset, joints_m[start:end])
        except DamagedError as error:
            row = error.index // (NUM_SMPL_H_JOINTS * 3)
            raise _damaged(f"{source.path}: {group}/{motion.name}/joints", row, error) from error
    return joints_m


def _write_shard(target: Path, dataset: str, fps: float, licence: str, parts: Iterator[_Motions]) -> None:
    """A parquet file of joint positions (docs/given.md), a row a motion."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    with pq.ParquetWriter(temporary, _POSITIONS, **column_settings(_POSITIONS)) as writer:
        for part in parts:
            writer.write_table(_motion_rows(dataset, fps, licence, part), row_group_size=len(part.motions))
    sync_file(temporary)
    temporary.replace(target)


def _motion_rows(dataset: str, fps: float, licence: str, part: _Motions) -> pa.Table:
    """Whose motion it is, its name begins with: what stands before the first underscore.

    At worst several people have one name; one never has two.
    """
    motions = part.motions
    offsets = np.cumsum([0, *(motion.num_frames for motion in motions)]) * (NUM_SMPL_H_JOINTS * 3)
    columns = [
        pa.array([f"{dataset}_{motion.name.removesuffix('.npz')}" for motion in motions], pa.string()),
        pa.array([f"{dataset}/{motion.name.partition('_')[0]}" for motion in motions], pa.string()),
        pa.array([licence] * len(motions), pa.string()),
        pa.array([fps] * len(motions), pa.float64()),
        pa.array([motion.num_frames for motion in motions], pa.int32()),
        pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(part.load())),
    ]
    return pa.Table.from_arrays(columns, schema=_POSITIONS)
