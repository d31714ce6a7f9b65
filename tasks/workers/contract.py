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

import json
import re
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tasks.errors import ToolError
from tasks.workers.process import run_process

USER_ERROR = 2
_PROGRESS = re.compile(r"progress (\d+) (\d+)\s*$")
_SHOWN_FILES = 3


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
    log = request.with_suffix(".log")

    def read_line(line: str) -> bool:
        match = _PROGRESS.match(line)
        if match and on_progress:
            on_progress(int(match[1]), int(match[2]))
        return match is not None

    with log.open("wb") as log_file:
        code = run_process([*command, str(request)], read_line, timeout_s, errors=log_file)
    if code is None:
        raise ToolError(f"{name}: no progress for {timeout_s:g} s, so it was stopped; its messages are in {log}")
    if code != 0:
        _raise_failure(name, code, log)
    _check_results(name, expected)


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
