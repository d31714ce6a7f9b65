"""Stages train_motion and evaluate_motion, run for real: by command in a project copy, or in a folder of their own."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from ruamel.yaml import YAML

from flows.params import Params, load_params, read_yaml
from flows.project import ROOT
from flows.stage import Stage
from flows.stages import train_motion
from tasks.errors import ParamsError, SourceError
from tasks.items import ItemStore
from tests.sandbox import Sandbox, copy_project
from tests.tasks.test_view_shards import make_shards

SUBSETS = {"standin-train": "abc", "standin-test": "d"}
SMALL = {
    "start": "data/raw/embedded/no-model",
    "num_steps": 40,
    "threads": 1,
    "processes": 1,
    "save_every": 5,  # no multiple of log_every: what is logged next began before the state was saved
    "log_every": 4,
    "optimiser": {"learning_rate": 1e-3, "cosine_share": 0.0, "ema": 0.9},
    "samples": {
        "rates": [8, 16], "rate_shares": [0.5, 0.5], "min_frames": 17, "max_frames": 65, "num_key_tokens": 48,
    },
    "paper_samples": {"num_frames": 41, "batch_size": 3, "noise_keys": [2, 2, 1]},
    "tangents": {"width": 16, "num_heads": 2, "num_detector_blocks": 2, "num_tangent_blocks": 2, "reach": 8},
    "transformer": {
        "width": 16, "num_heads": 2, "feedforward": 16, "num_encoder_layers": 1, "num_decoder_layers": 1,
    },
}  # fmt: skip


def small_params(**changes):
    """params.yaml with a small network and few steps; changes: of its section train_motion."""
    params = read_yaml(ROOT / "params.yaml")
    section = params["train_motion"]
    for name, value in (SMALL | changes).items():
        section[name] = section[name] | value if isinstance(value, dict) else value
    return params


def make_views(data: Path, made: Path, subsets=SUBSETS) -> None:
    for subset, names in subsets.items():
        shutil.copytree(make_shards(made, subset, names, lengths=60), data / "views" / subset)


# By command, in a project copy.


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    sandbox = copy_project(folder / "project")
    make_views(sandbox.root / "data", folder / "made")
    return sandbox


def use(sandbox: Sandbox, **changes) -> None:
    with (sandbox.root / "params.yaml").open("w") as file:
        YAML().dump(small_params(**changes), file)


def outputs(sandbox: Sandbox) -> dict[str, bytes]:
    folders = [sandbox.root / "data/models/motion", sandbox.root / "metrics/train_motion"]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(sandbox.root).as_posix(): path.read_bytes() for path in files}


def kept(sandbox: Sandbox) -> list[str]:
    return sorted(path.name for path in (sandbox.root / ".inbetween/training").glob("*"))


@pytest.fixture(scope="module")
def whole(project):
    """The outputs of a run that nothing disturbed."""
    use(project)
    project.run("inbetween", "stage", "train_motion", timeout=900)
    return outputs(project)


def start_training(sandbox: Sandbox) -> subprocess.Popen[str]:
    """Start, and wait until it has saved a state."""
    process = sandbox.start("inbetween", "stage", "train_motion")
    end = time.monotonic() + 900
    while not any(name.endswith(".safetensors") and name[0] != "." for name in kept(sandbox)):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.005)
    return process


def assert_all_ended(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=120)
    assert alive == []


def test_the_stage_leaves_its_outputs_and_nothing_else(project, whole):
    assert set(whole) == {
        "data/models/motion/config.json",
        "data/models/motion/model.safetensors",
        "data/models/motion/provenance.json",
        "metrics/train_motion/metrics.json",
        *(f"metrics/train_motion/plots/metrics/{name}.tsv" for name in ("detector", "frames", "total")),
    }
    total = whole["metrics/train_motion/plots/metrics/total.tsv"].decode().splitlines()
    assert [line.split("\t")[0] for line in total] == ["step", *(str(step) for step in range(4, 41, 4))]
    assert kept(project) == []
    # DVCLive is kept from writing a dvc.yaml of its own, from DVC's experiments and from git.
    changed = project.run("git", "status", "--porcelain", "-uall").stdout.split("\n")
    assert {line[3:] for line in changed if line} <= {
        "params.yaml",
        "lineage/runs.jsonl",
        *(n for n in whole if n.startswith("metrics")),
    }
    assert project.run("git", "for-each-ref").stdout.count("\n") == 1
    assert not list(project.root.glob("metrics/**/dvc.yaml"))


def test_a_killed_run_goes_on_and_ends_with_the_same_files(project, whole):
    use(project)
    shutil.rmtree(project.root / "data/models/motion")
    shutil.rmtree(project.root / "metrics/train_motion")
    process = start_training(project)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert len([name for name in kept(project) if name.endswith(".safetensors")]) >= 1
    assert not (project.root / "data/models/motion").exists()
    done = project.run("inbetween", "stage", "train_motion", timeout=900)
    assert re.search(r"goes on from step \d+ or a little before", done.stderr)
    assert outputs(project) == whole
    assert kept(project) == []


@pytest.mark.slow  # tests/models/motion/test_training.py has it without the stage
def test_two_processes_give_the_losses_of_one(project, whole):
    use(project, num_steps=8, processes=2)
    done = project.run("inbetween", "stage", "train_motion", timeout=900)
    assert "Traceback" not in done.stderr
    for name in ("detector", "frames", "total"):
        path = f"metrics/train_motion/plots/metrics/{name}.tsv"
        two = np.loadtxt((project.root / path).read_text().splitlines()[1:])
        one = np.loadtxt(whole[path].decode().splitlines()[1:])[: len(two)]
        assert two[:, 0].tolist() == [4, 8]
        np.testing.assert_allclose(two, one, rtol=1e-4)
    assert kept(project) == []


def test_a_process_that_dies_ends_the_training_with_one_line_and_no_orphan(project, whole):
    use(project, num_steps=100_000, processes=2)
    process = start_training(project)
    family = psutil.Process(process.pid).children(recursive=True)
    (other,) = [child for child in family if "spawn_main" in " ".join(child.cmdline())]
    other.kill()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 2, output
    assert output.splitlines()[-1] == (
        "inbetween stage train_motion: process 1 of 2 was killed by signal 9; run the stage again: it goes on from its"
        " last saved state"
    )
    assert "Traceback" not in output
    assert_all_ended(family)


def test_ctrl_c_stops_all_processes_at_once(project, whole):
    use(project, num_steps=100_001, processes=2)
    for path in (project.root / ".inbetween/training").glob("*"):
        path.unlink()
    process = start_training(project)
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert_all_ended(family)


def test_a_transformer_is_trained_and_evaluated_by_the_stages(project, whole):
    use(project, network="transformer", num_steps=4)
    project.run("inbetween", "stage", "train_motion", timeout=900)
    project.run("inbetween", "stage", "evaluate_motion", timeout=900)
    assert json.loads((project.root / "data/models/motion/config.json").read_text())["network"] == "transformer"
    assert json.loads((project.root / "metrics/motion.json").read_text())["network"] == "transformer"
    assert (project.root / "data/evaluations-motion/motion.mp4").stat().st_size > 10_000


# In this process, in a folder of its own.


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train_motion, "STATE", tmp_path / "state")
    make_views(tmp_path / "data", tmp_path / "made")
    return tmp_path


def run(*, is_fresh=False, mocap=None, **changes):
    params = small_params(num_steps=4, **changes)
    params["mocap"] = {n: s for n, s in params["mocap"].items() if mocap is None or n in mocap}
    checked = Params.model_validate(params)
    train_motion.run(Stage("train_motion", "", checked, {}, {}, ItemStore(Path("store"), is_fresh), 1))


def test_a_split_without_a_subset_is_one_line(folder):
    with pytest.raises(
        ParamsError,
        match=r"^params\.yaml: mocap: train_motion needs a subset of split train; there is standin-test \(test\)$",
    ):
        run(mocap=["standin-test"])
    with pytest.raises(ParamsError, match=r"needs a subset of split test; there is standin-train \(train\)$"):
        run(mocap=["standin-train"])
    with pytest.raises(ParamsError, match=r"needs a subset of split train; there is no subset$"):
        run(mocap=[])


def test_samples_that_do_not_fit_one_another_are_one_line(folder):
    with pytest.raises(ParamsError, match=r"^params\.yaml: train_motion\.samples: rate_shares \(0\.5, 0\.4\)"):
        run(samples=SMALL["samples"] | {"rate_shares": [0.5, 0.4]})
    with pytest.raises(
        ParamsError, match=r"^params\.yaml: train_motion\.paper_samples: num_frames 42 is not a multiple"
    ):
        run(network="transformer", paper_samples=SMALL["paper_samples"] | {"num_frames": 42})


def test_a_forced_run_takes_nothing_over_from_one_that_was_cut_off(folder):
    Path("data/models").write_text("in the way")
    with pytest.raises(OSError, match="data/models"):
        run()
    (state,) = Path("state/training").glob("*.safetensors")
    state.write_bytes(b"damaged")
    Path("data/models").unlink()
    with pytest.raises(SourceError, match=r"^train_motion: .*\.safetensors: not this training's state .*; remove it"):
        run()
    run(is_fresh=True)
    assert Path("data/models/motion/model.safetensors").is_file()
    assert list(Path("state/training").iterdir()) == []


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("train_motion", {"num_steps": 0}, r"train_motion\.num_steps: .*greater than or equal to 1 \(found 0\)"),
        ("train_motion", {"seed": 2**32}, r"train_motion\.seed: .*less than 4294967296"),
        ("evaluate_motion", {"key_steps": [4, 12]}, r"evaluate_motion\.key_steps\.1: .*2, 4, 8 or 16 \(found 12\)"),
        ("evaluate_motion", {"noise_keys": [1, -1, 1]}, r"evaluate_motion\.noise_keys\.1: .*\(found -1\)"),
    ],
)
def test_values_that_cannot_work_are_refused_by_name(tmp_path, section, values, message):
    params = read_yaml(ROOT / "params.yaml")
    params[section] |= values
    with (tmp_path / "params.yaml").open("w") as file:
        YAML().dump(params, file)
    with pytest.raises(ParamsError, match=message):
        load_params(tmp_path / "params.yaml")
