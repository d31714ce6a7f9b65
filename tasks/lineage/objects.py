"""What DVC's objects say, into the index: folders' files, tables' facts, checkpoints' provenance, manifests.

DVC's objects are named by their md5, so each is read once. What no place has stays wanted.
"""

import json
import sqlite3
from array import array
from collections.abc import Iterable
from functools import cached_property

from tasks.lineage import contents
from tasks.lineage.contents import Content, Sequence
from tasks.lineage.motions import write_columns
from tasks.lineage.places import Places

TABLES, CHECKPOINT = "tables", "checkpoint"  # what a folder is, by the names in it


class ObjectReader:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._has_new_sequences = False

    def want(self, rows: Iterable[tuple[str, str, str]]) -> None:
        """Args: rows: (md5, name in its folder, path); the name is "" for a folder's list."""
        self._db.executemany("INSERT OR IGNORE INTO wanted VALUES (?, ?, ?)", rows)

    def read(self, places: Places) -> int:
        """Read every object that is wanted and there. Returns how many were read."""
        num_read = 0
        tried: set[tuple[str, str]] = set()
        while True:
            rows = [row for row in self._db.execute("SELECT md5, name, path FROM wanted") if row[:2] not in tried]
            if not rows:
                break
            done = []
            for md5, name, path in rows:
                tried.add((md5, name))
                if md5 in self._known:
                    done.append((md5, name))
                elif file := places.find(md5):
                    self._known.add(md5)
                    self._add(md5, path, contents.read_content(name, file))
                    num_read += 1
                    done.append((md5, name))
            self._db.executemany("DELETE FROM wanted WHERE md5 = ? AND name = ?", done)
        if self._has_new_sequences:
            write_columns(self._db, list(self._known_sequences))
            self._has_new_sequences = False
        return num_read

    @cached_property
    def _known(self) -> set[str]:
        return {md5 for (md5,) in self._db.execute("SELECT md5 FROM content")}

    def _add(self, md5: str, path: str, content: Content) -> None:
        members = start = None
        shape = ""
        if content.kind == "folder":
            names = [name for name, _ in content.members]
            tables = any(name.endswith(".parquet") for name in names)
            shape = CHECKPOINT if "provenance.json" in names else TABLES if tables else ""
            members = self._file_ids(content.members).tobytes()
            self.want((child, name, f"{path}/{name}") for name, child in content.members if contents.is_read(name))
        elif content.kind in ("motions", "checkpoint"):
            members = self._sequence_ids(content.sequences).tobytes()
            start = self._sequence_ids(content.start_sequences).tobytes()
        clip = content.facts.get("clip") if content.kind == "table" else None
        batch = content.facts.get("batch") if clip is not None else None
        self._db.execute(
            "INSERT OR REPLACE INTO content VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (md5, content.kind, json.dumps(content.facts), batch, clip, members, start, shape),
        )

    @cached_property
    def _known_files(self) -> dict[tuple[str, str], int]:
        return {(name, md5): id_ for id_, name, md5 in self._db.execute("SELECT id, name, md5 FROM file")}

    def _file_ids(self, members: tuple[tuple[str, str], ...]) -> "array[int]":
        known = self._known_files
        if new := [member for member in members if member not in known]:
            first = len(known) + 1  # nothing is ever taken out of this table
            fresh = dict(zip(new, range(first, first + len(new)), strict=True))
            rows = [(id_, *member) for member, id_ in fresh.items()]
            self._db.executemany("INSERT INTO file (id, name, md5) VALUES (?, ?, ?)", rows)
            known |= fresh
        return array("I", [known[member] for member in members])

    @cached_property
    def _known_sequences(self) -> dict[Sequence, int]:
        """In the order of their numbers."""
        query = "SELECT subset, subject, sequence, licence, source_sha256, id FROM sequence ORDER BY id"
        return {Sequence(*row[:5]): row[5] for row in self._db.execute(query)}

    def _sequence_ids(self, rows: tuple[Sequence, ...]) -> "array[int]":
        known = self._known_sequences if rows else {}
        if new := [row for row in rows if row not in known]:
            first = len(known) + 1  # nothing is ever taken out of this table
            fresh = dict(zip(new, range(first, first + len(new)), strict=True))
            columns = "id, subset, subject, sequence, licence, source_sha256"
            rows_new = [(id_, *row) for row, id_ in fresh.items()]
            self._db.executemany(f"INSERT INTO sequence ({columns}) VALUES (?, ?, ?, ?, ?, ?)", rows_new)  # noqa: S608
            known |= fresh
            self._has_new_sequences = True
        return array("I", [known[row] for row in rows])
