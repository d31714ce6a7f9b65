"""Where DVC keeps objects: the cache and the remotes that are folders. An object is found by its md5."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Place(NamedTuple):
    """A store of objects. name: "cache", or the remote's.  folder: None = not one of this machine (`url` says what)."""

    name: str
    folder: Path | None
    url: str = ""

    def path_of(self, md5: str) -> Path | None:
        """The object's file, None where this place has none that can be seen from here."""
        if self.folder is None:
            return None
        folder = os.fspath(self.folder)  # as text: a hundred times as many in a second
        for path in (f"{folder}/files/md5/{md5[:2]}/{md5[2:]}", f"{folder}/{md5[:2]}/{md5[2:]}"):
            if os.path.exists(path):  # noqa: PTH110
                return Path(path)
        return None


class Places(NamedTuple):
    """The cache first, then the remotes."""

    all: Sequence[Place]

    def find(self, md5: str) -> Path | None:
        """The first place's file of this object."""
        for place in self.all:
            if path := place.path_of(md5):
                return path
        return None

    def having(self, md5: str) -> list[str]:
        """The names of the places that hold it, of those that can be seen."""
        return [place.name for place in self.all if place.path_of(md5)]

    def problems(self) -> list[str]:
        """A line for each place that could not be looked into."""
        lines = []
        for place in self.all:
            if place.folder is None:
                lines.append(
                    f"remote {place.name} ({place.url}) is not a folder of this machine: what it holds is not known"
                )
            elif not place.folder.is_dir() and place.name != "cache":
                lines.append(
                    f"remote {place.name}: its folder {place.url or place.folder} is not there, what it holds not known"
                )
        return lines
