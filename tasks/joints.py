"""Joints: motion capture of any kind to the 52 joints of every frame, at 60 frames a second (tasks/joints_plan.py)."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from models.body import Body, compute_joints, load_body
from models.resampling import Grid, resample
from tasks.items import Item, ItemStore
from tasks.joints_plan import (
    FPS,
    FRAME_BYTES,
    FRAME_NUMBERS,
    AmassSpec,
    BodyFiles,
    PositionsSpec,
    Sequence52,
    ShardPlan,
    by_file,
)
from tasks.mocap import MotionError, Reason, Reject, iterate_positions, read_amass_frames
from tasks.tables import JOINTS_SCHEMA, write_table

ROW_GROUP_BYTES = 4 * 2**20
REJECTS = "rejects.json"

# What an item leaves: a row a sequence, in the order of its spec; `reason` where it is rejected.
_ITEM_SCHEMA = pa.schema(
    [
        ("joints", pa.list_(pa.float32())),
        ("source_sha256", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)


class Joints(NamedTuple):
    """numbers: flat, (frames x 52 x 3) m.  source_sha256: of what they are made from, "" = the plan knows it."""

    numbers: npt.NDArray[np.float32]
    source_sha256: str


Result = Joints | MotionError


def compute_items(items: Sequence[Item]) -> Iterator[tuple[int, pa.Table]]:
    """The work of the stage: each item's joints, or why its sequences are rejected."""
    torch.set_num_threads(1)  # the stage has a process a core
    for index, item in enumerate(items):
        if isinstance(item.args, AmassSpec):
            yield index, _compute_chunk(item.args)
    positions = [(index, item.args) for index, item in enumerate(items) if isinstance(item.args, PositionsSpec)]
    positions.sort(key=lambda entry: (entry[1].path, entry[1].row_group, entry[1].rows))
    for _, group in groupby(positions, key=lambda entry: (entry[1].path, entry[1].row_group)):
        yield from _resample_rows(list(group))


@lru_cache(maxsize=6)
def _load(body: BodyFiles) -> Body:
    return load_body(body.model, body.dmpls)


def _compute_chunk(spec: AmassSpec) -> pa.Table:
    first, last = spec.grid.source_span(spec.start, spec.stop)
    if spec.stop == spec.grid.num_frames:
        last = spec.grid.num_source  # to the file's end, so that its checksums are held
    try:
        frames = read_amass_frames(spec.path, first, last, with_dmpls=spec.with_dmpls)
        used = spec.grid.source_span(spec.start, spec.stop)[1] - first
        dmpls = None if frames.dmpls_NS is None else frames.dmpls_NS[:used]
        body = _load(spec.body)
        joints = compute_joints(body, frames.poses_NP[:used], frames.trans_ND[:used], frames.betas_B, dmpls)
        return _item_table([Joints(_to_grid(joints, spec.grid, spec.start, spec.stop), "")])
    except MotionError as error:
        return _item_table([error])


def _to_grid(joints: npt.NDArray[np.floating], grid: Grid, start: int, stop: int) -> npt.NDArray[np.float32]:
    """Flat float32 joints of the grid's frames. Raises: MotionError where one is not finite."""
    numbers = resample(joints.reshape(len(joints), -1), grid, start, stop).astype(np.float32).ravel()
    if not np.isfinite(numbers).all():
        frame = start + int(np.flatnonzero(~np.isfinite(numbers))[0]) // FRAME_NUMBERS
        raise MotionError(Reason.NOT_FINITE, f"joints: frame {frame} at {FPS:g} fps is not finite")
    return numbers


def _resample_rows(group: Sequence[tuple[int, PositionsSpec]]) -> Iterator[tuple[int, pa.Table]]:
    """The items of one row group, which is read through once; behind a damaged page every row is rejected."""
    cells = enumerate(iterate_positions(group[0][1].path, group[0][1].row_group))
    damage: MotionError | None = None
    for index, spec in group:
        results: list[Result] = []
        for wanted, grid in zip(spec.rows, spec.grids, strict=True):
            try:
                if damage:
                    raise damage
                results.append(_resample_row(next(cell for row, cell in cells if row == wanted), grid))
            except MotionError as error:
                damage = error if error.reason is Reason.UNREADABLE else damage
                results.append(error)
        yield index, _item_table(results)


def _resample_row(cell: pa.Array | None, grid: Grid) -> Joints:
    numbers = np.zeros(0, np.float32) if cell is None else cell.to_numpy(zero_copy_only=False)
    if len(numbers) != grid.num_source * FRAME_NUMBERS:
        wanted = grid.num_source * FRAME_NUMBERS
        raise MotionError(Reason.WRONG_SHAPE, f"joints are {len(numbers)} numbers, not num_frames x 52 x 3 = {wanted}")
    first, last = grid.source_span(0, grid.num_frames)
    joints = _to_grid(numbers.reshape(grid.num_source, -1)[first:last], grid, 0, grid.num_frames)
    return Joints(joints, hashlib.sha256(numbers.tobytes()).hexdigest())


def _item_table(results: Sequence[Result]) -> pa.Table:
    done = [result if isinstance(result, Joints) else Joints(np.zeros(0, np.float32), "") for result in results]
    refused = [result if isinstance(result, MotionError) else None for result in results]
    offsets = np.cumsum([0, *(len(joints.numbers) for joints in done)]).astype(np.int32)
    values = pa.array(np.concatenate([joints.numbers for joints in done]), pa.float32())
    return pa.Table.from_arrays(
        [
            pa.ListArray.from_arrays(pa.array(offsets), values),
            pa.array([joints.source_sha256 for joints in done], pa.string()),
            pa.array([error.reason.value if error else "" for error in refused], pa.string()),
            pa.array([error.detail if error else "" for error in refused], pa.string()),
        ],
        schema=_ITEM_SCHEMA,
    )


def write_shard(plan: ShardPlan, store: ItemStore, folder: Path) -> None:
    """SHARD.parquet, where any sequence is left, and SHARD.rejects.json, where any is not."""
    rejects: list[Reject] = []
    rows = _row_groups(plan, store, rejects)
    first = next(rows, None)
    folder.mkdir(parents=True, exist_ok=True)
    if first is not None:

        def chunks() -> Iterator[pa.Table]:
            yield first
            yield from rows

        write_table("joints", folder / f"{plan.name}.parquet", chunks(), {"subset": plan.subset})
    if rejects:
        _write_json(folder / f"{plan.name}.{REJECTS}", rejects)


def _row_groups(plan: ShardPlan, store: ItemStore, rejects: list[Reject]) -> Iterator[pa.Table]:
    """Tables of about ROW_GROUP_BYTES; rejected sequences are added to `rejects` as they are met."""
    rows: list[tuple[Sequence52, str, list[pa.Array]]] = []
    num_bytes = 0
    for sequence in plan.sequences:
        pieces = [store.get(item.key).slice(row, 1) for item, row in sequence.pieces]
        refused = next((piece for piece in pieces if piece["reason"][0].as_py()), None)
        if refused is not None:
            reason, detail = Reason(refused["reason"][0].as_py()), refused["detail"][0].as_py()
            rejects.append(Reject(sequence.file, reason, detail))
            continue
        sha256 = sequence.source_sha256 or pieces[0]["source_sha256"][0].as_py()
        rows.append((sequence, sha256, [piece["joints"][0].values for piece in pieces]))
        num_bytes += sequence.num_frames * FRAME_BYTES
        if num_bytes >= ROW_GROUP_BYTES:
            yield _rows_table(plan.subset, rows)
            rows, num_bytes = [], 0
    if rows:
        yield _rows_table(plan.subset, rows)


def _rows_table(subset: str, rows: Sequence[tuple[Sequence52, str, list[pa.Array]]]) -> pa.Table:
    offsets = np.cumsum([0, *(sum(len(value) for value in values) for _, _, values in rows)]).astype(np.int32)
    joints = pa.ListArray.from_arrays(pa.array(offsets), pa.concat_arrays([v for _, _, values in rows for v in values]))
    return pa.Table.from_arrays(
        [
            pa.array([subset] * len(rows), pa.string()),
            pa.array([sequence.subject for sequence, _, _ in rows], pa.string()),
            pa.array([sequence.sequence for sequence, _, _ in rows], pa.string()),
            pa.array([sequence.licence for sequence, _, _ in rows], pa.string()),
            pa.array([sha256 for _, sha256, _ in rows], pa.string()),
            pa.array([FPS] * len(rows), pa.float64()),
            pa.array([sequence.num_frames for sequence, _, _ in rows], pa.int32()),
            joints,
        ],
        schema=JOINTS_SCHEMA,
    )


def read_rejects(folders: Iterable[Path]) -> list[Reject]:
    """What write_shard left out, from its folders."""
    rows = [row for folder in folders for path in folder.glob(f"*.{REJECTS}") for row in json.loads(path.read_text())]
    # Once a file: of a recording that became several sequences more than one may be refused.
    return list({row["file"]: Reject(row["file"], Reason(row["reason"]), row["detail"]) for row in rows}.values())


def write_rejects(folder: Path, rejects: Sequence[Reject]) -> None:
    """One rejects.json of the subset, in the place of its shards' own; none where nothing was rejected."""
    for path in folder.glob(f"*.{REJECTS}"):
        path.unlink()
    if rejects:
        _write_json(folder / REJECTS, rejects)


def _write_json(path: Path, rejects: Sequence[Reject]) -> None:
    rows = [{"file": r.file, "reason": r.reason.value, "detail": r.detail} for r in sorted(rejects, key=by_file)]
    path.write_text(json.dumps(rows, indent=1) + "\n")
