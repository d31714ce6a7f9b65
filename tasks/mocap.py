"""Motion capture as it comes: AMASS npz files and parquet files of joint positions.

Nothing is ever unpickled. Reading a motion's facts costs its headers alone, and its frames are read in runs, so that
memory does not grow with a recording's length.
Axes: N source frames, P pose numbers (156 = 52 joints x 3, axis-angle, rad), D = 3 (m, z up), B betas, S soft-tissue
(DMPL) coefficients.
"""

import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from models.skeleton import FloatArray
from tasks.errors import ParamsError, SourceError

GENDERS = ("female", "male", "neutral")
NUM_POSE_NUMBERS = 156
MAX_BETAS = 16
MAX_DMPLS = 8
FPS_RANGE = (10.0, 2000.0)
_MOTION_NAMES = ("_poses.npz", "_stageii.npz")
_FPS_KEYS = ("mocap_framerate", "mocap_frame_rate")
_READ_BYTES = 2**20
# What reading a damaged npz raises; RuntimeError: an encrypted member, or a compression that zipfile does not know.
BROKEN = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)
_POSITION_COLUMNS = {
    "sequence_id": pa.types.is_string,
    "subject": pa.types.is_string,
    "licence": pa.types.is_string,
    "fps": pa.types.is_floating,
    "num_frames": pa.types.is_integer,
    "joints": lambda kind: pa.types.is_list(kind) and pa.types.is_floating(kind.value_type),
}


class Reason(Enum):
    """Why a motion is rejected."""

    UNREADABLE = "unreadable"
    PICKLED = "pickled"
    MISSING_KEY = "missing_key"
    WRONG_SHAPE = "wrong_shape"
    WRONG_GENDER = "wrong_gender"
    WRONG_RATE = "wrong_rate"
    NOT_FINITE = "not_finite"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    DUPLICATE = "duplicate"


class Reject(NamedTuple):
    """file: relative to the subset's folder, with #SEQUENCE where a file holds many.  detail: what was found."""

    file: str
    reason: Reason
    detail: str


class MotionError(Exception):
    """A motion that is rejected; the stage goes on without it."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class AmassMotion:
    """What an AMASS file says of itself; num_dmpls 0 = it has none; gender "" = it has none."""

    num_frames: int
    fps: float
    gender: str
    num_betas: int
    num_dmpls: int


class AmassFrames(NamedTuple):
    """Frames a..b-1 of a motion, in the file's own precision. dmpls_NS: None where they were not asked for."""

    poses_NP: FloatArray
    trans_ND: FloatArray
    betas_B: FloatArray
    dmpls_NS: FloatArray | None


class PositionRow(NamedTuple):
    """What a row of a positions file says of itself."""

    sequence: str
    subject: str
    licence: str
    fps: float
    num_frames: int


class _Header(NamedTuple):
    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[np.generic]


def list_motions(folder: Path, kind: str) -> list[Path]:
    """The files of a subset that may hold motions, in the order of their paths: every npz, or every parquet.

    Raises: SourceError where there is none, with what to put there.
    """
    suffix = ".npz" if kind == "amass" else ".parquet"
    paths = sorted(path for path in folder.rglob(f"*{suffix}") if path.is_file() and not path.name.startswith("."))
    if not paths:
        what = "DATASET/SUBJECT/*_poses.npz files" if kind == "amass" else "parquet files of joint positions"
        state = "holds no motion" if folder.is_dir() else "is not there"
        raise SourceError(f"{folder}: {state}; {what} belong here. {describe_amass_place()}")
    return paths


def describe_amass_place() -> str:
    """Where the licensed data come from and go to, in a sentence."""
    return (
        "Register at amass.is.tue.mpg.de (SMPL+H motions, DMPLs) and mano.is.tue.mpg.de (SMPL-H model), put"
        " amass/DATASET/SUBJECT/*.npz, body_models/smplh/GENDER/model.npz and body_models/dmpls/GENDER/model.npz under"
        " data/raw/given (docs/given.md has the steps); the stand-ins in data/raw/embedded serve meanwhile"
    )


def subject_of(path: Path, folder: Path) -> str:
    """DATASET/SUBJECT of an AMASS file; the subset's folder is the dataset's."""
    return path.parent.relative_to(folder.parent).as_posix()


def choose_subjects(found: Sequence[str], only: Sequence[str], without: Sequence[str], where: str) -> set[str]:
    """Subjects that a subset takes, by their whole id or its last part. only: [] = all.

    Raises: ParamsError where a name fits no subject, or nothing is left.
    """

    def fits(subject: str, names: Sequence[str]) -> bool:
        return subject in names or subject.rpartition("/")[2] in names

    subjects = sorted(set(found))
    known = {name for subject in subjects for name in (subject, subject.rpartition("/")[2])}
    for key, names in (("only", only), ("without", without)):
        for name in names:
            if name not in known:
                raise ParamsError(f"{where}.{key}: {name!r} is no subject; there are {', '.join(subjects)[:300]}")
    chosen = {s for s in subjects if (not only or fits(s, only)) and not fits(s, without)}
    if not chosen:
        raise ParamsError(f"{where}: `only` and `without` leave none of the subjects {', '.join(subjects)[:300]}")
    return chosen


class Survey(NamedTuple):
    """What a subset's folder holds. num_others: npz files that are no motions."""

    num_motions: int
    num_others: int
    duration_s: float
    problems: list[Reject]


def survey_motions(folder: Path, kind: str) -> Survey:
    """Look at the headers of every file of a subset. Raises: SourceError where the folder holds none."""
    num_motions = num_others = 0
    duration_s = 0.0
    problems = []
    for path in list_motions(folder, kind):
        name = path.relative_to(folder).as_posix()
        try:
            if kind == "amass":
                motion = read_amass(path)
                num_others += motion is None
                lengths = [motion.num_frames / motion.fps] if motion else []
            else:
                file = open_positions(path)
                rows = [row for group in range(file.num_row_groups) for row in read_position_facts(file, group)]
                lengths = [row.num_frames / row.fps if row.fps > 0 else 0.0 for row in rows]
            num_motions += len(lengths)
            duration_s += sum(lengths)
        except MotionError as error:
            problems.append(Reject(name, error.reason, error.detail))
    return Survey(num_motions, num_others, duration_s, problems)


def read_amass(path: Path) -> AmassMotion | None:
    """What an AMASS file says of itself, from its headers and smallest arrays; None = it is no motion.

    A motion is named *_poses.npz or *_stageii.npz, or holds `poses`; shape.npz and *_stagei.npz do not.
    Raises: MotionError where it is a motion, and not one that can be used.
    """
    is_named_motion = path.name.endswith(_MOTION_NAMES)
    try:
        with zipfile.ZipFile(path) as archive:
            keys = {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}
            if not is_named_motion and "poses" not in keys:
                return None
            return _read_facts(archive, keys)
    except BROKEN as error:
        if not is_named_motion:
            return None
        raise MotionError(Reason.UNREADABLE, _first_line(error)) from error


def _read_facts(archive: zipfile.ZipFile, keys: set[str]) -> AmassMotion:
    missing = [key for key in ("poses", "trans", "betas") if key not in keys]
    fps_key = next((key for key in _FPS_KEYS if key in keys), None)
    if fps_key is None:
        missing.append(" or ".join(_FPS_KEYS))
    if missing:
        raise MotionError(Reason.MISSING_KEY, f"lacks {', '.join(missing)}")
    assert fps_key is not None
    poses, trans, betas = (_float_header(archive, key) for key in ("poses", "trans", "betas"))
    num_frames = poses.shape[0] if poses.shape else 0
    if poses.shape != (num_frames, NUM_POSE_NUMBERS):
        hint = "; it is SMPL-X's, take the SMPL+H download" if poses.shape[1:] == (165,) else ""
        raise MotionError(Reason.WRONG_SHAPE, f"poses are {poses.shape}, not (frames, {NUM_POSE_NUMBERS}){hint}")
    if trans.shape != (num_frames, 3):
        raise MotionError(Reason.WRONG_SHAPE, f"trans is {trans.shape}, not ({num_frames}, 3)")
    if len(betas.shape) != 1 or not 1 <= betas.shape[0] <= MAX_BETAS:
        raise MotionError(Reason.WRONG_SHAPE, f"betas are {betas.shape}, not 1 to {MAX_BETAS} numbers")
    num_dmpls = 0
    if "dmpls" in keys:
        dmpls = _float_header(archive, "dmpls")
        if dmpls.shape[:1] != (num_frames,) or len(dmpls.shape) != 2 or not 1 <= dmpls.shape[1] <= MAX_DMPLS:
            raise MotionError(Reason.WRONG_SHAPE, f"dmpls are {dmpls.shape}, not ({num_frames}, 1 to {MAX_DMPLS})")
        num_dmpls = dmpls.shape[1]
    gender = _read_gender(archive) if "gender" in keys else ""
    return AmassMotion(num_frames, _read_fps(archive, fps_key), gender, betas.shape[0], num_dmpls)


def _float_header(archive: zipfile.ZipFile, key: str) -> _Header:
    with archive.open(f"{key}.npy") as member:
        header = _read_header(member, key)
    if header.dtype.kind != "f":
        raise MotionError(Reason.WRONG_SHAPE, f"{key} is of {header.dtype}, not of float numbers")
    size = math.prod(header.shape) * header.dtype.itemsize
    if min(header.shape, default=0) < 0 or size > archive.getinfo(f"{key}.npy").file_size:
        raise MotionError(Reason.UNREADABLE, f"{key} is shorter than its header says, {header.shape}")
    return header


def _read_header(member: IO[bytes], key: str) -> _Header:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read(member)
    if dtype.hasobject:
        raise MotionError(Reason.PICKLED, f"{key} holds pickled objects, which are never read")
    return _Header(shape, is_fortran, dtype)


def _read_small(archive: zipfile.ZipFile, key: str) -> npt.NDArray[np.generic]:
    with archive.open(f"{key}.npy") as member:
        header = _read_header(member, key)
        size = math.prod(header.shape) * header.dtype.itemsize
        if size > _READ_BYTES:
            raise MotionError(Reason.WRONG_SHAPE, f"{key} is {header.shape} of {header.dtype}, not a single value")
        array: npt.NDArray[np.generic] = np.frombuffer(member.read(size + 1), header.dtype).reshape(header.shape)
        return array


def _read_fps(archive: zipfile.ZipFile, key: str) -> float:
    value = _read_small(archive, key)
    if value.size != 1 or value.dtype.kind not in "fiu":
        raise MotionError(Reason.WRONG_RATE, f"{key} is {value.shape} of {value.dtype}, not one number")
    fps = float(value.reshape(()))
    check_fps(fps)
    return fps


def check_fps(fps: float) -> None:
    """Raises: MotionError where a capture rate cannot be."""
    if not FPS_RANGE[0] <= fps <= FPS_RANGE[1]:
        raise MotionError(Reason.WRONG_RATE, f"{fps} frames a second, not {FPS_RANGE[0]:g} to {FPS_RANGE[1]:g}")


def _read_gender(archive: zipfile.ZipFile) -> str:
    value = _read_small(archive, "gender")
    if value.shape != () or value.dtype.kind not in "US":
        raise MotionError(Reason.WRONG_GENDER, f"gender is {value.shape} of {value.dtype}, not one word")
    word = value.item()
    text = (word.decode("ascii", "replace") if isinstance(word, bytes) else str(word)).lower()
    if text not in GENDERS:
        raise MotionError(Reason.WRONG_GENDER, f"gender is {text!r}, not one of {', '.join(GENDERS)}")
    return text


def read_amass_frames(path: Path, start: int, stop: int, *, with_dmpls: bool) -> AmassFrames:
    """Frames start..stop-1 of a motion; no others are held.

    Raises: MotionError where the file is damaged or a number is not finite. The frames after the last that are asked
        for are not looked at, unless `stop` is the motion's end: then every array's checksum has been held.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            frames = AmassFrames(
                _read_rows(archive, "poses", start, stop),
                _read_rows(archive, "trans", start, stop),
                _read_rows(archive, "betas", 0, MAX_BETAS),
                _read_rows(archive, "dmpls", start, stop) if with_dmpls else None,
            )
    except BROKEN as error:
        raise MotionError(Reason.UNREADABLE, _first_line(error)) from error
    for name, values in zip(("poses", "trans", "betas", "dmpls"), frames, strict=True):
        if values is not None and not np.isfinite(values).all():
            rows = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
            row = rows[0] + (0 if name == "betas" else start)
            raise MotionError(Reason.NOT_FINITE, f"{name}: row {row} is not finite")
    return frames


def _read_rows(archive: zipfile.ZipFile, key: str, start: int, stop: int) -> FloatArray:
    """Rows start..stop-1 along the first axis, through a stream: what lies before them is passed over."""
    with archive.open(f"{key}.npy") as member:
        header = _read_header(member, key)
        stop = min(stop, header.shape[0])
        row_bytes = math.prod(header.shape[1:]) * header.dtype.itemsize
        if header.is_fortran:  # columns stand one after the other: there are no rows to stream
            whole = np.empty(header.shape[::-1], header.dtype)
            _fill(member, whole)
            rows: FloatArray = np.ascontiguousarray(whole.T[start:stop])
        else:
            _pass_over(member, row_bytes * start)
            rows = np.empty((stop - start, *header.shape[1:]), header.dtype)
            _fill(member, rows)
        if stop == header.shape[0] and member.read(1):  # at the end zipfile holds the checksum
            raise ValueError(f"{key} is longer than its header says")
        return rows


def _fill(member: IO[bytes], array: FloatArray) -> None:
    """Read an array's bytes, piece by piece, so that they are in memory once."""
    view = array.reshape(-1).view(np.uint8)
    for first in range(0, len(view), _READ_BYTES):
        piece = view[first : first + _READ_BYTES]
        piece[:] = np.frombuffer(_read_exactly(member, len(piece)), np.uint8)


def _read_exactly(member: IO[bytes], size: int) -> bytes:
    data = member.read(size)
    if len(data) < size:
        raise EOFError(f"ends {size - len(data)} bytes early")
    return data


def _pass_over(member: IO[bytes], size: int) -> None:
    # Not seek: newer Pythons then no longer hold the checksum.
    while size:
        size -= len(_read_exactly(member, min(size, _READ_BYTES)))


def open_positions(path: Path) -> pq.ParquetFile:
    """A parquet file of joint positions: a row a sequence. Raises: MotionError where it is none."""
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise MotionError(Reason.UNREADABLE, _first_line(error)) from error
    schema = file.schema_arrow
    missing = [name for name in _POSITION_COLUMNS if name not in schema.names]
    if missing:
        raise MotionError(Reason.MISSING_KEY, f"lacks the columns {', '.join(missing)}")
    for name, is_right in _POSITION_COLUMNS.items():
        kind = schema.field(name).type
        if not is_right(kind) and not (pa.types.is_large_string(kind) and is_right is pa.types.is_string):
            raise MotionError(Reason.WRONG_SHAPE, f"column {name} is of {kind}; docs/formats.md has the columns")
    return file


def read_position_facts(file: pq.ParquetFile, row_group: int) -> list[PositionRow]:
    """What the rows of a row group say of themselves; their joints are not read."""
    columns = ["sequence_id", "subject", "licence", "fps", "num_frames"]
    try:
        rows = file.read_row_group(row_group, columns).select(columns).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise MotionError(Reason.UNREADABLE, _first_line(error)) from error
    return [
        PositionRow(
            str(row["sequence_id"]),
            str(row["subject"]),
            row["licence"] or "",
            math.nan if row["fps"] is None else float(row["fps"]),
            row["num_frames"] or 0,
        )
        for row in rows
    ]


def iterate_positions(path: Path, row_group: int, rows_a_batch: int = 16) -> Iterator[pa.Array]:
    """The `joints` cell of each row of a row group, as a flat Arrow array (None = empty), a few rows in memory.

    Raises: MotionError where the file cannot be read.
    """
    try:
        batches = open_positions(path).iter_batches(rows_a_batch, row_groups=[row_group], columns=["joints"])
        for batch in batches:
            for cell in batch.column(0):
                yield cell.values
    except (pa.ArrowInvalid, OSError) as error:
        raise MotionError(Reason.UNREADABLE, _first_line(error)) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
