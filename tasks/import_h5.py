"""The two HDF5 sets that the 2021 authors published, as tables of ours; a few pictures or one motion in memory.

HumanSlomo.h5          /CLIP/{gt,train}_images, {gt,train}_dain: encoded pictures, variable-length uint8
                       /CLIP/{gt,train}_poses: (frames, 19, 3) float64: x px, y px, score
AMASS_3D_joints.h5     /DATASET/MOTION/joints: (frames, 52, 3) float64, m
Neither tells frame numbers or rates: pictures stand in the order of their files, motions as they were recorded.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.skeleton import NUM_JOINTS
from tasks.errors import SourceError
from tasks.import_record import Import, picture_array
from tasks.tables import BACKGROUND_SCHEMA, CLIP_SCHEMA, POSE_SCHEMA, encode_png, write_table

if TYPE_CHECKING:
    import h5py

NUM_SMPL_H_JOINTS = 52  # as models/body.py, which takes seconds to import
CHUNK_PICTURES = 8  # some MB of PNG: a row group
SHARD_BYTES = 64 * 2**20  # of joints in a file
GROUP_BYTES = 8 * 2**20  # of joints in a row group
READ_FRAMES = 16384  # of a motion: 20 MB of float64
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
        where = row.start if isinstance(row, slice) else row
        reason = str(error).splitlines()[0]
        raise SourceError(f"{path}: {dataset.name} row {where} is damaged ({reason}); get the file again") from error


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
    with _opened(path) as file:
        contents = (
            _import_clips(path, file, work.folder, options, on_done)
            if layout == "HumanSlomo"
            else _import_motions(path, file, work.folder, options, on_done)
        )
    work.finish(contents)
    counts = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in contents.items() if what != "left_out")
    left_out = [f"{name} ({reason})" for name, reason in contents["left_out"].items()]
    return counts + (f"; left out: {'; '.join(left_out[:5])}{', ...' if left_out[5:] else ''}" if left_out else "")


def _import_clips(
    path: Path, file: "h5py.File", folder: Path, options: Options, on_done: Callable[[int], None]
) -> dict[str, Any]:
    contents: dict[str, Any] = {"clips": 0, "frames": 0, "poses": 0, "backgrounds": 0, "left_out": {}}
    for group_name, group in file.items():
        sides = [side for side in _SIDES if f"{side}_images" in group or f"{side}_poses" in group]
        for side in sides:
            clip = group_name if len(sides) == 1 else f"{group_name}-{side}"
            if not _NAME.fullmatch(clip):
                raise SourceError(f"{path}: {group_name!r} is no name for a clip: letters, digits, - _ . alone")
            _import_clip(path, group, side, clip, folder, options, contents, on_done)
    return contents


def _import_clip(
    path: Path,
    group: "h5py.Group",
    side: str,
    clip: str,
    folder: Path,
    options: Options,
    contents: dict[str, Any],
    on_done: Callable[[int], None],
) -> None:
    """A clip's three tables. Frames of the clip are its pictures, or its poses where it has none."""
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
        fps = options.fps.get("", 30.0)
        chunks = _clip_chunks(path, images, frames, fps, on_done)
        height, width = decode_size(_read_picture(path, images, 0))
        size = {"fps": str(fps), "width": str(width), "height": str(height)}
        _write_once("clip", folder / "clips" / f"{clip}.parquet", chunks, metadata | size, num_frames, on_done)
    if poses is not None:
        if poses.shape != (num_frames, NUM_JOINTS, 3):
            contents["left_out"][f"{clip} poses"] = f"{poses.shape}, not ({num_frames}, {NUM_JOINTS}, 3)"
        else:
            contents["poses"] += 1
            rows = [_pose_rows(_read(path, poses, slice(0, num_frames)).astype(np.float64), frames)]
            facts = {"estimator": "imported", "estimator_version": path.name}
            _write_once("pose", folder / "poses" / f"{clip}.parquet", rows, metadata | facts, 0, on_done)
    if dain is not None and len(dain):
        wanted = _dain_rows(side, len(dain), num_frames)
        if wanted is None:
            contents["left_out"][f"{clip} backgrounds"] = f"{len(dain)} pictures for {num_frames} frames"
            on_done(len(dain))
        elif wanted:
            contents["backgrounds"] += 1
            facts = {"interpolator": "dain", "key_step": "2" if side == "gt" else "1"}
            chunks = _background_chunks(path, dain, wanted, frames, "render" if side == "gt" else "train")
            target = folder / "backgrounds" / f"{clip}.parquet"
            _write_once("background", target, chunks, metadata | facts, len(dain), on_done)
            on_done(0)


def _dain_rows(side: str, num_pictures: int, num_frames: int) -> list[tuple[int, int]] | None:
    """(row of the DAIN set, row of the clip) of the interpolated pictures; None where the counts do not fit.

    gt: keys are every second frame, and stand between the pictures made of them. train: the picture made of a frame and
    the one after the next stands for the frame between them.
    """
    if side == "gt":
        if num_pictures not in (num_frames, 2 * ((num_frames + 1) // 2) - 1):
            return None
        return [(row, row) for row in range(1, num_pictures, 2)]
    return [(row, row + 1) for row in range(num_pictures)] if num_pictures == num_frames - 2 else None


def _write_once(
    kind: str,
    path: Path,
    chunks: "Iterator[pa.Table] | list[pa.Table]",
    metadata: dict[str, str],
    amount: int,
    on_done: Callable[[int], None],
) -> None:
    if path.is_file():
        on_done(amount)
        return
    write_table(kind, path, chunks, metadata)
    if kind == "background":
        on_done(amount)


def _clip_chunks(
    path: Path, images: "h5py.Dataset", frames: Sequence[int], fps: float, on_done: Callable[[int], None]
) -> Iterator[pa.Table]:
    for start in range(0, len(frames), CHUNK_PICTURES):
        rows = range(start, min(start + CHUNK_PICTURES, len(frames)))
        columns = [
            pa.array([frames[row] for row in rows], pa.int32()),
            pa.array([(frames[row] - frames[0]) / fps for row in rows], pa.float64()),
            picture_array(
                (_read_picture(path, images, row) for row in rows), (f"{frames[row]:06d}.png" for row in rows)
            ),
        ]
        yield pa.Table.from_arrays(columns, schema=CLIP_SCHEMA)
        on_done(len(rows))


def _background_chunks(
    path: Path, dain: "h5py.Dataset", wanted: list[tuple[int, int]], frames: Sequence[int], use: str
) -> Iterator[pa.Table]:
    for start in range(0, len(wanted), CHUNK_PICTURES):
        rows = wanted[start : start + CHUNK_PICTURES]
        columns = [
            pa.array([frames[row] for _, row in rows], pa.int32()),
            pa.array([use] * len(rows), pa.string()),
            picture_array(
                (_read_picture(path, dain, source) for source, _ in rows),
                (f"{frames[row]:06d}.{use}.png" for _, row in rows),
            ),
        ]
        yield pa.Table.from_arrays(columns, schema=BACKGROUND_SCHEMA)


def _read_picture(path: Path, dataset: "h5py.Dataset", row: int) -> bytes:
    """One picture as PNG: its own bytes where it is one."""
    data = _read(path, dataset, row).astype(np.uint8, copy=False).tobytes()
    if data.startswith(_PNG):
        return data
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise SourceError(f"{path}: {dataset.name} row {row} is no picture; get the file again")
    return encode_png(np.asarray(image, np.uint8))


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


def _import_motions(
    path: Path, file: "h5py.File", folder: Path, options: Options, on_done: Callable[[int], None]
) -> dict[str, Any]:
    contents: dict[str, Any] = {"datasets": 0, "motions": 0, "motion_frames": 0, "left_out": {}}
    for dataset, group in file.items():
        if not _NAME.fullmatch(dataset):
            raise SourceError(f"{path}: {dataset!r} is no name for a folder: letters, digits, - _ . alone")
        contents["datasets"] += 1
        for number, names in enumerate(_shards(group, dataset, contents, on_done)):
            frames = sum(group[name]["joints"].shape[0] for name in names)
            contents["motions"] += len(names)
            contents["motion_frames"] += frames
            target = folder / dataset / f"{dataset}-{number:05d}.parquet"
            if target.is_file():
                on_done(frames)
            else:
                _write_shard(path, target, dataset, group, names, options, on_done)
    return contents


def _shards(
    group: "h5py.Group", dataset: str, contents: dict[str, Any], on_done: Callable[[int], None]
) -> list[list[str]]:
    """The motions of a dataset in files of at most SHARD_BYTES, by name; what is none is left out."""
    shards: list[list[str]] = []
    room = 0
    for name, motion in group.items():
        joints = motion.get("joints") if hasattr(motion, "keys") else None
        if joints is None or joints.shape[1:] != (NUM_SMPL_H_JOINTS, 3) or not len(joints):
            contents["left_out"][f"{dataset}/{name}"] = f"joints are {getattr(joints, 'shape', 'not there')}"
            on_done(0 if joints is None else joints.shape[0])
            continue
        size = joints.shape[0] * NUM_SMPL_H_JOINTS * 12
        if not shards or size > room:
            shards.append([])
            room = SHARD_BYTES
        shards[-1].append(name)
        room -= size
    return shards


def _write_shard(
    path: Path,
    target: Path,
    dataset: str,
    group: "h5py.Group",
    names: Sequence[str],
    options: Options,
    on_done: Callable[[int], None],
) -> None:
    """A parquet file of joint positions (docs/given.md), a row a motion.

    Whose motion it is, its name begins with: what stands before the first underscore. At worst several people have one
    name; one never has two.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    fps = options.fps.get(dataset, options.fps.get("", 60.0))
    with pq.ParquetWriter(temporary, _POSITIONS, compression="zstd", compression_level=1, use_dictionary=False) as out:
        rows: list[dict[str, Any]] = []
        values: list[np.ndarray[Any, np.dtype[np.float32]]] = []

        def flush() -> None:
            offsets = np.cumsum([0, *(len(each) for each in values)], dtype=np.int32)
            joints = pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(values)))
            facts = pa.Table.from_pylist(rows, schema=pa.schema(list(_POSITIONS)[:-1]))
            out.write_table(facts.append_column(_POSITIONS.field("joints"), joints), row_group_size=len(rows))
            on_done(sum(row["num_frames"] for row in rows))
            rows.clear()
            values.clear()

        for name in names:
            joints_m_TJD = group[name]["joints"]
            num_frames = joints_m_TJD.shape[0]
            flat = np.empty((num_frames, NUM_SMPL_H_JOINTS, 3), np.float32)
            for start in range(0, num_frames, READ_FRAMES):
                flat[start : start + READ_FRAMES] = _read(path, joints_m_TJD, slice(start, start + READ_FRAMES))
            subject = f"{dataset}/{name.partition('_')[0]}"
            sequence = f"{dataset}_{name.removesuffix('.npz')}"
            facts = {"sequence_id": sequence, "subject": subject, "licence": options.licence, "fps": fps}
            rows.append({**facts, "num_frames": num_frames})
            values.append(flat.reshape(-1))
            if sum(each.nbytes for each in values) >= GROUP_BYTES:
                flush()
        if rows:
            flush()
    temporary.replace(target)
