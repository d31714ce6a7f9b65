"""dvc.yaml against the code: each stage's deps, params and tools are what the stage really uses."""

import json
import subprocess
import sys

import pytest
from ruamel.yaml import YAML

from flows.demo import plan_lanes
from flows.params import load_params
from flows.pipeline import read_plan
from flows.project import ROOT
from flows.stage import STAGES

PROBE = """
import importlib, json, sys
from flows.project import prepare_environment
prepare_environment()
import flows.cli
from flows.stage import code_files
module = importlib.import_module("flows.stages." + sys.argv[1])
print(json.dumps({
    "code": code_files(module),
    "tools": list(module.TOOLS),
    "prefect": any(name.split(".")[0] in ("prefect", "ray") for name in sys.modules),
}))
"""


def dvc_stages() -> dict:
    stages = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text())["stages"]
    return {name: stage.get("do", stage) for name, stage in stages.items()}


def test_dvc_yaml_and_the_command_line_name_the_same_stages():
    assert tuple(dvc_stages()) == STAGES


@pytest.mark.parametrize("name", STAGES)
def test_stage_declares_the_code_it_imports_and_the_tools_it_uses(name):
    probe = subprocess.run([sys.executable, "-c", PROBE, name], capture_output=True, text=True, cwd=ROOT, check=True)
    found = json.loads(probe.stdout)
    stage = dvc_stages()[name]
    code = sorted(dep for dep in stage["deps"] if dep.split("/")[0] in ("flows", "tasks", "models"))
    assert code == found["code"], f"write these under {name}'s deps in dvc.yaml: {found['code']}"
    tools = next((p["tools.yaml"] for p in stage["params"] if isinstance(p, dict)), [])
    assert tuple(tools) == tuple(found["tools"])
    assert not found["prefect"], "a stage must not import Prefect"


def test_learned_motion_and_rife_import_only_what_the_render_stage_declares():
    probe = """
import importlib, json, sys
from flows.project import prepare_environment
prepare_environment()
import flows.cli
from flows.stage import code_files
module = importlib.import_module("flows.stages.render")
declared = code_files(module)
import models.motion.inference, models.renderer.neural, models.renderer.rife
module.SCRIPTS = ()
print(json.dumps([declared, code_files(module)]))
"""
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=ROOT, check=True)
    declared, imported = json.loads(done.stdout)
    assert [name for name in declared if name.endswith(".py")] == imported


def test_the_demos_lanes_hold_every_stage_once_and_after_what_it_needs():
    needs = {stage.name: set(stage.needs) for stage in read_plan()}
    done: set[str] = set()
    for lanes in plan_lanes(load_params(ROOT / "params.yaml")):
        made: set[str] = set()
        for lane in lanes:
            for number, name in enumerate(lane):
                assert needs[name] <= done | set(lane[:number]), name
                assert name not in done | made
            made |= set(lane)
        done |= made
    assert needs.keys() - done == {"report"}


def test_dvc_shows_the_committed_metrics_and_plots():
    def ask(*words: str) -> dict:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *words], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)

    metrics = ask("metrics", "show", "--json")[""]["data"]
    assert metrics["metrics/render/warp-8.json"]["data"]["mean"]["halfway"]["person_psnr"] > 20
    plots = ask("plots", "show", "--json")["data"]["metrics/plots/warp-8.json"]
    points = json.loads(plots[0]["content"])["data"]["values"] if isinstance(plots[0]["content"], str) else plots[0]
    assert "person_psnr" in json.dumps(points)
