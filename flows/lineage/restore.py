"""`inbetween lineage restore REV PATH`: a path as it stood in a revision, but for what was withdrawn.

`dvc checkout` refuses a whole folder when one file of it is gone; here every other file comes back.
"""

import dataclasses
import json
import os
from datetime import UTC, datetime
from pathlib import Path

from flows.lifetime import hold_lock
from flows.lineage.stores import find_stores
from flows.progress import Progress
from flows.project import ROOT, STATE
from tasks.lineage.references import References, read_withdrawn
from tasks.lineage.restoring import Restored, find_wanted, list_others, restore_files

MAX_ROWS = 40


def restore(rev: str, path: str, root: Path = ROOT, *, to: Path | None = None, threads: int = 0) -> Restored:
    """Bring back the files of a path.

    Args: to: a folder to write to, as PATH is below the project; by default the project itself. There, what differs
        or is not of that revision is moved to .inbetween/replaced/TIME first, so that nothing is lost.
    Raises: LineageError where there is no such revision or path.
    """
    references = References(root)
    revision = references.revision(rev)
    found = find_stores(root)
    stores = [found.cache, *found.remotes]
    wanted, in_git, unknown = find_wanted(revision, path, stores)
    answer = Restored(revision.name, path, in_git=in_git, missing=list(unknown))
    top = to or root
    state = root / STATE.name
    aside = state / "replaced" / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"

    def target(name: str) -> Path:
        return top / name

    def keep(file: Path) -> None:
        kept = aside / file.relative_to(top)
        kept.parent.mkdir(parents=True, exist_ok=True)
        file.rename(kept)

    with hold_lock(state / "locks" / "repro.lock", "restore"):
        for folder in {top / output.path for output in revision.outputs if output.is_folder and output.path == path}:
            for other in list_others(folder, [target(file.path) for file in wanted]):
                keep(other)
                answer.kept.append(other.relative_to(top).as_posix())
        with Progress("restore", len(wanted), "files") as progress:
            restore_files(
                wanted,
                stores,
                read_withdrawn(root),
                target,
                keep,
                threads or os.cpu_count() or 1,
                answer,
                progress.advance,
            )
    return answer


def show_restored(answer: Restored) -> str:
    new = sum(bool(place) for place in answer.restored.values())
    lines = [
        f"{answer.path} at {answer.revision[:9]}: {len(answer.restored)} files are there, {new} of them brought back"
    ]
    for word, rows in (
        ("withdrawn", answer.withdrawn),
        ("missing, in no place", answer.missing),
        ("moved to .inbetween/replaced", answer.kept),
        ("in git, `git checkout REV -- PATH`", answer.in_git),
    ):
        lines += [f"{word}: {name}" for name in rows[:MAX_ROWS]]
        if rows[MAX_ROWS:]:
            lines.append(f"{word}: and {len(rows) - MAX_ROWS} more; --json has all")
    return "\n".join(lines)


def to_json(answer: Restored) -> str:
    return json.dumps(dataclasses.asdict(answer), indent=1)
