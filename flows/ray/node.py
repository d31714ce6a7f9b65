"""A group of items on a node of a Ray cluster: its inputs are brought once, and what it makes goes home.

A node needs this environment (Ray brings the project's code) and a disk of its own, nothing else. Its cache holds
files by their hash, at most run.node_cache_gb of them; INBETWEEN_NODE_CACHE names its folder.
"""

import fcntl
import getpass
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import ray
from ray.actor import ActorHandle

from flows.ray.home import BLOCK_BYTES, AwayStore
from flows.ray.shipping import InputFile, Shipment, localise
from flows.tools import check_tools
from tasks.errors import FULL_DISK, ToolError
from tasks.items import GroupRecord, Item, ItemStore, Work, do_group

NODE_CACHE = "INBETWEEN_NODE_CACHE"

_BLOCKS_AHEAD = 2
_STALE_S = 24 * 3600  # a working folder that nobody has touched for so long belongs to a dead job


class Job(NamedTuple):
    """One connection of a stage to a cluster.

    name: of the job's working folders.  home_node: the node whose disk holds the project.  root: the project's folder.
    tools: the versions that the stage was checked for.
    """

    name: str
    home_node: str
    root: Path
    tools: Mapping[str, str]
    ffmpeg: Literal["pinned", "system"]
    cache_bytes: int


class NodeRecord(NamedTuple):
    """What comes back from a group. node: the id of the node that did it."""

    record: GroupRecord
    node: str


def do_group_on_node(
    job: Job, home: ActorHandle, work: Work, items: Sequence[Item], store: ItemStore, shipment: Shipment
) -> NodeRecord:
    """Do a group of items; at home into the store itself, elsewhere through `home`, the actor of flows/ray/home.py."""
    node = ray.get_runtime_context().get_node_id()
    if node == job.home_node:
        os.chdir(job.root)
        return NodeRecord(do_group(work, items, store), node)
    with at_work(job, home, shipment) as there:
        away = AwayStore(home)
        here = [Item(item.name, item.key, there(item.args), item.group) for item in items]
        record = do_group(there(work), here, away)  # type: ignore[arg-type] # `put` is all it calls
        away.wait()
    return NodeRecord(record, node)


@contextmanager
def at_work(job: Job, home: ActorHandle, shipment: Shipment) -> Iterator[Callable[[Any], Any]]:
    """Be in the job's working folder with everything that was shipped in place; gives what localises arguments.

    Raises: ToolError, naming this node, where a tool has another version here, or the disk is full.
    """
    where = f"node {ray.util.get_node_ip_address()}"
    try:
        _check_tools(tuple(job.tools.items()), job.ffmpeg)
    except ToolError as error:
        raise ToolError(f"{where}: {error}") from error
    cache_folder = node_cache()
    folder = cache_folder / "work" / job.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        for file in shipment.files:
            _place(file, folder, cache_folder, home, job.cache_bytes)
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise ToolError(
            f"{where}: {cache_folder}: {error.strerror}; make room, or name a larger disk by {NODE_CACHE}"
        ) from error
    os.chdir(folder)
    yield lambda value: localise(value, shipment.words, job.root, folder)


@cache
def _check_tools(tools: tuple[tuple[str, str], ...], ffmpeg: Literal["pinned", "system"]) -> None:
    check_tools([name for name, _ in tools], dict(tools), ffmpeg)


def node_cache() -> Path:
    """This node's folder for what jobs bring."""
    named = os.environ.get(NODE_CACHE)
    return Path(named) if named else Path(tempfile.gettempdir(), f"inbetween-{getpass.getuser()}")


def _place(file: InputFile, folder: Path, cache_folder: Path, home: ActorHandle, cache_bytes: int) -> None:
    """Have a file in the working folder: a link to the cache's, which may drop its own name for it at any time."""
    target = folder / file.place
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    kept = cache_folder / "files" / file.sha256[:2] / file.sha256
    kept.parent.mkdir(parents=True, exist_ok=True)
    with _hold(cache_folder / "locks" / file.sha256):
        if not kept.is_file():
            _make_room(cache_folder / "files", cache_bytes - file.size)
            _bring(file, kept, home)
        os.utime(kept)
        if not target.exists():
            target.hardlink_to(kept)


def _bring(file: InputFile, kept: Path, home: ActorHandle) -> None:
    """Read a file from home, block by block. Raises: ToolError where it is not what was to be shipped."""
    temporary = kept.with_name(f".{kept.name}.tmp")
    digest = hashlib.sha256()
    num_blocks = -(-file.size // BLOCK_BYTES)
    try:
        with temporary.open("wb") as sink:
            ahead = [home.read.remote(file.path, block) for block in range(min(_BLOCKS_AHEAD, num_blocks))]
            for block in range(num_blocks):
                data = ray.get(ahead.pop(0))
                if block + _BLOCKS_AHEAD < num_blocks:
                    ahead.append(home.read.remote(file.path, block + _BLOCKS_AHEAD))
                digest.update(data)
                sink.write(data)
        if digest.hexdigest() != file.sha256:
            raise ToolError(f"{file.path}: changed while a stage read it; run the stage again")
        temporary.chmod(0o555 if file.is_executable else 0o444)
        temporary.replace(kept)
    finally:
        temporary.unlink(missing_ok=True)


def _make_room(files: Path, at_most: int) -> None:
    """Forget the files used longest ago until no more than `at_most` bytes are left."""
    kept = [(path, path.stat()) for path in files.glob("*/*") if not path.name.startswith(".")]
    total = sum(facts.st_size for _, facts in kept)
    for path, facts in sorted(kept, key=lambda each: each[1].st_mtime):
        if total <= at_most:
            return
        with suppress(BlockingIOError), _hold(files.with_name("locks") / path.name, fcntl.LOCK_NB):
            path.unlink(missing_ok=True)
            total -= facts.st_size


@contextmanager
def _hold(path: Path, flag: int = 0) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | flag)
        yield


def forget_job(name: str) -> None:
    """Remove a job's working folder from this node, and those of jobs that died long ago."""
    work = node_cache() / "work"
    os.chdir(tempfile.gettempdir())
    shutil.rmtree(work / name, ignore_errors=True)
    for folder in work.glob("*"):
        if folder.stat().st_mtime < time.time() - _STALE_S:
            shutil.rmtree(folder, ignore_errors=True)
