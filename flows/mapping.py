"""The one place that decides where a stage's groups of items run.

In this stage's own processes (one group alone: in the stage's process itself); under a Prefect flow
(INBETWEEN_RUN_CONTEXT names its run context) each group is also a task of that run, which waits for its process. Plain
`dvc repro` imports no Prefect.
"""

import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TypeVar

from flows.lifetime import kill_children, start_worker_process
from flows.progress import say
from flows.project import RUN_CONTEXT

G = TypeVar("G")
R = TypeVar("R")


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
    """
    if num_ranks == 1:
        first()
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(num_ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    context = multiprocessing.get_context("spawn")
    others = [
        context.Process(target=_run_rank, args=(other, common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}))
        for rank in range(1, num_ranks)
    ]
    for process in others:
        process.start()
    threading.Thread(target=_watch_ranks, args=(others,), daemon=True, name="watch-ranks").start()
    os.environ |= common | {"RANK": "0", "LOCAL_RANK": "0"}
    try:
        first()
        for process in others:
            process.join()
    except BaseException:
        kill_children()
        raise


def _run_rank(work: Callable[[], None], environment: dict[str, str]) -> None:
    start_worker_process()
    os.environ |= environment
    work()


def _watch_ranks(processes: Sequence[multiprocessing.process.BaseProcess]) -> None:
    """The first process waits for the others inside torch, for half an hour: a dead one must not leave it there."""
    while any(process.is_alive() for process in processes):
        time.sleep(1)
        codes = [process.exitcode for process in processes if process.exitcode]
        if codes:
            say(f"a process of the training ended with {codes[0]}; its error stands above")
            kill_children()
            os._exit(1)


def _modules_of(function: object) -> list[str]:
    """Modules that the work needs, found through functools.partial."""
    found = []
    for part in (function, getattr(function, "func", None), *getattr(function, "args", ())):
        inner = getattr(part, "func", part)
        if callable(inner) and hasattr(inner, "__module__"):
            found.append(inner.__module__)
    return [name for name in dict.fromkeys(found) if name.split(".")[0] in {"tasks", "models"}]
