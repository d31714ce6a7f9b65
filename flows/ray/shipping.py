"""What a group of items needs from this machine's disk, and where another machine keeps it.

Items name their inputs by path. A path below the project's folder stands, on another machine, at the same place below
a working folder there; any other one below `.outside` in it.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tasks.items import Item, Work, hash_file

V = TypeVar("V")

_OUTSIDE = ".outside"


class InputFile(NamedTuple):
    """A file to be there. path: as this machine opens it.  place: where it stands in a working folder."""

    path: str
    place: str
    sha256: str
    size: int
    is_executable: bool


class Shipment(NamedTuple):
    """What a group needs. words: the texts among its arguments that are paths (Path objects always are)."""

    files: tuple[InputFile, ...]
    words: frozenset[str]


def place_of(path: str | Path, root: Path) -> str:
    """Where a path stands in a working folder, relative to it."""
    absolute = Path(os.path.normpath(root / path))  # without following links: what is linked into the project is in it
    if absolute.is_relative_to(root):
        return str(absolute.relative_to(root))
    return str(Path(_OUTSIDE, *absolute.parts[1:]))


def map_leaves(value: Any, change: Callable[[object], object]) -> Any:  # noqa: ANN401 any structure
    """The same structure of dataclasses, partial functions and collections with every other value changed."""
    if isinstance(value, partial):
        args, keywords = map_leaves(value.args, change), map_leaves(value.keywords, change)
        return partial(map_leaves(value.func, change), *args, **keywords)
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value) if field.init]
        return replace(value, **{name: map_leaves(getattr(value, name), change) for name in names})
    if isinstance(value, dict):
        return {map_leaves(key, change): map_leaves(inner, change) for key, inner in value.items()}
    if isinstance(value, tuple):
        inner = [map_leaves(each, change) for each in value]
        return type(value)(*inner) if hasattr(value, "_fields") else tuple(inner)
    if isinstance(value, list):
        return [map_leaves(each, change) for each in value]
    return change(value)


class Shipper:
    """Finds what groups need; each file is hashed once, because inputs stand still while a stage runs."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._found: dict[str, tuple[InputFile, ...]] = {}

    def pack(self, work: Work | Callable[[], None], items: Sequence[Item]) -> Shipment:
        """Every file, and every file of a folder, that the work or the items name. What is not there is left out."""
        files: dict[str, InputFile] = {}
        words: set[str] = set()

        def look(value: object) -> object:
            # Of texts, only those with a separator: "flow" is a method and may be a folder too.
            if isinstance(value, Path) or (isinstance(value, str) and os.sep in value):
                text = str(value)
                if text not in self._found:
                    self._found[text] = tuple(self._list(text))
                files.update({file.place: file for file in self._found[text]})
                if self._found[text] and isinstance(value, str):
                    words.add(text)
            return value

        map_leaves(work, look)
        for item in items:
            map_leaves(item.args, look)
        return Shipment(tuple(files.values()), frozenset(words))

    def _list(self, text: str) -> Iterator[InputFile]:
        path = self._root / text
        if path.is_file():
            is_executable = os.access(path, os.X_OK)
            yield InputFile(text, place_of(text, self._root), hash_file(path), path.stat().st_size, is_executable)
        elif path.is_dir() and not self._root.is_relative_to(path):
            for inner in sorted(path.iterdir()):
                if not inner.name.startswith("."):
                    yield from self._list(str(Path(text, inner.name)))


def localise(value: V, words: frozenset[str], root: Path, folder: Path) -> V:
    """The same work or arguments for another machine, where this one's files stand below `folder`.

    Args: root: the project's folder on the machine that sent the value.
    """

    def change(leaf: object) -> object:
        if not (isinstance(leaf, Path) or (isinstance(leaf, str) and leaf in words)):
            return leaf
        place = place_of(leaf, root)
        is_same = not Path(leaf).is_absolute() and not place.startswith(_OUTSIDE)  # the folder is the current one there
        return leaf if is_same else type(leaf)(folder / place)

    localised: V = map_leaves(value, change)
    return localised
