"""One clone of the repository a worker slot: where unattended runs do their work, never in somebody's checkout.

A slot is a folder .inbetween/clones/N with a lock that ends with its holder. Its clone is brought to origin's branch
before every run, uses the DVC cache, the item store and the DVC remotes of the checkout that the worker was started
in, and keeps what a killed run left (downloads that were begun) for the next run of the same purpose.
"""

import fcntl
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from flows.lifetime import hold_lock, stop_process
from flows.progress import say
from flows.project import ROOT, STATE
from tasks.errors import InbetweenError, ParamsError, ToolError

CLONES = STATE / "clones"
MAX_SLOTS = 64
RETRIES = 3
BACK_OFF_S = 10.0
NETWORK_TIMEOUT_S = 600.0
STOP_TIMEOUT_S = 25.0  # a flow's stages get 10 s to close their books

_GIT_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",  # nobody is there to answer
    "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -o BatchMode=yes"),
}
_RECORD = "lineage/runs.jsonl"  # only ever appended to
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+(?=@)")


class UnreachableError(InbetweenError):
    """A remote that gave no answer: worth another attempt."""


class CommandError(InbetweenError):
    """A command in a clone failed. code: 2 where a user can mend it, 1 for a fault."""

    def __init__(self, line: str, code: int) -> None:
        super().__init__(line)
        self.code = code

    def __reduce__(self) -> tuple[type["CommandError"], tuple[str, int]]:
        return CommandError, (str(self), self.code)


def hide_credentials(text: str) -> str:
    """`https://user:token@host/` without what stands before the @."""
    return _CREDENTIALS.sub("***", text)


@dataclass
class Clone:
    """A work tree that belongs to this process.  base: the commit of origin's branch that it was last brought to."""

    root: Path
    branch: str
    lock: IO[str]
    base: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    def git(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Raises: CommandError with git's own last line."""
        return _git(self.root, *words, check=check)

    def fetch(self) -> str:
        """Have origin's branch. Returns: its commit. Raises: UnreachableError."""
        try:
            self.git("fetch", "--quiet", "--prune", "origin", self.branch)
        except CommandError as error:
            raise UnreachableError(f"{error}; is the repository's origin there?") from error
        return self.git("rev-parse", f"origin/{self.branch}").stdout.strip()

    def reset(self, *, keeps_record: bool = False) -> None:
        """Bring the tree to what was fetched last; outputs that git ignores stay.

        Args: keeps_record: True = the lines that this run has appended to lineage/runs.jsonl stay: its stages ran.
        """
        record = self.root / _RECORD
        lines = _read_lines(record)
        (self.root / ".inbetween/recorded.json").unlink(missing_ok=True)  # the record's view of another dvc.lock
        (self.root / ".git/index.lock").unlink(missing_ok=True)  # of a run that was killed: the slot is ours
        self.git("reset", "--quiet", "--hard", f"origin/{self.branch}")
        self.git("clean", "--quiet", "-fd", "-e", ".inbetween")
        before = (
            set(self.git("show", f"{self.base}:{_RECORD}", check=False).stdout.splitlines()) if self.base else set()
        )
        self.base = self.git("rev-parse", "HEAD").stdout.strip()
        there = before | set(_read_lines(record))
        if keeps_record and (own := [line for line in lines if line not in there]):
            record.parent.mkdir(exist_ok=True)
            with record.open("a", encoding="utf-8") as file:
                file.writelines(line + "\n" for line in own)

    def run(
        self, *command: str, on_line: Callable[[str], None] = say, environment: Mapping[str, str] | None = None
    ) -> int:
        """Run a command of the clone's own code; it ends with this process, and when this call is interrupted.

        Returns: its exit code.
        """
        process = subprocess.Popen(
            command,
            cwd=self.root,
            env={**clone_environment(self.root), **self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=[self.lock.fileno()],  # the slot is taken as long as something works in it
            start_new_session=True,
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if text := hide_credentials(line.rstrip()):
                    on_line(text)
            return process.wait()
        except BaseException:
            stop_process(process, STOP_TIMEOUT_S)
            raise

    def dvc(self, *words: str, on_line: Callable[[str], None] = say) -> int:
        return self.run(sys.executable, "-m", "flows.dvc_process", *words, on_line=on_line)

    def tidy(self) -> None:
        """Drop outputs that are in the cache, but for the raw data and downloads that were begun."""
        for folder in (self.root / "data").glob("*"):
            if folder.name != "raw" and folder.is_dir() and not (folder / "videos/.partial").exists():
                shutil.rmtree(folder, ignore_errors=True)


def clone_environment(root: Path) -> dict[str, str]:
    """This process's environment, but with the code of the clone."""
    inherited = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != str(ROOT)]
    return {
        **os.environ,
        **_GIT_ENVIRONMENT,
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join([str(root), *inherited]),
    }


@contextmanager
def open_clone(purpose: str, branch: str = "main") -> Iterator[Clone]:
    """Take a free slot, and have its clone at origin's branch.

    Args: purpose: what the run is about ("ingest-b001"); the slot that last worked on it is taken if it is free.
    Raises: UnreachableError; ParamsError where this checkout has no origin, or other requirements than the branch.
    """
    origin = find_origin()
    # Runs of one purpose come one after the other: they would do the same work twice.
    with hold_lock(STATE / "locks" / f"{purpose}.lock", purpose), _take_slot(purpose) as (folder, lock):
        root = folder / "project"
        clone = Clone(root, branch, lock)
        _try_again(lambda: _git(folder, "ls-remote", "--quiet", origin, f"refs/heads/{branch}"))
        if root.is_dir():
            try:
                clone.git("remote", "set-url", "origin", origin)
                clone.fetch()
                clone.reset()
            except InbetweenError as error:  # origin answers: it is the clone
                say(f"clone {folder.name}: {error}; it is made anew")
                shutil.rmtree(root)
        if not root.is_dir():
            _make_clone(origin, branch, root)
            clone.reset()
        _share_state(root)
        _refuse_other_requirements(root)
        yield clone


def _try_again(ask: Callable[[], object]) -> None:
    """Have origin answer. Raises: UnreachableError after the last attempt."""
    for attempt in range(RETRIES + 1):
        try:
            ask()
        except CommandError as error:
            if attempt == RETRIES:
                raise UnreachableError(f"{error}; is the repository's origin there?") from error
            wait_s = back_off(attempt)
            say(f"{error}; again in {wait_s:.0f} s")
            time.sleep(wait_s)
        else:
            return


def back_off(attempt: int) -> float:
    """Seconds before another attempt: about 10, 20, 40; no two runs come back at the same time."""
    return BACK_OFF_S * float(2**attempt) * random.uniform(0.7, 1.3)  # noqa: S311


def find_origin() -> str:
    """The address that this checkout pushes to. Raises: ParamsError where there is none."""
    try:
        address = _git(ROOT, "remote", "get-url", "origin").stdout.strip()
    except CommandError as error:
        raise ParamsError(
            f"{ROOT}: this checkout has no git remote `origin`, which unattended runs clone and push to; add one:"
            f" git remote add origin ADDRESS"
        ) from error
    # A path is relative to this checkout, not to the clone.
    return str((ROOT / address).resolve()) if "://" not in address and (ROOT / address).exists() else address


@contextmanager
def _take_slot(purpose: str) -> Iterator[tuple[Path, IO[str]]]:
    CLONES.mkdir(parents=True, exist_ok=True)
    folders = [CLONES / str(number) for number in range(MAX_SLOTS)]
    folders.sort(key=lambda folder: _read_note(folder) != purpose)  # stable: the one with our leavings, then by number
    for folder in folders:
        folder.mkdir(exist_ok=True)
        with (folder / "lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            (folder / "purpose").write_text(purpose)
            yield folder, lock
            return
    raise ToolError(f"{CLONES}: all {MAX_SLOTS} slots are taken; give the workers a lower --limit")


def _read_lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def _read_note(folder: Path) -> str:
    with suppress(OSError):
        return (folder / "purpose").read_text()
    return ""


def _make_clone(origin: str, branch: str, root: Path) -> None:
    temporary = root.with_name("cloning")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        _git(root.parent, "clone", "--quiet", "--branch", branch, origin, str(temporary))
    except CommandError as error:
        raise UnreachableError(f"{error}; is there a branch {branch} at the repository's origin?") from error
    for key, value in (("user.name", "inbetween"), ("user.email", "inbetween@localhost")):
        if _git(temporary, "config", key, check=False).returncode:
            _git(temporary, "config", key, value)
    temporary.rename(root)


def _share_state(root: Path) -> None:
    """The clone's DVC uses this checkout's cache and remotes, its stages this checkout's item store."""
    from dvc.config import Config, merge

    own, theirs = str(root / ".dvc"), str(ROOT / ".dvc")
    (root / ".dvc/config.local").unlink(missing_ok=True)
    local = Config(theirs, validate=False).load_one("local") if (ROOT / ".dvc/config.local").is_file() else {}
    cache = local.get("cache", {}).get("dir") or str(ROOT / ".dvc/cache")
    with Config(own, validate=False).edit("local") as config:
        merge(config, local)
        config["cache"] = {**local.get("cache", {}), "dir": cache}
    (root / ".dvc/config.local").chmod(0o600)  # it may hold credentials
    items = root / ".inbetween/items"
    if not items.is_symlink():
        (STATE / "items").mkdir(parents=True, exist_ok=True)
        items.parent.mkdir(exist_ok=True)
        items.symlink_to(STATE / "items")


def _refuse_other_requirements(root: Path) -> None:
    """The clone's code runs in the environment of this checkout."""
    name = "requirements.txt"
    if (root / name).is_file() and (root / name).read_bytes() != (ROOT / name).read_bytes():
        raise ParamsError(
            f"{name} of origin is not this checkout's, whose environment the run would use; `git pull && make env`"
            f" where the worker runs, then start it again"
        )


def _git(folder: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    try:
        done = subprocess.run(
            ["git", *words],
            cwd=folder,
            env={**os.environ, **_GIT_ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=NETWORK_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"git {words[0]}: no answer in {NETWORK_TIMEOUT_S:g} s", 1) from error
    if check and done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no word"]
        said = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[-1])
        raise CommandError(f"git {words[0]}: {hide_credentials(said)}", 1)
    return done
