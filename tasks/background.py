"""Backgrounds: pictures interpolated between key frames, for painting the body over (render) and for training.

Rows of a clip are numbered from 0 in the order of its table; every key_step-th row from 0 on is a key.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from models.renderer.device import Device, DeviceError
from models.renderer.flow import FlowPair
from models.renderer.keys import WeightsError
from tasks.errors import ToolError
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

if TYPE_CHECKING:
    from models.renderer.rife import RifePair

ITEM_FRAMES = 24  # frames between keys: some 20 s of the slowest method's work


@dataclass(frozen=True)
class BackgroundSpec:
    """Keys first_key..last_key-1 of a clip, each with the gap after it; key k is row k * key_step."""

    path: Path
    key_step: int
    first_key: int
    last_key: int
    num_keys: int
    interpolator: str
    device: Device = "cpu"


class Wanted(NamedTuple):
    """A picture to be made: of row `row`, from those of the rows `before` and `after`. use: "train" or "render"."""

    row: int
    use: str
    before: int
    after: int


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


def wanted_pictures(spec: BackgroundSpec) -> Iterator[Wanted]:
    """What a run of keys needs, in the order in which it is written.

    "train": a key frame made from the key before and the key after it (none for the first and the last key).
    "render": an in-between frame made from its two keys.
    """
    for number in range(spec.first_key, spec.last_key):
        start, end = number * spec.key_step, (number + 1) * spec.key_step
        if 0 < number < spec.num_keys - 1:
            yield Wanted(start, "train", start - spec.key_step, end)
        if number < spec.num_keys - 1:
            yield from (Wanted(row, "render", start, end) for row in range(start + 1, end))


def plan_background(
    path: Path, key_step: int, interpolator: str, version: str, key: Callable[..., str], device: Device = "cpu"
) -> BackgroundPlan:
    """Cut one clip's backgrounds into items.

    Args:
        version: of the interpolator, where it is not the project's own.
        key: (*parts) -> item key.
        device: that RIFE works on.
    """
    table = Table("clip", path)
    num_keys = count_keys(table.num_rows, key_step)
    clip = table.metadata["clip"]
    items = []
    for first, last in runs_of_keys(num_keys, key_step, int(table.metadata["height"]), int(table.metadata["width"])):
        spec = BackgroundSpec(path, key_step, first, last, num_keys, interpolator, device)
        rows = [number * key_step for number in range(max(0, first - 1), min(num_keys, last + 1))]
        times = [float(time) for time in table.column("time")[rows[0] : rows[-1] + 1]]
        inputs = hash_rows(table, rows, ("frame", "image"))
        items.append(
            Item(
                f"{clip} keys {first}-{last - 1}",
                key(inputs, times, key_step, first, last, num_keys, interpolator, version, device),
                spec,
            )
        )
    metadata = {name: table.metadata[name] for name in ("clip", "batch", "video", "source_sha256")}
    metadata |= {"key_step": str(key_step), "interpolator": interpolator}
    if interpolator == "rife":
        metadata["device"] = device
    return BackgroundPlan(clip, items, metadata | ({"interpolator_version": version} if version else {}))


def make_backgrounds(spec: BackgroundSpec) -> pa.Table:
    """The backgrounds of a run of keys, by flow or rife.

    Raises: ToolError where RIFE's weights are missing, or there is no such device or its memory does not do.
    """
    table = Table("clip", spec.path)
    times = table.column("time").astype(np.float64)
    make_pair = _load_interpolator(spec.interpolator, spec.device)
    keys: dict[int, Image] = {}

    def key_image(row: int) -> Image:
        if row not in keys:
            for old in [n for n in keys if n < row - 2 * spec.key_step]:
                del keys[old]
            keys[row] = table.read_image(row)
        return keys[row]

    rows: list[tuple[Wanted, bytes]] = []
    for (before, after), group in groupby(wanted_pictures(spec), key=lambda wanted: (wanted.before, wanted.after)):
        pair = make_pair(key_image(before), key_image(after))
        rows.extend((each, encode_png(pair.at(share(times, before, each.row, after)).image)) for each in group)
    return background_rows(table, rows)


def _load_interpolator(name: str, device: Device) -> "type[FlowPair] | partial[RifePair]":
    if name == "flow":
        return FlowPair
    from models.renderer.rife import RifePair, load_rife  # here: torch takes seconds to import

    try:
        return partial(RifePair, network=load_rife(device=device))
    except (DeviceError, WeightsError) as error:
        raise ToolError(str(error)) from error


def background_rows(table: Table, rows: list[tuple[Wanted, bytes]]) -> pa.Table:
    """Pictures (PNG) of a clip's rows as a part of its background table."""
    frames = table.frames
    return pa.Table.from_arrays(
        [
            pa.array([int(frames[wanted.row]) for wanted, _ in rows], pa.int32()),
            pa.array([wanted.use for wanted, _ in rows], pa.string()),
            picture_column(
                (data for _, data in rows),
                (f"{int(frames[wanted.row]):06d}.{wanted.use}.png" for wanted, _ in rows),
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
