"""Bring back a path as it stood in a revision: every file that a place still has, and which ones were withdrawn."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tasks.lineage.errors import LineageError
from tasks.lineage.hashing import hash_file
from tasks.lineage.references import Member, Output, Revision, Withdrawal, read_folder
from tasks.lineage.stores import Store, copy_checked


class Wanted(NamedTuple):
    """A file to be brought back. path: in the project."""

    path: str
    md5: str


@dataclass
class Restored:
    """restored: path -> the place its bytes came from, "" = they were there.  kept: files that stood in the way, now
    below `replaced`.  withdrawn: on purpose.  missing: no place has them.
    """

    revision: str
    path: str
    restored: dict[str, str] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    in_git: list[str] = field(default_factory=list)


def find_wanted(revision: Revision, path: str, stores: Sequence[Store]) -> tuple[list[Wanted], list[str], list[str]]:
    """The files at or below a path; what of it is git's; and the folders whose list is in no place.

    Raises: LineageError with the paths there are where the revision has none of this name.
    """
    path = path.removeprefix("./").rstrip("/")
    wanted: list[Wanted] = []
    in_git: list[str] = []
    unknown: list[str] = []
    for output in revision.outputs:
        is_above = output.path == path or output.path.startswith(f"{path}/") or path in ("", ".")
        if not is_above and not path.startswith(f"{output.path}/"):
            continue
        if not output.is_cached:
            in_git.append(output.path)
        elif not output.is_folder:
            wanted.append(Wanted(output.path, output.md5))
        elif (members := _read_list(output, stores)) is None:
            unknown.append(output.path)
        else:
            files = [Wanted(f"{output.path}/{member.name}", member.md5) for member in members]
            wanted += [file for file in files if is_above or file.path == path or file.path.startswith(f"{path}/")]
    if not (wanted or in_git or unknown):
        listed = ", ".join(sorted({output.path for output in revision.outputs})[:12])
        raise LineageError(
            f"{path}: DVC tracks nothing of this name at {revision.name[:9]}; there is {listed or 'nothing'}"
        )
    return wanted, in_git, unknown


def _read_list(output: Output, stores: Sequence[Store]) -> list[Member] | None:
    for store in stores:
        try:
            with store.open(output.md5) as file:
                if (members := read_folder(file.read(), output.md5)) is not None:
                    return members
        except OSError:
            continue
    return None


def restore_files(
    wanted: Sequence[Wanted],
    stores: Sequence[Store],
    withdrawn: Mapping[str, Withdrawal],
    target: Callable[[str], Path],
    keep: Callable[[Path], None],
    threads: int,
    answer: Restored,
    on_file: Callable[[], None] = lambda: None,
) -> None:
    """Copy what a place has, each file checked on its way, the first good copy taken.

    Args:
        target: path in the project -> where to write it.
        keep: called with a file of other bytes that stands in the way; it moves it elsewhere.
    """

    def one(file: Wanted) -> None:
        path = target(file.path)
        try:
            if file.md5 in withdrawn:
                answer.withdrawn.append(file.path)
                return
            if path.is_file() and hash_file(str(path), path.stat().st_size) == file.md5:
                answer.restored[file.path] = ""
                return
            fresh = path.with_name(f".{path.name}.restored")
            for store in stores:
                if _has(store, file.md5) and copy_checked(_opener(store, file.md5), fresh, file.md5):
                    if path.exists() or path.is_symlink():
                        keep(path)
                        answer.kept.append(file.path)
                    fresh.replace(path)
                    answer.restored[file.path] = store.name
                    return
            answer.missing.append(file.path)
        finally:
            on_file()

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(one, wanted):
            pass
    for rows in (answer.kept, answer.withdrawn, answer.missing):
        rows.sort()


def _opener(store: Store, md5: str) -> Callable[[], BinaryIO]:
    return lambda: store.open(md5)


def _has(store: Store, md5: str) -> bool:
    try:
        store.open(md5).close()
    except OSError:
        return False
    return True


def list_others(folder: Path, wanted: Sequence[Path]) -> list[Path]:
    """Files below a folder that are none of these."""
    known = {os.path.normpath(path) for path in wanted}
    paths = (Path(top, name) for top, _, names in os.walk(folder) for name in names)
    return sorted(path for path in paths if os.path.normpath(path) not in known)
