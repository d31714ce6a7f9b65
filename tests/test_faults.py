"""Processes killed in the middle of a stage: nothing of the run lives on or writes on, and the next run completes.

The stage itself, DVC above it, and the flow above both are ended with kill -9 while the stage has some of its items
finished and some not. The stage that is hit is `render` (and, in the longer campaign, `background` and `pose`).
"""

import hashlib
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable

import psutil
import pytest

from tests.render_only import make_project, read_last_run
from tests.sandbox import Sandbox, needs_footage, set_batches, write_batch

pytestmark = [needs_footage, pytest.mark.timeout(900)]  # on a busy machine

PLAIN = ("dvc", "repro")
FLOW = ("inbetween", "repro")
# Items of two clips: 13 keys each, 5 an item. Long enough that the first is done well before the last.
CLIPS = [("front", "kick_front", 0, 99), ("back", "kick_back", 0, 99)]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project in which all is made once, undisturbed, and the hashes of what was made."""
    sandbox = make_project(tmp_path_factory.mktemp("faults"), ["a"])
    write_batch(sandbox, "a", CLIPS, size="360,640")
    set_batches(sandbox, ["a"], methods=["blend"])
    text = (sandbox.root / "dvc.yaml").read_text()
    sandbox.write("dvc.yaml", re.sub(r"( {2}render:.*?) {8}- data/\S*backgrounds-\S*\n", r"\1", text, flags=re.DOTALL))
    sandbox.run(*PLAIN, "render", timeout=500)
    return sandbox, hash_outputs(sandbox)


def hash_outputs(sandbox: Sandbox) -> dict[str, str]:
    """Every output of a stage, and dvc.lock."""
    files = [path for path in (sandbox.root / "data").rglob("*") if path.is_file()] + [sandbox.root / "dvc.lock"]
    return {str(path.relative_to(sandbox.root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def forget(sandbox: Sandbox, stage: str) -> None:
    """As if the stage, the last in dvc.lock, had never run: no entry, output, finished item or run cache."""
    lock = sandbox.root / "dvc.lock"
    lock.write_text(lock.read_text().split(f"  {stage}@")[0])
    folders = {"render": "data/renders", "background": "data/a/backgrounds-8", "pose": "data/a/poses"}
    for name in (folders[stage], ".inbetween/items", ".dvc/cache/runs"):
        shutil.rmtree(sandbox.root / name, ignore_errors=True)


def processes_of(sandbox: Sandbox) -> list[psutil.Process]:
    """All that work in the copy or were started for it."""
    root = str(sandbox.root)
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and (
                process.cwd().startswith(root) or process.environ().get("PYTHONPATH", "").startswith(root)
            ):
                found.append(process)
        except psutil.Error:
            continue
    return found


def is_stage(process: psutil.Process) -> bool:
    words = process.cmdline()
    return "stage" in words and words[0].endswith("python")


def is_dvc(process: psutil.Process) -> bool:
    words = process.cmdline()
    return "repro" in words and any(word.endswith(("/dvc", "flows.dvc_process")) for word in words)


def wait_for(condition: Callable[[], object], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} within {timeout_s} s"
        time.sleep(0.02)


def count_items(sandbox: Sandbox) -> int:
    return len(list((sandbox.root / ".inbetween/items").glob("*/*.arrow")))


def start_and_wait_for_middle(
    sandbox: Sandbox, command: tuple[str, ...], target: str, num_items: int = 1
) -> subprocess.Popen[str]:
    run = sandbox.start(*command, target)
    wait_for(lambda: count_items(sandbox) >= num_items or run.poll() is not None, 300, "a first item is finished")
    assert run.poll() is None, run.communicate()[0]
    return run


def kill_one(sandbox: Sandbox, is_wanted: Callable[[psutil.Process], bool]) -> None:
    victims = [process for process in processes_of(sandbox) if is_wanted(process)]
    assert len(victims) == 1, [process.cmdline() for process in victims]
    victims[0].send_signal(signal.SIGKILL)


def snapshot(sandbox: Sandbox) -> dict[str, tuple[int, int]]:
    files = [*(sandbox.root / "data").rglob("*"), *(sandbox.root / ".inbetween/items").rglob("*")]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def assert_nothing_lives_or_writes_on(sandbox: Sandbox) -> None:
    wait_for(lambda: not processes_of(sandbox), 10, "nothing of the run is alive")  # a second on a quiet machine
    before = snapshot(sandbox)
    time.sleep(1.0)
    assert snapshot(sandbox) == before


def assert_next_run_completes(
    sandbox: Sandbox, command: tuple[str, ...], target: str, expected: dict[str, str], stage: str = "render"
) -> None:
    """It takes over what is finished, and its outputs are the undisturbed run's to the byte."""
    done = sandbox.run(*command, target, timeout=500)
    said = done.stdout + done.stderr
    if match := re.search(rf"{stage}@\S+: (\d+) items, (\d+) kept from earlier runs, (\d+) to do", said):
        num_items, kept, todo = map(int, match.groups())
        assert kept + todo == num_items
    else:  # the kill fell after the last item: the finished clips are kept
        match = re.search(rf"{stage}@\S+: \d+ clips, (\d+) kept from earlier runs", said)
        assert match, said
        kept = int(match[1])
    assert kept > 0
    assert hash_outputs(sandbox) == expected


def kill_in_the_middle(
    sandbox: Sandbox,
    expected: dict[str, str],
    command: tuple[str, ...],
    victim: str,
    stage: str = "render",
    num_items: int = 1,
) -> None:
    forget(sandbox, stage)
    run = start_and_wait_for_middle(sandbox, command, stage, num_items)
    if victim == "flow":
        run.kill()
    else:
        kill_one(sandbox, {"stage": is_stage, "dvc": is_dvc}[victim])
    if command == FLOW and victim != "flow":  # the flow goes on to say what happened
        output, _ = run.communicate(timeout=60)
        assert run.returncode == 1
        assert output.splitlines()[-1].startswith(f"inbetween repro: {stage}@")
    assert_nothing_lives_or_writes_on(sandbox)
    run.communicate(timeout=10)
    assert_next_run_completes(sandbox, command, stage, expected, stage)


@pytest.mark.parametrize(("victim", "command"), [("stage", PLAIN), ("dvc", PLAIN), ("flow", FLOW)])
def test_kill_in_the_middle_of_render(project, victim, command):
    kill_in_the_middle(*project, command, victim)


def test_ctrl_c_stops_the_flow_cleanly(project):
    sandbox, expected = project
    forget(sandbox, "render")
    run = start_and_wait_for_middle(sandbox, FLOW, "render")
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=30)
    assert run.returncode == 130
    assert output.splitlines()[-1] == "inbetween repro render: stopped; what is finished is kept for the next run"
    assert "Traceback" not in output
    assert_nothing_lives_or_writes_on(sandbox)
    state, tasks = read_last_run(sandbox)
    assert (state, tasks["render@a-blend-8"].state) == ("Cancelled", "Cancelled")
    assert_next_run_completes(sandbox, PLAIN, "render", expected)


@pytest.mark.faults
@pytest.mark.parametrize("num_items", [1, 2, 4])
@pytest.mark.parametrize("victim", ["stage", "dvc", "flow"])
def test_kill_under_the_flow_at_several_moments(project, victim, num_items):
    kill_in_the_middle(*project, FLOW, victim, num_items=num_items)


@pytest.mark.faults
def test_sigterm_stops_the_flow_cleanly(project):
    sandbox, expected = project
    forget(sandbox, "render")
    run = start_and_wait_for_middle(sandbox, FLOW, "render")
    run.terminate()
    run.communicate(timeout=30)
    assert run.returncode == 130
    assert_nothing_lives_or_writes_on(sandbox)
    assert_next_run_completes(sandbox, FLOW, "render", expected)


@pytest.fixture(scope="module")
def background_project(tmp_path_factory):
    """In small pictures: an item still takes a second, and the whole no minutes on a busy machine."""
    sandbox = make_project(tmp_path_factory.mktemp("backgrounds"), ["a"], ("download", "split", "background"))
    write_batch(sandbox, "a", CLIPS, size="180,320")
    set_batches(sandbox, ["a"], methods=["blend"])
    sandbox.run(*PLAIN, "background", timeout=500)
    return sandbox, hash_outputs(sandbox)


@pytest.mark.faults
@pytest.mark.parametrize(("victim", "command"), [("stage", PLAIN), ("dvc", PLAIN), ("flow", FLOW)])
def test_kill_in_the_middle_of_background(background_project, victim, command):
    kill_in_the_middle(*background_project, command, victim, stage="background")


@pytest.fixture(scope="module")
def pose_project(tmp_path_factory):
    """In few and small pictures: two calls of the estimator, of which one ends before the other."""
    sandbox = make_project(tmp_path_factory.mktemp("poses"), ["a"], ("download", "split", "pose"))
    write_batch(sandbox, "a", [("front", "kick_front", 0, 31), ("back", "kick_back", 0, 47)])
    set_batches(sandbox, ["a"], methods=["blend"])
    sandbox.write("params.yaml", (sandbox.root / "params.yaml").read_text().replace("upscale: 2.0", "upscale: 1.0"))
    sandbox.run(*PLAIN, "pose", timeout=500)
    return sandbox, hash_outputs(sandbox)


@pytest.mark.parametrize(
    ("victim", "command"),
    [
        ("stage", PLAIN),
        pytest.param("dvc", PLAIN, marks=pytest.mark.faults),
        pytest.param("flow", FLOW, marks=pytest.mark.faults),
    ],
)
def test_kill_in_the_middle_of_pose(pose_project, victim, command):
    kill_in_the_middle(*pose_project, command, victim, stage="pose")
