"""Registering a batch: only what is new is written, the same twice is one, and nothing leaves its folder."""

import shutil

import pytest

from flows.params import load_params
from flows.unattended.new_batch import NO_MODEL, NO_SOURCE, NewBatch, check_batch, read_batch
from flows.unattended.registration import _round_trip, register_batch, stage_targets
from tasks.errors import CatalogError, ParamsError
from tests.sandbox import ROOT

CLIP = {"clip": "c", "video": "v", "split": "test", "first": 0, "last": 23, "width": 180, "height": 320}


def make_batch(name="b1", **more) -> NewBatch:
    return check_batch({
        "name": name,
        "videos": [
            {"video": "v", "source": "file:/v.mp4", "licence": "CC0"},
            {"video": "w", "source": "file:/w.mp4", "licence": "CC0"},
        ],
        "clips": [
            CLIP,
            {"clip": "d", "video": "w", "split": "test", "frames": "3;5;10-16/2", "width": 180, "height": 320},
        ],
        "key_steps": [8, 4],
        "renders": [{"method": "flow", "key_step": 8}],
        **more,
    })  # fmt: skip


@pytest.fixture
def tree(tmp_path):
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "catalog", tmp_path / "catalog")
    return tmp_path


def test_a_withdrawn_video_is_not_registered_again(tree):
    (tree / "catalog/b0").mkdir()
    (tree / "catalog/b0/withdrawn.csv").write_text(
        "video,source,licence,sha256,withdrawn,reason\nold,file:/w.mp4,CC0,,2026-11-26,asked for\n"
    )
    before = files_of(tree)
    with pytest.raises(
        CatalogError, match=r"w: its source file:/w.mp4 was withdrawn on 2026-11-26 as b0/old \(asked for"
    ):
        register_batch(tree, make_batch())
    assert files_of(tree) == before


def files_of(tree) -> dict[str, bytes]:
    return {path.relative_to(tree).as_posix(): path.read_bytes() for path in tree.rglob("*") if path.is_file()}


def test_params_gain_lines_and_lose_none(tree):
    before = (tree / "params.yaml").read_text().splitlines()
    register_batch(tree, make_batch())
    after = (tree / "params.yaml").read_text().splitlines()
    assert [line for line in after if line in before] == before
    assert [line.strip() for line in after if line not in before] == [
        f"b1: {{key_steps: [4, 8], pose: {{worker: mediapipe, source: {NO_SOURCE}}}}}",
        f"b1-4: {{batch: b1, key_step: 4, interpolator: flow, source: {NO_SOURCE}}}",
        f"b1-8: {{batch: b1, key_step: 8, interpolator: flow, source: {NO_SOURCE}}}",
        (
            f"b1-flow-8: {{batch: b1, split: test, key_step: 8, motion: robust, motion_model: {NO_MODEL},"
            f" method: flow, renderer: {NO_MODEL}}}"
        ),
    ]
    params = load_params(tree / "params.yaml")
    assert params.batches["b1"].key_steps == [4, 8]
    assert params.renders["b1-flow-8"].batch == "b1"


@pytest.mark.parametrize("name", ["params.yaml", "params/paper.yaml", "params/sample.yaml"])
def test_shipped_params_survive_the_round_trip(name, tmp_path):
    yaml = _round_trip()
    yaml.dump(yaml.load((ROOT / name).read_text()), tmp_path / "out.yaml")
    assert (tmp_path / "out.yaml").read_text() == (ROOT / name).read_text()


def test_same_batch_twice_is_one(tree):
    register_batch(tree, make_batch())
    once = files_of(tree)
    register_batch(tree, make_batch())
    assert files_of(tree) == once


def test_batch_of_a_catalogue_written_by_hand_is_the_same(tree):
    before = files_of(tree)
    register_batch(tree, read_batch(tree, "sample", key_steps=[], params=load_params(tree / "params.yaml")))
    assert files_of(tree) == before


def test_another_batch_under_the_name_is_refused(tree):
    register_batch(tree, make_batch())
    once = files_of(tree)
    other = make_batch().model_dump()
    other["clips"][0]["last"] = 40
    with pytest.raises(CatalogError, match=r"catalog/b1/clips.csv: c is not what the batch of this name already has"):
        register_batch(tree, check_batch(other))
    with pytest.raises(ParamsError, match=r"params.yaml: renders.b1-flow-8 is"):
        register_batch(tree, make_batch(renders=[{"method": "flow", "key_step": 8, "motion": "linear"}]))
    assert files_of(tree) == once


def test_bad_video_is_left_out_with_its_clips_and_stays_so(tree):
    kept = register_batch(tree, make_batch(), {"w": 'no such file, "w"'})
    assert [clip.clip for clip in kept.clips] == ["c"]
    assert "w" not in (tree / "catalog/b1/videos.csv").read_text().splitlines()[1:]
    assert (tree / "catalog/b1/left_out.csv").read_text() == (
        'video,source,licence,reason\nw,file:/w.mp4,CC0,"no such file, ""w"""\n'
    )
    once = files_of(tree)
    register_batch(tree, make_batch())
    assert files_of(tree) == once


def test_video_that_dies_later_leaves_a_catalogue_that_was_there(tree):
    register_batch(tree, make_batch())
    assert [row.video for row in register_batch(tree, make_batch(), {"w": "dead"}).videos] == ["v"]
    other = make_batch().model_dump()
    other["clips"][0]["last"] = 40
    with pytest.raises(CatalogError, match=r"clips.csv: c is not what the batch of this name already has"):
        register_batch(tree, check_batch(other), {"w": "dead"})


def test_batch_without_a_clip_is_refused(tree):
    with pytest.raises(CatalogError, match=r"batch b1: no clip is left: video v: dead; video w: gone"):
        register_batch(tree, make_batch(), {"v": "dead", "w": "gone"})
    assert not (tree / "catalog/b1").exists()


def test_targets_are_the_stages_of_dvc_yaml(tree):
    batch = register_batch(tree, make_batch())
    assert stage_targets(tree, batch, with_renders=False) == [
        "download@b1", "split@b1", "pose@b1", "background@b1-8", "background@b1-4",
    ]  # fmt: skip
    assert stage_targets(tree, batch, with_renders=True)[-2:] == ["render@b1-flow-8", "evaluate@b1-flow-8"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "../b1"}, "batch.name"),
        ({"name": "-rf"}, "batch.name"),
        ({"videos": []}, "batch.videos"),
        ({"videos": [{"video": "../../etc", "source": "file:/x", "licence": "L"}]}, "batch.videos.0.video"),
        ({"videos": [{"video": "v", "source": "ftp://x/y", "licence": "L"}]}, "'ftp://x/y': not a source"),
        ({"videos": [{"video": "v", "source": "https://me:pw@host/v", "licence": "L"}]}, "which git would keep"),
        ({"videos": [{"video": "v", "source": "file:/x", "licence": "L\n=cmd()"}]}, "batch.videos.0.licence"),
        ({"clips": [{**CLIP, "video": "nobody"}]}, "video 'nobody' is not among the videos"),
        ({"clips": [{**CLIP, "split": "both"}]}, "batch.clips.0.split"),
        ({"key_steps": [0]}, "batch.key_steps.0"),
        ({"name": "Raw"}, "data/Raw is another stage's"),
        ({"pose": {"worker": "openpose", "source": "/etc"}}, "batch.pose.source"),
        ({"renders": [{"method": "flow", "key_step": 8, "renderer": "data/../../x"}]}, "batch.renders.0.renderer"),
        ({"renders": [{"method": "flow", "key_step": 16}]}, "key step 16 is not among key_steps"),
        ({"missing": "maybe"}, "batch.missing"),
        ({"colour": "red"}, "batch.colour"),
    ],
)  # fmt: skip
def test_wrong_parameter_is_named(change, field):
    with pytest.raises(ParamsError) as caught:
        make_batch(**change)
    assert field in str(caught.value)
    assert "me:pw" not in str(caught.value)
