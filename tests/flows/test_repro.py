"""`inbetween repro`: the same dvc.lock as `dvc repro`, only what is due, and a run that Prefect shows truly."""

import fcntl
import json
import os
import re
import shutil

import pytest

from flows.dvc_process import StageEnd, _OutputReader
from flows.lock_order import lock_names, order_entries, remember_order, restore_order
from flows.pipeline import drop_missing, explain_status
from flows.repro import describe_end, describe_failure
from tests.render_only import CLIPS, make_project, read_last_run
from tests.sandbox import ROOT, Sandbox, copy_project, needs_footage, set_batches, write_batch

STAGES_B = ["download@b", "split@b", "background@b-8", "render@b-blend-8"]


@pytest.fixture(scope="module")
def flow_project(tmp_path_factory):
    """Batch b only, run once by the flow."""
    sandbox = make_project(tmp_path_factory.mktemp("flow"), ["b"])
    sandbox.run("inbetween", "repro")
    return sandbox


@pytest.fixture(scope="module")
def plain_project(flow_project, tmp_path_factory):
    """The same before any run of the flow's kind: a lock, outputs and a cache that plain DVC reads as its own."""
    root = tmp_path_factory.mktemp("plain") / "project"
    shutil.copytree(flow_project.root, root, symlinks=True, ignore=shutil.ignore_patterns("prefect"))
    return Sandbox(root)


def rows_of(done) -> dict[str, str]:
    """Stage -> what became of it, from the table at the end."""
    return dict(re.findall(r"^(\S+@\S+)\s+(ran|restored|cached|failed|skipped|stopped)\b", done.stderr, re.MULTILINE))


def lock_of(sandbox: Sandbox) -> bytes:
    return (sandbox.root / "dvc.lock").read_bytes()


@needs_footage
def test_stages_and_groups_are_tasks_of_one_run(flow_project):
    state, tasks = read_last_run(flow_project)
    assert state == "Completed"
    assert {tasks[name].state for name in STAGES_B} == {"Completed"}
    groups = {name: task for name, task in tasks.items() if name not in STAGES_B}
    assert {task.parents for task in groups.values()} == {"split@b", "background@b-8", "render@b-blend-8"}
    assert {task.state for task in groups.values()} == {"Completed"}
    assert "split@b: kick 0-23" in groups


@needs_footage
def test_artifact_names_input_and_output_hashes(flow_project):
    import sqlite3

    with sqlite3.connect(flow_project.root / ".inbetween/prefect/prefect.db") as database:
        (text,) = database.execute("SELECT data FROM artifact WHERE key = 'stage-split-b'").fetchone()
        logs = [row[0] for row in database.execute("SELECT message FROM log")]
    markdown = json.loads(text)
    md5 = re.search(r"path: data/b/clips\n\s+hash: md5\n\s+md5: (\S+)", lock_of(flow_project).decode())[1]
    assert f"| out | `data/b/clips` | `{md5}` |" in markdown
    assert "| in | `catalog/b/clips.csv` |" in markdown
    assert any("1 items, 0 kept from earlier runs, 1 to do" in line for line in logs)


@needs_footage
def test_a_run_leaves_the_sources_and_licences_of_what_it_made(flow_project):
    import sqlite3

    with sqlite3.connect(flow_project.root / ".inbetween/prefect/prefect.db") as database:
        (text,) = database.execute("SELECT data FROM artifact WHERE key = 'lineage'").fetchone()
    markdown = json.loads(text)
    assert re.search(r"\| `render@b-blend-8` \| 1 video[^|]* \| \*\*", markdown)
    assert re.search(r"\| `data/b/videos/\S+` \| \S+", markdown)
    assert "0 stages are due." in markdown


@needs_footage
def test_nothing_to_do_starts_no_server(flow_project):
    log = flow_project.root / ".inbetween/prefect/server.log"
    before = log.stat().st_mtime_ns
    done = flow_project.run("inbetween", "repro")
    assert done.stderr.splitlines() == ["repro: 4 stages, all up to date"]
    assert log.stat().st_mtime_ns == before


def repro_both(flow_project, plain_project):
    """The flow in one copy and plain DVC in the other, side by side."""
    plain = plain_project.start("dvc", "repro")
    done = flow_project.run("inbetween", "repro")
    output, _ = plain.communicate(timeout=200)
    assert plain.returncode == 0, output
    return rows_of(done)


@needs_footage
def test_lock_that_lacks_a_batch_becomes_plain_dvcs_to_the_byte(flow_project, plain_project):
    for sandbox in (flow_project, plain_project):
        write_batch(sandbox, "a", CLIPS["a"])  # first in the plan, last in the lock
        set_batches(sandbox, ["a", "b"], methods=["blend"])
    plain_project.run("inbetween", "stage", "download", "a")  # the manifest says when: once for both
    shutil.copytree(plain_project.root / "data/a/videos", flow_project.root / "data/a/videos")
    rows = repro_both(flow_project, plain_project)
    assert {name: row for name, row in rows.items() if "@b" in name} == dict.fromkeys(STAGES_B, "cached")
    assert {row for name, row in rows.items() if "@a" in name} == {"ran"}
    assert lock_of(flow_project) == lock_of(plain_project)
    assert lock_names(lock_of(flow_project).decode())[:5] == [*STAGES_B, "download@a"]
    assert not (flow_project.root / ".inbetween/lock-order.json").exists()


@needs_footage
def test_one_parameter_runs_just_its_stages_and_a_failed_one_skips_its_dependants(flow_project):
    flow_project.write("params.yaml", (flow_project.root / "params.yaml").read_text().replace("crf: 16", "crf: 30"))
    plan = flow_project.run("inbetween", "repro", "--plan").stdout
    assert "render@b-blend-8  run     params.yaml render modified" in plan
    assert "split@b           cached\n" in plan
    clips = flow_project.root / "catalog/a/clips.csv"
    text = clips.read_text()
    try:
        clips.write_text(text.replace(",0,23,", ",0,2300,"))
        done = flow_project.run("inbetween", "repro", check=False)
    finally:
        clips.write_text(text)
    assert done.returncode == 2
    assert rows_of(done) == {
        "download@a": "cached",
        "split@a": "failed",
        "background@a-8": "skipped",
        "render@a-blend-8": "skipped",
        "download@b": "cached",
        "split@b": "cached",
        "background@b-8": "cached",
        "render@b-blend-8": "ran",
    }
    assert "render@b-blend-8: 1 clips, 1 kept from earlier runs" in done.stderr  # crf shapes the .mp4, no frame
    assert "1 movies, 0 kept from earlier runs" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("inbetween repro: split@a failed: clip kick: frame 2300 is past the last one")
    assert last.endswith("; 2 stages that need it were skipped")
    state, tasks = read_last_run(flow_project)
    assert (state, tasks["split@b"].state) == ("Failed", "Cached")
    assert (tasks["split@a"].state, tasks["render@a-blend-8"].state) == ("Failed", "Skipped")


@needs_footage
def test_second_run_waits_for_the_first(flow_project):
    lock = flow_project.root / ".inbetween/locks/repro.lock"
    with lock.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        second = flow_project.start("inbetween", "repro", "split@b")
        assert second.stdout.readline() == "repro: another run is at it; waiting for it to end\n"
        assert second.poll() is None
    assert second.wait(60) == 0


@needs_footage
def test_stage_waits_where_another_dvc_is_at_it(flow_project):
    rwlock = flow_project.root / ".dvc/tmp/rwlock"
    path = str(flow_project.root / "data/b/clips")
    rwlock.write_text(json.dumps({"read": {}, "write": {path: {"pid": os.getpid(), "cmd": "other"}}}))
    code = (
        "from flows.dvc_process import DvcProcesses\n"
        "def show(line): print(line, flush=True)\n"
        "end = DvcProcesses().repro('split@b', environment={}, on_line=show)\n"
        "print(end.outcome)"
    )
    process = flow_project.start("python", "-c", code)
    for line in process.stdout:
        if "waiting for another dvc" in line:
            break
    rwlock.write_text("{}")
    assert process.stdout.read().splitlines()[-1] == "cached"
    assert process.wait(60) == 0


@needs_footage
def test_server_that_does_not_come_up_is_one_line(flow_project):
    # The whole folder steps aside: a database that is moved without its write-ahead log is a damaged one.
    home = flow_project.root / ".inbetween/prefect"
    kept = home.with_name("prefect.kept")
    home.rename(kept)
    try:
        home.mkdir()
        (home / "prefect.db").write_text("not a database, but long enough to be read as the head of one. " * 200)
        done = flow_project.run("inbetween", "repro", "download@b", "--force", check=False)
    finally:
        shutil.rmtree(home)
        kept.rename(home)
    assert done.returncode == 2
    assert re.search(r"the Prefect server ended with \d+; \.inbetween/prefect/server\.log says why", done.stderr)
    assert "Traceback" not in done.stderr


@needs_footage
def test_plain_stage_imports_no_prefect(flow_project):
    code = (
        "import sys; sys.argv = ['inbetween', 'stage', 'split', 'b']\n"
        "from flows.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "found = {name.split('.')[0] for name in sys.modules} & {'prefect', 'ray', 'fastapi'}\n"
        "assert not found, found"
    )
    assert "split@b: done" in flow_project.run("python", "-c", code).stderr


@needs_footage
def test_lock_from_nothing_is_plain_dvcs_to_the_byte(flow_project, plain_project):
    shutil.copy(flow_project.root / "params.yaml", plain_project.root / "params.yaml")
    for sandbox in (flow_project, plain_project):
        (sandbox.root / "dvc.lock").unlink()
        shutil.rmtree(sandbox.root / "data/a/clips", ignore_errors=True)
        shutil.rmtree(sandbox.root / "data/renders")
    rows = repro_both(flow_project, plain_project)
    assert rows["split@a"] == "restored"
    assert lock_of(flow_project) == lock_of(plain_project)
    assert lock_names(lock_of(flow_project).decode())[:3] == ["download@a", "download@b", "split@a"]
    assert read_last_run(flow_project)[1]["split@a"].state == "Cached"


def test_stage_modules_import_no_prefect():
    stages = [path.stem for path in (ROOT / "flows/stages").glob("[a-z]*.py")]
    code = (
        f"import sys, importlib\nfor name in {stages}: importlib.import_module('flows.stages.' + name)\n"
        "import flows.stage, flows.cli, flows.repro\n"
        "found = {name.split('.')[0] for name in sys.modules} & {'prefect', 'dvc', 'ray'}\n"
        "assert not found, found"
    )
    Sandbox(ROOT).run("python", "-c", code)


def test_what_only_starts_stages_goes_without_arrow():
    """A process of each costs its start for every stage."""
    code = (
        "import sys, flows.dvc_process, flows.repro\n"
        "found = {name.split('.')[0] for name in sys.modules} & {'pyarrow', 'numpy', 'cv2'}\n"
        "assert not found, found"
    )
    Sandbox(ROOT).run("python", "-c", code)


def test_plan_of_what_does_not_exist_yet(tmp_path):
    sandbox = copy_project(tmp_path / "copy")
    if (sandbox.root / "params/paper.yaml").is_file():
        shutil.copy(sandbox.root / "params/paper.yaml", sandbox.root / "params.yaml")
    done = sandbox.run("inbetween", "repro", "--plan")
    lines = done.stdout.splitlines()
    assert all(re.match(r"\S+\s+run\s+new$", line) for line in lines[:-1])
    assert lines[-1] == f"{len(lines) - 1} stages, {len(lines) - 1} to run, 0 unchanged"
    assert not (sandbox.root / ".inbetween").exists()
    done = sandbox.run("inbetween", "repro", "nosuch@stage", "--plan", check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "nosuch@stage" in done.stderr
    params = sandbox.root / "params.yaml"
    params.write_text(params.read_text().replace("{worker: mediapipe", "{worker: mediapip"))
    done = sandbox.run("inbetween", "repro", "--plan", check=False)
    assert done.returncode == 2
    assert re.search(r"params.yaml: batches.\w+.pose.worker: Input should be 'mediapipe'", done.stderr)


LOCK = """schema: '2.0'
stages:
  split@b:
    cmd: x
    deps:
    - path: y
  render@b:
    cmd: >-
      a long
      line
  split@a:
    cmd: x
  render@a:
    cmd: y
"""


def test_entries_keep_their_place_and_new_ones_follow_the_plan():
    plan = ["split@a", "render@a", "split@b", "render@b"]
    assert lock_names(order_entries(LOCK, ["render@b", "split@b"], plan)) == ["render@b", "split@b", *plan[:2]]
    assert lock_names(order_entries(LOCK, [], plan)) == plan
    assert sorted(order_entries(LOCK, [], plan).splitlines()) == sorted(LOCK.splitlines())
    assert order_entries(LOCK, [], ["render@b"]).startswith("schema: '2.0'\nstages:\n  render@b:\n    cmd: >-\n")
    assert order_entries("", [], plan) == ""


def test_order_outlives_a_killed_run(tmp_path):
    lock, memory = tmp_path / "dvc.lock", tmp_path / "order.json"
    remember_order(lock, memory)  # nothing yet; the run is killed after two stages in the wrong order
    lock.write_text("schema: '2.0'\nstages:\n  b:\n    cmd: x\n  a:\n    cmd: x\n")
    remember_order(lock, memory)
    restore_order(lock, memory, ["a", "b"])
    assert lock_names(lock.read_text()) == ["a", "b"]
    memory.write_text(json.dumps(["gone", "a"]))  # of another branch's lock: it does not fit
    remember_order(lock, memory)
    assert json.loads(memory.read_text()) == ["a", "b"]


def test_reasons_are_named():
    entries = [
        {"changed deps": {"tasks/render.py": "modified", "params.yaml": {"render.crf": "modified"}}},
        {"changed outs": {"data/renders/x": "deleted"}},
        "changed checksum",
    ]
    assert explain_status(entries) == (
        "tasks/render.py modified, params.yaml render.crf modified; output data/renders/x deleted; its command changed"
    )


def test_data_that_is_only_not_here_is_no_reason():
    missing = {"changed outs": {"data/b/clips": "not in cache"}}
    entries = [
        {"changed deps": {"tasks/render.py": "modified", "data/a/clips": "deleted"}},
        {"changed outs": {"data/renders/x": "deleted"}},
        missing,
        "changed checksum",
    ]
    assert explain_status(drop_missing(entries)) == "tasks/render.py modified; its command changed"
    assert drop_missing([missing]) == []


def read_output(*lines: str, code: int) -> StageEnd:
    reader = _OutputReader()
    for line in lines:
        reader.read(line + "\n")
    return reader.conclude("split@a", code)


def test_outcome_and_error_come_from_dvcs_lines():
    running = "Running stage 'split@a':"
    assert read_output("Stage 'split@a' didn't change, skipping", code=0).outcome == "cached"
    assert read_output("Stage 'split@a' is cached - skipping run, checking out outputs", code=0).outcome == "restored"
    assert read_output(running, code=0).outcome == "ran"
    exited = "ERROR: failed to reproduce 'split@a': failed to run: inbetween stage split a, exited with {}"
    end = read_output(running, "inbetween stage split: clips.csv row 7: too long", exited.format(2), code=255)
    assert (end.outcome, end.error, end.code) == ("failed", "clips.csv row 7: too long", 2)
    end = read_output(running, "Traceback (most recent call last):", "ValueError: no", exited.format(1), code=255)
    assert (end.error, end.code) == ("ValueError: no", 1)
    assert read_output(running, code=-9).error == "dvc was killed (SIGKILL)"
    busy = "ERROR: failed to reproduce 'split@a': '/x/data' is busy, it is being blocked by:"
    assert "is busy" in read_output(busy, code=255).error
    # What a full disk makes of DVC: it ends well without the outputs, and gives a link type's fault for it.
    end = read_output(running, "ERROR: failed to transfer '98d9' - [Errno 28] No space left on device", code=0)
    assert (end.outcome, end.code) == ("failed", 1)
    short = "split@a: /disk/.dvc/cache: 3.0 MB free, and DVC may need 4.4 MB to keep the outputs; if it fails now"
    end = read_output(running, short, "ERROR: failed to reproduce 'split@a': No possible cache link types", code=255)
    assert end.error == f"No possible cache link types ({short})"


def test_one_line_for_all_that_failed():
    ends = [StageEnd("a", "failed", error="bad row", code=2), StageEnd("b", "skipped"), StageEnd("c", "cached")]
    error = describe_failure(ends)
    assert (str(error), error.code) == ("a failed: bad row; 1 stage that needs it was skipped", 2)
    error = describe_failure([*ends, StageEnd("d", "failed", error="boom", code=1)])
    assert (str(error), error.code) == ("a failed: bad row; so did d; 1 stage that needs it was skipped", 1)
    assert describe_failure([StageEnd("a", "ran")]) is None
    assert describe_end(ends, 61) == "1 cached, 1 failed, 1 skipped in 1 min 01 s"
