"""One frame of a render or clip: its row, from the table's bytes wherever they are."""

from typing import Any

from tasks.lineage.errors import LineageError
from tasks.lineage.graph import Graph
from tasks.lineage.joining import Member
from tasks.lineage.lock import FileRef
from tasks.lineage.places import Places

_FACTS = ("frame", "time", "origin", "method", "key_before", "key_after", "posed_share")


def read_frame(graph: Graph, places: Places, out: FileRef, name: str, frame: int) -> dict[str, Any]:
    """A frame's facts, pictures left out. Raises: LineageError where the table or the frame is not there."""
    import pyarrow.parquet as pq

    member = _member(graph, out, name)
    path = places.find(member.md5)
    if path is None:
        raise LineageError(f"{out.path}/{name}: is in no place to be read; `dvc fetch {out.path}/{name}` brings it")
    with pq.ParquetFile(path) as table:
        names = [column for column in _FACTS if column in table.schema_arrow.names]
        columns = table.read(columns=names)
    frames = columns["frame"].to_pylist()
    if frame not in frames:
        span = f"{frames[0]}-{frames[-1]}" if frames else "none"
        raise LineageError(f"{out.path}/{name}: has no frame {frame}; it has {span}")
    at = frames.index(frame)
    return {column: columns[column][at].as_py() for column in names}


def _member(graph: Graph, out: FileRef, name: str) -> Member:
    for member in graph.index.members(out.md5) or []:
        if member.name == name:
            return member
    raise LineageError(f"{out.path}: the list of its files is in no place to be read; `dvc fetch {out.path}` brings it")
