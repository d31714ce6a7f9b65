"""The actor on the machine that a stage runs on: other nodes read inputs from it and hand it finished items.

Nothing of either passes through the stage's own process, so its memory does not grow with what is worked on.
"""

import re
from pathlib import Path

import pyarrow as pa
import ray
from ray.actor import ActorHandle

from tasks.errors import ToolError
from tasks.items import ItemStore

BLOCK_BYTES = 8 * 2**20

_KEY = re.compile(r"[0-9a-f]{64}")


class Home:
    """Serves the files below and around one project folder, and keeps items in its store."""

    def __init__(self, root: Path, store: ItemStore) -> None:
        self._root, self._store = root, store

    def read(self, path: str, block: int) -> bytes:
        """A block of a file; shorter at its end. Raises: ToolError where it is not there any more."""
        try:
            with (self._root / path).open("rb") as file:
                file.seek(block * BLOCK_BYTES)
                return file.read(BLOCK_BYTES)
        except OSError as error:
            raise ToolError(
                f"{path}: went away while a stage read it ({error.strerror}); run the stage again"
            ) from error

    def put(self, key: str, data: pa.Buffer) -> int:
        """Keep one item's table, given as an Arrow file. Returns its bytes."""
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is no item's key")
        return self._store.put(key, pa.ipc.open_file(data).read_all())


class AwayStore:
    """The item store as another node sees it: what is put goes home, at most two items under way at a time."""

    def __init__(self, home: ActorHandle) -> None:
        self._home = home
        self._under_way: list[ray.ObjectRef] = []

    def put(self, key: str, table: pa.Table) -> int:
        """Hand over one item's table. Returns the bytes of what was sent."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        data = sink.getvalue()
        self.wait(at_most=1)
        self._under_way.append(self._home.put.remote(key, data))
        return int(data.size)

    def wait(self, at_most: int = 0) -> None:
        """Return when no more than so many items are under way. Raises: what keeping one raised."""
        while len(self._under_way) > at_most:
            ray.get(self._under_way.pop(0))
