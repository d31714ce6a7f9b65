"""The index: what git's revisions and DVC's objects say, each version read once. One SQLite file, disposable.

Git's objects are named by their ids and DVC's by their md5, so nothing in it goes stale: a new revision adds what is
new in it. Which revisions still count is asked of git each time.
"""

import hashlib
import json
from array import array
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from tasks.lineage.catalogues import CatalogueRows
from tasks.lineage.contents import Content, Sequence
from tasks.lineage.database import chunks, make_lookups, open_database
from tasks.lineage.errors import LineageError
from tasks.lineage.git import Git
from tasks.lineage.joining import Joined, Joiner, Member, is_made
from tasks.lineage.lock import Entry, FileRef, load_yaml
from tasks.lineage.motions import Motions
from tasks.lineage.objects import CHECKPOINT, TABLES, ObjectReader
from tasks.lineage.places import Places
from tasks.lineage.revisions import LICENCES, LOCK, RAW, WORK_TREE, Revision, RevisionReader
from tasks.lineage.runs import Run, parse_run

__all__ = ["CHECKPOINT", "LICENCES", "LOCK", "RAW", "TABLES", "WORK_TREE", "Index", "Revision"]

# A file or folder of a name, NAME/ and NAME0: "0" comes after "/".
_BELOW = "SELECT id, name, md5 FROM file WHERE name = ? OR (name > ? AND name < ?) ORDER BY name"
_SEQUENCE = "SELECT subset, subject, sequence, licence, source_sha256"


class Index:
    """See the module. `update` before anything is asked."""

    def __init__(self, path: Path) -> None:
        self.path, self.db = path, open_database(path)
        self.revisions: list[Revision] = []
        self.notes: list[str] = []
        self.missing: dict[str, str] = {}
        self._entries: dict[int, Entry] = {}
        self._members: dict[str, list[Member]] = {}
        self._member_ids: dict[str, set[int]] = {}

    def close(self) -> None:
        self.db.close()

    def update(self, git: Git, places: Places, say: Callable[[str], None] = lambda line: None) -> None:
        """Read what is new in git, in the work tree and among DVC's objects.

        Args: say: told once where there is much to read.
        """
        commits = git.commits()
        known = {row[0]: row[1] for row in self.db.execute("SELECT id, files FROM revision")}
        new = [commit for commit in commits if commit.id not in known]
        if len(new) > 20:
            say(f"lineage: reading {len(new)} revisions into {self.path.name}")
        with self.db:
            objects = ObjectReader(self.db)
            revisions = RevisionReader(self.db, objects.want)
            if new:
                known |= revisions.read_commits(git, new)
            work_tree, note = revisions.read_work_tree(git, commits)
            self.revisions = [work_tree]
            self.revisions += [Revision(*commit, files=json.loads(known[commit.id])) for commit in commits]
            num_read = objects.read(places)
            if new or num_read:
                make_lookups(self.db)
            if num_read:  # what was not known may be now
                self.db.execute("DELETE FROM joined WHERE problem != ''")
                self.db.execute("DELETE FROM joined_lock")
            self._join()
        self.missing = dict(self.db.execute("SELECT md5, path FROM wanted"))
        self.notes += [note] if note else []
        if git.is_shallow():
            self.notes.append(
                "this is a shallow clone: older revisions are not here; `git fetch --unshallow` brings them"
            )
        if not commits:
            self.notes.append("the repository has no commit yet: only the work tree is known")

    # What paths that were read are, where they are not just an output.

    def _join(self) -> None:
        done = {id_ for (id_,) in self.db.execute("SELECT id FROM joined_lock")}
        locks = {id_: entries for id_, entries in self.reachable_locks().items() if id_ not in done}
        if not locks:
            return
        entries = self.entries({entry for ids in self.reachable_locks().values() for entry in ids})
        raw_of: dict[str, dict[str, None]] = {}
        for revision in self.revisions:
            if LOCK in revision.files and RAW in revision.files:
                raw_of.setdefault(revision.files[LOCK], {})[revision.files[RAW]] = None
        joiner = Joiner(self)
        known = {
            (path, md5): not problem for path, md5, problem in self.db.execute("SELECT path, md5, problem FROM joined")
        }
        outs = {(out.path, out.md5) for entry in entries.values() for out in entry.outs}
        rows = {}
        pending = {
            id_: [dep for dep in entry.deps if is_made(dep.path) and (dep.path, dep.md5) not in outs]
            for id_, entry in entries.items()
        }
        for id_, ids in locks.items():
            deps = [dep for entry in ids for dep in pending[entry] if not known.get((dep.path, dep.md5))]
            if not deps:
                continue
            own = {out.path: out.md5 for entry in ids for out in entries[entry].outs}
            raw = [out for raw_id in raw_of.get(id_, {}) for out in self.raw_outs(raw_id)[0]]
            for dep in deps:
                found = rows[dep.path, dep.md5] = joiner.join(dep, own, raw)
                known[dep.path, dep.md5] = not found.problem
        self.db.executemany(
            "INSERT OR REPLACE INTO joined VALUES (?, ?, ?, ?)",
            [(*key, json.dumps(found.parts), found.problem) for key, found in rows.items()],
        )
        self.db.executemany("INSERT INTO joined_lock VALUES (?)", [(id_,) for id_ in locks])

    def joined(self, path: str, md5: str) -> "Joined | None":
        """What a path is that a stage read and that is no output as a whole."""
        row = self.db.execute("SELECT parts, problem FROM joined WHERE path = ? AND md5 = ?", (path, md5)).fetchone()
        return Joined([tuple(part) for part in json.loads(row[0])], row[1]) if row else None

    def reachable_locks(self) -> dict[str, list[int]]:
        """The git id of each different dvc.lock -> the ids of its entries, oldest first, the work tree last."""
        ids = [revision.files[LOCK] for revision in reversed(self.revisions) if LOCK in revision.files]
        return {id_: self.lock_entries(id_)[0] for id_ in dict.fromkeys(ids)}

    # Answers.

    def revision(self, id_: str) -> Revision:
        """Raises: LineageError where no branch, tag or HEAD reaches it."""
        found = next((revision for revision in self.revisions if revision.id == id_), None)
        if found is None:
            raise LineageError(f"--rev {id_}: no branch or tag reaches this revision; tag it first")
        return found

    def lock_entries(self, id_: str) -> tuple[list[int], str]:
        """The ids of a lock's entries, and why there are none."""
        row = self.db.execute("SELECT entries, problem FROM lock WHERE id = ?", (id_,)).fetchone()
        return (array("I", row[0]).tolist(), row[1]) if row else ([], f"{LOCK}: cannot be read")

    def entries(self, ids: Iterable[int]) -> dict[int, Entry]:
        """Id -> entry, in the order of `ids`."""
        wanted = list(ids)
        for chunk in chunks([id_ for id_ in wanted if id_ not in self._entries]):
            marks = ",".join("?" * len(chunk))
            query = f"SELECT id, stage, body, params FROM entry WHERE id IN ({marks})"  # noqa: S608 only marks
            for id_, stage, body, params in self.db.execute(query, chunk):
                self._entries[id_] = Entry.from_json(stage, body, params)
        return {id_: self._entries[id_] for id_ in wanted}

    def raw_outs(self, id_: str) -> tuple[list[FileRef], str]:
        row = self.db.execute("SELECT outs, problem FROM raw WHERE id = ?", (id_,)).fetchone()
        return ([FileRef(*out) for out in json.loads(row[0])], row[1]) if row else ([], "")

    def catalogue(self, *, id_: str = "", md5: str = "") -> CatalogueRows | None:
        """By git's id, or by the md5 that a stage read."""
        column, key = ("id", id_) if id_ else ("md5", md5)
        row = self.db.execute(f"SELECT rows, problem FROM catalogue WHERE {column} = ?", (key,)).fetchone()  # noqa: S608
        return CatalogueRows(json.loads(row[0]), row[1]) if row else None

    def bad_record_lines(self, id_: str) -> list[int]:
        row = self.db.execute("SELECT bad FROM record WHERE id = ?", (id_,)).fetchone()
        return list(json.loads(row[0])) if row else []

    def runs(self, stages: Iterable[str] | None = None) -> list[Run]:
        """The recorded runs, of some stages or all, in the order in which they were read (that of the file)."""
        if stages is None:
            rows = self.db.execute("SELECT line FROM run ORDER BY rowid").fetchall()
        else:
            rows = [
                r for s in stages for r in self.db.execute("SELECT line FROM run WHERE stage = ? ORDER BY rowid", (s,))
            ]
        return [run for (line,) in rows if (run := parse_run(line))]

    def content(self, md5: str) -> Content | None:
        """An object's facts (without members and sequences); None where no place has it."""
        row = self.db.execute("SELECT kind, facts FROM content WHERE md5 = ?", (md5,)).fetchone()
        return Content(row[0], json.loads(row[1])) if row else None

    def kinds(self, md5s: Iterable[str]) -> dict[str, tuple[str, str | None, str | None]]:
        """md5 -> the kind of what stands in it and, of a clip's table, its batch and clip; without reading facts."""
        found = {}
        for chunk in chunks(list(md5s)):
            marks = ",".join("?" * len(chunk))
            query = f"SELECT md5, kind, batch, clip FROM content WHERE md5 IN ({marks})"  # noqa: S608 only marks
            found.update({md5: (kind, batch, clip) for md5, kind, batch, clip in self.db.execute(query, chunk)})
        return found

    def members(self, md5: str) -> list[Member] | None:
        """The files of a folder, in the order of their names; None where no place has its list."""
        if md5 in self._members:
            return self._members[md5]
        row = self.db.execute("SELECT members FROM content WHERE md5 = ? AND kind = 'folder'", (md5,)).fetchone()
        if row is None:
            return None
        ids = array("I", row[0])
        found = {}
        for chunk in chunks(ids.tolist()):
            marks = ",".join("?" * len(chunk))
            query = f"SELECT id, name, md5 FROM file WHERE id IN ({marks})"  # noqa: S608 only marks
            found.update({row[0]: Member(*row) for row in self.db.execute(query, chunk)})
        members = self._members[md5] = [found[id_] for id_ in ids]
        return members

    def members_below(self, md5: str, below: str) -> list[Member] | None:
        """members(), of a file or folder in it alone: without reading the whole of a long list."""
        if not below:
            return self.members(md5)
        ids = self._ids_in(md5)
        if ids is None:
            return None
        rows = self.db.execute(_BELOW, (below, f"{below}/", f"{below}0"))
        return [Member(*row) for row in rows if row[0] in ids]

    def files_below(self, md5: str, below: str) -> dict[str, str] | None:
        """members_below() as path below it -> md5; a file itself has the path ""."""
        if not below:
            members = self.members(md5)
            return None if members is None else {member.name: member.md5 for member in members}
        ids = self._ids_in(md5)
        if ids is None:
            return None
        start = len(below) + 1
        rows = self.db.execute(_BELOW, (below, f"{below}/", f"{below}0"))
        return {name[start:]: file_md5 for id_, name, file_md5 in rows if id_ in ids}

    def _ids_in(self, md5: str) -> set[int] | None:
        """The numbers of a folder's files; None where its list is not known."""
        if md5 not in self._member_ids:
            row = self.db.execute("SELECT members FROM content WHERE md5 = ? AND kind = 'folder'", (md5,)).fetchone()
            if row is None:
                return None
            self._member_ids[md5] = set(array("I", row[0]))
        return self._member_ids[md5]

    @cached_property
    def shapes(self) -> dict[str, str]:
        """The md5 of every folder whose list is known -> TABLES, CHECKPOINT or ""."""
        return dict(self.db.execute("SELECT md5, shape FROM content WHERE kind = 'folder'"))

    def yaml(self, text: str) -> Any:  # noqa: ANN401 any YAML
        """YAML text's content; kept, as a long file takes a second to read."""
        key = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        row = self.db.execute("SELECT content FROM yaml WHERE sha1 = ?", (key,)).fetchone()
        if row is None:
            row = (json.dumps(load_yaml(text), default=str),)
            with self.db:
                self.db.execute("INSERT OR REPLACE INTO yaml VALUES (?, ?)", (key, row[0]))
        return json.loads(row[0])

    def sequence_ids(self, md5: str, *, start: bool = False) -> "array[int]":
        """The motions of a table or checkpoint, as numbers; of what its start was trained on."""
        row = self.db.execute("SELECT members, start FROM content WHERE md5 = ?", (md5,)).fetchone()
        return array("I", row[int(start)] or b"") if row else array("I")

    @cached_property
    def motions(self) -> Motions:
        return Motions(self.db)

    def sequences(self, ids: Iterable[int]) -> list[Sequence]:
        return [Sequence._make(row) for row in self.sequence_rows(ids)]

    def sequence_rows(self, ids: Iterable[int]) -> list[tuple[str, str, str, str, str]]:
        """sequences() as plain rows, of which there may be a hundred thousand."""
        wanted = list(ids)
        total = self.db.execute("SELECT MAX(id) FROM sequence").fetchone()[0] or 0
        if 4 * len(wanted) > total:  # one after the other is faster than by number
            rows = self.db.execute(f"{_SEQUENCE} FROM sequence ORDER BY id").fetchall()
            return [rows[id_ - 1] for id_ in wanted]
        found = {}
        for chunk in chunks(wanted, 30_000):
            marks = ",".join("?" * len(chunk))
            for row in self.db.execute(f"{_SEQUENCE}, id FROM sequence WHERE id IN ({marks})", chunk):
                found[row[5]] = row[:5]
        return [found[id_] for id_ in wanted]

    def find_sequences(self, where: Mapping[str, str]) -> list[tuple[int, Sequence]]:
        """Motions whose columns have these values."""
        test = " AND ".join(f"{column} = ?" for column in where)
        query = f"SELECT id, subset, subject, sequence, licence, source_sha256 FROM sequence WHERE {test}"  # noqa: S608
        return [(row[0], Sequence(*row[1:])) for row in self.db.execute(query, list(where.values()))]

    def contents_with(self, sequences: Iterable[int]) -> dict[str, bool]:
        """The md5 of every table and provenance that names one of them -> whether only its start does."""
        wanted, found = frozenset(sequences), {}
        query = "SELECT md5, members, start FROM content WHERE kind IN ('motions', 'checkpoint')"
        for md5, members, start in self.db.execute(query):
            if not wanted.isdisjoint(array("I", members or b"")):
                found[md5] = False
            elif not wanted.isdisjoint(array("I", start or b"")):
                found[md5] = True
        return found

    def file_ids_named(self, clips: Iterable[str]) -> set[int]:
        """The files that are named after a clip: its tables and films."""
        query = "SELECT id FROM file WHERE name IN (?, ?)"
        return {id_ for clip in clips for (id_,) in self.db.execute(query, (f"{clip}.parquet", f"{clip}.mp4"))}

    def files_in(self, folder: str, md5s: Iterable[str]) -> list[Member]:
        """The files of a folder that have these bytes, without reading the whole of a long list."""
        ids = self._ids_in(folder) or set()
        query = "SELECT id, name, md5 FROM file WHERE md5 = ?"
        return [Member(*row) for md5 in md5s for row in self.db.execute(query, (md5,)) if row[0] in ids]

    def file_ids_of(self, md5s: Iterable[str]) -> set[int]:
        return {id_ for md5 in md5s for (id_,) in self.db.execute("SELECT id FROM file WHERE md5 = ?", (md5,))}

    def folders_with(self, files: set[int]) -> set[str]:
        """The md5 of every folder that has one of these files."""
        query = "SELECT md5, members FROM content WHERE kind = 'folder'"
        return {md5 for md5, members in self.db.execute(query) if not files.isdisjoint(array("I", members))}

    def names_like(self, text: str) -> list[str]:
        """Some names of motions and subjects that begin as `text` does."""
        found: dict[str, None] = {}
        for column in ("sequence", "subject"):
            for low in (text, text.rpartition("/")[2]):
                start = low[: max(3, len(low) // 2)]
                query = f"SELECT DISTINCT {column} FROM sequence WHERE {column} >= ? AND {column} < ? LIMIT 500"  # noqa: S608
                found |= dict.fromkeys(row[0] for row in self.db.execute(query, (start, start + "\U0010ffff")))
        return list(found)
