"""Motions by their numbers in the index: what two sets of a hundred thousand have in common, without reading rows."""

import json
import sqlite3
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property

from tasks.lineage.contents import Sequence as Motion

_SUBJECT, _SAME_BYTES, _SAME_NAME = "subject", "same bytes", "same name"


def write_columns(db: sqlite3.Connection, motions: Sequence[Motion]) -> None:
    """Args: motions: all of them, in the order of their numbers, which begin at 1."""
    subjects = {name: number for number, name in enumerate(dict.fromkeys(motion.subject for motion in motions))}
    columns = [
        (_SUBJECT, list(subjects), [subjects[motion.subject] for motion in motions]),
        (_SAME_BYTES, [], _groups([motion.source_sha256 for motion in motions])),
        (_SAME_NAME, [], _groups([(motion.subject, motion.sequence) for motion in motions])),
    ]
    db.executemany(
        "INSERT OR REPLACE INTO motion_column VALUES (?, ?, ?)",
        [(name, json.dumps(labels), array("I", [0, *numbers]).tobytes()) for name, labels, numbers in columns],
    )


def _groups(keys: Sequence[object]) -> list[int]:
    """The number of the group of rows with the same key; 0 = it stands alone, or has no key."""
    counts = Counter(keys)
    numbers = {key: number for number, key in enumerate((k for k, n in counts.items() if n > 1 and k), start=1)}
    return [numbers.get(key, 0) for key in keys]


class Motions:
    """See write_columns."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def subjects_of(self, ids: Iterable[int]) -> set[str]:
        """The names of those who move."""
        labels, numbers = self._subjects
        return {labels[number] for number in {numbers[id_] for id_ in ids}}

    def shared(self, train: Iterable[int], test: frozenset[int]) -> list[int]:
        """Those of `train` that stand in `test` as well: the same row, recording, or name of the same subject."""
        by_bytes, by_name = (self._column(name)[1] for name in (_SAME_BYTES, _SAME_NAME))
        bytes_, names = {by_bytes[id_] for id_ in test} - {0}, {by_name[id_] for id_ in test} - {0}
        return [id_ for id_ in train if id_ in test or by_bytes[id_] in bytes_ or by_name[id_] in names]

    def without(self, column: str) -> set[int]:
        """Those whose licence, or source_sha256, is not told. column: one of the two."""
        query = f"SELECT id FROM sequence WHERE {column} = ''"  # noqa: S608 one of two names
        return {id_ for (id_,) in self._db.execute(query)}

    @cached_property
    def _subjects(self) -> tuple[list[str], "array[int]"]:
        return self._column(_SUBJECT)

    def _column(self, name: str) -> tuple[list[str], "array[int]"]:
        row = self._db.execute("SELECT labels, numbers FROM motion_column WHERE name = ?", (name,)).fetchone()
        return (json.loads(row[0]), array("I", row[1])) if row else ([], array("I"))
