"""What git and the work tree say, into the index: commits, locks cut into entries, raw data, catalogues, the record.

Git's objects are named by their ids, so each is read once.
"""

import hashlib
import json
import sqlite3
from array import array
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from typing import NamedTuple

from tasks.lineage.catalogues import parse_catalogue
from tasks.lineage.contents import DIRECTORY
from tasks.lineage.errors import LockFileError
from tasks.lineage.git import Commit, Git, Object, Reader, blob_id
from tasks.lineage.lock import FileRef, load_yaml, parse_entry, split_lock
from tasks.lineage.runs import RUNS_FILE, parse_run

LOCK, RAW = "dvc.lock", "data.dvc"
CATALOGUES = ("videos.csv", "clips.csv")
LICENCES = "lineage/licences.csv"  # path,licence: of given data, which itself tells none
WORK_TREE = "work tree"
_TABLES = {LOCK: "lock", RAW: "raw", RUNS_FILE: "record"}  # of the index; all else is a catalogue


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


class RevisionReader:
    """Reads what is new. Args: want: told of each object of DVC's that the index is to know: (md5, name, path)."""

    def __init__(self, db: sqlite3.Connection, want: Callable[[Iterable[tuple[str, str, str]]], None]) -> None:
        self._db, self._want = db, want
        self._last_record: tuple[str, list[int]] = ("", [])

    def read_commits(self, git: Git, commits: list[Commit]) -> dict[str, str]:
        """Commit -> its files, as JSON."""
        found = {}
        with git.reader(contents=False) as names, git.reader() as objects:
            for commit in commits:
                files = {}
                for path in (LOCK, RAW, RUNS_FILE, LICENCES):
                    if (object_ := names.get(f"{commit.id}:./{path}")) and object_.kind == "blob":
                        files[path] = object_.id
                if (tree := names.get(f"{commit.id}:./catalog")) and tree.kind == "tree":
                    files |= self._read_tree(objects, tree.id)
                for path, id_ in files.items():
                    self._read_blob(path, id_, partial(objects.get, id_))
                found[commit.id] = json.dumps(files)
        self._db.executemany("INSERT OR REPLACE INTO revision VALUES (?, ?)", found.items())
        return found

    def _read_tree(self, objects: Reader, id_: str) -> dict[str, str]:
        row = self._db.execute("SELECT files FROM tree WHERE id = ?", (id_,)).fetchone()
        if row:
            return dict(json.loads(row[0]))
        files = {f"catalog/{path}": child for path, child in objects.tree(id_).items() if path.endswith(CATALOGUES)}
        self._db.execute("INSERT INTO tree VALUES (?, ?)", (id_, json.dumps(files)))
        return files

    def read_work_tree(self, git: Git, commits: list[Commit]) -> tuple[Revision, str]:
        """The work tree, and what is to be said where it differs from HEAD."""
        files = {}
        paths = [git.root / name for name in (LOCK, RAW, RUNS_FILE, LICENCES)]
        paths += sorted(path for name in CATALOGUES for path in git.root.glob(f"catalog/*/{name}"))
        for path in paths:
            if path.is_file():
                data, name = path.read_bytes(), path.relative_to(git.root).as_posix()
                files[name] = blob_id(data)
                self._read_blob(name, files[name], partial(Object, files[name], "blob", data))
        head = (git.ask("rev-parse", "--verify", "-q", "HEAD") or "").strip()
        commit = next((commit for commit in commits if commit.id == head), Commit(head, 0, "", ""))
        changed = git.changed_files()
        note = ""
        if changed:
            some = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if changed[3:] else "")
            note = f"the work tree differs from HEAD ({some}); what is asked of it is answered as it stands"
        return Revision(WORK_TREE, commit.time, commit.author, commit.subject, files, bool(changed)), note

    @cached_property
    def _known(self) -> dict[str, set[str]]:
        """Table -> the ids of git's that stand in it."""
        tables = [*_TABLES.values(), "catalogue"]
        return {table: {id_ for (id_,) in self._db.execute(f"SELECT id FROM {table}")} for table in tables}  # noqa: S608

    def _read_blob(self, path: str, id_: str, read: Callable[[], Object | None]) -> None:
        table = _TABLES.get(path, "catalogue")
        if id_ in self._known[table]:
            return
        self._known[table].add(id_)
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
            self._db.execute("INSERT INTO catalogue VALUES (?, ?, ?, ?)", (id_, md5, json.dumps(rows), problem))

    def _add_lock(self, id_: str, text: str) -> None:
        ids, problem = array("I"), ""
        try:
            for stage, lines in split_lock(text):
                ids.append(self._entry_id(stage, lines))
        except LockFileError as error:
            problem, ids = str(error), array("I")
        self._db.execute("INSERT INTO lock VALUES (?, ?, ?)", (id_, ids.tobytes(), problem))

    def _entry_id(self, stage: str, lines: str) -> int:
        if (known := self._entry_texts.get((stage, lines))) is not None:
            return known
        key = hashlib.sha1(f"{stage}\n{lines}".encode(), usedforsecurity=False).hexdigest()
        known = self._entry_ids.get(key)
        if known is None:
            entry = parse_entry(stage, lines)
            row = self._db.execute(
                "INSERT INTO entry (sha1, stage, body, params) VALUES (?, ?, ?, ?)",
                (key, stage, entry.to_json(), entry.params_text),
            )
            known = self._entry_ids[key] = int(row.lastrowid or 0)
            self._want((out.md5, "", out.path) for out in entry.outs if is_kept_by_dvc(out))
        self._entry_texts[stage, lines] = known
        return known

    @cached_property
    def _entry_ids(self) -> dict[str, int]:
        return dict(self._db.execute("SELECT sha1, id FROM entry"))

    @cached_property
    def _entry_texts(self) -> dict[tuple[str, str], int]:
        """Of this update alone: most entries of a lock stood in the one before."""
        return {}

    def _add_raw(self, id_: str, text: str) -> None:
        problem, outs = "", []
        try:
            content = load_yaml(text) or {}
            outs = [(row["path"], row["md5"]) for row in content.get("outs", [])]
        except Exception as error:  # noqa: BLE001 a library's many errors, all of them "not a .dvc file"
            problem = f"{RAW}: cannot be read ({str(error).splitlines()[0]})"
        self._want((md5, "", path) for path, md5 in outs if md5.endswith(DIRECTORY))
        self._db.execute("INSERT INTO raw VALUES (?, ?, ?)", (id_, json.dumps(outs), problem))

    def _add_record(self, id_: str, text: str) -> None:
        """A record is only ever added to, so an older one is mostly the beginning of the newer one, read before it."""
        newer, newer_bad = self._last_record
        if text.endswith("\n") and newer.startswith(text):
            count = text.count("\n")
            bad = [number for number in newer_bad if number <= count]
        else:
            bad, lines = [], []
            for number, line in enumerate(text.splitlines(), start=1):
                if line.strip() and line not in self._run_lines:
                    run = parse_run(line)
                    if run is None:
                        bad.append(number)
                    else:
                        self._run_lines.add(line)
                        lines.append((line, run.stage))
            self._db.executemany("INSERT OR IGNORE INTO run VALUES (?, ?)", lines)
            self._last_record = (text, bad)
        self._db.execute("INSERT INTO record VALUES (?, ?)", (id_, json.dumps(bad)))

    @cached_property
    def _run_lines(self) -> set[str]:
        return {line for (line,) in self._db.execute("SELECT line FROM run")}


def is_kept_by_dvc(out: FileRef) -> bool:
    """Whether the list of a folder stands among DVC's objects: metrics and the report are not cached."""
    return out.md5.endswith(DIRECTORY) and out.path.startswith("data/")
