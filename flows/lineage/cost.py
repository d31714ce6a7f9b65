"""`inbetween lineage cost`: what the data and its making cost."""

import dataclasses
import json
from pathlib import Path

from flows.lineage.stores import Stores, find_stores
from flows.lineage.verify import to_lines
from flows.project import ROOT
from tasks.lineage.cost import Cost, count_cost
from tasks.lineage.errors import LineageError
from tasks.lineage.references import Member, References, read_folder
from tasks.lineage.runs import RUNS_FILE, parse_runs

MAX_ROWS = 40


def cost(root: Path = ROOT) -> Cost:
    """Raises: LineageError where there is no git repository."""
    references = References(root)
    found = find_stores(root)
    revisions = [references.work_tree(), *references.all_revisions()]
    places, problems = [], list(found.open)
    for store in [found.cache, *found.remotes]:
        try:
            places.append((store.name, {file.md5: file.size for file in store.files() if file.md5}))
        except (LineageError, OSError) as error:
            problems.append(f"{store.name}: cannot be looked into ({' '.join(str(error).split())[:200]})")
    runs_file = root / RUNS_FILE
    runs, bad = parse_runs(runs_file.read_text() if runs_file.is_file() else "")
    if bad:
        problems.append(f"{RUNS_FILE} line {bad[0]}: is no line of the record; its time is not counted")
    if references.git.is_shallow():
        problems.append("this is a shallow clone: what only older revisions refer to is taken for nobody's")
    answer = count_cost(revisions, lambda md5: _members(found, md5), places, runs)
    return dataclasses.replace(answer, open=[*problems, *answer.open])


def _members(stores: Stores, md5: str) -> list[Member] | None:
    for store in [stores.cache, *stores.remotes]:
        try:
            with store.open(md5) as file:
                if (members := read_folder(file.read(), md5)) is not None:
                    return members
        except OSError:
            continue
    return None


def show_cost(answer: Cost) -> str:
    blocks = []
    rows = [["dataset", "MB now", "versions", "MB all", "MB no other has"]]
    rows += [[d.path, _mb(d.now), str(d.versions), _mb(d.all), _mb(d.own)] for d in answer.datasets[:MAX_ROWS]]
    blocks.append(rows)
    rows = [["revision", "MB", "MB new"]]
    rows += [[r.name[:9], _mb(r.num_bytes), _mb(r.new)] for r in answer.revisions[:MAX_ROWS]]
    blocks.append(rows)
    rows = [["place", "objects", "MB", "nobody's", "MB of them"]]
    rows += [[o.place, str(o.all_objects), _mb(o.all_bytes), str(o.objects), _mb(o.num_bytes)] for o in answer.orphans]
    blocks.append(rows)
    rows = [["stage", "runs", "restored", "s", "s last"]]
    rows += [
        [s.stage, str(s.runs), str(s.restored), f"{s.seconds:.1f}", f"{s.last:.1f}"] for s in answer.stages[:MAX_ROWS]
    ]
    blocks.append(rows)
    text = "\n\n".join("\n".join(to_lines(block)) for block in blocks if len(block) > 1)
    notes = [f"open: {line}" for line in answer.open]
    if not answer.stages:
        notes.append(f"note: {RUNS_FILE} has no run yet: what the stages took is not known")
    if any(orphan.objects for orphan in answer.orphans):
        notes.append("note: `dvc gc --workspace --all-commits` removes what nobody refers to from the cache")
    return "\n".join([text, *notes])


def _mb(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.1f}"


def to_json(answer: Cost) -> str:
    rows = {
        name: [row._asdict() for row in getattr(answer, name)]
        for name in ("datasets", "revisions", "orphans", "stages")
    }
    return json.dumps(rows | {"open": answer.open}, indent=1)
