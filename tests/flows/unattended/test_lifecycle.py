"""Server, worker and deployments for real, on real clips; then each is killed in the middle of an ingest.

Whatever dies, the run goes on or is marked, no run stays RUNNING, the next attempt lands, and nothing is done twice.
"""

import re
import urllib.error
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.sandbox import Sandbox, needs_footage
from tests.unattended import Machine, describe_batch, make_checkout, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1500), needs_footage]


@pytest.fixture(scope="module")
def machine(tmp_path_factory) -> Iterator[Machine]:
    sandbox = make_checkout(tmp_path_factory.mktemp("machine"))
    # The tests' own requests bring no CSRF token.
    sandbox.env |= {
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "false",
        "PYTHONUNBUFFERED": "1",
        "INBETWEEN_DEAD_AFTER_S": "120",
    }
    machine = Machine(sandbox)
    machine.start()
    yield machine
    machine.stop()


def kill_in_stage(machine: Machine, batch: str, victim: Callable[[], psutil.Process], stage: str = "split") -> None:
    """Register a batch, wait until its stage is at work, kill -9 the victim."""
    machine.register(describe_batch(batch, first=int(batch[1:])))
    wait_for(lambda: machine.processes("stage", stage, batch), every=0.2)
    victim().kill()


def flow_process(machine: Machine, batch: str) -> psutil.Process:
    """The process of a batch's flow run: an ancestor of its stage."""
    parents = machine.processes("stage", batch)[0].parents()
    return next(parent for parent in parents if "prefect.engine" in parent.cmdline())


def test_wrong_parameter_is_refused_by_the_server_with_its_name(machine):
    (deployment,) = machine.ask("deployments/filter", {"deployments": {"name": {"any_": ["new-batch"]}}})
    batch = describe_batch("b0")
    batch["clips"][0]["last"] = "ten"
    with pytest.raises(urllib.error.HTTPError) as refused:
        machine.ask(f"deployments/{deployment['id']}/create_flow_run", {"parameters": {"batch": batch}})
    answer = refused.value.read().decode()
    assert 400 <= refused.value.code < 500
    assert "last" in answer, answer
    assert "ten" in answer, answer


def test_two_batches_at_once_land_and_are_rendered(machine):
    dead = {"video": "gone", "source": "file:/nowhere/gone.mp4", "licence": "CC0"}
    first, second = describe_batch("b1", first=1), describe_batch("b2", first=2, missing="skip")
    second["videos"].append(dead)
    second["clips"].append({**second["clips"][0], "clip": "lost", "video": "gone"})
    third = describe_batch("b3", first=3)  # the same dead video, and the policy to fail
    third["videos"].append(dead)
    for batch in (first, second, third):
        machine.register(batch)
    for name in ("render-b1", "render-b2"):
        wait_for(lambda name=name: machine.state(name) == "Completed", every=2)
    wait_for(lambda: machine.state("ingest-b3") == "Failed", every=2)
    landed = machine.landed()
    assert {"Batch b1: 1 video", "Batch b2: 1 video, without gone", "Renders of b1", "Renders of b2"} <= set(landed)
    assert not any("b3" in line for line in landed)
    # What landed is whole: a fresh clone pulls it, and DVC finds nothing to do.
    clone = machine.sandbox.root.parent / "fresh"
    machine.sandbox.run("git", "clone", "-q", str(machine.sandbox.root.parent / "origin.git"), str(clone))
    fresh = Sandbox(clone, {k: v for k, v in machine.sandbox.env.items() if not k.startswith("PREFECT")})
    fresh.run("dvc", "remote", "add", "-q", "--local", "-d", "store", str(machine.sandbox.root.parent / "store"))
    fresh.run("inbetween", "data")
    fresh.run("dvc", "pull", "-q", "render@b1-blend-8", "render@b2-blend-8")
    assert (clone / "data/renders/b1-blend-8/kick.parquet").is_file()
    left_out = (clone / "catalog/b2/left_out.csv").read_text()
    assert left_out.startswith("video,source,licence,reason\ngone,file:/nowhere/gone.mp4,CC0,no such file")
    plan = fresh.run("inbetween", "repro", "--plan", "render@b1-blend-8", "render@b2-blend-8", "--pull").stdout
    assert ", 0 to run," in plan.splitlines()[-1]
    wait_for(lambda: any(call["run"] == "ingest-b3" for call in machine.calls))
    assert "no such file" in next(call["message"] for call in machine.calls if call["run"] == "ingest-b3")
    # Its log says so in one line as well, and shows nobody the code.
    assert "no such file" in machine.log("ingest-b3")
    assert "Traceback" not in machine.log("ingest-b3")
    assert "again in" not in machine.log("ingest-b3")  # no attempt mends it
    assert "ingest-b3 Failed" in (machine.sandbox.root / ".inbetween/failures.log").read_text()
    # Nothing was done in the checkout.
    assert machine.sandbox.run("git", "status", "--porcelain").stdout == ""
    assert not (machine.sandbox.root / "data/b1").exists()


def test_same_batch_again_is_nothing_new(machine):
    before = machine.landed()
    machine.register(describe_batch("b1", first=1))
    wait_for(lambda: len([r for r in machine.ask("flow_runs/filter", {"flow_runs": {"name": {"any_": ["ingest-b1"]}}})
                          if r["state_name"] == "Completed"]) == 2, every=2)  # fmt: skip
    assert machine.landed() == before


def test_killed_stage_is_tried_again(machine):
    kill_in_stage(machine, "b10", lambda: machine.processes("stage", "split", "b10")[-1])
    wait_for(lambda: machine.state("ingest-b10") == "Completed", every=2)
    assert "Batch b10: 1 video" in machine.landed()


def test_killed_worker_leaves_its_run_at_work(machine):
    kill_in_stage(machine, "b11", machine.worker)
    wait_for(lambda: machine.state("ingest-b11") == "Completed", every=2)
    assert "Batch b11: 1 video" in machine.landed()
    wait_for(lambda: machine.state("render-b11") == "Completed", every=2)  # by the worker that was started again


def test_killed_server_is_waited_for(machine):
    kill_in_stage(machine, "b12", lambda: psutil.Process(machine.keepers[0].pid).children()[0])
    wait_for(lambda: machine.state("ingest-b12") == "Completed", every=2)
    assert "Batch b12: 1 video" in machine.landed()


def test_killed_run_is_marked_and_its_retry_does_only_what_is_left(machine):
    kill_in_stage(machine, "b13", lambda: flow_process(machine, "b13"), stage="background")
    wait_for(lambda: machine.state("ingest-b13") == "Crashed", every=2)
    wait_for(lambda: not machine.processes("b13"), 60)
    # The process above the run says so at once, the worker some seconds later: that would undo a retry between the two.
    wait_for(lambda: "flow_runs.worker - Check whether the flow run exceeded" in machine.worker_log())
    failures = (machine.sandbox.root / ".inbetween/failures.log").read_text()
    assert re.search(r"ingest-b13 Crashed: Process exited with status code: -9", failures)
    machine.retry("ingest-b13")
    wait_for(lambda: machine.state("ingest-b13") == "Completed", every=2)
    assert "Batch b13: 1 video" in machine.landed()
    assert len(re.findall(r"^split@b13 \| Running stage", machine.logs(), re.MULTILINE)) == 1


def test_cancelled_run_leaves_no_process(machine):
    machine.register(describe_batch("b14", first=14))
    wait_for(lambda: machine.processes("stage", "split", "b14"), every=0.2)
    machine.sandbox.run("python", "-m", "prefect", "flow-run", "cancel", str(machine.runs()["ingest-b14"]["id"]))
    wait_for(lambda: machine.state("ingest-b14") == "Cancelled", every=2)
    wait_for(lambda: not machine.processes("b14"), 60)
    assert not any("b14" in line for line in machine.landed())


def test_remote_that_comes_back_during_the_push(machine):
    store = machine.sandbox.root.parent / "store"
    away = store.with_name("store.away")
    store.mkdir(exist_ok=True)
    machine.register(describe_batch("b15", first=15))
    wait_for(lambda: machine.processes("stage", "background", "b15"), every=0.2)
    store.rename(away)
    store.write_text("not a folder")
    wait_for(lambda: "dvc push to store" in machine.logs())
    assert not any("b15" in line for line in machine.landed())
    store.unlink()
    away.rename(store)
    wait_for(lambda: machine.state("ingest-b15") == "Completed", every=2)
    assert "Batch b15: 1 video" in machine.landed()


def test_full_disk_is_one_line_and_the_next_attempt_completes(machine):
    """The system refuses the first attempt's split every file past 64 kB: its clip is larger."""
    machine.register(describe_batch("b17", first=17, missing="skip"))
    wait_for(lambda: machine.processes("stage", "split", "b17"), every=0.05)
    for process in machine.processes("stage", "split", "b17"):
        process.rlimit(psutil.RLIMIT_FSIZE, (64 * 1024, psutil.RLIM_INFINITY))
    wait_for(lambda: machine.state("ingest-b17") == "Completed", every=2)
    assert "Batch b17: 1 video" in machine.landed()  # the full disk is not the video's fault
    line = r"split@b17 failed: .*File too large.*; make room, then run it again: .*; again in \d+ s"
    assert re.search(line, machine.log("ingest-b17"))


def test_run_that_dies_with_its_worker_is_marked_in_the_end(machine):
    machine.register(describe_batch("b16", first=16))
    wait_for(lambda: machine.processes("stage", "split", "b16"), every=0.2)
    keeper = machine.keepers.pop()
    run = flow_process(machine, "b16")
    for process in (psutil.Process(keeper.pid), machine.worker(), run):
        process.kill()
    wait_for(lambda: not machine.processes("b16"), 60)
    wait_for(lambda: machine.state("ingest-b16") == "Crashed", every=2)
    machine.start_worker()
    machine.retry("ingest-b16")
    wait_for(lambda: machine.state("ingest-b16") == "Completed", every=2)
