"""Backgrounds by DAIN: the pairs of keys of a group of items in as few calls as there are lengths of time step."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.background import BackgroundSpec, Wanted, background_rows, share, wanted_pictures
from tasks.items import Item
from tasks.tables import Image, Table, decode_png, encode_png
from tasks.workers.dain import DainSettings, run_dain

# A call loads the network: enough pairs to make up for it, few enough that a kill costs little.
PAIRS_PER_CALL = 64

_Pair = tuple[int, int, int]  # item, first row, second row


def group_pairs(items: Sequence[Item], _num_workers: int) -> list[list[Item]]:
    """Runs of items of about PAIRS_PER_CALL pairs."""
    groups: list[list[Item]] = []
    room = 0
    for item in items:
        num_pairs = 2 * (item.args.last_key - item.args.first_key)
        if not groups or num_pairs > room:
            groups.append([])
            room = PAIRS_PER_CALL
        groups[-1].append(item)
        room -= num_pairs
    return groups


def make_by_dain(
    items: Sequence[Item], work_dir: Path, settings: DainSettings, gpu: int | None
) -> Iterator[tuple[int, pa.Table]]:
    """The backgrounds of a group of items.

    DAIN's pictures stand at equal steps between two keys: a frame that does not, in a clip of a varying rate, gets the
    nearest. Args: work_dir: a folder that does not exist yet.
    """
    specs: list[BackgroundSpec] = [item.args for item in items]
    wanted = [list(wanted_pictures(spec)) for spec in specs]
    by_steps: dict[int, dict[str, _Pair]] = {}
    for index, spec in enumerate(specs):
        for each in wanted[index]:
            by_steps.setdefault(_num_steps(spec, each), {})[_name(index, each)] = (index, each.before, each.after)
    made: dict[str, list[Path]] = {}
    for num_steps, pairs in sorted(by_steps.items()):
        pictures = {
            name: (_read(specs[index], before), _read(specs[index], after))
            for name, (index, before, after) in pairs.items()
        }
        made |= run_dain(pictures, num_steps, work_dir / f"{num_steps}", settings, gpu)
    for index, spec in enumerate(specs):
        yield index, _make_rows(spec, index, wanted[index], made)


def _make_rows(spec: BackgroundSpec, index: int, wanted: Sequence[Wanted], made: dict[str, list[Path]]) -> pa.Table:
    table = Table("clip", spec.path)
    times = table.column("time").astype(np.float64)
    rows = []
    for each in wanted:
        pictures = made[_name(index, each)]
        t = share(times, each.before, each.row, each.after)
        place = min(max(round(t * (len(pictures) + 1)), 1), len(pictures)) - 1
        rows.append((each, encode_png(_decode(pictures[place]))))
    return background_rows(table, rows)


def _num_steps(spec: BackgroundSpec, wanted: Wanted) -> int:
    return 2 if wanted.use == "train" else spec.key_step


def _name(index: int, wanted: Wanted) -> str:
    return f"{index:04d}-{wanted.use}-{wanted.before}-{wanted.after}"


def _read(spec: BackgroundSpec, row: int) -> bytes:
    return Table("clip", spec.path).read_picture(row)


def _decode(path: Path) -> Image:
    """As our own encoder writes it: the same pixels, the same bytes, whatever DAIN's libraries are."""
    return decode_png(path.read_bytes())
