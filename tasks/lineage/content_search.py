"""A search by content: files and encoded pictures by their hashes, wherever they stand and whatever they are called.

Looked into are whole files, the cells of parquet tables, and PNG pictures inside any other file, plain or as base64.
A picture that was encoded again is another: what was made from a video is known by the record, not by this search.
"""

import base64
import hashlib
import mmap
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_PNG_BASE64 = re.compile(rb"iVBORw0KGgo[A-Za-z0-9+/]+={0,2}")
_PARQUET = b"PAR1"


@dataclass
class Fingerprints:
    """files: md5 of whole files.  pictures: SHA-256 of encoded ones; not of those of one colour, which anything has."""

    files: set[str] = field(default_factory=set)
    pictures: set[str] = field(default_factory=set)

    def to_json(self) -> dict[str, list[str]]:
        return {"files": sorted(self.files), "pictures": sorted(self.pictures)}

    @classmethod
    def from_json(cls, content: dict[str, list[str]]) -> "Fingerprints":
        return cls(set(content["files"]), set(content["pictures"]))


class Hit(NamedTuple):
    """A file in which something was found. what: "the whole file", or how many pictures."""

    path: Path
    what: str


def take_fingerprints(paths: Iterable[Path]) -> Fingerprints:
    """Of files that are to be gone; those that are not there are left out."""
    found = Fingerprints()
    for path in paths:
        if path.is_file():
            found.files.add(_hash_file(path))
            found.pictures.update(_digest(data) for data in _pictures(path) if not _is_plain(data))
    return found


def search_content(
    folders: Iterable[Path],
    wanted: Fingerprints,
    threads: int,
    skip: Callable[[Path], bool] = lambda path: False,
    on_file: Callable[[int], None] = lambda size: None,
) -> list[Hit]:
    """Every file below these folders that holds what is wanted; links to one file are read once.

    Args: skip: True = a folder or file that is not looked into.  on_file: told each file's bytes when it is done.
    """
    paths = list(_walk(folders, skip))

    def one(path: Path) -> Hit | None:
        try:
            hit = _look_into(path, wanted)
            on_file(path.stat().st_size)
        except FileNotFoundError:
            return None
        return hit

    with ThreadPoolExecutor(threads) as pool:
        return [hit for hit in pool.map(one, paths) if hit]


def count_bytes(folders: Iterable[Path], skip: Callable[[Path], bool] = lambda path: False) -> int:
    return sum(path.stat().st_size for path in _walk(folders, skip))


def _walk(folders: Iterable[Path], skip: Callable[[Path], bool]) -> Iterator[Path]:
    seen: set[tuple[int, int]] = set()
    for top in folders:
        for folder, below, names in os.walk(top):
            below[:] = [name for name in sorted(below) if not skip(Path(folder, name))]
            for name in sorted(names):
                path = Path(folder, name)
                if skip(path) or not path.is_file():
                    continue
                status = path.stat()
                if (key := (status.st_dev, status.st_ino)) not in seen:
                    seen.add(key)
                    yield path


def _look_into(path: Path, wanted: Fingerprints) -> Hit | None:
    if not path.stat().st_size:
        return None
    if _hash_file(path) in wanted.files:
        return Hit(path, "the whole file")
    number = sum(_digest(data) in wanted.pictures for data in _pictures(path)) if wanted.pictures else 0
    return Hit(path, f"{number} pictures") if number else None


def _pictures(path: Path) -> Iterator[bytes]:
    """The encoded pictures in a file."""
    with path.open("rb") as file:
        start = file.read(4)
    if start == _PARQUET:
        import pyarrow as pa

        try:
            yield from _cells(path)
        except (pa.ArrowException, OSError):
            pass  # a damaged table: its bytes are looked through below
        else:
            return
    if not path.stat().st_size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(_PNG_START)
        while at >= 0:
            end = data.find(_PNG_END, at)
            if end < 0:
                break
            yield data[at : end + len(_PNG_END)]
            at = data.find(_PNG_START, end)
        for match in _PNG_BASE64.finditer(data):
            text = match[0].rstrip(b"=")
            yield base64.b64decode(text + b"=" * (-len(text) % 4))


def _cells(path: Path) -> Iterator[bytes]:
    """Every cell of bytes of a parquet table, those in structs as well, row group by row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as table:
        schema = table.schema_arrow
        names = [
            item.name
            for item in schema
            if pa.types.is_binary(item.type)
            or (pa.types.is_struct(item.type) and item.type.get_field_index("bytes") >= 0)
        ]
        for batch in table.iter_batches(batch_size=64, columns=names) if names else ():
            for column in batch.columns:
                cells: Any = column.field("bytes") if pa.types.is_struct(column.type) else column
                yield from (cell for cell in cells.to_pylist() if isinstance(cell, bytes) and cell)


def _is_plain(data: bytes) -> bool:
    """Whether a picture has one colour, as an empty mask does; what is no picture has not."""
    import cv2
    import numpy as np

    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return image is not None and bool((image == image.reshape(-1, *image.shape[2:])[0]).all())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
