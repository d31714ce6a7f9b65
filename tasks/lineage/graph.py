"""Who made what from what: the entries of dvc.lock, joined by path and md5, down to the files of a folder.

An entry says what a stage read and wrote. A path that was read is joined to the entry that wrote these very bytes: in
the same revision, else in another one; a folder that several stages fill is joined where its md5 is that of their
outputs put together. Where nothing fits, the answer says so instead of guessing.
"""

import re
from array import array
from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

from tasks.lineage.contents import Content
from tasks.lineage.index import LICENCES, LOCK, RAW, Index, Revision
from tasks.lineage.joining import Member, is_inside, is_made
from tasks.lineage.lock import Entry, FileRef
from tasks.lineage.runs import RUNS_FILE, Run

CATALOGUE = "catalog/"
RAW_DATA = "data/raw/"
PROVENANCE = "provenance.json"
_BATCH = re.compile(r"(?:catalog|data)/([^/]+)/(?:clips|videos|poses)")


def is_code(path: str) -> bool:
    return not is_made(path) and not path.startswith(CATALOGUE)


class Artefact(NamedTuple):
    """What a path that a stage read is.

    out: the output or raw data (its whole).  entry: the entry that made it; None = raw data, nobody's output.
    below: the part of it that is meant; "" = all.
    """

    out: FileRef
    entry: int | None
    below: str = ""


class Folder(NamedTuple):
    """What is in an output.

    clips: (batch, clip) -> its files.  motions: file -> the numbers of its sequences, where it is a table of them.
    provenance: of a checkpoint.  by_name: files taken for a clip's by their names, as their facts could not be read.
    """

    members: list[Member]
    clips: dict[tuple[str, str], list[Member]]
    motions: dict[str, "array[int]"]
    provenance: Member | None
    by_name: list[Member]


class State:
    """A revision, or the work tree: its entries, raw data and catalogues."""

    def __init__(self, index: Index, revision: Revision) -> None:
        self.index, self.revision = index, revision
        self.notes: list[str] = []
        self.ids: dict[str, int] = {}
        self.entries: dict[str, Entry] = {}
        self.outs: dict[str, tuple[str, FileRef]] = {}
        self.raw: list[FileRef] = []
        if lock := revision.files.get(LOCK):
            ids, problem = index.lock_entries(lock)
            if problem:
                self.notes.append(f"{revision.name}: {problem}; what its stages made stays open")
            for id_, entry in index.entries(ids).items():
                self.ids[entry.stage], self.entries[entry.stage] = id_, entry
            self.outs = {out.path: (entry.stage, out) for entry in self.entries.values() for out in entry.outs}
        else:
            self.notes.append(f"{revision.name}: has no {LOCK}: nothing was made yet")
        if raw := revision.files.get(RAW):
            self.raw, problem = index.raw_outs(raw)
            if problem:
                self.notes.append(f"{revision.name}: {problem}; which raw data there was stays open")
        if (record := revision.files.get(RUNS_FILE)) and (bad := index.bad_record_lines(record)):
            self.notes.append(f"{revision.name}: {RUNS_FILE} line {bad[0]} is no line of the record; mend or drop it")
        self._licences = self._read_licences()

    @cached_property
    def catalogues(self) -> dict[str, dict[str, list[dict[str, str]]]]:
        """Batch -> "videos" and "clips" -> rows."""
        found: dict[str, dict[str, list[dict[str, str]]]] = {}
        for path, id_ in self.revision.files.items():
            if not path.startswith(CATALOGUE) or path.count("/") != 2:
                continue
            _, batch, name = path.split("/")
            catalogue = self.index.catalogue(id_=id_)
            if catalogue is None or catalogue.problem:
                self.notes.append(
                    f"{self.revision.name}: {path}: {catalogue.problem if catalogue else 'cannot be read'}"
                )
            rows = catalogue.rows if catalogue else []
            found.setdefault(batch, {"videos": [], "clips": []})[name.removesuffix(".csv")] = rows
        return found

    def _read_licences(self) -> dict[str, str]:
        """Path of raw data -> its licence, by lineage/licences.csv."""
        id_ = self.revision.files.get(LICENCES)
        catalogue = self.index.catalogue(id_=id_) if id_ else None
        rows = catalogue.rows if catalogue else []
        problem = catalogue.problem if catalogue else ""
        if rows and not {"path", "licence"} <= rows[0].keys():
            problem = "its first row must name the columns path,licence"
        if problem:
            self.notes.append(f"{self.revision.name}: {LICENCES}: {problem}; licences of given data stay open")
        return {row["path"].rstrip("/"): row["licence"] for row in rows if row.get("path") and row.get("licence")}

    def licences_of(self, path: str) -> list[str]:
        """What is noted for a path of raw data or the nearest folder above it, and for what is inside it.

        "" = nothing is noted for the rest of it.
        """
        above = [name for name in self._licences if is_inside(path, name)]
        found = {self._licences[max(above, key=len)]} if above else set()
        inside = {licence for name, licence in self._licences.items() if is_inside(name, path)}
        return sorted(found | inside | (set() if found or not inside else {""}))


class Graph:
    """All entries of the revisions that can be reached."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self._folders: dict[tuple[str, str], Folder | None] = {}
        self._provenances: dict[tuple[str, str], tuple[Member | None, Content | None]] = {}

    @cached_property
    def locks(self) -> dict[str, list[int]]:
        """The git id of each different dvc.lock -> the ids of its entries, oldest revision first."""
        return self.index.reachable_locks()

    @cached_property
    def entries(self) -> dict[int, Entry]:
        return self.index.entries(sorted({entry for entries in self.locks.values() for entry in entries}))

    def entry(self, id_: int) -> Entry:
        """One of them, without reading the others."""
        return self.index.entries([id_])[id_]

    @cached_property
    def makers(self) -> dict[tuple[str, str], list[int]]:
        """(path, md5) of an output -> the entries that made it, oldest first."""
        found: dict[tuple[str, str], list[int]] = {}
        for id_, entry in self.entries.items():
            for out in entry.outs:
                found.setdefault((out.path, out.md5), []).append(id_)
        return found

    def artefacts(self, state: State, dep: FileRef) -> tuple[list[Artefact], str]:
        """What a path read by a stage is, and what stays open about it ("" = nothing)."""
        joined = self.index.joined(dep.path, dep.md5)
        # What is joined to the byte needs no look at the other revisions' entries.
        is_sure = joined is not None and not joined.problem and dep.path not in state.outs
        if not is_sure and (maker := self._maker(state, dep.path, dep.md5)):
            return [Artefact(dep, maker)], ""
        if joined is None:
            return [], f"{dep.path} with md5 {dep.md5[:8]}: where it comes from stays open"
        parts = [
            Artefact(FileRef(path, md5), self._maker(state, path, md5), below) for path, md5, below in joined.parts
        ]
        return parts, joined.problem

    def _maker(self, state: State, path: str, md5: str) -> int | None:
        """The entry that made these bytes: this revision's where it did, else the newest that did."""
        if (found := state.outs.get(path)) and found[1].md5 == md5:
            return state.ids[found[0]]
        if path.startswith(RAW_DATA):
            return None
        return self.makers.get((path, md5), [None])[-1]

    def folder(self, out: FileRef, batch: str) -> Folder | None:
        """What is in an output folder; None where no place has its list. batch: of clips whose table does not tell."""
        key = (out.md5, batch)
        if key not in self._folders:
            self._folders[key] = self._read_folder(out, batch)
        return self._folders[key]

    def _read_folder(self, out: FileRef, batch: str) -> Folder | None:
        members = self.index.members(out.md5)
        if members is None:
            return None
        kinds = self.index.kinds(member.md5 for member in members if member.name.endswith(".parquet"))
        folder = Folder(members, {}, {}, None, [])
        names: dict[str, tuple[str, str]] = {}
        for member in members:
            name = member.name.removesuffix(".parquet")
            if name == member.name:
                continue
            kind, own_batch, clip = kinds.get(member.md5, ("", None, None))
            if kind == "motions":
                folder.motions[member.name] = self.index.sequence_ids(member.md5)
            elif clip is not None:
                names[name] = (own_batch or batch, clip)
            elif "/" not in name and kind != "table":
                folder.by_name.append(member)
                names[name] = (batch, name)
        if folder.motions or out.path.startswith((RAW_DATA, "data/joints/", "data/views/")):
            names = {}
        for member in members:  # a film stands beside its table
            if held := names.get(member.name.rpartition(".")[0]):
                folder.clips.setdefault(held, []).append(member)
        provenance = next((member for member in members if member.name == PROVENANCE), None)
        return folder._replace(provenance=provenance)

    def provenance(self, md5: str, below: str = "") -> tuple[Member | None, Content | None]:
        """A checkpoint folder's provenance.json, in an output or in a part of raw data, and its facts."""
        key = (md5, below)
        if key not in self._provenances:
            self._provenances[key] = self._find_provenance(md5, below)
        return self._provenances[key]

    def _find_provenance(self, md5: str, below: str) -> tuple[Member | None, Content | None]:
        name = f"{below}/{PROVENANCE}" if below else PROVENANCE
        member = next((member for member in self.index.members_below(md5, name) or [] if member.name == name), None)
        return member, self.index.content(member.md5) if member else None

    def runs_of(self, entries: Iterable[Entry]) -> dict[str, Run]:
        """Stage -> the line of the record for its outputs: the last that ran, else the last restored."""
        wanted = {entry.stage: {out.path: out.md5 for out in entry.outs} for entry in entries}
        found: dict[str, Run] = {}
        for run in self.index.runs(wanted):
            if run.outs == wanted[run.stage] and (run.event == "ran" or run.stage not in found):
                found[run.stage] = run
        return found


def batch_of(entry: Entry) -> str:
    """The batch whose clips a stage reads; "" = none, or several."""
    batches = {match[1] for dep in entry.deps if (match := _BATCH.match(dep.path))}
    return batches.pop() if len(batches) == 1 else ""
