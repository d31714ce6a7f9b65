"""Room on the disks that a run writes to. What DVC, Prefect and SQLite say of a full one names neither disk nor remedy
("No possible cache link types", "disk I/O error", a server's error 500), so it is told before and after them.
"""

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from flows.progress import say
from flows.project import MIN_FREE_BYTES, ROOT
from tasks.errors import FULL_DISK

FULL_BYTES = 2**20
AGAIN = "make room, then run it again: what is finished is kept, and nothing half-written is"
SHORT = "DVC may need"  # in the line of tell_if_short


def check_room() -> None:
    """Raises: OSError (ENOSPC) where the project's disk, or that of DVC's cache, has no room for a run to begin."""
    for folder in (ROOT, find_cache()):
        free = free_bytes(folder)
        if free < MIN_FREE_BYTES:
            what = f"{os.strerror(errno.ENOSPC)}: {_shown(free)} free, a run needs {_shown(MIN_FREE_BYTES)} to begin"
            raise OSError(errno.ENOSPC, what, str(folder))


def tell_if_short(label: str, outputs: Iterable[str]) -> None:
    """Say so where a stage's outputs may find no room in DVC's cache, or DVC's copies of them none here.

    Only where the cache is on another disk, so that the two can share no file: and this is no error.
    """
    cache = find_cache()
    if _device(cache) == _device(ROOT):
        return
    need = sum(_size(ROOT / path) for path in outputs)
    for folder in (cache, ROOT):
        free = free_bytes(folder)
        if free < need:
            what = f"{folder}: {_shown(free)} free, and {SHORT} {_shown(need)} to keep the outputs"
            say(f"{label}: {what}; if it fails now, whatever it says, make room, then run it again")


def describe_full_disk(error: BaseException) -> str:
    """The line for an error that comes of a full disk; "" where it does not."""
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        return f"{error}; {AGAIN}"
    full = find_full_disk()
    if isinstance(error, sqlite3.OperationalError):
        if full:
            return f"{full}: {error}; {AGAIN}"
        if "disk is full" in str(error):
            return f"{error}, that of a database of DVC or Prefect, or of lineage's index; {AGAIN}"
    return ""


def remove_cut_module(end: BaseException) -> str:
    """The line for an import that failed at a compiled module which is cut short, and which is removed; "" = it is not.

    Python takes what a full disk left of a module for the whole, in this run and in every later one.

    Args: end: the error, or what was raised because of it.
    """
    error: BaseException | None = end
    while error and not isinstance(error, EOFError):
        error = error.__cause__ or error.__context__
    trace = error.__traceback__ if error else None
    while trace:
        path = trace.tb_frame.f_locals.get("bytecode_path")
        if path and trace.tb_next is None:
            Path(path).unlink(missing_ok=True)
            return f"{path}: this compiled module was cut short, as a full disk leaves it, and is removed; run it again"
        trace = trace.tb_next
    return ""


def find_full_disk() -> Path | None:
    """The first folder that a run writes to whose disk is as good as full."""
    system = Path(os.environ.get("DVC_SITE_CACHE_DIR", "") or "/var/tmp")  # noqa: S108 where DVC keeps its databases
    # Python's own gettempdir tries to write there.
    folders = (ROOT, find_cache(), system, Path(os.environ.get("TMPDIR", "") or "/tmp"))  # noqa: S108
    return next((folder for folder in folders if free_bytes(folder) < FULL_BYTES), None)


def find_cache() -> Path:
    """DVC's cache."""
    from flows.lineage.places import find_places  # here: what it imports is no stage's code

    folder = find_places(ROOT).all[0].folder
    assert folder is not None
    return folder


def free_bytes(folder: Path) -> int:
    """Of the disk that a folder is on, or will be."""
    return shutil.disk_usage(_existing(folder)).free


def _device(folder: Path) -> int:
    return _existing(folder).stat().st_dev


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _shown(size: int) -> str:
    return f"{size / 2**20:.1f} MB"
