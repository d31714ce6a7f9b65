"""`inbetween repro`: what is due, by DVC's word, and its run as a Prefect flow (flows/rebuild.py).

Nothing here imports Prefect before it is known that a run is needed.
"""

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType

from flows.disk import check_room
from flows.dvc_process import StageEnd
from flows.lifetime import end_with_parent, hold_lock
from flows.lineage.record import note_restored
from flows.params import load_params
from flows.pipeline import PlannedStage, read_plan
from flows.progress import format_duration, say
from flows.project import ROOT, RUN_CONTEXT, STATE
from flows.raw_data import bring_raw_data, check_raw_data
from flows.server import API_URL, serve_prefect
from tasks.errors import InbetweenError

# A flow that dies leaves its stages this long to close their books.
ORPHAN_GRACE_S = 6.0

_open_run: ContextVar[list[PlannedStage] | None] = ContextVar("open_run", default=None)


class StageFailedError(InbetweenError):
    """One or more stages failed; the text names the first. code: 2 where the user can mend it, 1 for a fault."""

    def __init__(self, line: str, code: int) -> None:
        super().__init__(line)
        self.code = code


def plan_repro(targets: Sequence[str], *, pull: bool = False) -> None:
    """Print the stages in the order of the plan, with whether and why each would run. Runs and locks nothing.

    Raises: ParamsError for params.yaml that every stage would refuse.
    """
    load_params(ROOT / "params.yaml")
    plan = read_plan(targets, allow_missing=pull)
    width = max((len(stage.name) for stage in plan), default=0)
    for stage in plan:
        print(f"{stage.name:<{width}}  {'run' if stage.reason else 'cached':<6}  {stage.reason}".rstrip())  # noqa: T201
    num_due = sum(bool(stage.reason) for stage in plan)
    print(f"{len(plan)} stages, {num_due} to run, {len(plan) - num_due} unchanged")  # noqa: T201


def run_repro(targets: Sequence[str], *, force: bool = False, pull: bool = False) -> None:
    """Bring the stages up to date as a Prefect flow; with nothing to do and no server given, just say so.

    Where a flow started this process (INBETWEEN_RUN_CONTEXT), the stages are tasks of that flow's run.

    Args: pull: True = data that is not here is not needed, or comes from the remote.

    Raises: StageFailedError, or another InbetweenError; KeyboardInterrupt where the run was stopped.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    context_file = os.environ.pop(RUN_CONTEXT, None)
    if context_file:
        end_with_parent(ORPHAN_GRACE_S)
    with open_run(targets, force=force, pull=pull) as plan:
        if context_file:
            _run_flow(targets, force, pull, context_file=Path(context_file))
        elif os.environ.get(API_URL):
            _run_flow(targets, force, pull)
        elif num_due := sum(bool(stage.reason) for stage in plan):
            say(f"repro: {num_due} of {len(plan)} stages may run; starting Prefect")
            with serve_prefect() as url:
                say(f"repro: the run is at {url.removesuffix('/api')} as long as it lasts")
                _run_flow(targets, force, pull, is_own_server=True)
        else:
            note_restored()
            say(f"repro: {len(plan)} stages, all up to date")


@contextmanager
def open_run(targets: Sequence[str], *, force: bool, pull: bool = False) -> Iterator[list[PlannedStage]]:
    """Hold the work tree for one run and read its plan; within an open run of this thread, that run's plan.

    Raises: SourceError where raw data differs from what git says; OSError where the disk is full.
    """
    if (plan := _open_run.get()) is not None:
        yield plan
        return
    check_room()
    with hold_lock(STATE / "locks" / "repro.lock", "repro"):
        bring_raw_data()
        check_raw_data()
        plan = read_plan(targets, force=force, allow_missing=pull)
        token = _open_run.set(plan)
        try:
            yield plan
        finally:
            _open_run.reset(token)


def _run_flow(
    targets: Sequence[str], force: bool, pull: bool, *, is_own_server: bool = False, context_file: Path | None = None
) -> None:
    from flows.rebuild import join_rebuild, run_rebuild

    try:
        if context_file:
            join_rebuild(list(targets), force=force, pull=pull, context_file=context_file)
        else:
            run_rebuild(list(targets), force=force, pull=pull, is_own_server=is_own_server)
    except StageFailedError as error:
        if error.code == 2:
            raise
        say(f"inbetween repro: {error}")
        sys.exit(error.code)


def summarise(plan: Sequence[PlannedStage], ends: Sequence[StageEnd]) -> str:
    """A line a stage in the order of the plan: what became of it, and how long it took."""
    by_name = {end.name: end for end in ends}
    width = max((len(stage.name) for stage in plan), default=0)
    lines = []
    for stage in plan:
        end = by_name.get(stage.name, StageEnd(stage.name, "stopped"))
        seconds = f"{end.seconds:.1f} s" if end.outcome in ("ran", "restored", "failed") else ""
        lines.append(f"{stage.name:<{width}}  {end.outcome:<8}  {seconds:>9}".rstrip())
    return "\n".join(lines)


def describe_failure(ends: Sequence[StageEnd]) -> StageFailedError | None:
    """The one line for a run in which stages failed; None where none did."""
    failed = [end for end in ends if end.outcome == "failed"]
    if not failed:
        return None
    skipped = [end.name for end in ends if end.outcome == "skipped"]
    others = [end.name for end in failed[1:]]
    line = f"{failed[0].name} failed: {failed[0].error}"
    if others:
        line += f"; so did {', '.join(others)}"
    if skipped:
        line += (
            f"; {len(skipped)} {'stage that needs it was' if len(skipped) == 1 else 'stages that need it were'} skipped"
        )
    return StageFailedError(line, 2 if all(end.code == 2 for end in failed) else 1)


def describe_end(ends: Sequence[StageEnd], seconds: float) -> str:
    """ "3 ran, 2 restored, 5 cached in 1 min 10 s"."""
    counts = Counter(end.outcome for end in ends)
    words = [f"{counts[name]} {name}" for name in ("ran", "restored", "cached", "failed", "skipped") if counts[name]]
    return f"{', '.join(words)} in {format_duration(seconds)}"


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
