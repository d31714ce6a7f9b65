"""What stands in an object of DVC's: a folder's members, a table's facts, a checkpoint's provenance, a manifest.

Only small things are read: lists, JSON and the footers of parquet files; of motion tables, the columns that name a row.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tasks.lineage.errors import LineageError

DIRECTORY = ".dir"
FILES_READ = (".parquet", "provenance.json", "manifest.json", "skipped.json")
_KEY = b"\x18\x09inbetween\x18"
_SEQUENCE_COLUMNS = ("subset", "subject", "sequence", "licence", "source_sha256")


class Sequence(NamedTuple):
    """A motion, as tables and provenance name it. source_sha256: of the recording that it was made from."""

    subset: str
    subject: str
    sequence: str
    licence: str
    source_sha256: str


class Content(NamedTuple):
    """An object's facts.

    kind: "folder", "table", "motions" (a table of sequences), "checkpoint", "manifest", "skipped" or "unreadable".
    facts: of a table, its metadata; of a checkpoint, its provenance without the long lists.
    members: of a folder, (path in it, md5).  sequences, start_sequences: of motions or a checkpoint; the latter is what
    the checkpoint that it went on from was trained on.
    """

    kind: str
    facts: dict[str, Any]
    members: tuple[tuple[str, str], ...] = ()
    sequences: tuple[Sequence, ...] = ()
    start_sequences: tuple[Sequence, ...] = ()


def is_read(path: str) -> bool:
    """Whether an object of this name has facts."""
    return path.endswith(FILES_READ)


def read_content(name: str, file: Path) -> Content:
    """An object by its name in its folder ("" = a folder's list). What cannot be read is of kind "unreadable"."""
    try:
        if not name:
            rows = json.loads(file.read_bytes())
            return Content("folder", {}, tuple((row["relpath"], row["md5"]) for row in rows))
        if name.endswith(".parquet"):
            return _read_table(file)
        content = json.loads(file.read_bytes())
        base = name.rpartition("/")[2]
        if base == "provenance.json":
            return _read_provenance(content)
        return Content(base.removesuffix(".json"), {"rows": content})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, LineageError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return Content("unreadable", {"reason": reason})


def read_footer(file: Path) -> dict[str, Any] | None:
    """A table's facts from the last bytes of its file; None where they do not stand there as our writer has them.

    Opening a parquet file takes .4 ms, and there are thousands: this looks for the one key in the footer, which is
    Thrift's compact form: 0x18, the length, the bytes, of the key and then of the value.
    """
    with file.open("rb") as data:
        size = data.seek(0, 2)
        data.seek(max(0, size - 8))
        tail = data.read(8)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != b"PAR1" or length + 12 > size:
            return None
        data.seek(size - 8 - length)
        footer = data.read(length)
    if footer.count(_KEY) != 1:
        return None
    at = footer.index(_KEY) + len(_KEY)
    number = shift = 0
    while at < len(footer):
        byte = footer[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            break
    try:
        found = json.loads(footer[at : at + number])
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _read_table(file: Path) -> Content:
    facts = read_footer(file)
    if facts is not None and facts.get("table") not in (None, "joints", "views"):
        return Content("table", facts)
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            facts = json.loads((table.metadata.metadata or {}).get(b"inbetween", b"{}"))
            if set(_SEQUENCE_COLUMNS) <= set(table.schema_arrow.names):
                columns = table.read(columns=list(_SEQUENCE_COLUMNS), use_threads=False)  # small: threads cost more
                told = [columns[name].to_pylist() for name in _SEQUENCE_COLUMNS]
                for name, values in zip(_SEQUENCE_COLUMNS, told, strict=True):
                    if columns[name].null_count:
                        values[:] = [value or "" for value in values]
                rows = zip(*told, strict=True)
                return Content("motions", facts, sequences=_distinct(Sequence(*row) for row in rows))
    except pa.ArrowException as error:
        raise LineageError(str(error)) from error
    return Content("table", facts)


def _read_provenance(content: dict[str, Any]) -> Content:
    start = content.get("start") or {}
    facts = {key: value for key, value in content.items() if key != "sequences"}
    if start:
        facts["start"] = {key: value for key, value in start.items() if key != "sequences"}
    return Content(
        "checkpoint",
        facts,
        sequences=_sequences_of(content.get("sequences", [])),
        start_sequences=_sequences_of(start.get("sequences", [])),
    )


def _sequences_of(rows: Iterable[dict[str, Any]]) -> tuple[Sequence, ...]:
    return _distinct(Sequence(*(str(row.get(name) or "") for name in Sequence._fields)) for row in rows)


def _distinct(rows: Iterable[Sequence]) -> tuple[Sequence, ...]:
    """In the order of first appearance: a motion stands once a camera in a table of views."""
    return tuple(dict.fromkeys(rows))
