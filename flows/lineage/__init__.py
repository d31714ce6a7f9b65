"""Lineage of this clone: from Python, `open_lineage()`; from the command line, `inbetween lineage`."""

from pathlib import Path
from typing import TYPE_CHECKING

from flows.project import ROOT, STATE

if TYPE_CHECKING:
    from tasks.lineage.lineage import Lineage

INDEX = STATE / "lineage.sqlite"


def open_lineage(root: Path = ROOT, index: Path = INDEX) -> "Lineage":
    """The questions about a clone; reads what is new since the last time into the index, which may be deleted.

    Raises: LineageError where the folder is in no git repository.
    """
    from flows.lineage.places import find_places
    from tasks.lineage.lineage import Lineage

    return Lineage(root, index, find_places(root), _say)


def _say(line: str) -> None:
    from flows.progress import say  # not before there is something to say: it loads the library of bars

    say(line)
