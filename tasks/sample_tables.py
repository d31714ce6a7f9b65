"""A renderer's training set as arrays: what training reads of data/samples/R."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from models.renderer.samples import ClipKeys
from models.skeleton import NUM_JOINTS
from tasks.errors import TableError
from tasks.tables import Table, list_tables


class TrainingSet(NamedTuple):
    """clips: in the order of their names. facts: each table's metadata. frames: of each, its keys' frame numbers.

    mattes: of each, a grey PNG a key; None where the estimator gave none.
    """

    clips: list[ClipKeys]
    facts: list[dict[str, str]]
    frames: list[list[int]]
    mattes: list[list[bytes | None]]
    height: int
    width: int


def read_training_set(folder: Path) -> TrainingSet:
    """Read data/samples/R; pictures stay encoded. Raises: TableError where a table is missing or of another size."""
    clips, facts, frames, mattes = [], [], [], []
    sizes: dict[tuple[int, int], Path] = {}
    for path in list_tables(folder):
        table = Table("samples", path)
        rows = range(table.num_rows)
        joints_px_KJD = table.column("joints").reshape(-1, NUM_JOINTS, 3).astype(np.float64)
        pictures = [table.read_picture(row) for row in rows]
        backgrounds = [_picture_bytes(table.read_cell("background", row)) for row in rows]
        clips.append(ClipKeys(table.metadata["clip"], pictures, backgrounds, joints_px_KJD))
        facts.append(table.metadata)
        frames.append(table.frames.tolist())
        cells = [table.read_cell("matte", row) for row in rows]
        mattes.append([cell if isinstance(cell, bytes) else None for cell in cells])
        sizes.setdefault((int(table.metadata["height"]), int(table.metadata["width"])), path)
    if len(sizes) > 1:
        (size, path), (other, other_path), *_ = sizes.items()
        raise TableError(f"{other_path}: pictures of {other}, where {path} has {size}; run samples again")
    ((height, width),) = sizes
    return TrainingSet(clips, facts, frames, mattes, height, width)


def _picture_bytes(cell: object) -> bytes | None:
    data = cell["bytes"] if isinstance(cell, dict) else None
    return data if isinstance(data, bytes) else None
