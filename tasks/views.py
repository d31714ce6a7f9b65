"""2D views: what cameras see of each 3D motion, into shards for the motion networks.

A shard's rows stand view by view: first every sequence as view 0 shows it, then every one as view 1 does. So the rows
of a row group, which training reads together, are different motions, not one motion from all sides.
Axes: T frames, V views, J joints (19), E entries of a network row (19), 2 = (u, v) projected units.
"""

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.motion.views import (
    Moments,
    View,
    evaluation_view,
    measure_moments,
    merge_moments,
    random_view,
    view_joints_often,
)
from models.skeleton import NUM_JOINTS
from tasks.errors import SourceError, TableError
from tasks.items import Item, ItemStore
from tasks.tables import VIEWS_SCHEMA, Table, list_tables, write_table
from tasks.view_shards import NORMALISATION, POINTS_FRAME_BYTES, SETTINGS, moments_from_json, moments_to_json

MAX_ITEM_BYTES = 32 * 2**20  # of joints in and points out
ROW_GROUP_BYTES = 8 * 2**20  # of points: what a reader holds at least; longer sequences have a group of their own
JOINTS_FRAME_BYTES = 52 * 3 * 4
REJECTS = "rejects.json"  # beside the shards, only where a sequence was left out
FACES_NOWHERE = "shoulders and hips lie above one another on average: the person faces nowhere"

_IDENTITY = tuple(VIEWS_SCHEMA.names[: VIEWS_SCHEMA.get_field_index("num_frames") + 1])
# An item's rows: those of the table, and each row's moments, which go into the facts of its shard.
_ITEM_SCHEMA = VIEWS_SCHEMA.append(pa.field("mean", pa.list_(pa.float64()))).append(
    pa.field("std", pa.list_(pa.float64()))
)


class SequenceId(NamedTuple):
    subject: str
    sequence: str

    def __str__(self) -> str:
        return f"{self.subject}/{self.sequence}"


@dataclass(frozen=True)
class ViewsSpec:
    """Some rows of a joints table, each seen from some views.

    rows, views: [start, stop).  angles_rad: the fixed view of each row; None = random views of `seed`.
    """

    path: Path
    rows: tuple[int, int]
    views: tuple[int, int]
    seed: int
    angles_rad: tuple[tuple[float, float, float], ...] | None


@dataclass(frozen=True)
class ViewsPlan:
    """name: of the joints table; its shards are NAME-00000.parquet, ..."""

    name: str
    num_views: int
    items: list[Item]


def read_evaluation_views(path: Path) -> npt.NDArray[np.float64]:
    """The fixed views of test sequences: (N, 3) rad, N > 0. Raises: SourceError where the file is anything else."""
    try:
        angles_rad = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise SourceError(f"{path}: there is no such file; it is named by views.evaluation_views") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise SourceError(f"{path}: not an array that NumPy reads without unpickling; write it with np.save") from error
    if not isinstance(angles_rad, np.ndarray) or angles_rad.dtype.kind not in "fiu":
        found = angles_rad.dtype if isinstance(angles_rad, np.ndarray) else "several arrays"
        raise SourceError(f"{path}: holds {found}, where one array of numbers (rad) is needed")
    if angles_rad.ndim != 2 or angles_rad.shape[1] != 3 or not len(angles_rad):
        raise SourceError(f"{path}: has shape {angles_rad.shape}, where (N, 3) with N > 0 is needed: tilt, 0, turn")
    if not np.isfinite(angles_rad).all():
        row = int(np.flatnonzero(~np.isfinite(angles_rad).all(axis=1))[0])
        raise SourceError(f"{path}: row {row} is {angles_rad[row].tolist()}; finite angles (rad) are needed")
    return angles_rad.astype(np.float64)


def list_sequences(paths: Mapping[str, Path]) -> dict[str, list[SequenceId]]:
    """The sequences of each joints table, in the order of its rows.

    Raises: TableError where there is no sequence at all, or one stands twice.
    """
    found: dict[str, list[SequenceId]] = {}
    first: dict[SequenceId, str] = {}
    for name, path in paths.items():
        table = Table("joints", path)
        columns = (table.column("subject").tolist(), table.column("sequence").tolist())
        found[name] = [SequenceId(*pair) for pair in zip(*columns, strict=True)]
        for sequence in found[name]:
            if sequence in first:
                raise TableError(
                    f"{path}: sequence {sequence} stands twice, also in {first[sequence]}.parquet; leave one out"
                )
            first[sequence] = name
    if not first:
        folders = ", ".join(sorted({str(path.parent) for path in paths.values()}))
        raise TableError(f"{folders}: no sequence; check `only` and `without` of its subset in mocap")
    return found


def fixed_angles(
    angles_rad: npt.NDArray[np.float64], sequences: Mapping[str, Sequence[SequenceId]]
) -> dict[str, list[tuple[float, float, float]]]:
    """Table -> the fixed view of each of its sequences, by its number in the whole subset, sorted.

    Args: angles_rad: as read_evaluation_views returns them.  sequences: as list_sequences returns them.
    """
    order = sorted(sequence for names in sequences.values() for sequence in names)
    angles = {sequence: evaluation_view(angles_rad, number).angles_rad for number, sequence in enumerate(order)}
    return {name: [angles[sequence] for sequence in names] for name, names in sequences.items()}


def plan_views(
    path: Path,
    key: Callable[..., str],
    *,
    seed: int,
    num_views: int,
    angles_rad: Sequence[tuple[float, float, float]] | None,
) -> ViewsPlan:
    """Cut one joints table's views into items.

    Args:
        key: (*parts) -> item key.
        num_views: of each sequence.
        angles_rad: one fixed view a row of the table instead of random ones.
    """
    frames = Table("joints", path).column("num_frames").astype(int).tolist()
    num_views = num_views if angles_rad is None else 1
    items = []
    for rows, views in _cut_rows(frames, num_views):
        angles = None if angles_rad is None else tuple(angles_rad[rows[0] : rows[1]])
        name = f"{path.stem} sequences {rows[0]}-{rows[1] - 1}, views {views[0]}-{views[1] - 1}"
        items.append(Item(name, key(rows, views), ViewsSpec(path, rows, views, seed, angles)))
    return ViewsPlan(path.stem, num_views, items)


def _cut_rows(frames: Sequence[int], num_views: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """(rows, views) of each item: as many whole sequences as it may hold, or one and as many of its views."""
    frame_bytes = JOINTS_FRAME_BYTES + num_views * POINTS_FRAME_BYTES
    start = held = 0
    for row, num_frames in enumerate(frames):
        num_bytes = num_frames * frame_bytes
        if start < row and held + num_bytes > MAX_ITEM_BYTES:
            yield (start, row), (0, num_views)
            start, held = row, 0
        if num_bytes <= MAX_ITEM_BYTES:
            held += num_bytes
            continue
        at_once = max(1, MAX_ITEM_BYTES // (num_frames * POINTS_FRAME_BYTES))
        for view in range(0, num_views, at_once):
            yield (row, row + 1), (view, min(view + at_once, num_views))
        start = row + 1
    if start < len(frames):
        yield (start, len(frames)), (0, num_views)


def make_views(spec: ViewsSpec) -> pa.Table:
    """The rows of an item, view by view; a person who faces nowhere has none.

    Raises: TableError where a row's joints are not num_frames x 52 x 3 finite numbers.
    """
    table = Table("joints", spec.path).read_chunk(*spec.rows)
    rows: list[list[dict[str, object]]] = [[] for _ in range(*spec.views)]
    joints = table["joints"]
    for row, identity in enumerate(table.select(_IDENTITY).to_pylist()):
        name = SequenceId(identity["subject"], identity["sequence"])
        values = joints[row].values.to_numpy(zero_copy_only=False)
        if values.size != identity["num_frames"] * 52 * 3 or not values.size or not np.isfinite(values).all():
            raise TableError(
                f"{spec.path}: sequence {name} is not {identity['num_frames']} frames of 52 x 3 finite numbers;"
                f" run stage joints again"
            )
        if spec.angles_rad is None:
            views = [random_view(spec.seed, str(name), number) for number in range(*spec.views)]
        else:
            views = [View(spec.angles_rad[row])]
        try:
            points_VTJ2 = view_joints_often(values.reshape(-1, 52, 3), views, np.float32)
        except ValueError:
            continue
        for number, (view, points_TJ2) in enumerate(zip(views, points_VTJ2, strict=True)):
            rows[number].append(identity | _view_cells(spec.views[0] + number, view, points_TJ2))
    return pa.Table.from_pylist([row for view in rows for row in view], schema=_ITEM_SCHEMA)


def _view_cells(number: int, view: View, points_TJ2: npt.NDArray[np.floating]) -> dict[str, object]:
    moments = measure_moments(points_TJ2)  # of the points as they are stored, so that anybody can measure them again
    return {
        "view": number,
        "angles_rad": view.angles_rad,
        "focal": view.focal,
        "depth": view.depth,
        "points": points_TJ2.ravel(),
        "mean": moments.mean_E2.ravel(),
        "std": moments.std_E2.ravel(),
    }


class _Row(NamedTuple):
    """Where a row of a shard is: in which item's table, and its bytes of points."""

    item: int
    row: int
    num_bytes: int
    moments: Moments


def write_views(plan: ViewsPlan, folder: Path, *, store: ItemStore, shard_bytes: int, facts: Mapping[str, str]) -> None:
    """Write the shards of one joints table.

    Args:
        shard_bytes: of points, at most, in a shard; a row that is larger has one of its own.
        facts: of the whole subset.
    """
    folder.mkdir(parents=True)
    tables = [store.get(item.key) for item in plan.items]
    rows = list(_rows_by_view(tables, plan.num_views))
    for number, shard in enumerate(_runs(rows, shard_bytes)):
        moments = moments_to_json(merge_moments(row.moments for row in shard))
        write_table(
            "views",
            folder / f"{plan.name}-{number:05d}.parquet",
            (_gather_rows(tables, group) for group in _runs(shard, min(ROW_GROUP_BYTES, shard_bytes))),
            {**facts, **SETTINGS, NORMALISATION: moments},
        )


def _rows_by_view(tables: Sequence[pa.Table], num_views: int) -> Iterator[_Row]:
    by_view: list[list[_Row]] = [[] for _ in range(num_views)]
    for item, table in enumerate(tables):
        columns = (table[name].to_pylist() for name in ("view", "num_frames", "mean", "std"))
        for row, (view, num_frames, mean, std) in enumerate(zip(*columns, strict=True)):
            moments = Moments(num_frames, *(np.reshape(values, (NUM_JOINTS, 2)) for values in (mean, std)))
            by_view[view].append(_Row(item, row, num_frames * POINTS_FRAME_BYTES, moments))
    for rows in by_view:
        yield from rows


def _runs(rows: Sequence[_Row], max_bytes: int) -> Iterator[list[_Row]]:
    """Consecutive rows that hold at most so many bytes together; one that holds more is alone."""
    run: list[_Row] = []
    held = 0
    for row in rows:
        if run and held + row.num_bytes > max_bytes:
            yield run
            run, held = [], 0
        run.append(row)
        held += row.num_bytes
    if run:
        yield run


def _gather_rows(tables: Sequence[pa.Table], rows: Sequence[_Row]) -> pa.Table:
    parts = [tables[row.item].slice(row.row, 1) for row in rows]
    return pa.concat_tables(parts).select(VIEWS_SCHEMA.names).combine_chunks()


def finish_views(folder: Path, sequences: Mapping[str, Sequence[SequenceId]]) -> dict[str, str]:
    """Leave beside a subset's shards what all their rows are on average, and which sequences have none.

    Returns: sequence -> reason, of those left out.
    Raises: TableError where no sequence is left.
    """
    if not any(folder.glob("*.parquet")):
        raise TableError(f"{folder}: of {sum(map(len, sequences.values()))} sequences none is left: {FACES_NOWHERE}")
    shards = [Table("views", path) for path in list_tables(folder)]
    moments = merge_moments(moments_from_json(shard.metadata[NORMALISATION], shard.path) for shard in shards)
    (folder / f"{NORMALISATION}.json").write_text(moments_to_json(moments) + "\n")
    found = {
        SequenceId(*pair)
        for shard in shards
        for pair in zip(shard.column("subject").tolist(), shard.column("sequence").tolist(), strict=True)
    }
    left_out = sorted({sequence for names in sequences.values() for sequence in names} - found)
    rejects = [{"sequence": str(sequence), "reason": "faces_nowhere", "detail": FACES_NOWHERE} for sequence in left_out]
    if rejects:
        (folder / REJECTS).write_text(json.dumps(rejects, indent=1) + "\n")
    return {str(sequence): FACES_NOWHERE for sequence in left_out}
