"""Tables written in threads while one thread reads what they are made of: the order of work of an import from HDF5."""

import gc
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import Full, Queue
from typing import Any, NamedTuple

WRITERS = 2  # threads that write tables; another reads, a fourth hashes the file
READ_AHEAD = 2  # parts of a table that wait to be written
_END = object()


class Job(NamedTuple):
    """One table to be written.

    amount: pictures or frames of the source that are done with it.
    read: its parts, from HDF5.  write: makes the table of them, without HDF5.
    """

    target: Path
    amount: int
    read: Callable[[], Iterator[Any]]
    write: Callable[[Iterator[Any]], None]


def no_table(amount: int) -> Job:
    return Job(Path(), amount, lambda: iter(()), lambda parts: None)


@contextmanager
def no_collection() -> Iterator[None]:
    """Without Python's search for cycles, which in any thread may come upon an object of h5py's: see do_ahead."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def do_ahead(jobs: Iterable[Job]) -> Iterator[Job]:
    """Each job when its table is written, in their order, while the next ones are read.

    All of HDF5 is called by the caller's thread: h5py 3.16 may wait for ever where two threads call it. The others read
    past it (hdf5_direct), encode and wait for the disk.
    """
    with ThreadPoolExecutor(WRITERS, thread_name_prefix="import") as threads:
        ahead: deque[tuple[Job, Future[None]]] = deque()
        for job in jobs:
            parts = _Parts()
            future = threads.submit(_write, job, parts)
            ahead.append((job, future))
            if not job.target.is_file():
                parts.fill(job.read(), future)
            while ahead and (len(ahead) > WRITERS or ahead[0][1].done()):
                done, future = ahead.popleft()
                future.result()
                yield done
        for done, future in ahead:
            future.result()
            yield done


def _write(job: Job, parts: "_Parts") -> None:
    if not job.target.is_file():
        job.write(iter(parts))


class _Parts:
    """Parts of a table on their way from the thread that reads to the one that writes; a few at a time."""

    def __init__(self) -> None:
        self._queue: Queue[Any] = Queue(READ_AHEAD)

    def fill(self, parts: Iterable[Any], writer: "Future[None]") -> None:
        """Hand over parts, until the writer fails; where reading fails, the writer does too."""
        try:
            for part in parts:
                self._put(part, writer)
            self._put(_END, writer)
        except BaseException as error:
            self._put(error, writer)
            raise

    def _put(self, part: object, writer: "Future[None]") -> None:
        while not writer.done():
            try:
                self._queue.put(part, timeout=0.1)
            except Full:
                continue
            return

    def __iter__(self) -> Iterator[Any]:
        while (part := self._queue.get()) is not _END:
            if isinstance(part, BaseException):
                raise part
            yield part
