"""Work that comes in a stream: jobs are made one by one while processes do those before, a few of them waiting.

flows/mapping.py is for work that is all there at once and may be much; here a job may hold pictures, and no more jobs
exist at a time than one a process and one more.
"""

import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import chain
from multiprocessing.sharedctypes import Synchronized
from typing import TypeVar

from flows.lifetime import kill_children, start_worker_process
from tasks.errors import ToolError

J = TypeVar("J")
R = TypeVar("R")
Advance = Callable[[int], None]

POLL_S = 0.5

_done: "Synchronized[int] | None" = None  # of a worker process: what all of them have done, for the progress bar


def map_stream(
    function: Callable[[J, Advance], R],
    jobs: Iterable[J],
    *,
    workers: int,
    on_done: Callable[[J, R], None],
    on_advance: Advance,
    preload: Iterable[str] = (),
) -> None:
    """Run `function(job, advance)` on every job, a process each, at most `workers` at a time; one alone, here.

    Args:
        function: picklable; it calls `advance` with what it has finished.
        jobs: taken as processes become free, in this process.
        on_done: called in this process as jobs finish, in no fixed order.
        on_advance: called in this process with what was finished since.
        preload: modules that the processes import once, together.
    Raises: the first error of a job; those at work are ended. ToolError where a process was killed.
    """
    jobs = iter(jobs)
    first, second = next(jobs, None), None
    if workers > 1:
        second = next(jobs, None)
    if second is None:
        for job in chain([first] if first is not None else [], jobs):
            on_done(job, function(job, on_advance))  # a process of its own would cost more than it brings
        return
    assert first is not None
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    done = context.Value("l", 0)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(done,))
    running: dict[Future[R], J] = {}
    told = 0

    def collect(most: int) -> None:
        nonlocal told
        while len(running) > most:
            finished, _ = wait(running, timeout=POLL_S, return_when=FIRST_COMPLETED)
            if done.value > told:
                on_advance(done.value - told)
                told = done.value
            for future in finished:
                job = running.pop(future)
                on_done(job, future.result())

    try:
        for job in chain([first, second], jobs):
            running[pool.submit(_call, function, job)] = job
            collect(workers)
        collect(0)
        pool.shutdown()
    except BrokenProcessPool as error:
        kill_children()
        raise ToolError(
            "a worker process was killed, most often because memory ran out; run the same command again (it goes on"
            " where it was) with --workers 1"
        ) from error
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        kill_children()  # a job may have minutes to go, and it may have programs of its own
        raise


def _start(done: "Synchronized[int]") -> None:
    global _done
    _done = done
    start_worker_process()


def _call(function: Callable[[J, Advance], R], job: J) -> R:
    return function(job, _advance)


def _advance(amount: int) -> None:
    assert _done is not None
    with _done.get_lock():
        _done.value += amount
