"""`inbetween doctor`: what unattended runs need, here and on the server, and the remedy for what is missing."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from flows.gpus import list_gpus
from flows.params import load_params, load_tools
from flows.progress import say
from flows.project import ROOT, STATE
from flows.tools import check_tools
from flows.unattended.clones import CommandError, find_origin
from flows.unattended.deploy import DEAD_RUNS, NOTICE, POOLS, WEBHOOK_URL
from flows.unattended.landing import default_remote
from flows.unattended.standing import use_standing_server
from tasks.errors import InbetweenError, ToolError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

DEPLOYMENTS = (
    "ingest/new-batch",
    "rebuild/nightly",
    "train/motion",
    "train/renderer",
    "render/batch",
    "lineage/verify",
)
LOW_DISK_BYTES = 10 * 2**30

_ONLINE = timedelta(seconds=90)  # a worker beats every 30 s


@dataclass(frozen=True)
class Finding:
    """state: ok, note (works, but worth knowing) or bad (a run would fail).  remedy: "" where there is none."""

    what: str
    state: Literal["ok", "note", "bad"]
    found: str
    remedy: str = ""


def run_doctor() -> None:
    """Print a line a check. Raises: ToolError where something is bad."""
    findings = list(examine())
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        remedy = f"; {finding.remedy}" if finding.remedy else ""
        say(f"{finding.state:<5} {finding.what:<{width}}  {finding.found}{remedy}")
    bad = [finding.what for finding in findings if finding.state == "bad"]
    if bad:
        raise ToolError(f"{len(bad)} of {len(findings)} checks say that a run would fail: {', '.join(bad)}")
    say(f"doctor: {len(findings)} checks, none is bad")


def examine() -> Iterator[Finding]:
    """Every check in turn; those of the server only where it answers."""
    yield _guard("params and tools", _check_project)
    yield _guard("git origin", _check_origin)
    yield _guard("dvc remote", _check_remote)
    yield _check_disk()
    yield _check_gpus()
    yield from _check_server()


def _guard(what: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(what, "ok", check())
    except InbetweenError as error:
        return Finding(what, "bad", str(error))


def _check_project() -> str:
    params = load_params(ROOT / "params.yaml")
    tools = load_tools(ROOT / "tools.yaml")
    check_tools(sorted(tools), tools, params.run.ffmpeg)
    return f"{len(params.batches)} batches, {len(params.renders)} renders; ffmpeg and {len(tools)} tools as written"


def _check_origin() -> str:
    origin = find_origin()
    command = ["git", "ls-remote", "--exit-code", origin, "HEAD"]
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    if done.returncode:
        raise CommandError("origin gives no answer; see `git remote -v` and its credentials", 2)
    return "answers"


def _check_remote() -> str:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    name = default_remote(ROOT)
    with Repo(str(ROOT)) as repo:
        try:
            odb = repo.cloud.get_remote_odb(name)
            odb.fs.exists(odb.path)
        except (DvcException, OSError) as error:
            raise ToolError(f"{name} gives no answer ({error}); see `dvc remote list`") from error
        if odb.fs.protocol == "local":
            place = Path(odb.path)
            parent = next(path for path in (place, *place.parents) if path.exists())
            if not parent.is_dir() or not os.access(parent, os.W_OK):
                raise ToolError(f"{name}: {parent} cannot be written to; mend it, or `dvc remote modify`")
    return f"{name} answers"


def _check_disk() -> Finding:
    free = shutil.disk_usage(STATE if STATE.exists() else ROOT).free
    found = f"{free / 2**30:.0f} GB free for cache, items and clones"
    if free < LOW_DISK_BYTES:
        return Finding(
            "disk",
            "bad",
            found,
            "`dvc push`, `dvc gc --workspace`, and delete .inbetween/items, which shares its files",
        )
    return Finding("disk", "ok", found)


def _check_gpus() -> Finding:
    gpus = list_gpus()
    if not gpus:
        return Finding("gpu", "note", "none: trainings run on the CPU, one at a time")
    return Finding("gpu", "ok", f"{len(gpus)}: one training on each at a time")


def _check_server() -> Iterator[Finding]:
    url = use_standing_server()
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    with get_client(sync_client=True) as client:
        if error := client.api_healthcheck():
            remedy = "start it with `make server`, or set PREFECT_API_URL"
            yield Finding("server", "bad", f"{url}: no answer ({type(error).__name__})", remedy)
            return
        try:
            version = client.api_version()
        except PrefectHTTPStatusError as error:
            remedy = "set PREFECT_API_AUTH_STRING to the server's PREFECT_SERVER_API_AUTH_STRING"
            yield Finding("server", "bad", f"{url}: refuses us ({error.response.status_code})", remedy)
            return
        yield _check_version(url, version)
        for pool in POOLS:
            yield _check_pool(client, pool)
        yield _check_deployments(client)
        yield _check_automations(client)
        yield _check_limits(client)


def _check_version(url: str, version: str) -> Finding:
    import prefect

    if version != prefect.__version__:
        return Finding("server", "note", f"{url}: {version}, we are {prefect.__version__}", "run the same version")
    return Finding("server", "ok", f"{url}: Prefect {version}")


def _check_pool(client: "SyncPrefectClient", pool: str) -> Finding:
    from prefect.exceptions import ObjectNotFound

    what = f"pool {pool}"
    try:
        found = client.read_work_pool(pool)
    except ObjectNotFound:
        return Finding(what, "bad", "is not there", "make it with `make deploy`")
    # The synchronous client has no call for a pool's workers.
    workers = client.request(
        "POST", "/work_pools/{work_pool_name}/workers/filter", path_params={"work_pool_name": pool}, json={}
    ).json()
    since = datetime.now(UTC) - _ONLINE
    beats = [datetime.fromisoformat(worker["last_heartbeat_time"]) for worker in workers]
    online = sum(beat > since for beat in beats)
    state = "paused" if found.is_paused else f"limit {found.concurrency_limit or 'none'}"
    if found.is_paused:
        return Finding(what, "bad", "is paused", f"prefect work-pool resume {pool}")
    if not online:
        return Finding(what, "bad", "no worker is online", f"start one: make worker POOL={pool}")
    return Finding(what, "ok", f"{online} worker{'s' if online > 1 else ''} online, {state}")


def _check_deployments(client: "SyncPrefectClient") -> Finding:
    names = set()
    flows = {flow.id: flow.name for flow in client.read_flows()}
    for one in client.read_deployments():
        names.add(f"{flows[one.flow_id]}/{one.name}")
    missing = [name for name in DEPLOYMENTS if name not in names]
    if missing:
        return Finding("deployments", "bad", f"without {', '.join(missing)}", "make deploy")
    return Finding("deployments", "ok", f"all {len(DEPLOYMENTS)}")


def _check_automations(client: "SyncPrefectClient") -> Finding:
    names = {automation.name for automation in client.read_automations() if automation.enabled}
    if DEAD_RUNS not in names:
        return Finding("automations", "bad", "dead runs would stay RUNNING", "make deploy")
    if NOTICE not in names:
        remedy = f"to be called, make deploy with {WEBHOOK_URL} set"
        return Finding("automations", "note", "failures go to .inbetween/failures.log alone", remedy)
    return Finding("automations", "ok", "dead runs are found, failures call the webhook")


def _check_limits(client: "SyncPrefectClient") -> Finding:
    limits = client.request("POST", "/v2/concurrency_limits/filter", json={}).json()
    limits = [limit for limit in limits if not limit["name"].startswith("deployment:")]
    full = [limit["name"] for limit in limits if limit["active_slots"] >= limit["limit"]]
    found = ", ".join(f"{limit['name']} {limit['active_slots']}/{limit['limit']}" for limit in limits) or "none yet"
    if full:
        return Finding("limits", "note", f"{found}: at their limit", "runs wait for them; see the runs that hold them")
    return Finding("limits", "ok", found)
