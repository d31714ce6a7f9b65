"""The order of entries in dvc.lock after stages ran side by side: the same bytes as a serial `dvc repro` leaves.

`dvc repro` keeps the place of an entry that exists and appends new ones in the order of its plan. Side by side, new
ones come in the order in which stages end. So the order at the beginning is kept in a file until the run has ended; a
run that was killed leaves it to the next.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path


def lock_names(text: str) -> list[str]:
    """The stages in dvc.lock, in the order of the file."""
    return [name for name, _ in split_entries(text)[1]]


def remember_order(lock: Path, memory: Path) -> None:
    """Note the order of dvc.lock's entries as a run begins, unless an unfinished run's note still fits the file."""
    names = lock_names(_read(lock))
    if memory.is_file() and _is_in_order(json.loads(memory.read_text()), names):
        return
    memory.parent.mkdir(parents=True, exist_ok=True)
    memory.write_text(json.dumps(names))


def restore_order(lock: Path, memory: Path, plan: Sequence[str]) -> None:
    """Put the entries that are new since remember_order in the order of the plan. No stage may be running."""
    text = _read(lock)
    ordered = order_entries(text, json.loads(memory.read_text()), plan)
    if ordered != text:
        temporary = lock.with_name(f".{lock.name}.tmp")
        temporary.write_text(ordered)
        temporary.replace(lock)


def order_entries(text: str, before: Sequence[str], plan: Sequence[str]) -> str:
    """dvc.lock's text with the entries `before` in place, then those of the plan, then the rest; the same lines."""
    head, entries = split_entries(text)
    place = {name: number for number, name in enumerate(dict.fromkeys([*before, *plan]))}
    return head + "".join(block for _, block in sorted(entries, key=lambda entry: place.get(entry[0], len(place))))


def split_entries(text: str) -> tuple[str, list[tuple[str, str]]]:
    """What stands before the first entry of dvc.lock, and (name, lines) of each."""
    head, found, body = text.partition("stages:\n")
    starts = [match.start() for match in re.finditer(r"^  [^\s#-].*:\n", body, re.MULTILINE)] if found else []
    if not starts or starts[0] != 0:
        return text, []  # no entry, or not as DVC writes them: left as it is
    blocks = [body[start:end] for start, end in zip(starts, [*starts[1:], len(body)], strict=True)]
    return head + found, [(block.partition(":\n")[0].strip().strip("'\""), block) for block in blocks]


def _is_in_order(before: Sequence[str], names: Sequence[str]) -> bool:
    return [name for name in names if name in set(before)] == list(before)


def _read(lock: Path) -> str:
    return lock.read_text(encoding="utf-8") if lock.is_file() else ""
