"""Backgrounds: pictures interpolated between key frames, for painting the body over (render) and for training.

Rows of a clip are numbered from 0 in the order of its table; every key_step-th row from 0 on is a key.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from models.renderer.flow import FlowPair
from tasks.items import Item, ItemStore
from tasks.tables import (
    BACKGROUND_SCHEMA,
    Image,
    Table,
    encode_png,
    frames_per_chunk,
    hash_rows,
    picture_column,
    write_table,
)

ITEM_FRAMES = 24  # frames between keys: some 20 s of the slowest method's work


@dataclass(frozen=True)
class BackgroundSpec:
    """Keys first_key..last_key-1 of a clip, each with the gap after it; key k is row k * key_step."""

    path: Path
    key_step: int
    first_key: int
    last_key: int
    num_keys: int


@dataclass(frozen=True)
class BackgroundPlan:
    clip: str
    items: list[Item]
    metadata: dict[str, str]


def count_keys(num_rows: int, key_step: int) -> int:
    """Keys of a clip; rows after the last one have nothing to be interpolated towards and are left out."""
    return (num_rows - 1) // key_step + 1


def runs_of_keys(num_keys: int, key_step: int, height: int, width: int) -> Iterator[tuple[int, int]]:
    """Key spans [first, last) of items: their pictures fit into memory, and a short clip is shared among workers too.

    They cover keys 0..num_keys-1; the last key, which has no gap after it, goes with the one before.
    """
    length = max(1, min(frames_per_chunk(height, width) // 2, ITEM_FRAMES) // key_step)
    for first in range(0, max(1, num_keys - 1), length):
        last = first + length
        yield first, num_keys if last >= num_keys - 1 else last


def plan_background(path: Path, key_step: int, key: Callable[..., str]) -> BackgroundPlan:
    """Cut one clip's backgrounds into items. key: (params section or None, *parts) -> item key."""
    table = Table("clip", path)
    num_keys = count_keys(table.num_rows, key_step)
    clip = table.metadata["clip"]
    items = []
    for first, last in runs_of_keys(num_keys, key_step, int(table.metadata["height"]), int(table.metadata["width"])):
        spec = BackgroundSpec(path, key_step, first, last, num_keys)
        rows = [number * key_step for number in range(max(0, first - 1), min(num_keys, last + 1))]
        times = [float(time) for time in table.column("time")[rows[0] : rows[-1] + 1]]
        inputs = hash_rows(table, rows, ("frame", "image"))
        items.append(
            Item(
                f"{clip} keys {first}-{last - 1}",
                key(None, inputs, times, key_step, first, last, num_keys),
                spec,
            )
        )
    metadata = {name: table.metadata[name] for name in ("clip", "batch", "video", "source_sha256")}
    return BackgroundPlan(clip, items, metadata | {"key_step": str(key_step), "interpolator": "flow"})


def make_backgrounds(spec: BackgroundSpec) -> pa.Table:
    """The backgrounds of a run of keys.

    "train": a key frame made from the key before and the key after it (none for the first and the last key).
    "render": an in-between frame made from its two keys.
    """
    table = Table("clip", spec.path)
    frames, times = table.frames, table.column("time").astype(np.float64)
    keys: dict[int, Image] = {}

    def key_image(number: int) -> Image:
        if number not in keys:
            for old in [n for n in keys if n < number - 2]:
                del keys[old]
            keys[number] = table.read_image(number * spec.key_step)
        return keys[number]

    rows: list[tuple[int, str, Image]] = []
    for number in range(spec.first_key, spec.last_key):
        if 0 < number < spec.num_keys - 1:
            before, here, after = (n * spec.key_step for n in (number - 1, number, number + 1))
            pair = FlowPair(key_image(number - 1), key_image(number + 1))
            rows.append((here, "train", pair.at(share(times, before, here, after)).image))
        if number < spec.num_keys - 1:
            start, end = number * spec.key_step, (number + 1) * spec.key_step
            pair = FlowPair(key_image(number), key_image(number + 1))
            rows.extend((row, "render", pair.at(share(times, start, row, end)).image) for row in range(start + 1, end))
    return pa.Table.from_arrays(
        [
            pa.array([int(frames[row]) for row, _, _ in rows], pa.int32()),
            pa.array([use for _, use, _ in rows], pa.string()),
            picture_column(
                (encode_png(image) for _, _, image in rows),
                (f"{int(frames[row]):06d}.{use}.png" for row, use, _ in rows),
            ),
        ],
        schema=BACKGROUND_SCHEMA,
    )


def share(times: np.ndarray[tuple[int], np.dtype[np.float64]], before: int, here: int, after: int) -> float:
    """Where a row stands between two others in time, 0..1."""
    return float((times[here] - times[before]) / (times[after] - times[before]))


def write_backgrounds(plan: BackgroundPlan, store: ItemStore, folder: Path) -> None:
    write_table(
        "background",
        folder / f"{plan.clip}.parquet",
        (store.get(item.key) for item in plan.items),
        plan.metadata,
    )
