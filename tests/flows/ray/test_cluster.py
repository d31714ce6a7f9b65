"""Items over a Ray cluster of two nodes, of which the second shares nothing with the first: the same bytes, and a lost
node's items done again.
"""

import hashlib
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.flows.test_incremental import hash_outputs
from tests.flows.test_train_motion import make_views, use
from tests.ray_cluster import Cluster, needs_ray, run_cluster
from tests.render_only import make_project, read_last_run
from tests.sandbox import Sandbox, copy_project, needs_footage, set_batches, write_batch

pytestmark = [needs_ray, needs_footage, pytest.mark.timeout(1200)]  # on a busy machine

CLIPS = [("a", "kick_front", 0, 16), ("b", "kick_front", 20, 44), ("c", "kick_back", 0, 24)]
STAGES = (("split", "batch"), ("background", "batch-8"), ("render", "batch-flow-8"))
OUTPUTS = {"split": "batch/clips", "background": "batch/backgrounds-8", "render": "renders"}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> tuple[Sandbox, dict[str, str]]:
    """A project whose stages have run on this machine, and the hashes of what they made."""
    sandbox = copy_project(tmp_path_factory.mktemp("project") / "project")
    write_batch(sandbox, "batch", CLIPS)
    set_batches(sandbox, ["batch"])
    sandbox.run("inbetween", "stage", "download", "batch")
    run_stages(sandbox)
    return sandbox, hash_outputs(sandbox)


def run_stages(sandbox: Sandbox, cluster: Cluster | None = None, stages=STAGES) -> str:
    """Run them from nothing; returns what they said."""
    here = Sandbox(sandbox.root, {"INBETWEEN_FRESH": "1"})
    if cluster:
        here.env |= cluster.environment | {"INBETWEEN_RUNNER": "ray", "RAY_ADDRESS": cluster.address}
    return "".join(here.run("inbetween", "stage", name, item, timeout=900).stderr for name, item in stages)


def set_workers(sandbox: Sandbox, workers: int) -> None:
    text = (sandbox.root / "params.yaml").read_text()
    sandbox.write("params.yaml", re.sub(r"  workers: \d+", f"  workers: {workers}", text))


@pytest.mark.slow  # Ray gives a node 15 s to start, too short on a busy machine
def test_a_node_that_shares_no_disk_makes_the_same_bytes(project, tmp_path):
    sandbox, expected = project
    with run_cluster(tmp_path, head_cpus=0) as cluster:  # all work is the second node's
        said = run_stages(sandbox, cluster, STAGES[1:])
        assert re.findall(r"ray: (\d+) groups on (\d+) nodes", said) == [("3", "1"), ("3", "1")]
        assert hash_outputs(sandbox) == expected
        # Its disk: the inputs, each once, and no working folder is left.
        kept = [path for path in cluster.away_cache.glob("files/*/*") if path.is_file()]
        sources = [*(sandbox.root / "data/batch/clips").glob("*.parquet")]
        assert {path.name for path in kept} >= {_sha256(path) for path in sources}
        assert not list((cluster.away_cache / "work").iterdir())
        assert {path.name for path in cluster.away.iterdir()} == {"cache"}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
def test_one_two_and_four_workers_local_or_ray_make_the_same_bytes(project, tmp_path):
    sandbox, expected = project
    for workers in (1, 2, 4):
        set_workers(sandbox, workers)
        run_stages(sandbox)
        assert hash_outputs(sandbox) == expected
    for number, (head, away) in enumerate([(1, 0), (1, 1), (2, 2)]):
        with run_cluster(tmp_path / str(number), head_cpus=head, away_cpus=away) as cluster:
            run_stages(sandbox, cluster)
            assert hash_outputs(sandbox) == expected


CHAIN = (
    ("split", "batch"), ("pose", "batch"), ("background", "batch-8"), ("samples", "someone"),
    ("joints", "standin-train"), ("joints", "standin-test"), ("views", "standin-train"), ("views", "standin-test"),
    ("train_renderer", "someone"), ("render", "batch-warp-8"), ("evaluate", "batch-warp-8"),
)  # fmt: skip


@pytest.mark.slow
def test_every_other_stage_makes_the_same_bytes_on_a_node_that_shares_no_disk(tmp_path):
    """Poses, mocap, a renderer's training by two processes, and an evaluation: inputs, weights, body models shipped."""
    sandbox = copy_project(tmp_path / "project")
    write_batch(sandbox, "batch", [("a", "kick_front", 40, 80), ("b", "kick_back", 0, 24)])
    set_batches(sandbox, ["batch"], methods=["warp"])
    renderer = "{batch: batch, videos: [], split: test, key_step: 8, background: base, height: 96, width: 64}"
    text = (sandbox.root / "params.yaml").read_text().replace("renderers: {}", f"renderers:\n  someone: {renderer}")
    head, training, rest = re.split(r"^(?=train_renderer:|evaluate_motion:)", text, flags=re.MULTILINE)
    sandbox.write("params.yaml", head + training.replace("processes: 1", "processes: 2") + rest)
    sandbox.run("inbetween", "data")
    sandbox.run("inbetween", "stage", "download", "batch")
    run_stages(sandbox, stages=CHAIN)
    expected = hash_everything(sandbox)
    assert any(path.endswith("someone/model.safetensors") for path in expected)
    with run_cluster(tmp_path / "cluster", head_cpus=0) as cluster:
        for stage in CHAIN:
            said = run_stages(sandbox, cluster, [stage])
            assert "ray: " in said or stage[0] == "train_renderer", said
            assert not re.search(r"groups on [^1]", said)
        kept = [path for path in cluster.away_cache.glob("files/*/*") if path.is_file()]
        sets = (sandbox.root / "data/samples/someone").glob("*.parquet")
        assert {path.name for path in kept} >= {_sha256(path) for path in sets}  # the second process's training set
    assert hash_everything(sandbox) == expected


def hash_everything(sandbox: Sandbox) -> dict[str, str]:
    """Every output of a stage: data but the raw one, and metrics."""
    folders = (sandbox.root / "data", sandbox.root / "metrics")
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and "raw" not in path.parts]
    return {str(path.relative_to(sandbox.root)): _sha256(path) for path in files if "videos" not in path.parts}


@pytest.mark.slow
def test_a_flow_run_whose_stages_use_the_cluster_leaves_the_same_record(tmp_path):
    """Prefect and Ray together: `inbetween repro --runner ray`, against plain `dvc repro` here."""
    sandbox = make_project(tmp_path / "project")
    sandbox.run("dvc", "repro", timeout=900)
    lock, expected = (sandbox.root / "dvc.lock").read_text(), hash_everything(sandbox)
    with run_cluster(tmp_path / "cluster", head_cpus=0) as cluster:
        here = Sandbox(sandbox.root, {"RAY_ADDRESS": cluster.address, **cluster.environment})
        said = here.run("inbetween", "repro", "--force", "--runner", "ray", timeout=900).stderr
    assert (sandbox.root / "dvc.lock").read_text() == lock
    assert hash_everything(sandbox) == expected
    assert re.search(r"render@a-blend-8 \| ray: 1 groups on 1 nodes", said)
    state, tasks = read_last_run(sandbox)
    assert state == "Completed"
    (group,) = [task for name, task in tasks.items() if name.startswith("render@a-blend-8: ")]
    assert (group.state, group.parents) == ("Completed", "render@a-blend-8")


@pytest.mark.faults
def test_items_of_a_killed_node_are_done_again_and_finished_ones_are_not(project, tmp_path):
    sandbox, _ = project
    long = Sandbox(sandbox.root, dict(sandbox.env))
    write_batch(long, "batch", [("front", "kick_front", 0, 99), ("back", "kick_back", 0, 99)], size="360,640")
    run_stages(long)
    expected = hash_outputs(long)
    with run_cluster(tmp_path, head_cpus=0, away_cpus=2) as cluster:
        here = Sandbox(sandbox.root, {"INBETWEEN_FRESH": "1", "INBETWEEN_RUNNER": "ray", **cluster.environment})
        here.env["RAY_ADDRESS"] = cluster.address
        items = sandbox.root / ".inbetween/items"
        before = {path.name for path in items.glob("*/*.arrow")}
        run = here.start("inbetween", "stage", "background", "batch-8")
        first = _wait_for_item(items, before, run)
        written = first.stat().st_mtime_ns
        cluster.kill_node()
        cluster.add_node(2)
        output, _ = run.communicate(timeout=900)
        assert run.returncode == 0, output
    assert "are done again" in output
    assert hash_outputs(sandbox) == expected
    assert not first.exists() or first.stat().st_mtime_ns == written


@pytest.mark.slow
def test_training_over_two_nodes_gives_the_losses_of_one_process(tmp_path):
    sandbox = copy_project(tmp_path / "project")
    make_views(sandbox.root / "data", tmp_path / "made")
    totals = sandbox.root / "metrics/train_motion/plots/metrics/total.tsv"

    def train(processes: int, environment: dict[str, str]) -> list[list[str]]:
        use(sandbox, num_steps=8, processes=processes)
        run = Sandbox(sandbox.root, {"INBETWEEN_FRESH": "1", **environment})
        done = run.run("inbetween", "stage", "train_motion", timeout=900)
        assert "Traceback" not in done.stderr
        return [line.split("\t") for line in totals.read_text().splitlines()[1:]]

    one = train(1, {})
    with run_cluster(tmp_path / "cluster", head_cpus=0) as cluster:  # the second process is on the second node
        two = train(2, {"INBETWEEN_RUNNER": "ray", "RAY_ADDRESS": cluster.address, **cluster.environment})
        assert list(cluster.away_cache.glob("files/*/*"))
    assert [row[0] for row in two] == [row[0] for row in one] == ["4", "8"]
    assert [float(row[1]) for row in two] == pytest.approx([float(row[1]) for row in one], rel=1e-4)


def _wait_for_item(items: Path, before: set[str], run) -> Path:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        found = [path for path in items.glob("*/*.arrow") if path.name not in before]
        if found:
            return found[0]
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.02)
    raise AssertionError("no item came home")


@pytest.mark.faults
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_stage_leaves_nothing_at_work_on_the_cluster(project, tmp_path, how):
    sandbox, _ = project
    write_batch(sandbox, "batch", [("front", "kick_front", 0, 99), ("back", "kick_back", 0, 99)], size="360,640")
    run_stages(sandbox, stages=STAGES[:1])
    with run_cluster(tmp_path, head_cpus=0) as cluster:
        here = Sandbox(sandbox.root, {"INBETWEEN_FRESH": "1", "INBETWEEN_RUNNER": "ray", **cluster.environment})
        here.env["RAY_ADDRESS"] = cluster.address
        items = sandbox.root / ".inbetween/items"
        run = here.start("inbetween", "stage", "background", "batch-8")
        _wait_for_item(items, {path.name for path in items.glob("*/*.arrow")}, run)
        run.send_signal(how)
        run.communicate(timeout=60)
        deadline = time.monotonic() + 60
        while busy := [p for p in _ray_workers() if "do_group_on_node" in p or "Home" in p]:
            assert time.monotonic() < deadline, busy
            time.sleep(0.5)
    run_stages(sandbox, stages=STAGES[1:2])


def _ray_workers() -> list[str]:
    """Titles of Ray's worker processes, which say what each is at."""
    titles = []
    for process in psutil.process_iter():
        try:
            titles.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return [title for title in titles if title.startswith("ray::")]


@pytest.fixture
def full(tmp_path) -> Iterator[Path]:
    """A disk of 64 kB, too small for any clip."""
    path = tmp_path / "full"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)], check=False)
    if mounted.returncode:
        pytest.skip("may not mount a small disk here")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.faults
def test_a_full_disk_of_a_node_is_one_line_and_the_next_run_completes(project, tmp_path, full):
    sandbox, expected = project
    write_batch(sandbox, "batch", CLIPS)
    run_stages(sandbox, stages=STAGES[:1])
    with run_cluster(tmp_path, head_cpus=0, away_cpus=0) as cluster:
        cluster.add_node(1, cache=str(full))
        here = Sandbox(sandbox.root, {"INBETWEEN_FRESH": "1", "INBETWEEN_RUNNER": "ray", **cluster.environment})
        here.env["RAY_ADDRESS"] = cluster.address
        done = here.run("inbetween", "stage", "background", "batch-8", check=False, timeout=600)
        assert done.returncode == 2, done.stderr
        assert re.search(r"node [\d.]+: \S+: No space left on device; make room, or name a larger disk", done.stderr)
        assert "Traceback" not in done.stderr
    run_stages(sandbox)
    assert hash_outputs(sandbox) == expected
