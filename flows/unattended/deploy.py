"""`inbetween deploy`: work pools, the deployments of prefect.yaml, and the automations that watch over them."""

import os
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, cast
from uuid import UUID

from flows.progress import say
from flows.project import ROOT
from flows.unattended.standing import python_path, use_standing_server
from tasks.errors import ToolError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

POOLS = ("cpu", "gpu")
WEBHOOK_URL = "INBETWEEN_WEBHOOK_URL"
# Read by prefect.yaml.
DEFAULTS = {"INBETWEEN_TRAIN_EVERY": "10"}

# Without a beat, which comes every 30 s: on a busy machine beats were two minutes late.
DEAD_AFTER_S = int(os.environ.get("INBETWEEN_DEAD_AFTER_S", "300"))
DEAD_RUNS = "inbetween: a run without a sign of life has crashed"
NOTICE = "inbetween: a failed run calls the webhook"
_BLOCK = "inbetween-failures"
_ENDS = ("Completed", "Failed", "Crashed", "Cancelled")


def deploy() -> None:
    """Make or renew everything on the server. Raises: ToolError where it gives no answer."""
    url = use_standing_server()
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        if error := client.api_healthcheck():
            raise ToolError(f"{url}: no answer ({type(error).__name__}); start it with `make server`")
        _make_pools(client)
    _apply_prefect_yaml()
    with get_client(sync_client=True) as client:
        _make_automations(client)
    say(f"deploy: pools {', '.join(POOLS)}, the deployments of prefect.yaml and the automations are at {url}")


def _make_pools(client: "SyncPrefectClient") -> None:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    for name in POOLS:
        try:
            client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
        except ObjectAlreadyExists:
            continue


def _apply_prefect_yaml() -> None:
    environment = {**DEFAULTS, **os.environ, "PYTHONPATH": python_path()}
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", "prefect.yaml"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()] or ["no word"]
        raise ToolError(f"prefect.yaml: `prefect deploy` failed: {' '.join(lines[-3:])[:500]}")


def _make_automations(client: "SyncPrefectClient") -> None:
    """Runs whose process and worker are gone are marked crashed; failed runs call the webhook, where one is given."""
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import CallWebhook, ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    runs = {"prefect.resource.id": "prefect.flow-run.*"}
    dead = AutomationCore(
        name=DEAD_RUNS,
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *(f"prefect.flow-run.{end}" for end in _ENDS)},
            match=runs,
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=DEAD_AFTER_S),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=f"no sign of life for {DEAD_AFTER_S} s")],
    )
    wanted = [dead]
    if url := os.environ.get(WEBHOOK_URL):
        wanted.append(
            AutomationCore(
                name=NOTICE,
                trigger=EventTrigger(
                    expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
                    match=runs,
                    for_each={"prefect.resource.id"},
                    posture=Posture.Reactive,
                    threshold=1,
                ),
                actions=[CallWebhook(block_document_id=_save_webhook(url), payload=_NOTICE_PAYLOAD)],
            )
        )
    for automation in wanted:
        # Renewed in place: the beats that it has counted so far stay.
        if old := client.read_automations_by_name(automation.name):
            client.update_automation(old[0].id, automation)
        else:
            client.create_automation(automation)


_NOTICE_PAYLOAD = (
    '{"run": {{ flow_run.name | tojson }}, "flow": {{ flow.name | tojson }},'
    ' "state": {{ flow_run.state.name | tojson }}, "message": {{ flow_run.state.message | tojson }}}'
)


def _save_webhook(url: str) -> UUID:
    """The address is a secret: it stands in a block of the server, encrypted, and nowhere else."""
    from prefect.blocks.webhook import Webhook
    from pydantic import SecretStr

    return cast("UUID", Webhook(method="POST", url=SecretStr(url)).save(_BLOCK, overwrite=True))
