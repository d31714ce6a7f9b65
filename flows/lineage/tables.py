"""The answers as text: tables, then what stays open. JSON has every item; a table, what fits a screen."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any

from flows.lineage.why import Why
from tasks.lineage.changes import Diff, History
from tasks.lineage.coverage import Coverage
from tasks.lineage.downstream import Downstream, Use
from tasks.lineage.leaks import Leaks
from tasks.lineage.licences import Licences
from tasks.lineage.upstream import MotionFacts, Upstream

MAX_ROWS = 40
_MAX_CELL = 60


def to_json(answer: object) -> str:
    assert dataclasses.is_dataclass(answer)
    assert not isinstance(answer, type)
    return json.dumps(dataclasses.asdict(answer), indent=1, default=str)


def show_upstream(answer: Upstream) -> str:
    blocks = [f"{answer.thing} at {answer.revision}"]
    if answer.frame:
        blocks.append(_table("frame", [list(answer.frame)], [[str(value) for value in answer.frame.values()]]))
    videos = [
        [
            f"{v.batch}/{v.video}",
            _roles(v.roles),
            v.licence or "not told",
            v.retrieved or "not told",
            (v.sha256 or "not told")[:12],
            ", ".join(f"{c.clip} {c.frames}" for c in v.clips),
            " ".join(filter(None, [v.title, v.uploader and f"by {v.uploader}", v.url])),
        ]
        for v in answer.videos
    ]
    blocks.append(
        _table("videos", [["video", "used for", "licence", "read", "sha256", "clips and frames", "source"]], videos)
    )
    motions: dict[tuple[str, tuple[str, ...], str, str], list[MotionFacts]] = {}
    for m in answer.motions:
        place = m.file.rpartition(f"/{m.subject}/")[0] or m.file if m.file else "not in this project"
        motions.setdefault((m.subset, tuple(m.roles), m.licence, place), []).append(m)
    groups = []
    for (subset, roles, licence, place), rows in motions.items():
        counts = [str(len({m.subject for m in rows})), str(len(rows))]
        span = f"{rows[0].sequence} .. {rows[-1].sequence}"
        groups.append([subset, _roles(roles), licence, place, *counts, span])
    header = [["subset", "used for", "licence", "files in", "subjects", "number", "recordings"]]
    blocks.append(_table(f"recordings ({len(answer.motions)})", header, groups, counted=True))
    raw = [[r.path, r.kind, r.md5[:12], str(r.num_files), ", ".join(r.licences) or "not told"] for r in answer.raw]
    blocks.append(_table("other raw data", [["path", "what", "md5 of the whole", "files", "licence"]], raw))
    stages = [
        [
            s.stage,
            s.event,
            s.user or "",
            s.finished or "",
            (s.rev or "")[:9] + ("+" if s.is_dirty else ""),
            s.run or "",
            _pairs(s.seeds),
            _pairs(s.tools),
        ]
        for s in answer.stages
    ]
    blocks.append(
        _table("stages", [["stage", "event", "by", "finished", "revision", "Prefect run", "seeds", "tools"]], stages)
    )
    blocks.append(f"code: {len(answer.code)} files; params of each stage and md5 of each file: --json")
    return _join(blocks, answer.open)


def show_downstream(answer: Downstream) -> str:
    files: dict[tuple[str, str, str], list[Use]] = {}
    for use in answer.uses:
        files.setdefault((use.stage, use.path, use.how), []).append(use)
    rows = []
    for (stage, path, how), uses in files.items():
        names = [name for use in uses for name in use.revisions]
        places = sorted({place for use in uses for place in use.places})
        rows.append([path, how, stage, str(len(uses)), _span(names, answer.revisions), ", ".join(places) or "nowhere"])
    header = [["path", "how", "stage", "versions", "revisions", "bytes in"]]
    blocks = [
        f"{answer.thing}: {len(answer.uses)} versions of {len(files)} paths, in {len(answer.revisions) - 1} revisions"
    ]
    blocks.append(_table("", header, rows))
    return _join(blocks, answer.open)


def show_diff(answer: Diff) -> str:
    rows = []
    for change in answer.changes:
        items = change.items
        counts = (
            [f"{sum(i.how == how for i in items)} {how}" for how in ("added", "dropped", "changed")] if items else []
        )
        what = ", ".join(c for c in counts if not c.startswith("0 ")) or change.how
        rows.append([change.path, what if items is not None else f"{change.how}, items unknown", change.why.words()])
    blocks = [f"{answer.before} -> {answer.after}: {len(rows)} paths differ"]
    blocks.append(_table("", [["path", "items", "why"]], rows))
    named = [
        [f"{change.path}/{item.name}".rstrip("/"), item.how, ", ".join(item.because) or change.why.words()]
        for change in answer.changes
        for item in change.items or []
        if item.name and change.path != "report"
    ]
    blocks.append(_table("items", [["item", "how", "because of"]], named))
    return _join(blocks, answer.open)


def show_history(answer: History) -> str:
    rows = [[v.revision, v.date, v.md5[:12], str(v.num_revisions), v.why, v.subject] for v in answer.versions]
    header = [["since", "date", "md5", "revisions", "changed by", "message"]]
    blocks = [f"{answer.thing}: {len(rows)} versions of {answer.path}", _table("", header, rows)]
    return _join(blocks, answer.open)


def show_why(answer: Why) -> str:
    head = f"{answer.stage}: is {'due' if answer.reasons else 'up to date'}"
    rows = [[reason.stage, reason.kind, reason.what, reason.detail] for reason in answer.reasons]
    return _join([head, _table("", [["stage", "kind", "what", "detail"]], rows)], answer.open)


def show_coverage(answer: Coverage) -> str:
    head = f"{answer.revision}: {answer.num_outputs} outputs and {answer.num_sources} sources, {len(answer.gaps)} gaps"
    rows = [[gap.kind, gap.what, gap.detail] for gap in answer.gaps]
    return _join([head, _table("", [["gap", "of", "detail"]], rows)], answer.open)


def show_leaks(answer: Leaks) -> str:
    counts = [
        [where, f"{between} of {num_between}", f"{keys} of {num_keys}"]
        for where, (between, num_between, keys, num_keys) in answer.num_frames.items()
    ]
    blocks = [f"{answer.revision}: {len(answer.leaks)} leaks"]
    header = [["between training and test of", "in-between test frames in both", "test keys in both"]]
    blocks.append(_table("", header, counts))
    rows = [[leak.where, leak.kind, leak.what, str(leak.number)] for leak in answer.leaks]
    blocks.append(_table("leaks", [["in", "kind", "what", "how many"]], rows))
    return _join(blocks, answer.open)


def show_licences(answer: Licences) -> str:
    rows = [[p.verdict, p.kind, p.name, str(p.number), p.licence, p.duty] for p in answer.parents]
    word = "may be used commercially" if answer.is_allowed else "may not be used commercially"
    head = f"{answer.thing} at {answer.revision}: {word} ({answer.verdict})"
    return _join(
        [head, _table("", [["commercial use", "what", "name", "number", "licence", "duty"]], rows)], answer.open
    )


def _roles(roles: Sequence[str]) -> str:
    return ", ".join(f"training of {role}" if role else "itself" for role in roles)


def _span(names: Sequence[str], order: Sequence[str]) -> str:
    """ "first .. last (how many)" of some revisions."""
    held = set(names)
    found = [name for name in order if name in held]
    if len(found) < 2:
        return "".join(found)
    return f"{found[0]} .. {found[-1]} ({len(found)})"


def _pairs(values: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items())


def _table(title: str, header: Sequence[Sequence[str]], rows: Sequence[Sequence[str]], *, counted: bool = False) -> str:
    """Columns as wide as their widest cell; "" where there are no rows. counted: the title says how many there are."""
    if not rows:
        return ""
    shown = [*header, *rows[:MAX_ROWS]]
    cells = [[cell if len(cell) <= _MAX_CELL else cell[: _MAX_CELL - 2] + ".." for cell in row] for row in shown]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    if len(rows) > MAX_ROWS:
        lines.append(f"... and {len(rows) - MAX_ROWS} more: --json has all")
    head = title if counted or not title else f"{title} ({len(rows)})"
    return "\n".join([head, *lines] if head else lines)


def _join(blocks: Iterable[str], open_: Sequence[str]) -> str:
    tail = "\n".join(["left open", *(f"- {line}" for line in open_)]) if open_ else ""
    return "\n\n".join(block for block in [*blocks, tail] if block)
