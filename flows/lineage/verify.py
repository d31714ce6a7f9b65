"""`inbetween lineage verify`: this clone's data against its lock files, repaired where that is asked."""

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from flows.lifetime import hold_lock
from flows.lineage.stores import find_stores
from flows.progress import Progress, say
from flows.project import ROOT, STATE
from tasks.lineage.hashing import State
from tasks.lineage.references import References, read_withdrawn
from tasks.lineage.repair import repair
from tasks.lineage.verify import (
    CACHE,
    CORRUPT,
    MISSING,
    NEVER_PUSHED,
    NOT_HERE,
    STILL_HERE,
    UNEXPECTED,
    WITHDRAWN,
    WORKSPACE,
    Verification,
    Verifier,
    Wanted,
)

PLACES = (WORKSPACE, CACHE, "remotes")
MAX_ROWS = 40
_KINDS = (CORRUPT, MISSING, STILL_HERE, UNEXPECTED, NEVER_PUSHED, NOT_HERE, WITHDRAWN)


def verify(
    root: Path = ROOT,
    *,
    places: tuple[str, ...] = PLACES,
    rev: str | None = None,
    all_revs: bool = False,
    is_repairing: bool = False,
    is_fresh: bool = False,
    threads: int = 0,
) -> Verification:
    """Hash what DVC tracks and hold it against the lock files.

    Args:
        rev: that revision's objects in cache and remotes; the work tree's by default.
        all_revs: those of every revision that git reaches, and whatever else lies in the stores.
        is_fresh: what a run that was cut off has hashed is hashed again.
        threads: 0 = as many as there are cores.
    Raises: LineageError where there is no git repository or no such revision.
    """
    references = References(root)
    stores = find_stores(root)
    work_tree = references.work_tree()
    revisions = [references.revision(rev)] if rev else [work_tree, *(references.all_revisions() if all_revs else [])]
    chosen = [
        *([stores.cache] if CACHE in places else []),
        *(stores.remotes if "remotes" in places else []),
    ]
    verifier = Verifier(
        root,
        Wanted(
            revisions=revisions,
            workspace=work_tree if WORKSPACE in places and not rev else None,
            stores=chosen,
            known=[store for store in [stores.cache, *stores.remotes] if store not in chosen],
            default_remote=stores.default_remote,
            withdrawn=read_withdrawn(root),
            has_all=all_revs,
        ),
    )
    if "remotes" in places:
        verifier.open += stores.open
    if references.git.is_shallow() and all_revs:
        verifier.open.append("this is a shallow clone: older revisions are not here; `git fetch --unshallow`")
    state_folder = root / STATE.name
    with hold_lock(state_folder / "locks" / "verify.lock", "verify"):
        state = State(state_folder / "verify.sqlite", is_fresh=is_fresh)
        try:
            if state.begun is not None:
                begun = datetime.fromtimestamp(state.begun, UTC)
                say(f"verify: goes on with the run of {begun:%Y-%m-%d %H:%M} UTC that was cut off; --fresh begins anew")
            _read(verifier, state, threads or os.cpu_count() or 1)
            found = verifier.compare()
            if is_repairing:
                found = dataclasses.replace(found, findings=repair(verifier, found.findings, state_folder / "replaced"))
            state.end()
        finally:
            state.close()
    return found


def _read(verifier: Verifier, state: State, threads: int) -> None:
    progress: list[Progress] = []

    def start(num_bytes: int) -> Callable[[int, bool], None]:
        progress.append(Progress("verify", round(num_bytes / 1e6, 1), "MB"))
        progress[0].__enter__()

        def tell(size: int, is_known: bool) -> None:
            (progress[0].skip if is_known else progress[0].advance)(size / 1e6)

        return tell

    try:
        verifier.read(state, threads, start)
    finally:
        for one in progress:
            one.__exit__(None, None, None)


def show_verification(answer: Verification) -> str:
    """The counts, then the findings that a person acts on, the worst first."""
    kinds = Counter((finding.place, finding.kind) for finding in answer.findings if not finding.repaired)
    used = [kind for kind in _KINDS if any(kinds[count.place, kind] for count in answer.counts)]
    table = [["place", "files", "MB", "well", *used]]
    for count in answer.counts:
        numbers = [str(kinds[count.place, kind]) for kind in used]
        table.append([count.place, str(count.num_files), f"{count.num_bytes / 1e6:.1f}", str(count.num_well), *numbers])
    lines = to_lines(table)
    for kind in (CORRUPT, MISSING, STILL_HERE, UNEXPECTED, NEVER_PUSHED):
        found = [finding for finding in answer.findings if finding.kind == kind]
        for finding in found[:MAX_ROWS]:
            mended = f"; repaired from {finding.repaired}" if finding.repaired else ""
            but = f", but {finding.found}" if finding.found and finding.md5 else ""
            lines.append(f"{kind}: {finding.place}: {finding.path} {finding.md5}{but}{mended}".rstrip())
        if len(found) > MAX_ROWS:
            lines.append(f"{kind}: and {len(found) - MAX_ROWS} more; --json has all")
    lines += [f"note: {line}" for line in answer.notes]
    lines += [f"open: {line}" for line in answer.open]
    remedy = "dvc fetch brings what is not here" if kinds and any(kind == NOT_HERE for _, kind in kinds) else ""
    if remedy:
        lines.append(f"note: {remedy}")
    num_faults = sum(finding.is_fault for finding in answer.findings)
    num_mended = sum(bool(finding.repaired) for finding in answer.findings)
    said = "all well" if answer.is_well else f"{num_faults} faults" + (", and open questions" if answer.open else "")
    lines.append(
        f"verify: {sum(count.num_files for count in answer.counts)} files of {len(answer.revisions)} revisions: {said}"
        + (f"; {num_mended} repaired" if num_mended else "")
        + ("" if answer.is_well or num_mended or not num_faults else "; --repair mends what another place has")
    )
    return "\n".join(lines)


def to_json(answer: Verification) -> str:
    content = {
        "is_well": answer.is_well,
        "revisions": answer.revisions,
        "counts": [count._asdict() for count in answer.counts],
        "findings": [finding._asdict() for finding in answer.findings],
        "notes": answer.notes,
        "open": answer.open,
    }
    return json.dumps(content, indent=1)


def to_lines(rows: list[list[str]]) -> list[str]:
    """A table's rows in columns, the first to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines
