"""The record of one revision, each of its runs beside the entry of dvc.lock that says what it read.

The questions of tasks/lineage/ take the record of all revisions together; a document that is handed out says the same
whatever came after its revision.
"""

import dataclasses
from datetime import UTC, datetime
from typing import NamedTuple

from tasks.lineage.index import LOCK, WORK_TREE
from tasks.lineage.lineage import Lineage
from tasks.lineage.lock import Entry
from tasks.lineage.runs import RUNS_FILE, Run, parse_runs
from tasks.lineage.upstream import Upstream


class RecordedRun(NamedTuple):
    """run: a line of the record.  entry, id: of the index; None = no revision's dvc.lock has these outputs."""

    run: Run
    entry: Entry | None
    id: int | None


class Record(NamedTuple):
    """runs: in the order of the file.  notes: what it leaves open."""

    runs: list[RecordedRun]
    notes: list[str]


def read_record(lineage: Lineage, rev: str | None = None) -> Record:
    """lineage/runs.jsonl as a revision has it (None = the work tree), in the light of that revision's history alone.

    Raises: LineageError where there is no such revision.
    """
    notes: list[str] = []
    runs, bad = parse_runs(_text(lineage, rev))
    if bad:
        notes.append(f"{RUNS_FILE} line {bad[0]} is no line of the record: left out; mend or drop it")
    made = _entries(lineage, rev)
    entries = lineage.index.entries({id_ for rows in made.values() for _, id_ in rows})
    lines = {run.to_line(): run for run in runs}  # a union of two branches may have one twice
    found = [_match(run, made, entries) for run in lines.values()]
    if lost := [row.run.stage for row in found if row.entry is None]:
        some = ", ".join(list(dict.fromkeys(lost))[:4])
        notes.append(f"{len(lost)} runs ({some}) made what no revision's {LOCK} has: what they read is not known")
    state = lineage.state(rev)
    notes += state.notes
    told = {(row.run.stage, tuple(sorted(row.run.outs.items()))) for row in found}
    silent = [name for name, entry in state.entries.items() if (name, _outs(entry)) not in told]
    if silent:
        notes.append(
            f"{len(silent)} stages of {LOCK} ({', '.join(sorted(silent)[:4])}) stand in no line of {RUNS_FILE}: left"
            " out; `inbetween lineage record` notes those that DVC restored"
        )
    return Record(found, notes)


def upstream_as_recorded(lineage: Lineage, name: str, rev: str | None = None) -> Upstream:
    """Lineage.upstream, who and when from this revision's record alone; no notes on the work tree beside it."""
    answer = lineage.upstream(name, rev)
    runs: dict[tuple[str, tuple[tuple[str, str], ...]], Run] = {}
    for run in parse_runs(_text(lineage, rev))[0]:
        key = (run.stage, tuple(sorted(run.outs.items())))
        if run.event == "ran" or key not in runs:
            runs[key] = run
    stages = []
    for stage in answer.stages:
        found = runs.get((stage.stage, tuple(sorted(stage.outs.items()))), Run(stage.stage, "not recorded", {}))
        facts = ("event", "user", "started", "finished", "rev", "is_dirty", "run", "platform")
        stages.append(dataclasses.replace(stage, **{fact: getattr(found, fact) for fact in facts}))
    notes = set(lineage.index.notes) if rev else set()
    return dataclasses.replace(answer, stages=stages, open=[line for line in answer.open if line not in notes])


def _text(lineage: Lineage, rev: str | None) -> str:
    if rev is None:
        file = lineage.git.root / RUNS_FILE
        return file.read_text() if file.is_file() else ""
    return lineage.git.ask("show", f"{lineage.git.commit_of(rev)}:./{RUNS_FILE}") or ""


def _entries(lineage: Lineage, rev: str | None) -> dict[str, list[tuple[float, int]]]:
    """Stage -> (time of the first commit with the entry, its id), of the revision and those before it, oldest first."""
    index = lineage.index
    head = lineage.git.commit_of(rev) if rev else "HEAD"
    wanted = set((lineage.git.ask("rev-list", head) or "").split())
    if rev is None:
        wanted.add(WORK_TREE)
    ids: dict[int, float] = {}
    seen = set()
    for revision in reversed(index.revisions):  # oldest first, the work tree last
        lock = revision.files.get(LOCK)
        if lock and lock not in seen and revision.id in wanted:
            seen.add(lock)
            time = float("inf") if revision.id == WORK_TREE else float(revision.time)
            for id_ in index.lock_entries(lock)[0]:
                ids.setdefault(id_, time)
    found: dict[str, list[tuple[float, int]]] = {}
    entries = index.entries(ids)
    for id_, time in ids.items():
        found.setdefault(entries[id_].stage, []).append((time, id_))
    return found


def _match(run: Run, made: dict[str, list[tuple[float, int]]], entries: dict[int, Entry]) -> RecordedRun:
    """The entry with the run's outputs; of several (other code, the same bytes) the first committed after its end."""
    outs = tuple(sorted(run.outs.items()))
    rows = [(time, id_) for time, id_ in made.get(run.stage, []) if _outs(entries[id_]) == outs]
    if not rows:
        return RecordedRun(run, None, None)
    end = run.finished or run.started or ""
    ended = _seconds(end) if end else 0.0
    id_ = next((id_ for time, id_ in rows if time >= ended), rows[-1][1])
    return RecordedRun(run, entries[id_], id_)


def _outs(entry: Entry) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((out.path, out.md5) for out in entry.outs))


def _seconds(stamp: str) -> float:
    try:
        moment = datetime.fromisoformat(stamp)
    except ValueError:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
