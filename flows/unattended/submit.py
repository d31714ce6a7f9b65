"""`inbetween ingest`: the flow here and now, or an event that has the server start its deployment.

Nothing here imports Prefect before a server is there or named.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

from flows.params import load_params, read_yaml
from flows.progress import say
from flows.project import ROOT
from flows.server import API_URL, serve_prefect
from flows.unattended.new_batch import NewBatch, NewRender, check_batch, read_batch
from flows.unattended.standing import use_standing_server
from tasks.errors import InbetweenError, ParamsError, ToolError

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

REGISTERED = "inbetween.batch.registered"


def read_request(
    name: str, file: Path | None, key_steps: Sequence[int], renders: Sequence[str], missing: Literal["fail", "skip"]
) -> NewBatch:
    """A batch from a JSON or YAML file, or from catalog/NAME of this checkout.

    Args: renders: METHOD-STEP each, such as "warp-8".
    """
    if file:
        content = read_yaml(file)
        if not isinstance(content, dict) or content.get("name", name) != name:
            raise ParamsError(f"{file}: is not the batch {name}; its fields are those of deployment ingest/new-batch")
        return check_batch({"name": name, **content})
    wanted = [_parse_render(text) for text in renders]
    steps = {*key_steps, *(render.key_step for render in wanted)}
    params = load_params(ROOT / "params.yaml")
    if not steps and name not in params.batches:
        raise ParamsError(f"batch {name}: give it a key step, --key-step 8, or a render, --render warp-8")
    return read_batch(ROOT, name, key_steps=sorted(steps), renders=wanted, missing=missing, params=params)


def _parse_render(text: str) -> NewRender:
    method, _, step = text.rpartition("-")
    try:
        return NewRender.model_validate({"method": method, "key_step": step})
    except ValueError as error:
        raise ParamsError(f"--render {text}: write METHOD-STEP, such as warp-8") from error


def run_ingest(batch: NewBatch, *, landing: Literal["push", "branch"], stages: Literal["data", "all"]) -> None:
    """Raises: InbetweenError where the run failed; KeyboardInterrupt where it was stopped."""

    def work() -> "State[Any]":
        from flows.unattended.ingest import ingest

        return ingest(batch, landing, stages, return_state=True)

    run_here(work)


def run_here(flow: "Callable[[], State[Any]]") -> None:
    """Run a flow in this process, on the server that PREFECT_API_URL names or on one of its own."""
    signal.signal(signal.SIGTERM, _interrupt)
    if os.environ.get(API_URL):
        _run(flow)
    else:
        with serve_prefect():
            _run(flow)


def _run(flow: "Callable[[], State[Any]]") -> None:
    from flows.logs import flush_reports, keep_prefect_quiet
    from flows.unattended.clones import CommandError

    keep_prefect_quiet()
    try:
        state = flow()
    finally:
        flush_reports()
    if state.is_completed():
        say(state.message or "done")
        return
    if state.is_cancelled():
        raise KeyboardInterrupt
    error = state.result(raise_on_failure=False)
    if not isinstance(error, InbetweenError):
        raise error if isinstance(error, BaseException) else ToolError(state.message or "the run failed")
    if isinstance(error, CommandError) and error.code != 2:
        say(f"inbetween: {error}")
        sys.exit(1)
    raise error


def tell_registered(batch: NewBatch, *, landing: Literal["push", "branch"]) -> None:
    """Emit the event on which the server starts ingest/new-batch. Raises: ToolError where it gives no answer."""
    url = use_standing_server()
    from prefect.client.orchestration import get_client
    from prefect.events import emit_event

    from flows.logs import flush_reports, keep_prefect_quiet

    keep_prefect_quiet()
    with get_client(sync_client=True) as client:
        if error := client.api_healthcheck():
            raise ToolError(f"{url}: no answer ({type(error).__name__}); start it with `make server`")
    emit_event(
        REGISTERED,
        resource={"prefect.resource.id": f"inbetween.batch.{batch.name}", "prefect.resource.name": batch.name},
        payload={"batch": batch.model_dump(mode="json", exclude_none=True), "landing": landing},
    )
    flush_reports()
    say(f"ingest: told {url}: {REGISTERED} {batch.name}")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
