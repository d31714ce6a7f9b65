"""What DVC says: the stages in the order of its plan, what each needs, and why each would run.

Read only, but for objects of the cache that were written in place: those it drops.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cache import drop_rewritten
from flows.lock_order import lock_names
from flows.progress import say
from flows.project import ROOT
from tasks.errors import ParamsError

if TYPE_CHECKING:
    from dvc.stage import Stage

LOCK = ROOT / "dvc.lock"
BUSY = ("is busy", "Unable to acquire lock")  # DVC's words for a lock that another process holds
_RETRY_S = 1.0
_MAX_NAMED = 3


@dataclass(frozen=True)
class PlannedStage:
    """A stage of dvc.yaml: "render@warp-8".

    needs: the planned stages whose outputs it reads.  reason: why it would run, "" = nothing has changed so far.
    """

    name: str
    needs: tuple[str, ...]
    reason: str


def read_plan(targets: Sequence[str] = (), *, force: bool = False, allow_missing: bool = False) -> list[PlannedStage]:
    """The stages that `dvc repro TARGETS` looks at, in its order; all by default. Works before any input is there.

    Args: allow_missing: True = a stage whose data is merely not here is unchanged (`dvc repro --allow-missing`).
    Raises: ParamsError where dvc.yaml cannot be read or a target is not known.
    """
    from dvc.exceptions import DvcException

    os.chdir(ROOT)  # DVC names stages relative to where it is
    try:
        return list(_plan(targets, force, allow_missing))
    except DvcException as error:
        cause = error.__cause__
        line = " ".join(f"{error}: {cause}".split()) if cause else " ".join(str(error).split())
        raise ParamsError(f"dvc.yaml: {line[:500]}") from error


def _plan(targets: Sequence[str], force: bool, allow_missing: bool) -> Iterator[PlannedStage]:
    from dvc.dvcfile import PROJECT_FILE
    from dvc.repo import Repo, lock_repo
    from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro

    with Repo(str(ROOT), _wait_for_lock=True) as repo, lock_repo(repo):
        wanted = []
        for target in targets or [PROJECT_FILE]:
            wanted += collect_stages(repo, [target], glob=any(sign in target for sign in "*?["))
        graph = get_active_graph(repo.index.graph)
        chosen = set(plan_repro(graph, wanted))
        # In the order of the whole graph: DVC's own for a few targets hangs on Python's hash seed.
        stages = [stage for stage in plan_repro(graph) if stage in chosen and not stage.is_data_source]
        locked = set(lock_names(LOCK.read_text(encoding="utf-8"))) if LOCK.is_file() else set()
        reasons: dict[str, str] = {}
        for stage in stages:
            needs = [other.addressing for other in graph.successors(stage) if other in stages]
            changed = sorted(name for name in needs if reasons[name])
            if force:
                reason = "forced"
            elif stage.addressing not in locked:
                reason = "new"
            else:
                status = _read_status(stage)
                _drop_rewritten_outputs(stage, status)
                reason = explain_status(drop_missing(status) if allow_missing else status)
            if changed and reason not in ("forced", "new"):
                reason = "; ".join(filter(None, [reason, "after " + _name_some(changed)]))
            reasons[stage.addressing] = reason
            yield PlannedStage(stage.addressing, tuple(needs), reason)


def _read_status(stage: "Stage") -> Sequence[Any]:
    from dvc.lock import LockError

    said = False
    while True:
        try:
            status: Mapping[str, Sequence[Any]] = stage.status(check_updates=True)
        except LockError as error:
            if not said:
                say(f"repro: another dvc is at work: {str(error).splitlines()[0]}; waiting for it")
                said = True
            time.sleep(_RETRY_S)
        else:
            return status.get(stage.addressing, [])


def _drop_rewritten_outputs(stage: "Stage", entries: Sequence[Any]) -> None:
    modified = {
        path
        for entry in entries
        if isinstance(entry, Mapping)
        for path, how in entry.get("changed outs", {}).items()
        if how == "modified"
    }
    for out in stage.outs:
        if str(out) in modified and out.hash_info and out.hash_info.value:
            drop_rewritten(Path(out.fs_path), out.hash_info.value)


def drop_missing(entries: Sequence[Any]) -> list[Any]:
    """DVC's status of one stage without what is only not here: outputs and inputs that are deleted or not in cache."""
    kept: list[Any] = []
    for entry in entries:
        if not isinstance(entry, Mapping):
            kept.append(entry)
            continue
        there = {
            kind: {path: how for path, how in changes.items() if how not in ("deleted", "not in cache")}
            for kind, changes in entry.items()
        }
        kept += [{kind: changes} for kind, changes in there.items() if changes]
    return kept


def explain_status(entries: Sequence[Any]) -> str:
    """DVC's status of one stage in a few words: "params.yaml render.crf modified; tasks/render.py modified"."""
    words = []
    for entry in entries:
        if not isinstance(entry, Mapping):
            words.append("its command changed" if entry == "changed checksum" else str(entry))
            continue
        for kind, changes in entry.items():
            prefix = "output " if kind == "changed outs" else ""
            found = []
            for path, how in changes.items():
                if isinstance(how, Mapping):
                    found += [f"{path} {key} {what}" for key, what in how.items()]
                else:
                    found.append(f"{prefix}{path} {how}")
            words.append(_name_some(found))
    return "; ".join(words)


def _name_some(names: Sequence[str]) -> str:
    more = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
