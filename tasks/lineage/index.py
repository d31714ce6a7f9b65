"""The index: what git's revisions and DVC's objects say, each version read once. One SQLite file, disposable.

Git's objects are named by their ids and DVC's by their md5, so nothing in it goes stale: a new revision adds what is
new in it. Which revisions still count is asked of git each time.
"""

import hashlib
import json
import sqlite3
from array import array
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

from tasks.lineage import contents
from tasks.lineage.catalogues import CatalogueRows, parse_catalogue
from tasks.lineage.contents import Content, Sequence
from tasks.lineage.errors import LineageError, LockFileError
from tasks.lineage.git import Commit, Git, Object, Reader, blob_id
from tasks.lineage.joining import Joined, Joiner, Member, is_made
from tasks.lineage.lock import Entry, FileRef, load_yaml, parse_entry, split_lock
from tasks.lineage.places import Places
from tasks.lineage.runs import RUNS_FILE, Run, parse_run

LOCK, RAW = "dvc.lock", "data.dvc"
CATALOGUES = ("videos.csv", "clips.csv")
WORK_TREE = "work tree"
TABLES, CHECKPOINT = "tables", "checkpoint"  # what a folder is, by the names in it

_VERSION = 2
_SCHEMA = """
CREATE TABLE revision (id TEXT PRIMARY KEY, files TEXT NOT NULL);
CREATE TABLE tree (id TEXT PRIMARY KEY, files TEXT NOT NULL);
CREATE TABLE lock (id TEXT PRIMARY KEY, entries BLOB NOT NULL, problem TEXT NOT NULL);
CREATE TABLE entry (id INTEGER PRIMARY KEY, sha1 TEXT NOT NULL UNIQUE, stage TEXT NOT NULL, body TEXT NOT NULL, params TEXT NOT NULL);
CREATE TABLE raw (id TEXT PRIMARY KEY, outs TEXT NOT NULL, problem TEXT NOT NULL);
CREATE TABLE catalogue (id TEXT PRIMARY KEY, md5 TEXT NOT NULL, rows TEXT NOT NULL, problem TEXT NOT NULL);
CREATE TABLE record (id TEXT PRIMARY KEY, bad TEXT NOT NULL);
CREATE TABLE run (line TEXT PRIMARY KEY, stage TEXT NOT NULL);
CREATE TABLE content (md5 TEXT PRIMARY KEY, kind TEXT NOT NULL, facts TEXT NOT NULL, members BLOB, start BLOB,
    shape TEXT NOT NULL DEFAULT '');
CREATE TABLE yaml (sha1 TEXT PRIMARY KEY, content TEXT NOT NULL);
CREATE TABLE wanted (md5 TEXT NOT NULL, name TEXT NOT NULL, path TEXT NOT NULL, PRIMARY KEY (md5, name)) WITHOUT ROWID;
CREATE TABLE file (id INTEGER PRIMARY KEY, name TEXT NOT NULL, md5 TEXT NOT NULL, UNIQUE (name, md5));
CREATE TABLE sequence (id INTEGER PRIMARY KEY, subset TEXT, subject TEXT, sequence TEXT, licence TEXT, source_sha256 TEXT,
    UNIQUE (sequence, subject, subset, source_sha256, licence));
CREATE TABLE joined (path TEXT NOT NULL, md5 TEXT NOT NULL, parts TEXT NOT NULL, problem TEXT NOT NULL, PRIMARY KEY (path, md5));
CREATE TABLE joined_lock (id TEXT PRIMARY KEY);
CREATE INDEX catalogue_md5 ON catalogue (md5);
CREATE INDEX entry_stage ON entry (stage);
CREATE INDEX run_stage ON run (stage);
CREATE INDEX file_md5 ON file (md5);
"""  # noqa: E501


class Revision(NamedTuple):
    """A commit, or the work tree (its id is WORK_TREE). files: path -> git's id of the file's bytes."""

    id: str
    time: int
    author: str
    subject: str
    files: dict[str, str]
    is_dirty: bool = False

    @property
    def name(self) -> str:
        return self.id if self.id == WORK_TREE else self.id[:9]


class Index:
    """See the module. `update` before anything is asked."""

    def __init__(self, path: Path) -> None:
        """Opened, or made anew where it is of another version or damaged."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        try:
            self._open()
        except sqlite3.DatabaseError:
            path.unlink(missing_ok=True)
            self._open()
        self.revisions: list[Revision] = []
        self.notes: list[str] = []
        self.missing: dict[str, str] = {}
        self._members: dict[str, list[Member]] = {}
        self._member_ids: dict[str, set[int]] = {}

    def _open(self) -> None:
        self.db = sqlite3.connect(self.path, timeout=60)
        # Disposable: after a crash it is made again, so nothing waits for the disk.
        self.db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536;")
        if self.db.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
            tables = self.db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            self.db.executescript("".join(f"DROP TABLE IF EXISTS {name};" for (name,) in tables))
            self.db.executescript(f"{_SCHEMA} PRAGMA user_version = {_VERSION};")

    def close(self) -> None:
        self.db.close()

    # What git and the work tree say.

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
            if new:
                known |= self._read_commits(git, new)
            self.revisions = [self._work_tree(git, commits)]
            self.revisions += [Revision(*commit, files=json.loads(known[commit.id])) for commit in commits]
            if self._read_objects(places):  # what was not known may be now
                self.db.execute("DELETE FROM joined WHERE problem != ''")
                self.db.execute("DELETE FROM joined_lock")
            self._join()
        if git.is_shallow():
            self.notes.append(
                "this is a shallow clone: older revisions are not here; `git fetch --unshallow` brings them"
            )
        if not commits:
            self.notes.append("the repository has no commit yet: only the work tree is known")

    def _read_commits(self, git: Git, commits: list[Commit]) -> dict[str, str]:
        found = {}
        with git.reader(contents=False) as names, git.reader() as objects:
            for commit in commits:
                files = {}
                for path in (LOCK, RAW, RUNS_FILE):
                    if (object_ := names.get(f"{commit.id}:./{path}")) and object_.kind == "blob":
                        files[path] = object_.id
                if (tree := names.get(f"{commit.id}:./catalog")) and tree.kind == "tree":
                    files |= self._read_tree(objects, tree.id)
                for path, id_ in files.items():
                    self._read_blob(path, id_, partial(objects.get, id_))
                found[commit.id] = json.dumps(files)
        self.db.executemany("INSERT OR REPLACE INTO revision VALUES (?, ?)", found.items())
        return found

    def _read_tree(self, objects: Reader, id_: str) -> dict[str, str]:
        row = self.db.execute("SELECT files FROM tree WHERE id = ?", (id_,)).fetchone()
        if row:
            return dict(json.loads(row[0]))
        files = {f"catalog/{path}": child for path, child in objects.tree(id_).items() if path.endswith(CATALOGUES)}
        self.db.execute("INSERT INTO tree VALUES (?, ?)", (id_, json.dumps(files)))
        return files

    def _work_tree(self, git: Git, commits: list[Commit]) -> Revision:
        files = {}
        paths = [git.root / name for name in (LOCK, RAW, RUNS_FILE)]
        paths += sorted(path for name in CATALOGUES for path in git.root.glob(f"catalog/*/{name}"))
        for path in paths:
            if path.is_file():
                data, name = path.read_bytes(), path.relative_to(git.root).as_posix()
                files[name] = blob_id(data)
                self._read_blob(name, files[name], partial(Object, files[name], "blob", data))
        head = (git.ask("rev-parse", "--verify", "-q", "HEAD") or "").strip()
        commit = next((commit for commit in commits if commit.id == head), Commit(head, 0, "", ""))
        changed = git.changed_files()
        if changed:
            some = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if changed[3:] else "")
            self.notes.append(f"the work tree differs from HEAD ({some}); what is asked of it is answered as it stands")
        return Revision(WORK_TREE, commit.time, commit.author, commit.subject, files, bool(changed))

    def _read_blob(self, path: str, id_: str, read: Callable[[], Object | None]) -> None:
        table = {LOCK: "lock", RAW: "raw", RUNS_FILE: "record"}.get(path, "catalogue")
        if self.db.execute(f"SELECT 1 FROM {table} WHERE id = ?", (id_,)).fetchone():  # noqa: S608 one of four names
            return
        object_ = read()
        text = object_.data.decode(errors="replace") if object_ else ""
        if table == "lock":
            self._add_lock(id_, text)
        elif table == "raw":
            self._add_raw(id_, text)
        elif table == "record":
            self._add_record(id_, text)
        else:
            rows, problem = parse_catalogue(text)
            md5 = hashlib.md5(object_.data if object_ else b"", usedforsecurity=False).hexdigest()
            self.db.execute("INSERT INTO catalogue VALUES (?, ?, ?, ?)", (id_, md5, json.dumps(rows), problem))

    def _add_lock(self, id_: str, text: str) -> None:
        ids, problem = array("I"), ""
        try:
            for stage, lines in split_lock(text):
                ids.append(self._entry_id(stage, lines))
        except LockFileError as error:
            problem, ids = str(error), array("I")
        self.db.execute("INSERT INTO lock VALUES (?, ?, ?)", (id_, ids.tobytes(), problem))

    def _entry_id(self, stage: str, lines: str) -> int:
        key = hashlib.sha1(f"{stage}\n{lines}".encode(), usedforsecurity=False).hexdigest()
        known = self._entry_ids.get(key)
        if known is None:
            entry = parse_entry(stage, lines)
            row = self.db.execute(
                "INSERT INTO entry (sha1, stage, body, params) VALUES (?, ?, ?, ?)",
                (key, stage, entry.to_json(), entry.params_text),
            )
            known = self._entry_ids[key] = int(row.lastrowid or 0)
            self._want((out.md5, "", out.path) for out in entry.outs if is_kept_by_dvc(out))
        return known

    @cached_property
    def _entry_ids(self) -> dict[str, int]:
        return dict(self.db.execute("SELECT sha1, id FROM entry"))

    def _add_raw(self, id_: str, text: str) -> None:
        problem, outs = "", []
        try:
            content = load_yaml(text) or {}
            outs = [(row["path"], row["md5"]) for row in content.get("outs", [])]
        except Exception as error:  # noqa: BLE001 a library's many errors, all of them "not a .dvc file"
            problem = f"{RAW}: cannot be read ({str(error).splitlines()[0]})"
        self._want((md5, "", path) for path, md5 in outs if md5.endswith(contents.DIRECTORY))
        self.db.execute("INSERT INTO raw VALUES (?, ?, ?)", (id_, json.dumps(outs), problem))

    def _add_record(self, id_: str, text: str) -> None:
        bad, lines = [], []
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip() and line not in self._run_lines:
                run = parse_run(line)
                if run is None:
                    bad.append(number)
                else:
                    self._run_lines.add(line)
                    lines.append((line, run.stage))
        self.db.executemany("INSERT OR IGNORE INTO run VALUES (?, ?)", lines)
        self.db.execute("INSERT INTO record VALUES (?, ?)", (id_, json.dumps(bad)))

    @cached_property
    def _run_lines(self) -> set[str]:
        return {line for (line,) in self.db.execute("SELECT line FROM run")}

    # What DVC's objects say.

    def _want(self, rows: Iterable[tuple[str, str, str]]) -> None:
        self.db.executemany("INSERT OR IGNORE INTO wanted VALUES (?, ?, ?)", rows)

    def _read_objects(self, places: Places) -> int:
        """Read every object that is wanted and there; what is not stays wanted. Returns how many were read."""
        num_read = 0
        tried: set[tuple[str, str]] = set()
        while True:
            rows = [row for row in self.db.execute("SELECT md5, name, path FROM wanted") if row[:2] not in tried]
            if not rows:
                break
            done = []
            for md5, name, path in rows:
                tried.add((md5, name))
                if self._has_content(md5):
                    done.append((md5, name))
                elif file := places.find(md5):
                    self._add_content(md5, path, contents.read_content(name, file))
                    num_read += 1
                    done.append((md5, name))
            self.db.executemany("DELETE FROM wanted WHERE md5 = ? AND name = ?", done)
        rows = self.db.execute("SELECT md5, name, path FROM wanted").fetchall()
        self.missing = {md5: path for md5, _, path in rows}
        return num_read

    def _has_content(self, md5: str) -> bool:
        return self.db.execute("SELECT 1 FROM content WHERE md5 = ?", (md5,)).fetchone() is not None

    def _add_content(self, md5: str, path: str, content: Content) -> None:
        members = start = None
        shape = ""
        if content.kind == "folder":
            names = [name for name, _ in content.members]
            tables = any(name.endswith(".parquet") for name in names)
            shape = CHECKPOINT if "provenance.json" in names else TABLES if tables else ""
            members = self._file_ids(content.members).tobytes()
            self._want((child, name, f"{path}/{name}") for name, child in content.members if contents.is_read(name))
        elif content.kind in ("motions", "checkpoint"):
            members = self._sequence_ids(content.sequences).tobytes()
            start = self._sequence_ids(content.start_sequences).tobytes()
        self.db.execute(
            "INSERT OR REPLACE INTO content VALUES (?, ?, ?, ?, ?, ?)",
            (md5, content.kind, json.dumps(content.facts), members, start, shape),
        )

    @cached_property
    def _known_files(self) -> dict[tuple[str, str], int]:
        return {(name, md5): id_ for id_, name, md5 in self.db.execute("SELECT id, name, md5 FROM file")}

    def _file_ids(self, members: tuple[tuple[str, str], ...]) -> "array[int]":
        known = self._known_files
        if new := [member for member in members if member not in known]:
            first = len(known) + 1  # nothing is ever taken out of this table
            fresh = dict(zip(new, range(first, first + len(new)), strict=True))
            rows = [(id_, *member) for member, id_ in fresh.items()]
            self.db.executemany("INSERT INTO file (id, name, md5) VALUES (?, ?, ?)", rows)
            known |= fresh
        return array("I", [known[member] for member in members])

    @cached_property
    def _known_sequences(self) -> dict[Sequence, int]:
        query = "SELECT id, subset, subject, sequence, licence, source_sha256 FROM sequence"
        return {Sequence(*row[1:]): row[0] for row in self.db.execute(query)}

    def _sequence_ids(self, rows: tuple[Sequence, ...]) -> "array[int]":
        known = self._known_sequences
        if new := [row for row in rows if row not in known]:
            first = len(known) + 1  # nothing is ever taken out of this table
            fresh = dict(zip(new, range(first, first + len(new)), strict=True))
            columns = "id, subset, subject, sequence, licence, source_sha256"
            rows_new = [(id_, *row) for row, id_ in fresh.items()]
            self.db.executemany(f"INSERT INTO sequence ({columns}) VALUES (?, ?, ?, ?, ?, ?)", rows_new)  # noqa: S608
            known |= fresh
        return array("I", [known[row] for row in rows])

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
            own = {out.path: out.md5 for entry in ids for out in entries[entry].outs}
            raw = [out for raw_id in raw_of.get(id_, {}) for out in self.raw_outs(raw_id)[0]]
            for entry in ids:
                for dep in pending[entry]:
                    key = (dep.path, dep.md5)
                    if known.get(key):
                        continue
                    rows[key] = joiner.join(dep, own, raw)
                    known[key] = not rows[key].problem
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
        found = {}
        for chunk in _chunks(list(ids)):
            marks = ",".join("?" * len(chunk))
            query = f"SELECT id, stage, body, params FROM entry WHERE id IN ({marks})"  # noqa: S608 only marks
            for id_, stage, body, params in self.db.execute(query, chunk):
                found[id_] = Entry.from_json(stage, body, params)
        return found

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

    def facts(self, md5s: Iterable[str]) -> dict[str, Content]:
        """content() of many."""
        found = {}
        for chunk in _chunks(list(md5s)):
            marks = ",".join("?" * len(chunk))
            for md5, kind, facts in self.db.execute(
                f"SELECT md5, kind, facts FROM content WHERE md5 IN ({marks})",  # noqa: S608 only marks
                chunk,
            ):
                found[md5] = Content(kind, json.loads(facts))
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
        for chunk in _chunks(ids.tolist()):
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
        query = "SELECT id, name, md5 FROM file WHERE name = ? OR (name > ? AND name < ?) ORDER BY name"
        rows = self.db.execute(query, (below, f"{below}/", f"{below}0"))  # "0" comes after "/"
        return [Member(*row) for row in rows if row[0] in ids]

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

    def sequences(self, ids: Iterable[int]) -> list[Sequence]:
        wanted = list(ids)
        found: dict[int, Sequence] = {}
        for chunk in _chunks(wanted, 30_000):
            marks = ",".join("?" * len(chunk))
            rows = self.db.execute(
                f"SELECT subset, subject, sequence, licence, source_sha256, id FROM sequence WHERE id IN ({marks})",  # noqa: S608
                chunk,
            ).fetchall()
            found.update(zip([row[5] for row in rows], map(Sequence._make, [row[:5] for row in rows]), strict=True))
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


def is_kept_by_dvc(out: FileRef) -> bool:
    """Whether the list of a folder stands among DVC's objects: metrics and the report are not cached."""
    return out.md5.endswith(contents.DIRECTORY) and out.path.startswith("data/")


def _chunks(values: list[Any], size: int = 900) -> Iterable[list[Any]]:
    """SQLite takes a bounded number of values a query."""
    return (values[start : start + size] for start in range(0, len(values), size))
