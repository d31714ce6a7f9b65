"""An import: somebody else's file or folder as ours, in a folder of its own with a record of where it is from.

It is made in a folder aside, part by part, each whole or not at all; what is there when it goes on after a kill is not
made again. Tables are on the disk before they take their names: that holds after a loss of power too. When all is
there, import.json is written and the folder takes its place in one step.
"""

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.errors import SourceError
from tasks.hdf5_direct import Packed
from tasks.items import hash_file
from tasks.tables import CLIP_SCHEMA, sync_file

RECORD = "import.json"
_STATE = ".state.json"
_BLOCK_BYTES = 2**20
_AHEAD_BYTES = 2**29


class Import:
    """An import under way.

    Args:
        source: a file, or a folder of files.
        staging: where it is made, on the same disk as `target`.
        target: where it will be.
        kind: what it is, for the record.  options: what shapes the result; they are recorded.
    Raises: SourceError where the source is not there, or the target is.
    """

    def __init__(self, source: Path, staging: Path, target: Path, kind: str, options: Mapping[str, Any]) -> None:
        if not source.exists():
            raise SourceError(f"{source}: there is no such file or folder")
        if target.exists():
            raise SourceError(f"{target}: is there already; name another with --name, or remove it first")
        self.folder, self._target, self._source = staging, target, source
        self._facts = {"kind": kind, "file": source.name, "options": dict(options)}
        state = json.loads(json.dumps([*self._facts.values(), str(source.resolve()), _fingerprint(source)]))
        if staging.exists() and _read_state(staging) != state:
            shutil.rmtree(staging)  # of another source, or of this one as it was
        self.is_resumed = staging.exists()
        staging.mkdir(parents=True, exist_ok=True)
        for left in staging.rglob(".*.tmp"):  # what a kill interrupted
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        (staging / _STATE).write_text(json.dumps(state))
        self._hash = _HashThread(source)
        self._hash.start()

    @contextmanager
    def hashing_along(self) -> Iterator[Callable[[int], int]]:
        """While a source is read, keep its hash at most 512 MB ahead, so that what it read is still in the page cache.

        Returns: a function that is to be told how many bytes were read; it says how many are hashed.
        """
        self._hash.limit = _AHEAD_BYTES
        try:
            yield self._hash.follow
        finally:
            self._hash.limit = None
            self._hash.follow(0)

    def finish(self, contents: Mapping[str, Any]) -> None:
        """Write the record and put the folder in its place. contents: what was imported, and what was left out."""
        record = {**self._facts, "size": self._hash.size, "sha256": self._hash.result(), "contents": dict(contents)}
        (self.folder / RECORD).write_text(json.dumps(record, indent=1) + "\n")
        sync_file(self.folder / RECORD)
        (self.folder / _STATE).unlink()
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self.folder.rename(self._target)
        sync_file(self._target.parent)


def _read_state(staging: Path) -> object:
    try:
        return json.loads((staging / _STATE).read_text())
    except (OSError, ValueError):
        return None


def picture_array(pictures: Packed, names: Sequence[str]) -> pa.Array:
    """As tasks.tables.picture_column, a tenth of its time: an import has nothing else to do with its pictures.

    Args: pictures: encoded; less than 2 GB in all.
    """
    buffers = [None, pa.py_buffer(pictures.ends.astype(np.int32)), pa.py_buffer(pictures.data)]
    columns = [pa.Array.from_buffers(pa.binary(), len(names), buffers), pa.array(names, pa.string())]
    return pa.StructArray.from_arrays(columns, fields=list(CLIP_SCHEMA.field("image").type))


def list_files(folder: Path) -> list[Path]:
    """Every file below a folder, in a fixed order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _fingerprint(source: Path) -> list[tuple[str, int, int]]:
    """What tells a source from another one, without reading it: names, sizes, times."""
    files = [source] if source.is_file() else list_files(source)
    facts = [(path, path.stat()) for path in files]
    return [(os.path.relpath(path, source), stat.st_size, stat.st_mtime_ns) for path, stat in facts]


class _HashThread(threading.Thread):
    """The sha256 of a file, or of a folder's names and their sha256s, found meanwhile: hashing frees Python's lock."""

    def __init__(self, source: Path) -> None:
        super().__init__(daemon=True, name="hash-source")
        self._source = source
        files = [source] if source.is_file() else list_files(source)
        self.size = sum(path.stat().st_size for path in files)
        self.limit: int | None = None  # bytes that it may be ahead of whoever reads the same file
        self._num_hashed = self._num_followed = 0
        self._moved = threading.Condition()
        self._sha256: str | None = None
        self._error: Exception | None = None

    def run(self) -> None:
        try:
            if self._source.is_file():
                self._sha256 = self._hash_file()
                return
            digest = hashlib.sha256()
            for path in list_files(self._source):
                digest.update(f"{path.relative_to(self._source).as_posix()}\0{hash_file(path)}\n".encode())
            self._sha256 = digest.hexdigest()
        except Exception as error:  # noqa: BLE001 (raised by the thread that waits for it)
            self._error = error

    def follow(self, num_bytes: int) -> int:
        """So many bytes more were read by others. Returns: how many are hashed."""
        with self._moved:
            self._num_followed += num_bytes
            self._moved.notify_all()
        return self._num_hashed

    def _hash_file(self) -> str:
        """As tasks.items.hash_file, but no further ahead than the limit."""
        digest = hashlib.sha256()
        block = bytearray(_BLOCK_BYTES)
        with self._source.open("rb", buffering=0) as file:
            while count := file.readinto(block):
                digest.update(memoryview(block)[:count])
                self._num_hashed += count
                with self._moved:
                    self._moved.wait_for(self._is_near)
        return digest.hexdigest()

    def _is_near(self) -> bool:
        return self.limit is None or self._num_hashed <= self._num_followed + self.limit

    def result(self) -> str:
        self.join()
        if self._error:
            raise self._error
        assert self._sha256 is not None
        return self._sha256
