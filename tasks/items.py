"""Items: the unit of incremental work inside a stage.

An item is a bounded chunk of a clip, video or sequence. Its key is the hash of all that its output depends on: input
bytes, the parameters it reads, the stage's code, its tools' versions. Its output is an Arrow table, kept in the item
store under that key, so that a killed run never does an item twice. When all items of a clip are there, its finished
files take their place, under a key of their own, so that a clip that did not change costs a link. The store only
shortens a run that DVC decided on; it may be deleted at any time.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

_SEALS = ".seals.json"  # beside an output's files in the store

# A group of items in, their tables out as (index into the group, table), in any order.
Work = Callable[[Sequence["Item"]], Iterator[tuple[int, pa.Table]]]


@dataclass(frozen=True)
class Item:
    """One bounded piece of work.

    name: what a person calls it: "kick_front 0-91".  key: see item_key.  args: what the work function needs; picklable.
    group: items of one group are done by one call (one decode of a video, say); "" = any company will do.
    """

    name: str
    key: str
    args: Any
    group: str = ""


class GroupRecord(NamedTuple):
    """What comes back from a group: small, whatever the items weigh."""

    num_items: int
    num_bytes: int


def item_key(*parts: object) -> str:
    """sha256 over the parts (JSON types), which name everything that the item's output depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class FileId(NamedTuple):
    """A file as it was last written, whatever its name: hard links of it have the same."""

    inode: int
    size: int
    mtime_ns: int


class Seal(NamedTuple):
    """What a file was when it was written. md5: by which DVC names it."""

    size: int
    mtime_ns: int
    md5: str


def identify(path: Path) -> FileId:
    status = path.stat()
    return FileId(status.st_ino, status.st_size, status.st_mtime_ns)


def md5_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def seal_file(path: Path) -> Seal:
    status = path.stat()
    return Seal(status.st_size, status.st_mtime_ns, md5_file(path))


def is_sealed(path: Path, seal: Seal) -> bool:
    """Whether a file is as it was sealed; it is read only where its time is another. Raises: OSError."""
    status = path.stat()
    if status.st_size != seal.size:
        return False
    return status.st_mtime_ns == seal.mtime_ns or md5_file(path) == seal.md5


@dataclass(frozen=True)
class ItemStore:
    """Finished items by key, one Arrow file each, in a folder that is nobody's output.

    is_fresh: True = what is already there is not used (a rebuild from nothing), only overwritten.
    """

    folder: Path
    is_fresh: bool = False

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.arrow"

    def has(self, key: str) -> bool:
        return not self.is_fresh and self.path(key).is_file()

    def put(self, key: str, table: pa.Table) -> int:
        """Keep one item's table; whole or not at all. Returns its bytes."""
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
            num_bytes = temporary.stat().st_size
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return num_bytes

    def get(self, key: str) -> pa.Table:
        with pa.memory_map(str(self.path(key))) as source:
            return pa.ipc.open_file(source).read_all()

    def drop(self, keys: Iterable[str]) -> None:
        """Forget items that nobody will ask for again."""
        for key in keys:
            self.path(key).unlink(missing_ok=True)

    def output(self, key: str) -> Path:
        """The folder of an output's files."""
        return self.folder / key[:2] / key

    def has_output(self, key: str) -> bool:
        """Whether an output's files are all there as they were written: one that was changed since, through any of its
        links, is not taken for what was computed.
        """
        if self.is_fresh:
            return False
        try:
            return all(is_sealed(self.output(key) / name, seal) for name, seal in self._seals(key).items())
        except (OSError, ValueError):
            return False

    def put_output(self, key: str, write: Callable[[Path], None]) -> None:
        """Keep the files that `write` leaves in the folder it is given; all or none."""
        folder = self.output(key)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{key}.") as temporary:
            made = Path(temporary, key)
            write(made)
            paths = sorted(made.iterdir())
            for path in paths:
                path.chmod(0o444)
            (made / _SEALS).write_text(json.dumps({path.name: seal_file(path) for path in paths}))
            shutil.rmtree(folder, ignore_errors=True)
            made.rename(folder)

    def link_output(self, key: str, folder: Path) -> dict[FileId, str]:
        """Have an output's files in a folder: read-only links where the disk can, copies elsewhere.

        Returns: the md5 of those that are links.
        """
        linked: dict[FileId, str] = {}
        for name, seal in self._seals(key).items():
            path = self.output(key) / name
            try:
                (folder / name).hardlink_to(path)
                linked[identify(path)] = seal.md5
            except OSError:
                shutil.copyfile(path, folder / name)
        return linked

    def _seals(self, key: str) -> dict[str, Seal]:
        """Of an output's files by name. Raises: OSError where there is no such output."""
        content = json.loads((self.output(key) / _SEALS).read_text())
        return {name: Seal(*values) for name, values in content.items()}


def do_group(work: Work, items: Sequence[Item], store: ItemStore) -> GroupRecord:
    """Do a group of items and keep each as soon as it is finished."""
    missing = set(range(len(items)))
    num_bytes = 0
    for index, table in work(items):
        num_bytes += store.put(items[index].key, table)
        missing.discard(index)
    if missing:
        raise RuntimeError(f"{getattr(work, '__name__', work)} gave no output for {items[min(missing)].name}")
    return GroupRecord(len(items), num_bytes)


def each(work: Callable[[Any], pa.Table], items: Sequence[Item]) -> Iterator[tuple[int, pa.Table]]:
    """A Work made of a function of one item's args; use with functools.partial."""
    for index, item in enumerate(items):
        yield index, work(item.args)


def group_items(items: Sequence[Item], num_workers: int, max_groups: int = 200) -> list[list[Item]]:
    """Items in groups: those that name a group together, the others in even, contiguous runs.

    A group is one Prefect or Ray task, so there are at most about 200; with few items each is its own, so that the
    last worker is not left with a long tail.
    """
    named: dict[str, list[Item]] = {}
    free: list[Item] = []
    for item in items:
        named.setdefault(item.group, []).append(item) if item.group else free.append(item)
    num_groups = min(len(free), max_groups, max(16 * num_workers, 1))
    bounds = [round(i * len(free) / num_groups) for i in range(num_groups + 1)] if num_groups else [0]
    runs = [free[a:b] for a, b in pairwise(bounds)]
    return [*named.values(), *runs]
