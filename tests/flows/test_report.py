from flows.params import load_params
from flows.project import ROOT
from flows.stage import Stage
from flows.stages.report import run
from tasks.items import ItemStore


def test_a_project_that_has_run_nothing_gets_a_page_that_says_what_to_run(tmp_path, monkeypatch):
    params = load_params(ROOT / "params.yaml")
    monkeypatch.chdir(tmp_path)
    run(Stage("report", "", params, {}, {}, ItemStore(tmp_path / "items", is_fresh=False), workers=1))
    html = (tmp_path / "report/index.html").read_text()
    for name in params.renders:
        assert f"{name} has no rendered clips; run `inbetween stage render {name}`." in html
    for path, stage in {
        "metrics/motion.json": "evaluate_motion",
        "data/models/motion/provenance.json": "train_motion",
        "metrics/train_motion/plots/metrics": "train_motion",
        "data/evaluations-motion/motion.mp4": "evaluate_motion",
    }.items():
        assert f"There is no {path}; run `inbetween stage {stage}`." in html
