"""Every deployment beside ingest on a real server, with a worker a pool: by hand, by its trigger, by its schedule."""

import json
import re
import urllib.request
from collections.abc import Iterator
from datetime import datetime

import pytest

from tests.sandbox import Sandbox, needs_footage, write_batch
from tests.unattended import Machine, describe_batch, make_checkout, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(2400), needs_footage]

RENDERER = "{batch: old, videos: [], split: test, key_step: 8, background: base, height: 96, width: 64}"


@pytest.fixture(scope="module")
def machine(tmp_path_factory) -> Iterator[Machine]:
    sandbox = make_checkout(tmp_path_factory.mktemp("machine"), is_whole=True)
    write_batch(sandbox, "old", [("kick", "kick_front", 40, 80)])  # keys enough to train on, and one held out
    params = (sandbox.root / "params.yaml").read_text()
    sandbox.write("params.yaml", params.replace("renderers: {}", f"renderers:\n  old: {RENDERER}"))
    sandbox.commit("a renderer")
    sandbox.run("git", "push", "-q")
    sandbox.env |= {
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "false",
        "PYTHONUNBUFFERED": "1",
        "INBETWEEN_TRAIN_EVERY": "2",
    }
    machine = Machine(sandbox)
    machine.start()
    machine.start_worker("gpu")
    yield machine
    machine.stop()


def run_by_hand(machine: Machine, deployment: str) -> str:
    """Start a run of a deployment, and return how it ended: "Completed: what it says of itself"."""
    said = machine.sandbox.run("python", "-m", "prefect", "deployment", "run", deployment).stdout
    number = re.search(r"UUID: (\S+)", said)[1]

    def end() -> str:
        (run,) = machine.ask("flow_runs/filter", {"flow_runs": {"id": {"any_": [number]}}})
        return f"{run['state_name']}: {run['state']['message']}" if run["end_time"] else ""

    return str(wait_for(end, every=2))


def deployment_named(machine: Machine, name: str) -> dict[str, object]:
    (found,) = machine.ask("deployments/filter", {"deployments": {"name": {"any_": [name]}}})
    return found


def schedule(machine: Machine, deployment: dict[str, object], **change: object) -> None:
    """Change the deployment's one schedule on the server."""
    (old,) = deployment["schedules"]
    request = urllib.request.Request(
        f"{machine.sandbox.env['PREFECT_API_URL']}/deployments/{deployment['id']}/schedules/{old['id']}",
        json.dumps(change).encode(),
        {"Content-Type": "application/json"},
        method="PATCH",
    )
    with urllib.request.urlopen(request, timeout=100) as answer:
        assert answer.status == 204


def run_by_schedule(machine: Machine, deployment: dict[str, object]) -> str:
    """Have the deployment due every minute until one run of it has ended; returns how."""
    schedule(machine, deployment, schedule={"cron": "* * * * *", "timezone": "UTC"}, active=True)

    def find(**state: object) -> list[dict[str, object]]:
        question = {"deployment_id": {"any_": [deployment["id"]]}, **state}
        return [r for r in machine.ask("flow_runs/filter", {"flow_runs": question}) if r["auto_scheduled"]]

    wait_for(lambda: find(start_time={"is_null_": False}), every=2)
    schedule(machine, deployment, active=False)
    (run, *_) = wait_for(lambda: find(end_time={"is_null_": False}, start_time={"is_null_": False}), every=2)
    return f"{run['state_name']}: {run['state']['message']}"


def test_motion_is_trained_by_hand_and_not_again(machine):
    assert run_by_hand(machine, "train/motion").startswith("Completed: landed as ")
    assert machine.landed()[0] == "Train motion"
    lock = machine.show("dvc.lock")
    assert "\n  train_motion:" in lock
    assert "\n  evaluate_motion:" in lock
    assert json.loads(machine.show("metrics/train_motion/metrics.json"))
    assert run_by_hand(machine, "train/motion") == "Completed: nothing new to land"


def test_every_second_ingested_batch_trains_the_renderers_once(machine):
    machine.register(describe_batch("b1", first=1, renders=[]))
    wait_for(lambda: machine.state("ingest-b1") == "Completed", every=2)
    wait_for(lambda: machine.state("render-b1") == "Completed", every=2)
    assert machine.state("train-renderer") == "none"
    machine.register(describe_batch("b2", first=2, renders=[]))
    wait_for(lambda: machine.state("train-renderer") == "Completed", every=2)
    assert "Train renderer" in machine.landed()
    assert "\n  train_renderer@old:" in machine.show("dvc.lock")
    runs = machine.ask("flow_runs/filter", {"flow_runs": {"name": {"any_": ["train-renderer"]}}})
    assert len(runs) == 1


def test_scheduled_runs_are_planned_for_their_hour_and_rebuild_and_verify(machine):
    nightly, verify = (deployment_named(machine, name) for name in ("nightly", "verify"))
    for deployment, hour, days in ((nightly, 3, range(7)), (verify, 5, [6])):
        planned = machine.ask(
            "flow_runs/filter",
            {"flow_runs": {"deployment_id": {"any_": [deployment["id"]]}, "state": {"type": {"any_": ["SCHEDULED"]}}}},
        )
        times = [datetime.fromisoformat(run["expected_start_time"]) for run in planned]
        assert times
        assert all((t.hour, t.minute) == (hour, 0) and t.weekday() in days for t in times)
    assert run_by_schedule(machine, nightly).startswith("Completed: landed as ")
    assert machine.landed()[0] == "Rebuild"
    lock = machine.show("dvc.lock")
    assert all(f"\n  {name}:" in lock for name in ("render@old-flow-8", "evaluate@old-flow-8", "report"))
    assert run_by_schedule(machine, verify).startswith("Completed: ")
    # Nothing is left to do, to whoever has the commit and the remote.
    clone = machine.sandbox.root.parent / "fresh"
    machine.sandbox.run("git", "clone", "-q", str(machine.sandbox.root.parent / "origin.git"), str(clone))
    fresh = Sandbox(clone)
    fresh.run("dvc", "remote", "add", "-q", "--local", "-d", "store", str(machine.sandbox.root.parent / "store"))
    fresh.run("inbetween", "data")
    assert ", 0 to run," in fresh.run("inbetween", "repro", "--plan", "--pull").stdout.splitlines()[-1]
