"""`inbetween lineage` on a made-up project: what the commands print and how they end; why; places from DVC's config."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.lineage import open_lineage
from flows.lineage.places import find_places
from flows.lineage.why import Project, explain_all, explain_stage
from flows.project import ROOT
from tasks.lineage.errors import LineageError
from tasks.lineage.lock import parse_lock
from tests.lineage_project import Clip, Pipeline, small_project

RUN = """
import sys
from pathlib import Path
import flows.lineage
root = Path(sys.argv[1])
flows.lineage.open_lineage.__defaults__ = (root, root / ".inbetween/lineage.sqlite")
sys.argv = ["inbetween", "lineage", *sys.argv[2:]]
from flows.cli import main
main()
"""


@pytest.fixture
def pipeline(tmp_path) -> Pipeline:
    return small_project(tmp_path / "project")


def ask(pipeline: Pipeline):
    root = pipeline.project.root
    return open_lineage(root, root / ".inbetween/lineage.sqlite")


def run(pipeline: Pipeline, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RUN, str(pipeline.project.root), *words]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, check=False)


def reasons(pipeline: Pipeline, stage: str) -> set[tuple[str, str, str, str]]:
    return {(r.stage, r.kind, r.what, r.detail) for r in explain_stage(ask(pipeline), stage).reasons}


def test_commands_print_tables_or_json_and_end_with_their_codes(pipeline):
    done = run(pipeline, "upstream", "renderer/first")
    assert done.returncode == 0
    assert "one/a-train" in done.stdout
    assert "a1 10-19, a2 20-29" in done.stdout
    done = run(pipeline, "upstream", "renderer/first", "--json")
    assert [video["video"] for video in json.loads(done.stdout)["videos"]] == ["a-train"]
    done = run(pipeline, "downstream", "rendrer/first")
    assert done.returncode == 2
    assert done.stderr.startswith("inbetween lineage downstream: rendrer/first: nothing at work tree has this name")
    assert "Traceback" not in done.stderr
    assert run(pipeline, "licences", "renderer/first").returncode == 0
    assert run(pipeline, "licences", "data/models/motion").returncode == 0
    pipeline.licences["a-train"] = "unclear"
    pipeline.run_batch("one")
    pipeline.run_renderer("first", "one")
    pipeline.project.commit("unclear")
    done = run(pipeline, "licences", "renderer/first")
    assert (done.returncode, "may not be used commercially (unknown)" in done.stdout) == (1, True)


def test_an_up_to_date_stage_has_no_reason(pipeline):
    for stage in pipeline.project.ran:
        assert reasons(pipeline, stage) == set()


def test_why_names_param_tool_code_and_catalogue_row(pipeline):
    root = pipeline.project.root

    def edit(name: str, old: str, new: str) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new))

    edit("params.yaml", "crf: 16", "crf: 18")
    edit("tools.yaml", "5.0", "5.1")
    edit("tasks/render.py", "#", "##")
    edit("catalog/one/clips.csv", "a3,a-test,test,atest,30,39", "a3,a-test,test,atest,30,38")
    found = reasons(pipeline, "render@plain")
    assert {
        ("render@plain", "param", "params.yaml render.crf", "16 -> 18"),
        ("render@plain", "tool", "tools.yaml opencv", "5.0 -> 5.1"),
        ("render@plain", "code", "tasks/render.py", "differs"),
        ("split@one", "catalogue", "catalog/one/clips.csv", "a3: last 39 -> 38"),
    } <= found
    assert not {r for r in found if r[0] == "split@two"}


def test_why_names_the_items_that_a_stage_before_made_anew(pipeline):
    pipeline.batches["one"]["a3"].version = 1
    pipeline.batches["one"]["a9"] = Clip("a9", "a-train", "train", "atrain", 3, 5)
    before = dict(pipeline.project.ran)
    pipeline.run_batch("one")
    pipeline.project.ran |= {name: ran for name, ran in before.items() if name.startswith(("pose", "background"))}
    pipeline.project.save()
    assert reasons(pipeline, "pose@one") == {
        ("pose@one", "data", "data/one/clips/a3.parquet", "changed"),
        ("pose@one", "data", "data/one/clips/a9.parquet", "added"),
    }


def test_what_is_due_is_told_for_all_stages_as_for_each(pipeline):
    params = pipeline.project.root / "params.yaml"
    params.write_text(params.read_text().replace("crf: 16", "crf: 18"))
    lineage = ask(pipeline)
    due, notes = explain_all(lineage)
    assert notes == []
    renders = [stage for stage in pipeline.project.ran if stage.startswith("render@")]
    assert due.keys() == {*renders, *(f"evaluate@{name.partition('@')[2]}" for name in renders), "report"}
    assert due.keys() == {stage for stage in pipeline.project.ran if explain_stage(lineage, stage).reasons}
    assert due["render@plain"] == ["param params.yaml render.crf: 16 -> 18"]
    assert due["evaluate@plain"] == ["after render@plain, due before it"]


def test_why_knows_new_stages_and_offers_the_nearest(pipeline):
    del pipeline.project.ran["pose@two"]
    pipeline.project.save()
    assert ("pose@two", "new", "pose@two", "it has no entry in dvc.lock: it never ran") in reasons(pipeline, "pose@two")
    with pytest.raises(LineageError, match=r"pose@too: is no stage of dvc\.yaml; the nearest names are pose@two"):
        explain_stage(ask(pipeline), "pose@too")


def test_a_list_that_is_nowhere_leaves_open_whether_a_stage_is_due(pipeline):
    pipeline.project.drop(pipeline.project.md5_at("data/renders/plain"))
    answer = explain_stage(ask(pipeline), "report")
    assert answer.reasons == []
    assert any("whether data/renders changed stays open" in line for line in answer.open)


def test_dvc_yaml_is_read_as_dvc_reads_it():
    declared = Project(ROOT).stages
    for name, entry in parse_lock((ROOT / "dvc.lock").read_text()).items():
        if name not in declared:
            continue
        assert declared[name].cmd == entry.cmd
        assert sorted(declared[name].outs) == sorted(out.path for out in entry.outs)


def test_places_are_those_of_dvcs_config(tmp_path, monkeypatch):
    from dvc.config import Config

    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "user"))
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "system"))
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "user").mkdir()
    (tmp_path / "user/config").write_text("[cache]\n    dir = /elsewhere/cache\n")
    (tmp_path / ".dvc/config").write_text(
        "[core]\n    remote = store\n['remote \"store\"']\n    url = ../store\n['remote \"cloud\"']\n    url = s3://bucket/path\n"
    )
    (tmp_path / ".dvc/config.local").write_text("['remote \"store\"']\n    url = /mnt/store\n")
    places = {place.name: place for place in find_places(tmp_path).all}
    assert places["cache"].folder == Path("/elsewhere/cache")
    assert places["store"].folder == Path("/mnt/store")
    assert places["cloud"].folder is None
    config = Config(str(tmp_path / ".dvc"), validate=False)
    assert {name: remote["url"] for name, remote in config["remote"].items()} == {
        name: place.url for name, place in places.items() if name != "cache"
    }
    assert find_places(tmp_path).problems()[0].startswith("remote store: its folder /mnt/store is not there")
    assert "remote cloud (s3://bucket/path) is not a folder" in find_places(tmp_path).problems()[1]
