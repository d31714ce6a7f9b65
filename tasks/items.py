"""Items: the unit of incremental work inside a stage.

An item is a bounded chunk of a clip, video or sequence. Its key is the hash of all that its output depends on: input
bytes, the parameters it reads, the stage's code, its tools' versions. Its output is an Arrow table, kept in the item
store under that key, so that a killed run never does an item twice. When all items of a clip are there, its finished
files take their place, under a key of their own, so that a clip that did not change costs one copy. The store only
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
        return not self.is_fresh and self.output(key).is_dir()

    def put_output(self, key: str, write: Callable[[Path], None]) -> None:
        """Keep the files that `write` leaves in the folder it is given; all or none."""
        folder = self.output(key)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{key}.") as temporary:
            write(Path(temporary, key))
            for path in Path(temporary, key).iterdir():
                path.chmod(0o444)  # what is changed in place must not be taken for what was computed
            shutil.rmtree(folder, ignore_errors=True)
            Path(temporary, key).rename(folder)

    def link_output(self, key: str, folder: Path) -> None:
        """Have an output's files in a folder: read-only links where the disk can, copies elsewhere.

        DVC, when it takes the folder into its cache, lays copies in their place.
        """
        for path in sorted(self.output(key).iterdir()):
            try:
                (folder / path.name).hardlink_to(path)
            except OSError:
                shutil.copyfile(path, folder / path.name)


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
