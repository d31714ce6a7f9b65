"""A stage's groups of items as tasks of the Prefect run that the stage belongs to.

The flow writes its run context into a file (write_run_context), the stage's process takes it up (map_as_tasks). Only
imported under a flow: plain `dvc repro` imports no Prefect.
"""

import contextvars
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped] # comes with Prefect
from prefect import Flow, Task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext, SettingsContext, hydrated_context, serialize_context
from prefect.task_runners import TaskRunner

from flows.logs import keep_prefect_quiet, shorten_known_errors
from flows.mapping import GroupPool
from tasks.items import GroupRecord, Item


def write_run_context(path: Path) -> None:
    """Keep the current task run's context in a file for the processes of its stage.

    The file holds the API's credentials where there are some: it is for the user alone, and the flow removes it.
    """
    context: dict[str, Any] = serialize_context()
    context["task_run_context"]["task"] = Task(_placeholder, name=context["task_run_context"]["task"].name)
    _write(context, path)


def write_flow_context(path: Path) -> None:
    """Keep the current flow run's context in a file, for a command that brings tasks of its own to that run."""
    flow_run, settings = FlowRunContext.get(), SettingsContext.get()
    assert flow_run is not None
    assert settings is not None
    context = {"flow_run_context": flow_run.serialize(), "settings_context": settings.serialize()}
    context["flow_run_context"]["parameters"] = {}  # the command has its own
    _write(context, path)


def _write(context: dict[str, Any], path: Path) -> None:
    # Its reader only reports to this run. Without the flow's own function it does not import the flow's module.
    context["flow_run_context"]["flow"] = Flow(_placeholder, name=context["flow_run_context"]["flow"].name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(cloudpickle.dumps(context))


def _placeholder() -> None:
    raise NotImplementedError("stands for a function that runs in another process")


@contextmanager
def join_run(context_file: Path, runner: TaskRunner[Any]) -> Iterator[None]:
    """Be part of the flow run of write_flow_context: tasks called or submitted here are its tasks."""
    context = cloudpickle.loads(context_file.read_bytes())
    flow = context["flow_run_context"]["flow"]
    context["flow_run_context"]["flow"] = Flow(_placeholder, name=flow.name, task_runner=runner)
    with hydrated_context(context):
        yield


def map_as_tasks(
    pool: GroupPool,
    groups: Sequence[Sequence[Item]],
    *,
    workers: int,
    names: Sequence[str],
    on_done: Callable[[GroupRecord], None],
    context_file: Path,
) -> None:
    """Do every group in the pool; each is a task run that waits for its process in a thread.

    Args: as for map_groups; context_file is what write_run_context wrote.
    Raises: the first error of a group; those that have not begun are dropped.
    """
    keep_prefect_quiet()
    shorten_known_errors()
    # As many threads as processes: a task that is said to run does run.
    with hydrated_context(cloudpickle.loads(context_file.read_bytes())):
        threads = ThreadPoolExecutor(workers, thread_name_prefix="group")
        try:
            futures = [
                threads.submit(contextvars.copy_context().run, _task(pool, group, name))
                for group, name in zip(groups, names, strict=True)
            ]
            for future in as_completed(futures):
                on_done(future.result())
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def _task(pool: GroupPool, group: Sequence[Item], name: str) -> Task[[], GroupRecord]:
    # The group is no parameter of the task: Prefect would look through it for futures, and record it.
    def work() -> GroupRecord:
        return pool.submit(group).result()

    return Task(
        work,
        name="group",
        task_run_name=name.replace("{", "(").replace("}", ")"),
        cache_policy=NO_CACHE,
        persist_result=False,
    )
