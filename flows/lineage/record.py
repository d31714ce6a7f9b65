"""lineage/runs.jsonl: who ran what and when, one line for each stage that ran or was restored; in git.

A stage that runs writes its line itself, with the md5 of its outputs that DVC is about to write into dvc.lock. Stages
that DVC restores from its run cache run no code of ours: `record_restored` finds them afterwards, in dvc.lock.
The file is merged by union (.gitattributes), only ever appended to, and no stage's dependency.
"""

import getpass
import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cache import share_with_cache
from flows.lifetime import hold_lock
from flows.progress import say
from flows.project import FLOW_RUN, ROOT, STATE

if TYPE_CHECKING:
    from tasks.items import FileId
    from tasks.lineage.lock import Entry

RUNS = ROOT / "lineage/runs.jsonl"
_SEEN = STATE / "recorded.json"  # stage -> its outputs when the record was last held against dvc.lock
_LOCK = STATE / "locks" / "record.lock"
# What a run itself changes: no sign of a work tree that differs from its revision.
_NOT_DIRTY = (":!dvc.lock", ":!lineage", ":!metrics")


@contextmanager
def recorded(stage: str, item: str, tools: Mapping[str, str], md5s: "Mapping[FileId, str]") -> Iterator[None]:
    """Append a line when the work inside has ended well. A record that cannot be written does not fail the stage.

    Args: md5s: of those output files whose md5 is known by then; the others are read.
    """
    started = _now()
    facts = _facts()
    yield
    label = f"{stage}@{item}" if item else stage
    try:
        finished = _now()
        outs = {path: hash_files(ROOT / path, md5s) for path in output_paths(stage, item)}
        share_with_cache({path: md5 for files in outs.values() for path, md5 in files.items()})
        seconds = round((finished - started).total_seconds(), 1)
        _append(
            {
                "stage": label,
                "event": "ran",
                "outs": {path: hash_output(ROOT / path, files) for path, files in outs.items()},
                **facts,
                "started": _stamp(started),
                "finished": _stamp(finished),
                "seconds": seconds,
                "tools": dict(sorted(tools.items())),
                "platform": {
                    "machine": platform.machine(),
                    "python": platform.python_version(),
                    "system": platform.system(),
                },
            }
        )
    except OSError as error:
        say(f"{label}: lineage/runs.jsonl could not be written ({error}); this run stands in no record")


def record_restored() -> int:
    """Append a line for each stage whose entry in dvc.lock changed without its having run. Returns how many.

    Raises: LockFileError where dvc.lock is not as DVC writes it.
    """
    from tasks.lineage.lock import parse_lock
    from tasks.lineage.runs import parse_runs

    lock = ROOT / "dvc.lock"
    now = {name: _outs(entry) for name, entry in parse_lock(lock.read_text() if lock.is_file() else "").items()}
    with hold_lock(_LOCK, "lineage"):
        runs, _ = parse_runs(RUNS.read_text() if RUNS.is_file() else "")
        last = {run.stage: run.outs for run in runs}
        before = _seen_before()
        restored = [name for name, outs in now.items() if outs not in (last.get(name), before.get(name))]
        if restored:
            facts, finished = _facts(), _stamp(_now())
            for name in restored:
                _write_line({"stage": name, "event": "restored", "outs": now[name], **facts, "finished": finished})
        _SEEN.parent.mkdir(parents=True, exist_ok=True)
        temporary = _SEEN.with_suffix(".tmp")
        temporary.write_text(json.dumps(now))
        temporary.replace(_SEEN)
    return len(restored)


def note_restored() -> None:
    """record_restored at the end of a run: what hinders it is said, and does not fail the run."""
    from tasks.errors import InbetweenError

    try:
        if number := record_restored():
            say(f"lineage: {number} restored stages noted in lineage/runs.jsonl")
    except (InbetweenError, OSError) as error:
        say(f"lineage: restored stages are not noted: {error}")


def output_paths(stage: str, item: str) -> list[str]:
    """The outputs of a stage, metrics and plots included, as dvc.yaml declares them for this item."""
    from tasks.lineage.lock import load_yaml

    content: dict[str, Any] = load_yaml((ROOT / "dvc.yaml").read_text())
    declared = content["stages"][stage]
    values = {"key": item}
    if section := declared.get("foreach", "").strip("${}"):
        params = load_yaml((ROOT / "params.yaml").read_text())
        values |= {f"item.{name}": str(value) for name, value in params[section][item].items()}
        declared = declared["do"]
    rows = [row for kind in ("outs", "metrics", "plots") for row in declared.get(kind, [])]
    names = [row if isinstance(row, str) else next(iter(row)) for row in rows]
    return sorted(re.sub(r"\$\{([^}]+)\}", lambda match: values[match[1]], name) for name in names)


def hash_files(path: Path, known: "Mapping[FileId, str]") -> dict[Path, str]:
    """The md5 of a file, or of each file of a folder; none where it is not there."""
    from tasks.items import identify, md5_file  # here: with Arrow, which who only reads the record does without

    def md5(file: Path) -> str:
        return known.get(identify(file)) or md5_file(file)

    files = [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if file.is_file()]
    with ThreadPoolExecutor() as threads:  # hashing works outside Python's lock
        return dict(zip(files, threads.map(md5, files), strict=True))


def hash_output(path: Path, files: Mapping[Path, str]) -> str:
    """The md5 that DVC gives to a file or folder of these files; "" where there are none."""
    if path in files or not files:
        return files.get(path, "")
    hashes = {file.relative_to(path).as_posix(): md5 for file, md5 in files.items()}
    rows = [{"md5": hashes[name], "relpath": name} for name in sorted(hashes)]
    return hashlib.md5(json.dumps(rows).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _outs(entry: "Entry") -> dict[str, str]:
    return {out.path: out.md5 for out in sorted(entry.outs)}


def _facts() -> dict[str, Any]:
    """Who, at which revision, and in which Prefect run."""
    rev = _git("rev-parse", "--verify", "-q", "HEAD")
    facts: dict[str, Any] = {}
    if rev:
        facts |= {"rev": rev, "is_dirty": bool(_git("status", "--porcelain", "--", ".", *_NOT_DIRTY))}
    facts["user"] = _git("config", "user.name") or getpass.getuser()
    if run := os.environ.get(FLOW_RUN):
        facts["run"] = run
    return facts


def _git(*words: str) -> str:
    done = subprocess.run(
        ["git", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
    )
    return "" if done.returncode else done.stdout.strip()


def _seen_before() -> dict[str, dict[str, str]]:
    """The outputs when last looked; on a fresh clone, those of dvc.lock in git HEAD."""
    from tasks.lineage.errors import LockFileError
    from tasks.lineage.lock import parse_lock

    try:
        seen: dict[str, dict[str, str]] = json.loads(_SEEN.read_text())
    except (OSError, ValueError):
        try:
            committed = _git("show", "HEAD:./dvc.lock")
            seen = {name: _outs(entry) for name, entry in parse_lock(committed + "\n" if committed else "").items()}
        except LockFileError:
            seen = {}
    return seen


def _append(row: Mapping[str, Any]) -> None:
    with hold_lock(_LOCK, "lineage"):
        _write_line(row)


def _write_line(row: Mapping[str, Any]) -> None:
    from tasks.lineage.runs import Run

    RUNS.parent.mkdir(parents=True, exist_ok=True)
    line = Run(**row).to_line() + "\n"
    with RUNS.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a hand's edit, or a write that a full disk cut short
                line = "\n" + line
        file.write(line.encode())


def _now() -> datetime:
    return datetime.now(UTC)


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
