"""Run somebody else's program to its end, or end it: nothing of it outlives the call, the caller, or a long silence."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

# Another environment's packages must not reach the program's Python.
_NOT_INHERITED = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}

# Runs in the new process before the command takes its place: from then on the kernel kills it when its parent dies. A
# preexec_fn would do the same, but may deadlock in a parent with threads. The parent may die before the call: hence the
# second check.
_LAUNCHER = """
import os, sys
if sys.platform == "linux":
    import ctypes, signal
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"cannot start {sys.argv[2]}: {error.strerror}")
"""


def run_process(
    command: Sequence[str],
    on_line: Callable[[str], bool],
    timeout_s: float,
    *,
    errors: IO[bytes] | None = None,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> int | None:
    """Run a command to its end; its exit code (negative: the signal that ended it), or None: silent for too long.

    Args:
        on_line: called in the calling thread with each line of what it says, those that a bar rewrites too; True = it
            is a sign of life. What it raises ends the program.
        timeout_s: the longest time without such a line.
        errors: where standard error goes; None = it is read as part of what the program says.
        folder: where it runs.  environment: variables beside those of this process.
    Standard input is a pipe that ends with this process.
    """
    variables = {key: value for key, value in os.environ.items() if key not in _NOT_INHERITED}
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if errors is None else errors,
        cwd=folder,
        env=variables | dict(environment or {}),
        process_group=0,
    )
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    reader = threading.Thread(target=_read_lines, args=(process, lines), daemon=True)
    reader.start()
    try:
        is_in_time = _follow(process, reader, lines, timeout_s, on_line)
    finally:
        # Its helpers too, on the good path as well: nothing may write after this call.
        _kill_group(process, reader)
    return process.returncode if is_in_time else None


def _follow(
    process: subprocess.Popen[bytes],
    reader: threading.Thread,
    lines: "queue.SimpleQueue[bytes]",
    timeout_s: float,
    on_line: Callable[[str], bool],
) -> bool:
    """Hand on lines until the program ends (True) or is silent for too long (False)."""
    deadline = time.monotonic() + timeout_s
    has_ended = False
    while True:
        try:
            line = lines.get(timeout=0.05)
        except queue.Empty:
            # Only after an empty look at the queue is everything that the program said before its end handed on. The
            # pipe's end says nothing: a helper of the program's may hold it open.
            if has_ended:
                return True
            if process.poll() is not None:
                reader.join(timeout=1)
                has_ended = True
            elif time.monotonic() > deadline:
                return False
            continue
        if on_line(line.decode("utf-8", "replace")):
            deadline = time.monotonic() + timeout_s


def _read_lines(process: subprocess.Popen[bytes], lines: "queue.SimpleQueue[bytes]") -> None:
    """Lines as they end, by a line feed or (progress bars) by a carriage return alone."""
    assert process.stdout is not None
    rest = b""
    while data := os.read(process.stdout.fileno(), 2**16):
        *whole, rest = (rest + data).replace(b"\r", b"\n").split(b"\n")
        for line in whole:
            lines.put(line)
    if rest:
        lines.put(rest)


def _kill_group(process: subprocess.Popen[bytes], reader: threading.Thread) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left; macOS says it the second way
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    reader.join(timeout=1)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    if not reader.is_alive():  # a helper in a group of its own may hold the pipe: its number must not be another file's
        process.stdout.close()
