"""`dvc repro --single-item STAGE...` as a child process of a flow or of the demo, and what became of it.

The child is DVC itself behind a watch (`python -m flows.dvc_process ARGUMENTS`): it ends, with the stage that it runs,
when its parent is gone. It has a session of its own, so that Ctrl-C is the parent's to act on.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import psutil

from flows.disk import SHORT
from flows.lifetime import end_with_parent
from flows.lock_file import use_fast_updates
from flows.pipeline import BUSY
from flows.project import ROOT

Outcome = Literal["ran", "restored", "cached", "failed", "skipped", "stopped"]

_RETRY_S = 1.0
_GRACE_S = 10.0  # DVC may be at copying a finished stage's outputs
# DVC writes its lock file in place as its stage ends: killed at that moment it would leave half of it.
_ORPHAN_GRACE_S = 5.0
_POLL_S = 0.1
_STAGE_ERROR = re.compile(r"inbetween stage[^:]*: (.*)")
_FAULT = re.compile(r"[\w.]*(?:Error|Exception)\b.*")  # the last line of a traceback
_DVC_ERROR = re.compile(r"ERROR: (?:failed to reproduce '[^']*': )?(.*)")
# DVC ends well, and writes into dvc.lock what is not in its cache (a full disk), which the next run finds missing.
_LOST = "failed to transfer"
_EXIT_CODE = re.compile(r"exited with (-?\d+)")
# What DVC says after every stage, and a person needs once if at all.
_ADVICE = (
    "Data and pipelines are up to date",
    "Generating lock file",
    "To enable auto staging",
    "To track the changes with git",
    "Updating lock file",
    "Use `dvc push`",
    "dvc config core.autostage",
    "git add ",
)


@dataclass(frozen=True)
class StageEnd:
    """What became of a stage.

    error: one line where it failed or was skipped.  code: 0, 2 where the user can mend it, 1 for a fault.
    """

    name: str
    outcome: Outcome
    seconds: float = 0.0
    error: str = ""
    code: int = 0


class DvcProcesses:
    """The DVC processes of one flow, which can all be stopped at once."""

    def __init__(self) -> None:
        self._live: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._is_stopping = threading.Event()

    def repro(
        self,
        *stages: str,
        options: Sequence[str] = (),
        environment: Mapping[str, str],
        on_line: Callable[[str], None],
    ) -> StageEnd:
        """Run a stage if DVC finds it changed; wait where another process holds DVC's locks.

        Several are run one after the other, up to the first that fails; what ended is then all of them.

        Args: options: of `dvc repro`: --force, --pull.
        """
        name = ", ".join(stages)
        start = time.monotonic()
        has_waited = False
        while True:
            end = self._repro_once(name, [*options, *stages], environment, on_line)
            if end.outcome != "failed" or not any(words in end.error for words in BUSY):
                return StageEnd(name, end.outcome, time.monotonic() - start, end.error, end.code)
            if not has_waited:
                on_line(f"{name}: waiting for another dvc: {end.error}")
                has_waited = True
            self._is_stopping.wait(_RETRY_S)

    def stop(self) -> None:
        """End every process and start no other. Returns when they are gone."""
        self._is_stopping.set()
        with self._lock:
            live = list(self._live)
        for process in live:
            with suppress(psutil.NoSuchProcess):
                _end(process)

    def _repro_once(
        self, name: str, words: Sequence[str], environment: Mapping[str, str], on_line: Callable[[str], None]
    ) -> StageEnd:
        command = [sys.executable, "-m", "flows.dvc_process", "--wait-for-lock", "repro", "--single-item"]
        with self._lock:
            if self._is_stopping.is_set():
                return StageEnd(name, "stopped")
            process = subprocess.Popen(
                [*command, *words],
                cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": _python_path(), **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            self._live.add(process)
        reader = _OutputReader()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                text = reader.read(line)
                if text and not self._is_stopping.is_set():
                    on_line(text)
            code = process.wait()
        finally:
            with self._lock:
                self._live.discard(process)
        if self._is_stopping.is_set() and code:
            return StageEnd(name, "stopped")
        return reader.conclude(name, code)


class _OutputReader:
    """Understands DVC's lines: what was done, and why it failed."""

    def __init__(self) -> None:
        self.outcome: Outcome = "cached"
        self.stage_error = self.dvc_error = self.short_of_room = ""
        self.code = 1

    def read(self, line: str) -> str:
        """Take in a line. Returns what a person wants to see of it."""
        text = line.rstrip()
        if text.startswith("Running stage"):
            self.outcome = "ran"
        elif "is cached - skipping run" in text:
            self.outcome = "restored"
        elif match := _STAGE_ERROR.match(text):
            self.stage_error = match[1]
        elif _FAULT.match(text):
            self.stage_error = text
        elif SHORT in text:
            self.short_of_room = text
        elif match := _DVC_ERROR.match(text):
            self.dvc_error = self.dvc_error or match[1]
            if code := _EXIT_CODE.search(text):
                self.code = 2 if code[1] == "2" else 1
        return "" if text.strip().startswith(_ADVICE) or "didn't change, skipping" in text else text

    def conclude(self, stage: str, code: int) -> StageEnd:
        if not code and not self.dvc_error.startswith(_LOST):
            return StageEnd(stage, self.outcome)
        if code < 0 or code == 143:
            return StageEnd(stage, "failed", error=f"dvc was killed ({_name_signal(code)})", code=1)
        error = self.stage_error or self.dvc_error or f"dvc exited with {code}"
        if self.short_of_room and not self.stage_error:
            error = f"{error} ({self.short_of_room})"
        return StageEnd(stage, "failed", error=error, code=self.code)


def _name_signal(code: int) -> str:
    try:
        return signal.Signals(-code).name if code < 0 else "SIGTERM"
    except ValueError:
        return f"signal {-code}"


def _end(process: subprocess.Popen[str]) -> None:
    """End a DVC through its stage, so that it closes its books (dvc.lock, its locks); by force after a while."""
    parent = psutil.Process(process.pid)
    family: set[psutil.Process] = set()
    deadline = time.monotonic() + _GRACE_S
    with suppress(psutil.Error):
        while parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
            below = parent.children(recursive=True)  # again and again: it may be about to start its stage
            family.update(below)
            for child in below:
                with suppress(psutil.Error):
                    child.terminate()
            time.sleep(_POLL_S)
    for survivor in [parent, *family]:
        with suppress(psutil.Error):
            survivor.kill()
    psutil.wait_procs([parent, *family], _GRACE_S)


def _python_path() -> str:
    """This project's code, whichever checkout the environment was installed from."""
    inherited = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join(filter(None, [str(ROOT), inherited]))


def main() -> int:
    """DVC's own command line, ended with its parent."""
    end_with_parent(_ORPHAN_GRACE_S)
    use_fast_updates()
    from dvc.cli import main as dvc

    return int(dvc(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
