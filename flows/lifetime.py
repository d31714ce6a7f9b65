"""A stage ends when its parent dies, takes its children along, and holds a lock that the next run waits for."""

import fcntl
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from flows.progress import say
from flows.project import leave_out_pandas

POLL_S = 0.3
_SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "fish"}


def end_with_parent(grace_s: float = 0.0) -> None:
    """From now on this process, and every process it started, is killed when the one that started it is gone.

    kill -9 of `dvc` leaves its command running as an orphan, which would write on into the next run. A shell between
    the two does not count as the parent. A process without a parent to lose (a service) is left alone.

    Args: grace_s: what this process has to end by itself once its children are dead, closing its books.
    """
    ancestors = _ancestors()
    if ancestors:
        threading.Thread(target=_watch, args=(ancestors, grace_s), daemon=True, name="end-with-parent").start()


def _ancestors() -> list[psutil.Process]:
    """The parent, and the parent's parent as long as the former is a shell."""
    found: list[psutil.Process] = []
    for process in psutil.Process().parents():
        if process.pid <= 1:
            break
        found.append(process)
        try:
            if process.name() not in _SHELLS:
                break
        except psutil.Error:
            break
    return found


def _watch(ancestors: list[psutil.Process], grace_s: float) -> None:
    parent = os.getppid()
    while os.getppid() == parent and all(_is_alive(process) for process in ancestors):
        time.sleep(POLL_S)
    kill_children()
    deadline = time.monotonic() + grace_s
    while time.monotonic() < deadline:
        time.sleep(POLL_S)
        kill_children()  # it may have been about to start one
    os._exit(143)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def kill_children() -> None:
    """SIGKILL every descendant of this process, but for multiprocessing's book-keeper, which ends by itself."""
    for child in psutil.Process().children(recursive=True):
        try:
            if not any("resource_tracker" in word for word in child.cmdline()):
                child.kill()
        except psutil.Error:
            continue


def start_worker_process() -> None:
    """Initialise a pool's process: it ends with the stage at once, and leaves Ctrl-C to it."""
    leave_out_pandas()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        kill_children()
        os._exit(143)

    threading.Thread(target=wait, daemon=True, name="end-with-stage").start()


@contextmanager
def hold_lock(path: Path, what: str) -> Iterator[None]:
    """Hold an exclusive lock on a file; wait for whoever has it. The system frees it when the holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{what}: another run is at it; waiting for it to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def stop_process(process: subprocess.Popen[Any], timeout_s: float) -> None:
    """End a child of ours: asked first, then killed, with `timeout_s` for each."""
    for end in (process.terminate, process.kill):
        end()  # of a process that is over already it does nothing
        try:
            process.wait(timeout_s)
            return
        except subprocess.TimeoutExpired:
            continue
