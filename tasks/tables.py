"""Every parquet table of the project: its columns, how it is written, how pictures are read back.

One writer for all: fixed settings, one row group a chunk, a temporary name until it is whole. The same rows give the
same bytes on any machine. Nothing here names a clock, a run or a host. All is zstd, but for encoded pictures, which it
makes no smaller; of numbers in lists all first bytes stand together, then all second ones, ...: a sixth smaller than by
zstd alone.
Pictures are lossless PNG in a struct<bytes, path> that the `datasets` library reads as an Image; in memory they are
BGR uint8 (H, W, 3), as OpenCV has them.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from models.skeleton import NUM_JOINTS
from tasks.errors import TableError

Image = npt.NDArray[np.uint8]

MAX_CHUNK_FRAMES = 256
MAX_CHUNK_BYTES = 64 * 2**20  # of decoded pictures: what an item may hold in memory
PNG_LEVEL = 1  # 2 % larger files than zlib's default, a quarter of the time

_ENCODED, _IN_LIST = ".bytes", ".list.element"  # ends of parquet's names of columns

_PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
CLIP_SCHEMA = pa.schema([("frame", pa.int32()), ("time", pa.float64()), ("image", _PICTURE)])
POSE_SCHEMA = pa.schema(
    [
        ("frame", pa.int32()),
        ("pass", pa.string()),
        ("joints", pa.list_(pa.float32(), NUM_JOINTS * 3)),
        ("keypoints", pa.list_(pa.float32())),
        ("matte", pa.binary()),
    ]
)
BACKGROUND_SCHEMA = pa.schema([("frame", pa.int32()), ("use", pa.string()), ("image", _PICTURE)])
SAMPLES_SCHEMA = pa.schema(
    [
        ("frame", pa.int32()),
        ("joints", pa.list_(pa.float32(), NUM_JOINTS * 3)),
        ("image", _PICTURE),
        ("background", _PICTURE),
        ("matte", pa.binary()),
    ]
)
RENDER_SCHEMA = pa.schema(
    [
        ("frame", pa.int32()),
        ("time", pa.float64()),
        ("origin", pa.string()),
        ("method", pa.string()),
        ("key_before", pa.int32()),
        ("key_after", pa.int32()),
        ("posed_share", pa.float32()),
        ("image", _PICTURE),
    ]
)
EVALUATION_SCHEMA = pa.schema(
    [
        ("frame", pa.int32()),
        ("key_before", pa.int32()),
        ("key_after", pa.int32()),
        ("gap_position", pa.float64()),
        ("is_halfway", pa.bool_()),
        ("full_psnr", pa.float64()),
        ("full_ssim", pa.float64()),
        ("full_lpips", pa.float64()),
        ("person_psnr", pa.float64()),
        ("person_ssim", pa.float64()),
        ("person_lpips", pa.float64()),
        ("joint_error_px", pa.float64()),
        ("pck", pa.float64()),
        ("mask", pa.binary()),
    ]
)
_SEQUENCE = [
    ("subset", pa.string()),
    ("subject", pa.string()),
    ("sequence", pa.string()),
    ("licence", pa.string()),
    ("source_sha256", pa.string()),
    ("fps", pa.float64()),
    ("num_frames", pa.int32()),
]
JOINTS_SCHEMA = pa.schema([*_SEQUENCE, ("joints", pa.list_(pa.float32()))])
VIEWS_SCHEMA = pa.schema(
    [
        *_SEQUENCE,
        ("view", pa.int32()),
        ("angles_rad", pa.list_(pa.float64(), 3)),
        ("focal", pa.float64()),
        ("depth", pa.float64()),
        ("points", pa.list_(pa.float32())),
    ]
)
SCHEMAS = {
    "clip": CLIP_SCHEMA,
    "pose": POSE_SCHEMA,
    "background": BACKGROUND_SCHEMA,
    "samples": SAMPLES_SCHEMA,
    "render": RENDER_SCHEMA,
    "evaluation": EVALUATION_SCHEMA,
    "joints": JOINTS_SCHEMA,
    "views": VIEWS_SCHEMA,
}


def frames_per_chunk(height: int, width: int) -> int:
    """How many pictures of this size one item may hold: at most 256, at most 64 MB of pixels."""
    return max(1, min(MAX_CHUNK_FRAMES, MAX_CHUNK_BYTES // (height * width * 3)))


def encode_png(image: npt.NDArray[np.uint8]) -> bytes:
    """BGR (H, W, 3) or grey (H, W) uint8 to PNG bytes; the same picture always gives the same bytes."""
    ok, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL])
    if not ok:
        raise TableError(f"a picture of shape {image.shape} could not be written as PNG")
    return data.tobytes()


def decode_png(data: bytes, *, grey: bool = False) -> Image:
    """PNG bytes to BGR (H, W, 3), or (H, W) where `grey`."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR)
    if image is None:
        raise TableError("a table's picture is damaged; remove the table and run its stage again")
    return np.asarray(image, dtype=np.uint8)


def picture_column(images: Iterable[bytes], names: Iterable[str]) -> pa.Array:
    return pa.array([{"bytes": data, "path": name} for data, name in zip(images, names, strict=True)], type=_PICTURE)


def write_table(
    kind: str, path: Path, chunks: Iterable[pa.Table], metadata: Mapping[str, str], *, is_synced: bool = False
) -> None:
    """Write one table, a row group a chunk, under a temporary name until it is whole.

    Args:
        kind: a key of SCHEMAS; recorded in the file, and checked when it is read.
        chunks: in the order in which the rows shall stand; only one is held at a time.
        metadata: the facts of the whole table, text to text.
        is_synced: True = on the disk before it takes its name, so that it is whole after a loss of power too.
    """
    schema = SCHEMAS[kind].with_metadata(_file_metadata(kind, metadata))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with pq.ParquetWriter(
            temporary,
            schema,
            **column_settings(schema),
            write_statistics=[name for name in ("frame",) if name in schema.names],
            store_schema=True,
            data_page_size=2**20,
        ) as writer:
            for chunk in chunks:
                if chunk.num_rows:
                    writer.write_table(chunk.cast(SCHEMAS[kind]), row_group_size=chunk.num_rows)
        if is_synced:
            sync_file(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def column_settings(schema: pa.Schema) -> dict[str, Any]:
    """How the values of each column are encoded and compressed, as arguments of pq.ParquetWriter."""
    leaves = dict(_leaves(schema, ""))
    codecs = {path: "none" if path.endswith(_ENCODED) else "zstd" for path in leaves}
    return {
        "compression": codecs,
        "compression_level": {path: 1 for path, codec in codecs.items() if codec == "zstd"},
        "use_dictionary": False,
        "use_byte_stream_split": [
            path for path, kind in leaves.items() if path.endswith(_IN_LIST) and pa.types.is_floating(kind)
        ],
    }


def _leaves(fields: Iterable[pa.Field], prefix: str) -> Iterator[tuple[str, pa.DataType]]:
    """Parquet's name for each column of values, with their type: frame, image.bytes, joints.list.element."""
    for field in fields:
        if pa.types.is_struct(field.type):
            yield from _leaves(field.type, f"{prefix}{field.name}.")
        elif pa.types.is_list(field.type) or pa.types.is_fixed_size_list(field.type):
            yield f"{prefix}{field.name}{_IN_LIST}", field.type.value_type
        else:
            yield f"{prefix}{field.name}", field.type


def sync_file(path: Path) -> None:
    """Wait until a file, or a folder's names, are on the disk and not in its cache alone; then free the cache of it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _file_metadata(kind: str, metadata: Mapping[str, str]) -> dict[str, str]:
    facts = {"inbetween": json.dumps({"table": kind, **dict(sorted(metadata.items()))})}
    if "image" in SCHEMAS[kind].names:
        features = {field.name: _hf_feature(field.type) for field in SCHEMAS[kind]}
        facts["huggingface"] = json.dumps({"info": {"features": features}})
    return facts


def _hf_feature(kind: pa.DataType) -> dict[str, object]:
    if kind == _PICTURE:
        return {"_type": "Image"}
    if pa.types.is_fixed_size_list(kind):
        return {"feature": _hf_feature(kind.value_type), "length": kind.list_size, "_type": "Sequence"}
    return {"dtype": {"double": "float64", "float": "float32"}.get(str(kind), str(kind)), "_type": "Value"}


class Table:
    """A parquet table of ours, opened for reading row by row; pictures are decoded only when asked for.

    Attributes:
        kind, metadata: what write_table was given.
        num_rows: rows in the file.
    """

    def __init__(self, kind: str, path: Path) -> None:
        """Raises: TableError where the file is missing, unreadable, or a table of another kind."""
        self.path = path
        if not path.is_file():
            raise TableError(f"{path}: there is no such table; run the stage that makes it, or `dvc checkout {path}`")
        try:
            self._file = pq.ParquetFile(path)
        except (pa.ArrowInvalid, OSError) as error:
            reason = str(error).splitlines()[0]
            raise TableError(
                f"{path}: not a readable parquet file ({reason}); remove it, run its stage again"
            ) from error
        schema = self._file.schema_arrow
        facts = json.loads((schema.metadata or {}).get(b"inbetween", b"{}"))
        found = facts.pop("table", None)
        self.kind = kind
        if found != kind or not schema.remove_metadata().equals(SCHEMAS[kind]):
            raise TableError(f"{path}: holds {found or 'no table of ours'}, where a {kind} table is needed")
        self.metadata: dict[str, str] = facts
        self.num_rows = self._file.metadata.num_rows
        ends = np.cumsum([self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)])
        self._group_starts = np.concatenate([[0], ends])
        self._cached_group: tuple[int, str, pa.ChunkedArray] | None = None

    def column(self, name: str) -> npt.NDArray[np.generic]:
        """One column of plain values, whole, as NumPy; (num_rows, n) for lists of fixed size."""
        values = self._file.read([name])[name].combine_chunks()
        if pa.types.is_fixed_size_list(values.type):
            flat: npt.NDArray[np.generic] = values.flatten().to_numpy(zero_copy_only=False)
            return flat.reshape(len(values), -1)
        plain: npt.NDArray[np.generic] = values.to_numpy(zero_copy_only=False)
        return plain

    @property
    def frames(self) -> npt.NDArray[np.int32]:
        return self.column("frame").astype(np.int32)

    def read_cell(self, name: str, row: int) -> object:
        """One cell as a Python value; consecutive rows of a row group are read from disk once."""
        group = int(np.searchsorted(self._group_starts, row, side="right")) - 1
        if self._cached_group is None or self._cached_group[:2] != (group, name):
            self._cached_group = None  # free the old group before the new one is read
            self._cached_group = (group, name, self._file.read_row_group(group, [name])[name])
        return self._cached_group[2][row - int(self._group_starts[group])].as_py()

    def read_picture(self, row: int) -> bytes:
        """The PNG bytes of the `image` column."""
        cell = self.read_cell("image", row)
        assert isinstance(cell, dict)
        data = cell["bytes"]
        assert isinstance(data, bytes)
        return data

    def read_image(self, row: int) -> Image:
        return decode_png(self.read_picture(row))

    def read_chunk(self, start: int, stop: int) -> pa.Table:
        """Rows start..stop-1, all columns."""
        groups = range(
            int(np.searchsorted(self._group_starts, start, side="right")) - 1,
            int(np.searchsorted(self._group_starts, stop, side="left")),
        )
        table = self._file.read_row_groups(list(groups))
        return table.slice(start - int(self._group_starts[groups.start]), stop - start)

    @property
    def group_rows(self) -> list[int]:
        """Rows of each row group."""
        return [int(rows) for rows in np.diff(self._group_starts)]

    def group_values(self, name: str) -> list[int]:
        """Values in the lists of a column, row group by row group; from the file's footer, without reading data."""
        column = next(
            i for i in range(len(self._file.schema)) if self._file.schema.column(i).path.split(".")[0] == name
        )
        facts = self._file.metadata
        return [facts.row_group(group).column(column).num_values for group in range(facts.num_row_groups)]

    def read_group(self, group: int, columns: Sequence[str] | None = None) -> pa.Table:
        """One row group; None = all columns. Raises: TableError where its bytes are damaged."""
        try:
            return self._file.read_row_group(group, columns)
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise TableError(
                f"{self.path}: row group {group} is damaged ({reason}); remove the file, run its stage again"
            ) from error

    def close(self) -> None:
        self._file.close()


def read_poses(table: Table, which: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """One pass of a pose table: its row numbers, and (rows, 19, 3) joints in px.

    Raises: TableError where the table has no such pass.
    """
    rows = np.flatnonzero(table.column("pass") == which)
    if not len(rows):
        raise TableError(f"{table.path}: has no pass {which!r}; add its key step to the batch, and run pose again")
    return rows, table.column("joints")[rows].reshape(-1, NUM_JOINTS, 3).astype(np.float64)


def hash_rows(table: Table, rows: Sequence[int], columns: Sequence[str]) -> str:
    """sha256 of the given cells and of the table's facts: what an item made from these rows depends on."""
    digest = hashlib.sha256(json.dumps(table.metadata, sort_keys=True).encode())
    for name in columns:
        for row in rows:
            cell = table.read_cell(name, row)
            data = cell["bytes"] if isinstance(cell, dict) else cell
            raw = data if isinstance(data, bytes) else json.dumps(data).encode()
            digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()


def list_tables(folder: Path) -> list[Path]:
    """The tables of a folder, in the order of their names. Raises: TableError where there is none."""
    paths = sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))
    if not paths:
        raise TableError(f"{folder}: holds no table; run the stage that makes it, or `dvc checkout {folder}`")
    return paths


def read_facts(kind: str, path: Path) -> dict[str, str]:
    """The metadata of one table."""
    return Table(kind, path).metadata


_SKIPPED = "skipped.json"  # beside the clips, only where a video was skipped


def write_skipped(folder: Path, reasons: Mapping[str, str]) -> None:
    """Leave beside a folder's tables which clips are not there, and why."""
    (folder / _SKIPPED).write_text(json.dumps(dict(reasons), indent=1, sort_keys=True) + "\n")


def read_skipped(folder: Path) -> dict[str, str]:
    """Clip -> reason, of the clips that are not there because their video was skipped."""
    path = folder / _SKIPPED
    if not path.is_file():
        return {}
    reasons: dict[str, str] = json.loads(path.read_text())
    return reasons
