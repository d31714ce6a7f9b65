"""The Prefect flow `rebuild`: stages as tasks in dependency order, each `dvc repro --single-item` in a process.

DVC decides what runs; this flow decides when, shows it, and keeps the log. It is what `inbetween repro` runs in this
work tree. Deployed flows (flows/unattended: ingest.py, lifecycle.py) call that command in a clone, where its stages
become tasks of their own run.
"""

import queue
import re
import shutil
import time
from collections.abc import Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import prefect.runtime
from prefect import Task, flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.futures import PrefectFuture
from prefect.states import Cancelled, Completed, Crashed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from ruamel.yaml import YAML

from flows.dvc_process import DvcProcesses, StageEnd
from flows.lineage.record import note_restored
from flows.lineage.summary import Summary
from flows.lock_order import remember_order, restore_order, split_entries
from flows.logs import flush_reports, keep_prefect_quiet
from flows.pipeline import LOCK, PlannedStage
from flows.prefect_tasks import join_run, write_run_context
from flows.progress import say
from flows.project import FLOW_RUN, FRESH, RUN_CONTEXT, STATE, prepare_environment
from flows.repro import StageFailedError, describe_end, describe_failure, open_run, summarise
from flows.server import API_URL
from flows.unattended.limits import hold_hosts
from tasks.errors import ToolError

# A stage uses every core by itself. Two at a time fill the stretches in which one reads, writes or starts up; more
# would only add up their memory.
PARALLEL_STAGES = 2

_LOCK_ORDER = STATE / "lock-order.json"


_runner: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=PARALLEL_STAGES)


@flow(name="rebuild", task_runner=_runner, persist_result=False)  # type: ignore[arg-type] # invariant in the future
def rebuild(targets: list[str] | None = None, force: bool = False, pull: bool = False) -> State[Any]:
    """Bring the stages (all by default) up to date; the run fails when one of them does."""
    return _rebuild(targets or [], force=force, pull=pull)


def _rebuild(targets: list[str], *, force: bool, pull: bool) -> State[Any]:
    start = time.monotonic()
    prepare_environment()
    with open_run(targets, force=force, pull=pull) as plan, closing(Summary()) as summary:
        remember_order(LOCK, _LOCK_ORDER)
        stages = _Stages(plan, force=force, pull=pull)
        try:
            stages.run()
        except (KeyboardInterrupt, TerminationSignal):
            if prefect.runtime.deployment.id:  # the worker that sent the signal waits for it to come back
                raise
            return Cancelled(message="stopped")
        finally:
            stages.close()
            restore_order(LOCK, _LOCK_ORDER, [stage.name for stage in plan])
            note_restored()
        _LOCK_ORDER.unlink()
        ends = list(stages.ends.values())
        say(summarise(plan, ends))
        line = describe_end(ends, time.monotonic() - start)
        say(f"repro: {line}")
        _leave_lineage(summary, ends)
        if error := describe_failure(ends):
            return Failed(message=str(error), data=error)
        return Completed(message=line)


def run_rebuild(targets: list[str], *, force: bool, pull: bool, is_own_server: bool) -> None:
    """Run the flow in this process.

    Args: is_own_server: True = nobody else uses this server: runs that it thinks are running are dead.
    Raises: StageFailedError; ToolError where no server answers; KeyboardInterrupt where the run was stopped.
    """
    keep_prefect_quiet()
    with get_client(sync_client=True) as client:
        if error := client.api_healthcheck():
            raise ToolError(
                f"{API_URL}={client.api_url} gives no answer ({type(error).__name__}); start that server, or unset the"
                f" variable to have one for the run"
            )
        if is_own_server:
            _bury_dead_runs(client)
    try:
        state: State[Any] = rebuild(targets, force, pull, return_state=True)
    finally:
        flush_reports()
    _raise_unless_completed(state)


def join_rebuild(targets: list[str], *, force: bool, pull: bool, context_file: Path) -> None:
    """The same as tasks of the flow run that wrote the context file; raises as run_rebuild does."""
    keep_prefect_quiet()
    try:
        with join_run(context_file, _runner):
            state = _rebuild(targets, force=force, pull=pull)
    finally:
        flush_reports()
    _raise_unless_completed(state)


def _raise_unless_completed(state: State[Any]) -> None:
    if state.is_cancelled():
        raise KeyboardInterrupt
    if not state.is_completed():
        error = state.result(raise_on_failure=False)
        raise error if isinstance(error, BaseException) else StageFailedError(state.message or "the run failed", 1)


class _Stages:
    """The stages of one run: started when what they need is there, at most PARALLEL_STAGES at a time."""

    def __init__(self, plan: list[PlannedStage], *, force: bool, pull: bool) -> None:
        self.ends: dict[str, StageEnd] = {}
        self._plan, self._force = plan, force
        self._options = [*(["--force"] if force else []), *(["--pull", "--allow-missing"] if pull else [])]
        self._reason = {stage.name: stage.reason for stage in plan}
        self._processes = DvcProcesses()
        self._futures: dict[str, PrefectFuture[Any]] = {}
        self._finished: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._contexts = STATE / "runs" / str(prefect.runtime.flow_run.id)

    def run(self) -> None:
        """Run all that can be run. Returns when nothing is left; a failed stage takes only its dependants with it."""
        waiting = list(self._plan)
        running: set[str] = set()
        while waiting or running:
            for stage in list(waiting):
                is_ready = all(name in self.ends for name in stage.needs)
                if is_ready and len(running) < PARALLEL_STAGES:
                    waiting.remove(stage)
                    running.add(stage.name)
                    self._submit(stage)
            running.discard(self._finished.get())

    def close(self) -> None:
        """End what is still at work, and wait for it."""
        self._processes.stop()
        for future in self._futures.values():
            future.wait()
        shutil.rmtree(self._contexts, ignore_errors=True)

    def _submit(self, stage: PlannedStage) -> None:
        name = stage.name
        bad = [need for need in stage.needs if self.ends[need].outcome in ("failed", "skipped")]

        def work() -> State[Any]:
            return self._do(stage, bad)

        task = Task(work, name="stage", task_run_name=name, cache_policy=NO_CACHE, persist_result=False)
        # The needs have ended; naming them draws the arrows. A skipped stage has none: Prefect would not let it report.
        wait_for = [] if bad else [self._futures[need] for need in stage.needs]
        future: PrefectFuture[Any] = task.submit(return_state=False, wait_for=wait_for)
        self._futures[name] = future

        def on_done(_: PrefectFuture[Any]) -> None:
            self.ends.setdefault(name, StageEnd(name, "failed", error="the task ended without a result", code=1))
            self._finished.put(name)

        future.add_done_callback(on_done)

    def _do(self, stage: PlannedStage, bad: list[str]) -> State[Any]:
        """One stage, in its task's thread: its end is noted, and told to Prefect as a state."""
        if bad:
            end = StageEnd(stage.name, "skipped", error=f"{bad[0]} failed")
        elif not self._reason[stage.name]:
            end = StageEnd(stage.name, "cached")
        else:
            end = self._repro(stage.name)
        if end.outcome in ("ran", "restored", "cached"):
            create_markdown_artifact(key=_artifact_key(stage.name), markdown=_describe_hashes(stage.name, end))
        self.ends[stage.name] = end
        return _state_of(end)

    def _repro(self, name: str) -> StageEnd:
        log = get_run_logger()

        def on_line(line: str) -> None:
            log.info("%s", line)
            say(f"{name} | {line}")

        context_file = self._contexts / f"{name}.context"
        write_run_context(context_file)
        run = str(prefect.runtime.flow_run.id)
        environment = {RUN_CONTEXT: str(context_file), FLOW_RUN: run, **({FRESH: "1"} if self._force else {})}
        stage, _, item = name.partition("@")
        # Beside other workers' runs; a run in a work tree of its own is alone.
        is_shared = stage == "download" and prefect.runtime.deployment.id
        with hold_hosts(item) if is_shared else nullcontext():
            end = self._processes.repro(name, options=self._options, environment=environment, on_line=on_line)
        context_file.unlink(missing_ok=True)
        return end


def _state_of(end: StageEnd) -> State[Any]:
    match end.outcome:
        case "ran":
            return Completed(message="ran")
        case "restored" | "cached":
            return Completed(name="Cached", message=end.outcome)
        case "failed":
            return Failed(message=end.error)
        case "skipped":
            return Cancelled(name="Skipped", message=end.error)
        case "stopped":
            return Cancelled(message="stopped")


def _artifact_key(stage: str) -> str:
    return "stage-" + re.sub(r"[^a-z0-9]+", "-", stage.lower()).strip("-")


def _describe_hashes(stage: str, end: StageEnd) -> str:
    """What went into a stage and what came out, from its entry in dvc.lock."""
    block = dict(split_entries(LOCK.read_text(encoding="utf-8"))[1]).get(stage, "")
    entry = YAML(typ="safe", pure=True).load(block)[stage] if block else {}
    lines = [f"`{entry.get('cmd', stage)}`: **{end.outcome}** in {end.seconds:.1f} s", ""]
    lines += ["| | path | md5 | bytes |", "|---|---|---|---|"]
    for kind, word in (("deps", "in"), ("outs", "out")):
        for row in entry.get(kind, []):
            lines.append(f"| {word} | `{row['path']}` | `{row.get('md5', '')}` | {row.get('size', '')} |")
    return "\n".join(lines)


def _leave_lineage(summary: Summary, ends: Sequence[StageEnd]) -> None:
    """An artifact with the sources and licences of what the run made; what goes wrong with it fails no run."""
    try:
        markdown = summary.finish([end.name for end in ends if end.outcome in ("ran", "restored")])
        create_markdown_artifact(key="lineage", markdown=markdown, description="Sources and licences of what was made")
    except Exception as error:  # noqa: BLE001 whatever it is, the stages' work is done and recorded
        say(f"repro: no lineage artifact: {' '.join(str(error).split())[:200]}")


def _bury_dead_runs(client: SyncPrefectClient) -> None:
    """Runs of our own server that were killed still stand as running; nobody else can be at it now."""
    running = FlowRunFilter.model_validate({"state": {"type": {"any_": ["RUNNING", "PENDING"]}}})
    for run in client.read_flow_runs(flow_run_filter=running):
        client.set_flow_run_state(run.id, Crashed(message="killed"), force=True)
