"""The one place that decides where a stage's groups of items run.

In this stage's own processes (one group alone: in the stage's process itself), or as tasks of a Ray cluster
(flows/ray/cluster.py); under a Prefect flow (INBETWEEN_RUN_CONTEXT names its run context) each group is also a task of
that run, which waits for its process. Plain `dvc repro` imports no Prefect, and no Ray unless it is asked for.
"""

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from flows.lifetime import kill_children, start_worker_process
from flows.progress import say
from flows.project import RUN_CONTEXT
from tasks.errors import InbetweenError, ToolError
from tasks.items import GroupRecord, Item, ItemStore, Work, do_group

if TYPE_CHECKING:  # with Ray, an optional extra
    from flows.ray.cluster import RayPool, RaySettings

_ray: "ContextVar[RaySettings | None]" = ContextVar("ray", default=None)

GRACE_S = 5.0  # for a process of a job to end of what ended another


def count_workers(workers: int) -> int:
    """Processes a stage: the parameter, or one a core that this process may use."""
    if workers:
        return workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class GroupPool(Protocol):
    """Where groups of items run."""

    def submit(self, group: Sequence[Item]) -> Future[GroupRecord]: ...


def map_groups(
    work: Work,
    groups: Sequence[Sequence[Item]],
    store: ItemStore,
    *,
    workers: int,
    names: Sequence[str],
    on_done: Callable[[GroupRecord], None],
    ray: "RaySettings | None" = None,
) -> None:
    """Do every group of items into the store, a process each, at most `workers` at a time.

    Args:
        workers: processes here, or what the cluster can run at a time.
        names: what each group is called in Prefect.
        on_done: called in this process as groups finish, in no fixed order.
        ray: None = in processes of this machine.
    Raises: the first error of a group; those that have not begun are dropped, those at work are ended.
    """
    if not groups:
        return
    context_file = os.environ.get(RUN_CONTEXT)
    if len(groups) == 1 and not context_file and ray is None:
        on_done(do_group(work, groups[0], store))  # a process of its own would cost more than it brings
        return
    # Pictures come from the heap, which keeps its pages: fresh ones for every array cost a tenth of a stage's time.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(128 * 2**20))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(256 * 2**20))
    with _open_pool(work, groups, store, workers, ray) as pool:
        if context_file:
            from flows.prefect_tasks import map_as_tasks

            map_as_tasks(pool, groups, workers=workers, names=names, on_done=on_done, context_file=Path(context_file))
        else:
            for future in as_completed([pool.submit(group) for group in groups]):
                on_done(future.result())


@contextmanager
def _open_pool(
    work: Work, groups: Sequence[Sequence[Item]], store: ItemStore, workers: int, ray: "RaySettings | None"
) -> Iterator[GroupPool]:
    """Processes of this machine, or of a cluster; ended at once where the body raises."""
    pool: LocalPool | RayPool
    if ray is None:
        pool = LocalPool(work, store, min(workers, len(groups)))
    else:
        from flows.ray import cluster as ray_cluster

        if store.is_fresh:  # what comes home is told by being there
            store.drop(item.key for group in groups for item in group)
        pool = ray_cluster.RayPool(ray, work, store, min(ray_cluster.WAITING_PER_SLOT * workers, len(groups)))
    try:
        yield pool
        pool.close()
    except BaseException:
        pool.cancel()
        raise


class LocalPool:
    """Runs groups in processes of this machine."""

    def __init__(self, work: Work, store: ItemStore, workers: int) -> None:
        # forkserver: children start from a process without threads, with the stage's modules already imported.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_modules_of(work))
        self._work, self._store = work, store
        self._pool = ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker_process)

    def submit(self, group: Sequence[Item]) -> Future[GroupRecord]:
        return self._pool.submit(do_group, self._work, group, self._store)

    def close(self) -> None:
        self._pool.shutdown()

    def cancel(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        kill_children()  # a group may have minutes to go, and it may have programs of its own


def run_ranks(first: Callable[[], None], other: Callable[[], None], num_ranks: int) -> None:
    """Run a data-parallel job: `first` here, `other` in num_ranks - 1 processes, which find each other by torch's own
    environment variables. They are processes of this machine, or of the nodes of a Ray cluster (use_ray). When one
    fails, all end.

    Args: other: picklable.
    Raises: what `first` raises, or what another process ended of, if that was first.
    """
    if num_ranks == 1:
        first()
        return
    ranks: Ranks
    if settings := _ray.get():
        from flows.ray.ranks import RayRanks

        ranks = RayRanks(settings, other, num_ranks)
    else:
        ranks = LocalRanks(other, num_ranks)
    address, port = ranks.master
    own = {
        "WORLD_SIZE": str(num_ranks), "MASTER_ADDR": address, "MASTER_PORT": str(port), "RANK": "0", "LOCAL_RANK": "0",
    }  # fmt: skip
    is_over = threading.Event()
    threading.Thread(target=_watch_ranks, args=(ranks, is_over), daemon=True, name="watch-ranks").start()
    os.environ |= own
    try:
        first()
    except Exception as error:
        # Torch tells the first process no more than that it lost another one.
        failure = None if isinstance(error, InbetweenError) else _wait_for_failure(ranks)
        is_over.set()
        if failure:
            raise failure from error
        raise
    else:
        is_over.set()
        ranks.join()
    finally:
        is_over.set()
        ranks.end()
        for name in own:
            del os.environ[name]


def use_ray(settings: "RaySettings | None") -> None:
    """Have the jobs of this stage's process run on a Ray cluster. None = on this machine."""
    _ray.set(settings)


class Ranks(Protocol):
    """The processes of a data-parallel job but the first. master: where they look for it, (address, port)."""

    master: tuple[str, int]

    def find_failure(self) -> InbetweenError | None:
        """Why a process of the job has ended, where one has before its time."""

    def join(self) -> None: ...

    def end(self) -> None: ...


class _Rank(NamedTuple):
    """A process of a data-parallel job.  error: where it leaves the error that it ends of."""

    process: BaseProcess
    error: Connection


class LocalRanks:
    """Processes of this machine."""

    def __init__(self, work: Callable[[], None], num_ranks: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.master = ("127.0.0.1", int(free.getsockname()[1]))
        common = {"WORLD_SIZE": str(num_ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self.master[1])}
        self._ranks = _start_ranks(work, common, num_ranks)

    def find_failure(self) -> InbetweenError | None:
        for process, error in self._ranks:
            if process.exitcode and error.poll():
                with suppress(EOFError):
                    sent: InbetweenError = error.recv()
                    return sent
        for number, (process, _) in enumerate(self._ranks, 1):
            if process.exitcode:
                how = f"was killed by signal {-process.exitcode}" if process.exitcode < 0 else "failed, as told above"
                return ToolError(
                    f"process {number} of {len(self._ranks) + 1} {how}; run the stage again: it goes on from its last"
                    f" saved state"
                )
        return None

    def join(self) -> None:
        for rank in self._ranks:
            rank.process.join()

    def end(self) -> None:
        kill_children()


def _start_ranks(work: Callable[[], None], common: Mapping[str, str], num_ranks: int) -> list[_Rank]:
    context = multiprocessing.get_context("spawn")
    ranks = []
    # Ctrl-C is the first process's to answer: what it ignores while they start, they ignore from the beginning.
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if is_main else None
    try:
        for rank in range(1, num_ranks):
            error, sender = context.Pipe(duplex=False)
            environment = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            process = context.Process(target=_run_rank, args=(work, environment, sender))
            process.start()
            sender.close()
            ranks.append(_Rank(process, error))
    finally:
        if is_main:
            signal.signal(signal.SIGINT, before)
    return ranks


def _run_rank(work: Callable[[], None], environment: Mapping[str, str], errors: Connection) -> None:
    start_worker_process()
    os.environ |= environment
    try:
        work()
    except InbetweenError as error:
        errors.send(error)
        sys.exit(2)


def _wait_for_failure(ranks: Ranks) -> InbetweenError | None:
    end = time.monotonic() + GRACE_S
    while (failure := ranks.find_failure()) is None and time.monotonic() < end:
        time.sleep(0.1)
    return failure


def _watch_ranks(ranks: Ranks, is_over: threading.Event) -> None:
    """The first process may wait for the others inside torch for half an hour: a dead one must not leave it there."""
    while not is_over.wait(1):
        failure = ranks.find_failure()
        if failure and not is_over.wait(2 * GRACE_S):  # most often torch notices
            say(str(failure))
            ranks.end()
            os._exit(2)


def _modules_of(function: object) -> list[str]:
    """Modules that the work needs, found through functools.partial."""
    found = []
    for part in (function, getattr(function, "func", None), *getattr(function, "args", ())):
        inner = getattr(part, "func", part)
        if callable(inner) and hasattr(inner, "__module__"):
            found.append(inner.__module__)
    return [name for name in dict.fromkeys(found) if name.split(".")[0] in {"tasks", "models"}]
