"""What a worker is, and how one is run: one contract for every program that lives in another environment.

A worker is a command run as `COMMAND REQUEST.json`. It loads its model once, reads folders of frames and writes its
results into a folder beside each.

Request (JSON):
    sequences   list of {folder, results, frames, mode, ...}: `frames` are file names in `folder`, in order;
                `results` is an empty folder that exists; `mode` is a word of that worker's; further keys are
                that worker's (mediapipe: `crops` and `smooth`)
    settings    object of that worker's settings
Standard output: a line `progress N TOTAL` after each frame; other lines are ignored.
Standard error: free text, kept beside the request as REQUEST.log; its last line is what the user reads on failure.
Exit code: 0 done; 2 a user's mistake, said in one line; anything else is a fault.
Standard input: a pipe that the caller holds. When it ends, the caller is gone, and the worker exits at once (where the
    kernel cannot end it with its parent, as on macOS, this is the only way).
Results: exactly the files that the caller expects: a missing or a surplus file is a fault.
"""

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tasks.errors import ToolError

USER_ERROR = 2
_PROGRESS = re.compile(r"progress (\d+) (\d+)\s*$")
_SHOWN_FILES = 3

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


def write_request(path: Path, sequences: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> None:
    """Write a request, and make the empty results folder of each sequence."""
    for sequence in sequences:
        Path(sequence["results"]).mkdir(parents=True)
    text = json.dumps({"sequences": list(sequences), "settings": dict(settings)}, indent=1)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def run_worker(
    command: Sequence[str],
    request: Path,
    expected: Mapping[Path, Collection[str]],
    timeout_s: float,
    on_progress: Callable[[int, int], None] | None = None,
    name: str = "worker",
) -> None:
    """Run a worker to its end and check that it wrote what was asked for.

    Args:   command: program and arguments, to which the request's path is added.
            expected: for each results folder, the names of the files that must be in it afterwards, and no others.
            timeout_s: the longest time without a progress line, loading the model included.
            on_progress: called with (frames done, frames in all) in the calling thread.
            name: how error messages call the worker.
    Raises: ToolError if it refuses, fails, falls silent, or leaves a file out or over. Whatever ends this call early
            (an exception, Ctrl-C, the death of this process), nothing of the worker goes on running.
    """
    # Another environment's packages must not reach the worker's Python.
    environment = {
        key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    }
    log = request.with_suffix(".log")
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())]
    with log.open("wb") as log_file:
        process = subprocess.Popen(
            [*launcher, *command, str(request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            env=environment,
            process_group=0,
        )
    try:
        is_in_time = _follow(process, timeout_s, on_progress)
    finally:
        # Its helpers too, on the good path as well: nothing may write after this call.
        _kill_group(process)
    if not is_in_time:
        raise ToolError(f"{name}: no progress for {timeout_s:g} s, so it was stopped; its messages are in {log}")
    if process.returncode != 0:
        _raise_failure(name, process.returncode, log)
    _check_results(name, expected)


def _follow(process: subprocess.Popen[bytes], timeout_s: float, on_progress: Callable[[int, int], None] | None) -> bool:
    """Hand on progress until the worker ends (True) or is silent for too long (False)."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read_output() -> None:
        for line in process.stdout or ():
            lines.put(line)

    reader = threading.Thread(target=read_output, daemon=True)
    reader.start()
    deadline = time.monotonic() + timeout_s
    has_ended = False
    while True:
        try:
            line = lines.get(timeout=0.05)
        except queue.Empty:
            # Only after an empty look at the queue is everything that the worker said before its end handed on. The
            # pipe's end says nothing: a helper of the worker's may hold it open.
            if has_ended:
                return True
            if process.poll() is not None:
                reader.join(timeout=1)
                has_ended = True
            elif time.monotonic() > deadline:
                return False
            continue
        match = _PROGRESS.match(line.decode("utf-8", "replace"))
        if match:
            deadline = time.monotonic() + timeout_s
            if on_progress:
                on_progress(int(match[1]), int(match[2]))


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left; macOS says it the second way
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _raise_failure(name: str, code: int, log: Path) -> NoReturn:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    said = lines[-1].strip() if lines else "it said nothing"
    if code == USER_ERROR:
        raise ToolError(f"{name}: {said}")
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"
    raise ToolError(f"{name}: {how}: {said} (all its messages: {log})")


def _check_results(name: str, expected: Mapping[Path, Collection[str]]) -> None:
    for folder, names in expected.items():
        found = {path.name for path in folder.iterdir()}
        for word, files in (("left out", set(names) - found), ("wrote unasked", found - set(names))):
            if files:
                shown = ", ".join(sorted(files)[:_SHOWN_FILES]) + (", ..." if len(files) > _SHOWN_FILES else "")
                raise ToolError(f"{name}: it {word} {len(files)} of its results in {folder}: {shown}")
