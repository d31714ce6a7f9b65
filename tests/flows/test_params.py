import shutil
from pathlib import Path

import pytest

from flows.params import Params, load_params, load_tools
from flows.project import ROOT
from tasks.catalog import read_catalog
from tasks.errors import ParamsError


@pytest.fixture
def params_text() -> str:
    return (ROOT / "params.yaml").read_text()


def load(tmp_path, text: str) -> Params:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return load_params(path)


@pytest.mark.parametrize("name", ["params.yaml", "params/paper.yaml", "params/sample.yaml", "params/pretrain.yaml"])
def test_shipped_sets_load(name):
    load_params(ROOT / name)


def test_all_sets_have_the_same_keys():
    def sections(name):
        params = load_params(ROOT / name).model_dump()
        return {
            key: sorted(value)
            for key, value in params.items()
            if key not in {"mocap", "batches", "backgrounds", "renderers", "renders"}
        }

    assert (
        sections("params.yaml")
        == sections("params/paper.yaml")
        == sections("params/sample.yaml")
        == sections("params/pretrain.yaml")
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  crf: 16", "  crff: 16", r"render.crf: Field required|render.crff: is not known"),
        ("  crf: 16", "  crf: 16\n  speed: 1", r"params.yaml: render.speed: is not known"),
        ("  crf: 16", "  crf: 52", r"params.yaml: render.crf: .*less than or equal to 51 \(found 52\)"),
        ("  crf: 16", "  crf: yes please", r"params.yaml: render.crf: .*integer"),
        ("  crf: 16", "  crf: true", r"params.yaml: render.crf: .*integer"),
        ("missing: fail", "missing: ignore", r"params.yaml: download.missing: .*'fail' or 'skip'"),
        ("upscale: 2.0", "upscale: .nan", r"params.yaml: pose.upscale: .*finite"),
        ("timeout_s: 600", "timeout_s: 6e2", None),
        (
            "key_steps: [4, 8]\n    p",
            "key_steps: [4, 8, 5]\n    p",
            r"backgrounds.sample-5: is missing; add `sample-5:",
        ),
        (
            "motion: learned,",
            "motion: robust,",
            r"renders.warp-8: motion robust does not fit motion_model data/models/motion",
        ),
        ("motion: robust,", "motion: learned,", r"renders.warp-4: motion learned does not fit motion_model .*no-model"),
        (
            "key_steps: [4, 8]\n    p",
            "key_steps: [4, 0]\n    p",
            r"batches.sample.key_steps.1: .*greater than or equal to 1",
        ),
        ("flow-8: {batch: sample", "flow-8: {batch: simple", r"renders.flow-8: batch simple has no key step 8"),
        (
            "height: 192, width: 112",
            "height: 190, width: 112",
            r"renderers.sample.height: .*multiple of 16 .*found 190",
        ),
        (
            "key_step: 4, background: base",
            "key_step: 5, background: base",
            r"renderers.sample: batch sample has no key",
        ),
        ("render: # ", "render: 3 # ", r"not readable as YAML|render: "),
        ("  crf: 16", "  crf: 16\n  crf: 17", r"not readable as YAML"),
        (
            "pose: {worker: mediapipe",
            "pose: {worker: openpose",
            r"batches.sample.pose: openpose does not fit source data/raw/embedded/no-source; .* name a folder",
        ),
        (
            "key_step: 8, interpolator: flow, source: data/raw/embedded/no-source",
            "key_step: 8, interpolator: dain, source: data/raw/given/imports/x",
            r"backgrounds.sample-8: dain does not fit source data/raw/given/imports/x",
        ),
        ("gpus: [0]", "gpus: [-1]", r"run.gpus.0: .*greater than or equal to 0"),
        ("detector: yolo #", "detector: tracker #", r"alphapose.detector: .*pattern"),
        ("  sample-4: {", "  other-4: {", r"backgrounds.other-4: batch sample, key step 4; the name must be BATCH-K"),
    ],
)
def test_wrong_values_are_refused_with_the_keys_path(tmp_path, params_text, old, new, message):
    assert old in params_text or old == "render: # "
    text = params_text.replace(old, new)
    if old == "render: # ":
        text = params_text.replace("render:\n", "render: 3\n")
    if message is None:
        assert load(tmp_path, text).pose.timeout_s == 600
        return
    with pytest.raises(ParamsError, match=message) as caught:
        load(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_the_papers_set_has_a_renderer_for_each_subject_and_renders_each_test_clip_with_its_own():
    params, catalog = load_params(ROOT / "params/paper.yaml"), read_catalog(ROOT, "humanslomo")
    assert list(params.renderers) == list(catalog.videos)
    trained = {
        name: [c.clip for c in catalog.clips_of(r.videos[0]) if c.split == "train"]
        for name, r in params.renderers.items()
    }
    assert sum(map(len, trained.values())) == 80
    assert all(clips and name in clips[0] for name, clips in trained.items())
    assert {(r.key_step, r.split, r.height, r.width) for r in params.renderers.values()} == {(1, "train", 320, 480)}
    rendered = [
        (clip.clip, Path(render.renderer).name)
        for render in params.renders.values()
        if render.method == "neural"
        for clip in catalog.clips_of(render.videos[0])
        if clip.split == render.split
    ]
    assert sorted(rendered) == sorted((c.clip, c.video) for c in catalog.clips.values() if c.split == "test")


def test_missing_and_broken_files_are_one_line(tmp_path):
    with pytest.raises(ParamsError, match=r"params.yaml: there is no such file"):
        load_params(tmp_path / "params.yaml")
    with pytest.raises(ParamsError, match=r"params.yaml: not readable as YAML"):
        load(tmp_path, "a: [1")


def test_tools_are_versions_as_text(tmp_path):
    shutil.copy(ROOT / "tools.yaml", tmp_path)
    assert load_tools(tmp_path / "tools.yaml")["opencv"]
    (tmp_path / "tools.yaml").write_text("ffmpeg: 7.1\n")
    with pytest.raises(ParamsError, match="versions as text"):
        load_tools(tmp_path / "tools.yaml")


def test_dain_needs_a_key_step_that_is_a_power_of_two(tmp_path, params_text):
    line = "{batch: sample, key_step: 6, interpolator: dain, source: data/raw/embedded/no-source}"
    text = params_text.replace("key_steps: [4, 8]", "key_steps: [4, 8, 6]")
    text = text.replace("  sample-4: {", f"  sample-6: {line}\n  sample-4: {{")
    with pytest.raises(ParamsError, match=r"backgrounds\.sample-6: dain halves .*so its key step is 2, 4, 8"):
        load(tmp_path, text)
