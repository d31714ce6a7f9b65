"""lineage/runs.jsonl: one line for each stage that ran or was restored; written by flows/lineage/record.py."""

import json
from typing import Any, NamedTuple

RUNS_FILE = "lineage/runs.jsonl"
EVENTS = ("ran", "restored")


class Run(NamedTuple):
    """A line of the record.

    outs: path -> md5, as in dvc.lock.  rev: git HEAD then; is_dirty: code, params or catalogue differed from it.
    started, finished: UTC.  seconds: of work.  run: Prefect's id of the run, where there was one.
    """

    stage: str
    event: str
    outs: dict[str, str]
    rev: str | None = None
    is_dirty: bool | None = None
    started: str | None = None
    finished: str | None = None
    seconds: float | None = None
    user: str | None = None
    tools: dict[str, str] | None = None
    platform: dict[str, str] | None = None
    run: str | None = None

    def to_line(self) -> str:
        """The line, without its end: keys in the order of the fields; nothing that is not known."""
        known = {name: value for name, value in self._asdict().items() if value is not None}
        return json.dumps(known, separators=(",", ":"), ensure_ascii=False)


def parse_run(line: str) -> Run | None:
    """None where the line is none of ours: cut short, edited, or a mark of a merge."""
    try:
        row: Any = json.loads(line)
        run = Run(**row)
    except (ValueError, TypeError):
        return None
    good = isinstance(run.stage, str) and run.event in EVENTS and isinstance(run.outs, dict)
    return run if good and all(isinstance(v, str) for pair in run.outs.items() for v in pair) else None


def parse_runs(text: str) -> tuple[list[Run], list[int]]:
    """The runs of a record's text in its order, and the numbers of the lines that are none."""
    runs, bad = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        run = parse_run(line)
        if run is None:
            bad.append(number)
        else:
            runs.append(run)
    return runs, bad
