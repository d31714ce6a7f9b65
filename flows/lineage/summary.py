"""What a run of the flow leaves behind about lineage: sources and licences of what it made, what is due, what lacks.

Worked out in a process of its own that is ended after a second: a record of any size, damage or fault in it neither
holds up a run nor fails it.
"""

import gc
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

from flows.project import ROOT, STATE
from tasks.lineage.overview import (
    CHECKPOINT,
    GAP,
    METRIC,
    RENDER,
    REPORT,
    STALE,
    SUBJECT,
    VIDEO,
    WITHDRAWN,
    Overview,
    Thing,
    licence_of,
)
from tasks.lineage.upstream import RawFacts, VideoFacts

BUDGET_S = 1.0
_MAX_ROWS = 25
_MAX_SOURCES = 12
_ORDER = (CHECKPOINT, RENDER, METRIC, REPORT)
_MORE = "`inbetween lineage page` shows everything; `inbetween lineage upstream THING` has every source"


def sum_up(made: Collection[str], root: Path = ROOT, budget_s: float = BUDGET_S) -> str:
    """Markdown on a run that made the outputs of these stages; where it cannot be told in time, a line on why not."""
    command = [sys.executable, "-c", "from flows.lineage.summary import main; main()"]
    asked = json.dumps({"made": sorted(made), "root": str(root)})
    try:
        done = subprocess.run(
            command, input=asked, cwd=ROOT, capture_output=True, text=True, timeout=budget_s, check=False
        )
    except subprocess.TimeoutExpired:
        return f"Not summed up: that takes more than {budget_s:g} s here. {_MORE}.\n"
    except OSError as error:
        return f"Not summed up: {error.strerror or error}. {_MORE}.\n"
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return f"Not summed up: {_text(reason[:300])}. {_MORE}.\n"
    return done.stdout


def main() -> None:
    """The process: reads what `sum_up` asks on stdin, prints markdown."""
    from flows.lineage import open_lineage
    from flows.lineage.survey import survey

    gc.disable()  # a process of half a second
    asked = json.load(sys.stdin)
    root = Path(asked["root"])
    overview = survey(open_lineage(root, root / STATE.name / "lineage.sqlite"))
    sys.stdout.write(describe_run(overview, asked["made"]))


def describe_run(overview: Overview, made: Collection[str]) -> str:
    """Args: made: the stages that ran or were restored."""
    numbers = [number for number, thing in enumerate(overview.things) if thing.outs and thing.key in made]
    numbers.sort(key=lambda n: _ORDER.index(overview.things[n].kind) if overview.things[n].kind in _ORDER else 9)
    blocks = ["# Lineage", _describe_made(overview, numbers)]
    blocks += [*_describe_sources(overview, numbers), _describe_lacks(overview)]
    if overview.open:
        blocks.append("Left open:\n\n" + _bullets(overview.open, 8))
    blocks.append(f"{_MORE}.")
    return "\n\n".join(filter(None, blocks)) + "\n"


def _describe_made(overview: Overview, numbers: list[int]) -> str:
    if not numbers:
        return "This run made nothing new."
    lines = ["| made | from | commercial use | because |", "| --- | --- | --- | --- |"]
    for number in numbers[:_MAX_ROWS]:
        thing = overview.things[number]
        reached = [overview.things[n] for n in frozenset().union(*thing.up.values())]
        verdict = thing.licences.verdict if thing.licences else ""
        parents = thing.licences.parents if thing.licences else []
        because = [f"{p.name}: {p.licence}" for p in parents if p.verdict == verdict and verdict != "yes"]
        more = f" and {len(because) - 2} more" if because[2:] else ""
        cells = [
            f"`{_text(thing.key)}`",
            _count_sources(reached),
            f"**{verdict}**",
            _text("; ".join(because[:2]) + more),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if rest := numbers[_MAX_ROWS:]:
        lines.append(f"| and {len(rest)} more | | | |")
    return "\n".join(lines)


def _count_sources(things: Iterable[Thing]) -> str:
    videos = recordings = raw = 0
    for thing in things:
        videos += thing.kind == VIDEO
        recordings += len(thing.recordings) if thing.kind == SUBJECT else 0
        raw += isinstance(thing.facts, RawFacts)
    words = [(videos, "video"), (recordings, "recording"), (raw, "other source")]
    return ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in words if count) or "nothing known"


def _describe_sources(overview: Overview, numbers: list[int]) -> list[str]:
    """The videos and raw data of all that was made. Videos by their files, so that a withdrawal finds this text."""
    reached: set[int] = set()
    for number in numbers:
        reached = reached.union(*overview.things[number].up.values())
    rows = []
    for thing in (overview.things[number] for number in sorted(reached)):
        if isinstance(thing.facts, VideoFacts):
            path = thing.files[0].path if thing.files else f"data/{thing.batch}/videos/{thing.name}"
            rows.append((path, thing.facts.licence or "not told", thing.facts.source or "", thing.facts.sha256 or ""))
        elif isinstance(thing.facts, RawFacts):
            rows.append((thing.facts.path, licence_of(thing.facts), thing.facts.kind, thing.facts.md5))
    if not rows:
        return []
    lines = ["| source | licence | what | hash |", "| --- | --- | --- | --- |"]
    for path, licence, what, digest in rows[:_MAX_SOURCES]:
        lines.append(
            f"| `{_text(path)}` | {_text(licence or 'not told')} | {_text(what or '')} | `{(digest or '')[:12]}` |"
        )
    if rest := rows[_MAX_SOURCES:]:
        lines.append(f"| and {len(rest)} more | | | |")
    return ["\n".join(lines)]


def _describe_lacks(overview: Overview) -> str:
    """What is due, withdrawn, or has a gap in its record."""
    things = overview.things
    due = [f"{t.key}: {t.marks[STALE][0]}" for t in things if STALE in t.marks]
    gone = [f"{t.key}: {t.marks[WITHDRAWN][0]}" for t in things if WITHDRAWN in t.marks]
    gaps = Counter(gap.kind for gap in overview.coverage.gaps)
    with_gap = sum(GAP in thing.marks for thing in things)
    blocks = [f"{len(due)} stages are due" + (":\n\n" + _bullets(due, 8) if due else ".")]
    if gone:
        blocks.append("Of videos that are withdrawn:\n\n" + _bullets(gone, 8))
    told = ", ".join(f"{kind} {count}" for kind, count in sorted(gaps.items()))
    blocks.append(
        f"Coverage: {overview.coverage.num_outputs} outputs, {overview.coverage.num_sources} sources; "
        + (f"gaps in {with_gap} things ({_text(told)})." if gaps else "no gaps.")
    )
    return "\n\n".join(blocks)


def _bullets(lines: list[str], most: int) -> str:
    shown = [f"- {_text(line)}" for line in lines[:most]]
    return "\n".join([*shown, *([f"- and {len(lines) - most} more"] if lines[most:] else [])])


def _text(words: str) -> str:
    """Words of a catalogue as words: no markup, no new cell or line."""
    plain = " ".join(words.split())
    for sign, written in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "&#124;"), ("`", "'")):
        plain = plain.replace(sign, written)
    return plain
