"""What every deployed flow does: run stages in its clone as tasks of its own run, push, land, say why it failed.

Worth another attempt, later and later with jitter, is what a network or a fault may mend: a remote that gives no
answer, a stage that was killed. What a user must mend is not.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import prefect.runtime
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State, TaskRun
from prefect.flows import Flow
from prefect.states import Completed, Failed
from prefect.tasks import Task, exponential_backoff

from flows.logs import shorten_known_errors
from flows.prefect_tasks import write_flow_context
from flows.progress import say
from flows.project import ROOT, RUN_CONTEXT, STATE, prepare_environment
from flows.unattended.clones import BACK_OFF_S, RETRIES, Clone, CommandError, UnreachableError, back_off
from flows.unattended.landing import Change, Landing, land, push_data
from tasks.errors import InbetweenError

FAILURES = STATE / "failures.log"
LOGS = STATE / "logs" / "runs"
MAX_LOGS = 1000

_COMMAND = "inbetween repro: "


def conclude(work: Callable[[], str]) -> State[Any]:
    """A flow's end: an error of ours is one line, not a traceback; anything else is raised as it is."""
    prepare_environment()
    shorten_known_errors()
    if prefect.runtime.deployment.id:
        _write_log_file()
    try:
        what = work()
    except InbetweenError as error:
        return Failed(message=str(error), data=error)
    return Completed(message=what)


def _write_log_file() -> None:
    """From here on this process writes into a file of its own: the worker's pipe breaks when the worker dies, and rich,
    by which Prefect writes its lines, would then end the run.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    for old in sorted(LOGS.glob("*.log"), key=lambda path: path.stat().st_mtime)[:-MAX_LOGS]:
        old.unlink(missing_ok=True)
    path = LOGS / f"{prefect.runtime.flow_run.name}-{str(prefect.runtime.flow_run.id)[:8]}.log"
    say(f"{prefect.runtime.flow_run.name}: the log of this run is {path.relative_to(ROOT).as_posix()}")
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(file, stream.fileno())
    os.close(file)


def describe_landing(commit: str, landing: Landing, branch: str) -> str:
    if not commit:
        return "nothing new to land"
    return f"landed as {commit[:10]}" if landing == "push" else f"{commit[:10]} on {branch}, for review"


def note_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Hook: a line in .inbetween/failures.log and in the worker's log for each run that failed or crashed.

    Where the run's own process is gone, Prefect hands the arguments over by name, and the run as it was called first.
    """
    name = flow_run.name
    with get_client(sync_client=True) as client:
        if client.api_healthcheck() is None:
            name = client.read_flow_run(flow_run.id).name
    line = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {flow.name} {name} {state.name}: {state.message or ''}"
    FAILURES.parent.mkdir(parents=True, exist_ok=True)
    with FAILURES.open("a", encoding="utf-8") as log:
        log.write(" ".join(line.split())[:2000] + "\n")
    say(line)


REPORTED: Any = {"persist_result": False, "on_failure": [note_failure], "on_crashed": [note_failure]}  # of a flow


def repro_in_clone(clone: Clone, targets: Sequence[str], *, retries: int = RETRIES) -> None:
    """`inbetween repro --pull TARGETS` with the clone's code; its stages are tasks of this flow's run.

    Finished items are kept, so that another attempt does only what is left.

    Raises: CommandError with the command's own line.
    """
    for attempt in range(retries + 1):
        try:
            _repro_once(clone, targets)
        except CommandError as error:
            if error.code == 2 or attempt == retries:
                raise
            wait_s = back_off(attempt)
            say(f"{error}; again in {wait_s:.0f} s")
            time.sleep(wait_s)
        else:
            return


def _repro_once(clone: Clone, targets: Sequence[str]) -> None:
    folder = STATE / "runs" / f"flow-{prefect.runtime.flow_run.id}"
    context = folder / "run.context"
    write_flow_context(context)
    last = ""

    def on_line(line: str) -> None:
        nonlocal last
        if line.startswith(_COMMAND) or not last.startswith(_COMMAND):
            last = line
        say(line)

    command = [sys.executable, "-m", "flows.cli", "repro", "--pull", *targets]
    try:
        code = clone.run(*command, on_line=on_line, environment={RUN_CONTEXT: str(context)})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if code:
        raise CommandError(last.removeprefix(_COMMAND) or f"inbetween repro exited with {code}", 2 if code == 2 else 1)


def land_change(clone: Clone, change: Change, landing: Landing) -> str:
    """Make the change, push its data, land it; push and landing are tasks, tried again where a remote is silent.

    Returns: the commit, "" where nothing had changed.
    """
    change.apply(clone.root)
    change.repro()
    _push_data(clone, change.targets)
    commit: str = _land(clone, change, landing)
    clone.tidy()
    return commit


def _is_silent(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """True where the task failed because a remote gave no answer."""
    return isinstance(state.result(raise_on_failure=False), UnreachableError)


_with_retries: Any = {
    "retries": RETRIES,
    "retry_delay_seconds": exponential_backoff(BACK_OFF_S),
    "retry_jitter_factor": 0.3,
    "retry_condition_fn": _is_silent,
    "cache_policy": NO_CACHE,
    "persist_result": False,
}


@task(name="push data", **_with_retries)
def _push_data(clone: Clone, targets: tuple[str, ...]) -> None:
    push_data(clone, targets)


@task(name="land", **_with_retries)
def _land(clone: Clone, change: Change, landing: Landing) -> str:
    return land(clone, change, landing)
