"""What a path is that a stage read and that is no output as a whole: a part of one, or a folder that several fill.

A folder's md5 is that of its list of files, so either is known to the byte where the lists are there.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from tasks.lineage.lock import FileRef

DATA, METRICS, REPORT = "data/", "metrics/", "report"


class Joined(NamedTuple):
    """parts: (path of an output or raw data, its md5, what of it; "" = all).  problem: why that is not sure."""

    parts: Sequence[tuple[str, str, str]]
    problem: str


class Member(NamedTuple):
    """A file of a folder. id: in the index."""

    id: int
    name: str
    md5: str


class Lists(Protocol):
    """Who knows folders' files: the index."""

    def members(self, md5: str) -> list[Member] | None: ...

    def members_below(self, md5: str, below: str) -> list[Member] | None: ...


def is_made(path: str) -> bool:
    """Whether a path is data, rather than code or a catalogue."""
    return path == REPORT or path.startswith((DATA, METRICS, f"{REPORT}/"))


def is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


class Joiner:
    """Joins one path after the other, in the light of a revision's outputs."""

    def __init__(self, lists: Lists) -> None:
        self._lists = lists
        self._texts: dict[tuple[str, str], str | None] = {}

    def join(self, dep: FileRef, outs: Mapping[str, str], raw: Iterable[FileRef]) -> Joined:
        """Args: outs: path -> md5 of the revision's outputs.  raw: its raw data."""
        for path, md5 in outs.items():
            if dep.path.startswith(f"{path}/"):
                return self._part(dep, path, md5)
        for out in raw:
            if is_inside(dep.path, out.path):
                return self._part(dep, out.path, out.md5)
        inside = {path: md5 for path, md5 in outs.items() if path.startswith(f"{dep.path}/")}
        if inside:
            return self._filled(dep, inside)
        if dep.path in outs:
            return Joined(
                [],
                f"{dep.path} was read with md5 {dep.md5[:8]}, and the lock's output has {outs[dep.path][:8]}; no"
                " revision has the entry that made what was read: what it was made from stays open",
            )
        return Joined(
            [], f"{dep.path} with md5 {dep.md5[:8]} is no output and no raw data: where it comes from stays open"
        )

    def _part(self, dep: FileRef, path: str, md5: str) -> Joined:
        below = dep.path[len(path) + 1 :]
        found = [(path, md5, below)]
        if not below and md5 == dep.md5:
            return Joined(found, "")
        members = self._lists.members_below(md5, below)
        if members is None:
            return Joined(found, f"{dep.path}: taken as part of {path}, whose list of files is in no place")
        if md5_below(members, below) == dep.md5:
            return Joined(found, "")
        return Joined(found, f"{dep.path} was read with md5 {dep.md5[:8]}, which is not what {path} has there")

    def _filled(self, dep: FileRef, inside: Mapping[str, str]) -> Joined:
        parts = [(path, md5, "") for path, md5 in inside.items()]
        texts = []
        for path, md5 in sorted(inside.items(), key=lambda pair: f"{pair[0]}/"):
            text = self._text(path[len(dep.path) + 1 :], md5)
            if text is None:
                return Joined(
                    parts, f"{dep.path}: taken as all outputs in it, but the list of {path}'s files is in no place"
                )
            if text:
                texts.append(text)
        if _md5_of_list(texts) == dep.md5:
            return Joined(parts, "")
        return Joined(parts, f"{dep.path} was read with md5 {dep.md5[:8]}, which is not that of the outputs in it")

    def md5_of(self, path: str, outs: Mapping[str, str]) -> str | None:
        """The md5 of a folder that several outputs fill; "" = none does; None = a list is in no place."""
        inside = sorted((out for out in outs if out.startswith(f"{path}/")), key=lambda out: f"{out}/")
        texts = [self._text(out[len(path) + 1 :], outs[out]) for out in inside]
        known = [text for text in texts if text is not None]
        if len(known) < len(texts):
            return None
        return _md5_of_list(text for text in known if text) if known else ""

    def _text(self, below: str, md5: str) -> str | None:
        """A part's rows in the list of the whole; None where its own list is in no place."""
        if (below, md5) not in self._texts:
            rows: list[tuple[str, str]] | None = [(below, md5)]
            if md5.endswith(".dir"):
                members = self._lists.members(md5)
                rows = None if members is None else [(f"{below}/{member.name}", member.md5) for member in members]
            self._texts[below, md5] = None if rows is None else _rows_text(rows)
        return self._texts[below, md5]


def md5_below(members: Iterable[Member], below: str) -> str:
    """The md5 that DVC gives to a file or folder inside a folder; "" = it is not there."""
    rows = []
    for member in members:
        if member.name == below:
            return member.md5
        if member.name.startswith(f"{below}/"):
            rows.append((member.name[len(below) + 1 :], member.md5))
    return _md5_of_list([_rows_text(rows)]) if rows else ""


def _rows_text(rows: list[tuple[str, str]]) -> str:
    """As DVC writes them: JSON, sorted by path, without the brackets."""
    return json.dumps([{"md5": md5, "relpath": path} for path, md5 in sorted(rows)])[1:-1]


def _md5_of_list(texts: Iterable[str]) -> str:
    return hashlib.md5(f"[{', '.join(texts)}]".encode(), usedforsecurity=False).hexdigest() + ".dir"
