"""Stores of DVC's objects that can be read, written and cleared: folders here, others in flows/lineage/stores.py."""

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

_PART = re.compile(r"[0-9a-f]{2}")
_REST = re.compile(r"[0-9a-f]{30}(\.dir)?")
BLOCK = 1 << 20


class Found(NamedTuple):
    """A file of a store. md5: None where its name is no object's.  path: None where it is not on this machine."""

    md5: str | None
    name: str
    size: int
    path: Path | None


class Store(Protocol):
    """name: "cache", or the remote's."""

    name: str

    def files(self) -> Iterator[Found]:
        """Raises: LineageError where the store cannot be listed."""

    def open(self, md5: str) -> BinaryIO:
        """Raises: OSError where it is not there."""

    def put(self, md5: str, read: Callable[[], BinaryIO]) -> bool:
        """Keep an object; False, and nothing is changed, where the bytes that are read are not those of its md5."""

    def remove(self, md5: str) -> bool:
        """Remove an object; False where there is none. Raises: OSError."""


class FolderStore:
    """DVC's cache, or a remote that is a folder."""

    def __init__(self, name: str, folder: Path, *, is_read_only: bool = False) -> None:
        """is_read_only: objects are protected from being written in place, as DVC does in its cache."""
        self.name, self.folder, self._is_read_only = name, folder, is_read_only

    def path(self, md5: str) -> Path:
        return self.folder / "files/md5" / md5[:2] / md5[2:]

    def files(self) -> Iterator[Found]:
        top = self.folder / "files/md5"
        if not top.is_dir():
            return
        for part in sorted(os.scandir(top), key=lambda entry: entry.name):
            if not part.is_dir():
                yield Found(None, f"files/md5/{part.name}", part.stat().st_size, Path(part.path))
                continue
            for entry in sorted(os.scandir(part.path), key=lambda entry: entry.name):
                is_object = bool(_PART.fullmatch(part.name) and _REST.fullmatch(entry.name)) and entry.is_file()
                md5 = part.name + entry.name if is_object else None
                yield Found(md5, f"files/md5/{part.name}/{entry.name}", entry.stat().st_size, Path(entry.path))

    def open(self, md5: str) -> BinaryIO:
        return self.path(md5).open("rb")

    def put(self, md5: str, read: Callable[[], BinaryIO]) -> bool:
        return copy_checked(read, self.path(md5), md5, mode=0o444 if self._is_read_only else 0o644)

    def remove(self, md5: str) -> bool:
        # DVC 2 had the same names one folder higher.
        there = [path for path in (self.path(md5), self.folder / md5[:2] / md5[2:]) if path.is_file()]
        for path in there:
            path.unlink()
        return bool(there)


def copy_checked(read: Callable[[], BinaryIO], target: Path, md5: str, *, mode: int = 0o644) -> bool:
    """Have a file of exactly these bytes; False, and the target is left as it is, where the source has others.

    What is hashed is what was written; it takes its name only then, on disk.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.md5(usedforsecurity=False)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as out, read() as source:
            while block := source.read(BLOCK):
                digest.update(block)
                out.write(block)
            out.flush()
            os.fsync(out.fileno())
        if digest.hexdigest() != md5.removesuffix(".dir"):
            return False
        temporary.chmod(mode)
        temporary.replace(target)
        return True
    except OSError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
