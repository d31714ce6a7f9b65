"""The index's file: one SQLite database, disposable; made anew where it is damaged or of another version."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_VERSION = 4
_SCHEMA = """
CREATE TABLE revision (id TEXT PRIMARY KEY, files TEXT NOT NULL);
CREATE TABLE tree (id TEXT PRIMARY KEY, files TEXT NOT NULL);
CREATE TABLE lock (id TEXT PRIMARY KEY, entries BLOB NOT NULL, problem TEXT NOT NULL);
CREATE TABLE entry (id INTEGER PRIMARY KEY, sha1 TEXT NOT NULL, stage TEXT NOT NULL, body TEXT NOT NULL, params TEXT NOT NULL);
CREATE TABLE raw (id TEXT PRIMARY KEY, outs TEXT NOT NULL, problem TEXT NOT NULL);
CREATE TABLE catalogue (id TEXT PRIMARY KEY, md5 TEXT NOT NULL, rows TEXT NOT NULL, problem TEXT NOT NULL);
CREATE TABLE record (id TEXT PRIMARY KEY, bad TEXT NOT NULL);
CREATE TABLE run (line TEXT PRIMARY KEY, stage TEXT NOT NULL);
CREATE TABLE content (md5 TEXT PRIMARY KEY, kind TEXT NOT NULL, facts TEXT NOT NULL, batch TEXT, clip TEXT,
    members BLOB, start BLOB, shape TEXT NOT NULL);
CREATE TABLE yaml (sha1 TEXT PRIMARY KEY, content TEXT NOT NULL);
CREATE TABLE wanted (md5 TEXT NOT NULL, name TEXT NOT NULL, path TEXT NOT NULL, PRIMARY KEY (md5, name)) WITHOUT ROWID;
CREATE TABLE file (id INTEGER PRIMARY KEY, name TEXT NOT NULL, md5 TEXT NOT NULL);
CREATE TABLE sequence (id INTEGER PRIMARY KEY, subset TEXT, subject TEXT, sequence TEXT, licence TEXT, source_sha256 TEXT);
CREATE TABLE motion_column (name TEXT PRIMARY KEY, labels TEXT NOT NULL, numbers BLOB NOT NULL);
CREATE TABLE joined (path TEXT NOT NULL, md5 TEXT NOT NULL, parts TEXT NOT NULL, problem TEXT NOT NULL, PRIMARY KEY (path, md5));
CREATE TABLE joined_lock (id TEXT PRIMARY KEY);
"""  # noqa: E501
# Made once the rows stand there, which takes a third of keeping them up to date row by row. What is unique is so
# because its writer looks it up first.
_LOOKUPS = (
    "catalogue_md5 ON catalogue (md5)",
    "entry_stage ON entry (stage)",
    "run_stage ON run (stage)",
    "file_name ON file (name)",
    "file_md5 ON file (md5)",
    "sequence_sequence ON sequence (sequence)",
    "sequence_subject ON sequence (subject)",
    "sequence_no_licence ON sequence (id) WHERE licence = ''",
    "sequence_no_hash ON sequence (id) WHERE source_sha256 = ''",
)


def open_database(path: Path) -> sqlite3.Connection:
    """Opened, or made anew where it is of another version or damaged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _open(path)
    except sqlite3.DatabaseError:
        path.unlink(missing_ok=True)
        return _open(path)


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=60)
    # Disposable: after a crash it is made again, so nothing waits for the disk.
    db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536;")
    if db.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
        tables = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        db.executescript("".join(f"DROP TABLE IF EXISTS {name};" for (name,) in tables))
        db.executescript(f"{_SCHEMA} PRAGMA user_version = {_VERSION};")
    return db


def make_lookups(db: sqlite3.Connection) -> None:
    """SQLite's own indices, where they are not there yet."""
    for lookup in _LOOKUPS:
        db.execute(f"CREATE INDEX IF NOT EXISTS {lookup}")


def chunks(values: list[Any], size: int = 900) -> Iterable[list[Any]]:
    """SQLite takes a bounded number of values a query."""
    return (values[start : start + size] for start in range(0, len(values), size))
