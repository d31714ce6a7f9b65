"""What the documents of an export have in common: who made them, licences by their SPDX names, table schemas."""

import json
import uuid
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import quote

from tasks.lineage.errors import LineageError
from tasks.lineage.graph import Artefact, Graph, State
from tasks.lineage.lineage import Lineage
from tasks.lineage.lock import FileRef
from tasks.lineage.places import Places
from tasks.lineage.things import find_thing

PROJECT = "render-inbetween"
URN = "urn:inbetween"
# Of the names on the SPDX list, those that sources of this field carry; compared without case.
SPDX = {
    name.lower(): name
    for name in (
        "Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib", "Unlicense", "MPL-2.0", "PDDL-1.0",
        "ODC-By-1.0", "CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0",
        "CC-BY-NC-SA-4.0", "CC-BY-ND-4.0", "CC-BY-NC-ND-4.0",
    )
}  # fmt: skip


class Column(NamedTuple):
    """A column of a table. type: pyarrow's name of it.  fields: of a struct."""

    name: str
    type: str
    fields: tuple["Column", ...] = ()


def producer() -> str:
    """The package URL of this project at its version."""
    return f"pkg:generic/{PROJECT}@{version(PROJECT)}"


def stable_uuid(*words: str) -> str:
    """The same for the same words."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, ":".join((URN, *words))))


def code_url(repository: str, revision: str, path: str) -> str:
    """Where a file of a revision is, in SPDX's form `git+URL@REVISION#PATH`; without a URL, a bare name."""
    if repository:
        return f"git+{repository}@{revision}#{quote(path)}"
    return f"urn:inbetween:git:{revision}:{quote(path)}"


def spdx_of(licence: str) -> str | None:
    """The SPDX name of a licence; None where it has none that is known here."""
    return SPDX.get("-".join(licence.lower().split()))


def one_artefact(lineage: Lineage, name: str, rev: str | None, what: str) -> tuple[State, Artefact]:
    """The one output, or folder of raw data, that a name means. Raises: LineageError that says what is wanted."""
    state = lineage.state(rev)
    thing = find_thing(lineage.graph, state, name)
    if len(thing.artefacts) != 1 or thing.kind not in ("path", "checkpoint", "stage"):
        listed = ", ".join(artefact.out.path for artefact in thing.artefacts[:6])
        raise LineageError(f"{name}: is {thing.label}; name {what}{f' ({listed})' if listed else ''}")
    return state, thing.artefacts[0]


def members_of(graph: Graph, artefact: Artefact) -> list[tuple[str, str]]:
    """(path in the folder, md5) of its files. Raises: LineageError where no place has its list."""
    members = graph.index.members(artefact.out.md5)
    if members is None:
        raise LineageError(
            f"{artefact.out.path}: the list of its files is in no place to be read; `dvc fetch {artefact.out.path}`"
        )
    prefix = f"{artefact.below}/" if artefact.below else ""
    return [(m.name[len(prefix) :], m.md5) for m in members if m.name.startswith(prefix)]


def columns_of(places: Places, md5: str) -> tuple[Column, ...]:
    """The columns of a parquet file among DVC's objects; () where it is in no place, or is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = places.find(md5)
    if file is None:
        return ()
    try:
        schema = pq.read_schema(file)
    except (OSError, pa.ArrowException):
        return ()
    return tuple(_column(field) for field in schema)


def columns_of_output(graph: Graph, places: Places, out: FileRef) -> tuple[Column, ...]:
    """Those of the first table of an output that can be read: all tables of one output are alike."""
    if not out.md5.endswith(".dir"):
        return columns_of(places, out.md5) if out.path.endswith(".parquet") else ()
    for member in graph.index.members(out.md5) or []:
        if PurePosixPath(member.name).suffix == ".parquet" and (columns := columns_of(places, member.md5)):
            return columns
    return ()


def _column(field: Any) -> Column:  # noqa: ANN401 pyarrow has no types
    import pyarrow as pa

    inner = (
        tuple(_column(field.type.field(n)) for n in range(field.type.num_fields))
        if pa.types.is_struct(field.type)
        else ()
    )
    return Column(field.name, "struct" if inner else str(field.type), inner)


def to_text(document: Any) -> str:  # noqa: ANN401 any JSON
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
