"""Stage joints in a project of its own: what it writes, keeps, rejects and refuses."""

import json
import shutil
from pathlib import Path

import pytest

from tasks.tables import Table
from tests.sandbox import Sandbox, copy_project
from tests.tasks.amass_files import write_amass

SUBSET = "{kind: amass, folder: mocap/mine, split: train, licence: CC0, only: [], without: []}"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Sandbox:
    sandbox = copy_project(tmp_path_factory.mktemp("joints") / "project", has_raw_data=True)
    text = (sandbox.root / "params.yaml").read_text()
    sandbox.write("params.yaml", text.replace("\nmocap:", f"\nmocap:\n  mine: {SUBSET}\n  none: {SUBSET}", 1).replace(
        "  none: {kind: amass, folder: mocap/mine", "  none: {kind: amass, folder: mocap/gone"
    ))  # fmt: skip
    sandbox.commit("params")
    return sandbox


@pytest.fixture
def sandbox(project) -> Sandbox:
    """The project with three subjects of a dataset, and nothing done yet."""
    for path in ("data/joints", "mocap", ".inbetween/items"):
        shutil.rmtree(project.root / path, ignore_errors=True)
    for number, subject in enumerate(("a", "b", "c")):
        for take in ("walk", "run"):
            write_amass(dataset(project) / subject / f"{take}_poses.npz", seed=number, num_frames=200, fps=120.0)
    return project


def dataset(sandbox: Sandbox) -> Path:
    return sandbox.root / "mocap/mine"


def outputs(sandbox: Sandbox) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (sandbox.root / "data/joints/mine").iterdir()}


def test_the_embedded_motions_become_tables_by_dvc_and_no_op_after(sandbox):
    done = sandbox.run("dvc", "repro", "joints@standin-test")
    assert "soft tissue moves 3 of 6 motions" in done.stdout + done.stderr
    folder = sandbox.root / "data/joints/standin-test"
    assert sorted(path.name for path in folder.iterdir()) == ["test_dora-000.parquet", "test_emil-000.parquet"]
    table = Table("joints", folder / "test_emil-000.parquet")
    assert table.column("sequence").tolist() == ["jump_poses", "run_poses", "swing_poses"]
    assert table.column("num_frames").tolist() == [312, 264, 288]  # 6.5, 5.5, 6 s, a tenth off each end
    assert "didn't change" in sandbox.run("dvc", "repro", "joints@standin-test").stdout


def test_a_changed_motion_costs_its_shard_and_changes_no_other(sandbox):
    sandbox.run("inbetween", "stage", "joints", "mine")
    before = outputs(sandbox)
    assert sorted(before) == ["mine_a-000.parquet", "mine_b-000.parquet", "mine_c-000.parquet"]
    write_amass(dataset(sandbox) / "b/run_poses.npz", seed=9, num_frames=200, fps=120.0)
    done = sandbox.run("inbetween", "stage", "joints", "mine")
    assert "3 shards, 2 kept from earlier runs" in done.stderr + done.stdout
    after = outputs(sandbox)
    assert {name for name in after if after[name] != before[name]} == {"mine_b-000.parquet"}
    shutil.rmtree(sandbox.root / ".inbetween/items")
    sandbox.run("inbetween", "stage", "joints", "mine")
    assert outputs(sandbox) == after


def test_a_bad_motion_is_left_out_kept_on_record_and_counted_again_the_next_time(sandbox):
    path = dataset(sandbox) / "a/walk_poses.npz"
    write_amass(path, change={"trans": write_amass(path)["trans"] * float("nan")})
    text = (sandbox.root / "params.yaml").read_text()
    try:
        done = sandbox.run("inbetween", "stage", "joints", "mine", check=False)
        assert done.returncode == 2
        assert done.stderr.strip().splitlines()[-1] == (
            "inbetween stage joints: mocap/mine: 1 of 6 motions are rejected, the first"
            " a/walk_poses.npz: not_finite (trans: row 10 is not finite); mend or remove the files, or raise"
            " joints.max_reject_share (0.05)"
        )
        assert not (sandbox.root / "data/joints/mine").exists()
        sandbox.write("params.yaml", text.replace("max_reject_share: 0.05", "max_reject_share: 0.2"))
        for _ in range(2):  # the second time everything is kept, the reject too
            sandbox.run("inbetween", "stage", "joints", "mine")
            rejects = json.loads(outputs(sandbox)["rejects.json"])
            assert rejects == [
                {"file": "a/walk_poses.npz", "reason": "not_finite", "detail": "trans: row 10 is not finite"}
            ]
            assert len(outputs(sandbox)) == 4
    finally:
        sandbox.write("params.yaml", text)


def test_a_subset_that_is_not_there_says_where_it_comes_from_in_one_line(sandbox):
    done = sandbox.run("inbetween", "stage", "joints", "none", check=False)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "mocap/gone: is not there; DATASET/SUBJECT/*_poses.npz files belong here" in line
    for word in ("amass.is.tue.mpg.de", "mano.is.tue.mpg.de", "body_models/smplh/GENDER/model.npz", "stand-ins"):
        assert word in line


def test_data_reports_what_is_there_of_motions_and_bodies(sandbox):
    done = sandbox.run("inbetween", "data")
    lines = [line.split() for line in (done.stdout + done.stderr).splitlines()]
    assert ["data:", "standin-train", "12", "79", "none"] in lines
    assert ["data:", "none", "0", "0", "mocap/gone", "holds", "none"] in lines
    assert ["data:", "smplh/neutral", "none"] in lines
    assert "Register at amass.is.tue.mpg.de" in done.stdout + done.stderr
