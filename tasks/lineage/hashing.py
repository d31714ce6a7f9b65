"""MD5 of many files at the disk's speed: in threads, each inode once, and known again after the process was killed."""

import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple

_SMALL = 1 << 20  # read at once
_COMMIT_S = 0.5
_SCHEMA = """
CREATE TABLE IF NOT EXISTS hashed (
    path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, inode INTEGER, md5 TEXT, at REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS run (begun REAL, ended REAL);
"""


class State:
    """Which files a run that was cut off has hashed. A run that ended well leaves nothing for the next to rely on:
    a byte that changes by itself changes neither a file's time nor its size.
    """

    def __init__(self, path: Path, *, is_fresh: bool = False) -> None:
        """is_fresh: what an earlier run has hashed is not used."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._open(path)
        except sqlite3.DatabaseError:
            path.unlink()
            self._open(path)
        last = self._db.execute("SELECT begun, ended FROM run").fetchone()
        self.begun: float | None = None  # of the run that is gone on with
        if last and last[1] is None and not is_fresh:
            self.begun = last[0]
        else:
            self._db.executescript("DELETE FROM hashed; DELETE FROM run;")
            self._db.execute("INSERT INTO run VALUES (?, NULL)", (time.time(),))
            self._db.commit()
        self._known = {
            row[0]: row[1:] for row in self._db.execute("SELECT path, size, mtime_ns, inode, md5 FROM hashed")
        }
        self._lock, self._last = threading.Lock(), time.monotonic()
        self._rows: list[tuple[str, int, int, int, str, float]] = []

    def _open(self, path: Path) -> None:
        self._db = sqlite3.connect(path, timeout=60, check_same_thread=False)
        # kill -9 loses nothing that is committed; a crash of the machine may, and costs only time.
        self._db.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; {_SCHEMA}")

    def find(self, path: str, status: os.stat_result) -> str | None:
        known = self._known.get(path)
        if known and known[:3] == (status.st_size, status.st_mtime_ns, status.st_ino):
            return str(known[3])
        return None

    def keep(self, path: str, status: os.stat_result, md5: str) -> None:
        with self._lock:
            self._rows.append((path, status.st_size, status.st_mtime_ns, status.st_ino, md5, time.time()))
            if time.monotonic() - self._last > _COMMIT_S:
                self._flush()

    def _flush(self) -> None:
        self._db.executemany("INSERT OR REPLACE INTO hashed VALUES (?, ?, ?, ?, ?, ?)", self._rows)
        self._db.commit()
        self._rows, self._last = [], time.monotonic()

    def end(self) -> None:
        """The run is done: the next hashes all again."""
        self._db.execute("UPDATE run SET ended = ?", (time.time(),))
        self._flush()

    def close(self) -> None:
        with self._lock:
            self._flush()
            self._db.close()


class Hashed(NamedTuple):
    """md5: None where the file could not be read; then `problem` says why."""

    md5: str | None
    size: int
    problem: str = ""


def hash_paths(
    paths: Sequence[str],
    state: State,
    threads: int,
    on_bytes: Callable[[int, bool], None] = lambda size, is_known: None,
) -> dict[str, Hashed]:
    """MD5 of files. Files of one inode (hard links), and what symbolic links show, are read once.

    Args: on_bytes: told each file's size, and whether an earlier run or another name had hashed it.
    """
    found: dict[str, Hashed] = {}
    names: dict[tuple[int, int], list[str]] = {}
    statuses: dict[tuple[int, int], os.stat_result] = {}
    for path in paths:
        try:
            status = os.stat(path)  # noqa: PTH116 ten thousands of them
        except OSError as error:
            found[path] = Hashed(None, 0, error.strerror or str(error))
            continue
        key = (status.st_dev, status.st_ino)
        names.setdefault(key, []).append(path)
        statuses[key] = status

    def one(key: tuple[int, int]) -> None:
        path, status = names[key][0], statuses[key]
        md5 = state.find(path, status)
        is_known = md5 is not None
        try:
            if md5 is None:
                md5 = hash_file(path, status.st_size)
                state.keep(path, status, md5)
            result = Hashed(md5, status.st_size)
        except OSError as error:
            result = Hashed(None, status.st_size, error.strerror or str(error))
        for name in names[key]:
            found[name] = result
        on_bytes(status.st_size, is_known)
        if len(names[key]) > 1:
            on_bytes(status.st_size * (len(names[key]) - 1), True)

    def run(keys: Sequence[tuple[int, int]]) -> None:
        for key in keys:
            one(key)

    # A task a small file costs more than its hash: a task is a run of files.
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(run, _runs(list(names), statuses)):
            pass
    return found


def _runs(
    keys: Sequence[tuple[int, int]], statuses: dict[tuple[int, int], os.stat_result]
) -> Iterable[list[tuple[int, int]]]:
    run: list[tuple[int, int]] = []
    size = 0
    for key in keys:
        run.append(key)
        size += statuses[key].st_size
        if size > 4 * _SMALL or len(run) >= 64:
            yield run
            run, size = [], 0
    if run:
        yield run


def hash_file(path: str, size: int) -> str:
    """Raises: OSError."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        if size <= _SMALL:
            return hashlib.md5(file.read(), usedforsecurity=False).hexdigest()
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def hash_stream(file: BinaryIO) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    while block := file.read(_SMALL):
        digest.update(block)
    return digest.hexdigest()
