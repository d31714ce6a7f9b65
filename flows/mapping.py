"""The one place that decides where a stage's groups of items run.

In this stage's own processes (one group alone: in the stage's process itself); under a Prefect flow
(INBETWEEN_RUN_CONTEXT names its run context) each group is also a task of that run, which waits for its process. Plain
`dvc repro` imports no Prefect.
"""

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple, TypeVar

from flows.lifetime import kill_children, start_worker_process
from flows.progress import say
from flows.project import RUN_CONTEXT
from tasks.errors import InbetweenError, ToolError

G = TypeVar("G")
R = TypeVar("R")

GRACE_S = 5.0  # for a process of a job to end of what ended another


def count_workers(workers: int) -> int:
    """Processes a stage: the parameter, or one a core that this process may use."""
    if workers:
        return workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_groups(
    function: Callable[[G], R],
    groups: Sequence[G],
    *,
    workers: int,
    names: Sequence[str],
    on_done: Callable[[G, R], None],
) -> None:
    """Run `function` on every group, a process each, at most `workers` at a time.

    Args:
        names: what each group is called in Prefect.
        on_done: called in this process as groups finish, in no fixed order.
    Raises: the first error of a group; those that have not begun are dropped, those at work are ended.
    """
    if not groups:
        return
    context_file = os.environ.get(RUN_CONTEXT)
    if len(groups) == 1 and not context_file:
        on_done(groups[0], function(groups[0]))  # a process of its own would cost more than it brings
        return
    # Pictures come from the heap, which keeps its pages: fresh ones for every array cost a tenth of a stage's time.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(128 * 2**20))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(256 * 2**20))
    # forkserver: children start from a process without threads, with the stage's modules already imported.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_modules_of(function))
    workers = min(workers, len(groups))
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker_process)
    try:
        if context_file:
            from flows.prefect_tasks import map_as_tasks

            context_path = Path(context_file)
            map_as_tasks(
                pool, function, groups, workers=workers, names=names, on_done=on_done, context_file=context_path
            )
        else:
            futures: dict[Future[R], G] = {pool.submit(function, group): group for group in groups}
            for future in as_completed(futures):
                on_done(futures[future], future.result())
        pool.shutdown()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        kill_children()  # a group may have minutes to go, and it may have programs of its own
        raise


def run_ranks(first: Callable[[], None], other: Callable[[], None], num_ranks: int) -> None:
    """Run a data-parallel job: `first` here, `other` in num_ranks - 1 processes, which find each other by torch's own
    environment variables. When one fails, all end.

    Args: other: picklable.
    Raises: what `first` raises, or what another process ended of, if that was first.
    """
    if num_ranks == 1:
        first()
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(num_ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    own = common | {"RANK": "0", "LOCAL_RANK": "0"}
    ranks = _start_ranks(other, common, num_ranks)
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
        for rank in ranks:
            rank.process.join()
    finally:
        is_over.set()
        kill_children()
        for name in own:
            del os.environ[name]


class _Rank(NamedTuple):
    """A process of a data-parallel job but the first.  error: where it leaves the error that it ends of."""

    process: BaseProcess
    error: Connection


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


def _find_failure(ranks: Sequence[_Rank]) -> InbetweenError | None:
    """Why a process of the job has ended, where one has before its time."""
    for process, error in ranks:
        if process.exitcode and error.poll():
            with suppress(EOFError):
                sent: InbetweenError = error.recv()
                return sent
    for number, (process, _) in enumerate(ranks, 1):
        if process.exitcode:
            how = f"was killed by signal {-process.exitcode}" if process.exitcode < 0 else "failed, as told above"
            return ToolError(
                f"process {number} of {len(ranks) + 1} {how}; run the stage again: it goes on from its last saved state"
            )
    return None


def _wait_for_failure(ranks: Sequence[_Rank]) -> InbetweenError | None:
    end = time.monotonic() + GRACE_S
    while (failure := _find_failure(ranks)) is None and time.monotonic() < end:
        time.sleep(0.1)
    return failure


def _watch_ranks(ranks: Sequence[_Rank], is_over: threading.Event) -> None:
    """The first process may wait for the others inside torch for half an hour: a dead one must not leave it there."""
    while not is_over.wait(1):
        failure = _find_failure(ranks)
        if failure and not is_over.wait(2 * GRACE_S):  # most often torch notices
            say(str(failure))
            kill_children()
            os._exit(2)


def _modules_of(function: object) -> list[str]:
    """Modules that the work needs, found through functools.partial."""
    found = []
    for part in (function, getattr(function, "func", None), *getattr(function, "args", ())):
        inner = getattr(part, "func", part)
        if callable(inner) and hasattr(inner, "__module__"):
            found.append(inner.__module__)
    return [name for name in dict.fromkeys(found) if name.split(".")[0] in {"tasks", "models"}]
