"""A deployed run whose items are at work on a Ray cluster is cancelled: nothing of it stays at work anywhere."""

import pytest

from tests.ray_cluster import needs_ray, run_cluster
from tests.sandbox import needs_footage
from tests.unattended import Machine, describe_batch, make_checkout, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1500), needs_footage, needs_ray]


def test_cancelled_run_ends_its_processes_and_its_ray_tasks(tmp_path):
    sandbox = make_checkout(tmp_path)
    sandbox.env |= {"PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "false", "PYTHONUNBUFFERED": "1"}
    with run_cluster(tmp_path / "cluster") as cluster:
        sandbox.env |= cluster.environment | {"INBETWEEN_RUNNER": "ray", "RAY_ADDRESS": cluster.address}
        machine = Machine(sandbox)
        machine.start()
        try:
            batch = describe_batch("b1")
            batch["clips"][0] |= {"last": 99, "width": 360, "height": 640}
            machine.register(batch)
            wait_for(
                lambda: machine.processes("stage", "background", "b1") and cluster.at_work(is_anywhere=True), every=0.1
            )
            machine.sandbox.run("python", "-m", "prefect", "flow-run", "cancel", str(machine.runs()["ingest-b1"]["id"]))
            wait_for(lambda: machine.state("ingest-b1") == "Cancelled", every=2)
            wait_for(lambda: not machine.processes("b1"), 60)
            wait_for(lambda: not cluster.at_work(is_anywhere=True), 60)
            assert not any("b1" in line for line in machine.landed())
        finally:
            machine.stop()
