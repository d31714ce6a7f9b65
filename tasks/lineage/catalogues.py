"""A batch's catalogue as it stood in some revision: rows from text, without the checks that stand before a run."""

import csv
from typing import NamedTuple


class CatalogueRows(NamedTuple):
    """videos.csv or clips.csv. problem: why rows are missing; "" = none are."""

    rows: list[dict[str, str]]
    problem: str = ""


def parse_catalogue(text: str) -> CatalogueRows:
    lines = [
        line for line in csv.reader(text.removeprefix("\ufeff").splitlines()) if any(cell.strip() for cell in line)
    ]
    if not lines:
        return CatalogueRows([], "is empty")
    header = [cell.strip() for cell in lines[0]]
    rows = [
        dict(zip(header, (c.strip() for c in cells), strict=False)) for cells in lines[1:] if len(cells) == len(header)
    ]
    bad = len(lines) - 1 - len(rows)
    return CatalogueRows(rows, f"{bad} rows have another number of cells than the header" if bad else "")


def describe_span(row: dict[str, str]) -> str:
    """A clip's frames as its row says them: "51-99", "8-96/8" or its list."""
    if row.get("frames"):
        return row["frames"]
    step = row.get("step") or "1"
    return f"{row.get('first', '?')}-{row.get('last', '?')}" + (f"/{step}" if step != "1" else "")


def frames_of(row: dict[str, str]) -> list[int]:
    """A clip's frame numbers. Raises: ValueError where the row is damaged."""
    frames: list[int] = []
    for part in describe_span(row).split(";"):
        span, _, step = part.strip().partition("/")
        first, _, last = span.partition("-")
        frames.extend(range(int(first), int(last or first) + 1, int(step or 1)))
    return frames
