"""Stage samples run for real: clips from footage, poses that the test writes."""

import hashlib
import json
import re

import numpy as np
import pyarrow as pa
import pytest

from tasks.tables import POSE_SCHEMA, Table, write_table
from tests.sandbox import Sandbox, copy_project, needs_footage, set_batches, write_batch

CLIPS = [("a", "kick_front", 0, 32), ("b", "kick_back", 0, 40)]
RENDERER = "{batch: batch, videos: %s, split: test, key_step: 8, background: %s, base: flow, height: 160, width: 96}"


def write_poses(sandbox: Sandbox, clip: str) -> None:
    frames = Table("clip", sandbox.root / f"data/batch/clips/{clip}.parquet").frames[::8]
    joints = np.ones((len(frames), 19, 3))
    joints[..., :2] = np.random.default_rng(0).uniform(60, 140, (19, 2)) + np.arange(len(frames))[:, None, None]
    rows = [
        {"frame": frame, "pass": "observed-8", "joints": pose.ravel().tolist(), "keypoints": None, "matte": None}
        for frame, pose in zip(frames.tolist(), joints, strict=True)
    ]
    path = sandbox.root / f"data/batch/poses/{clip}.parquet"
    write_table("pose", path, [pa.Table.from_pylist(rows, POSE_SCHEMA)], {"clip": clip})


def set_renderer(sandbox: Sandbox, videos: str, background: str) -> None:
    text = (sandbox.root / "params.yaml").read_text()
    new = f"renderers: {{someone: {RENDERER % (videos, background)}}}"
    sandbox.write("params.yaml", re.sub(r"renderers: \{.*\}", new, text))


def run_samples(sandbox: Sandbox) -> tuple[dict[str, str], int]:
    """Each table's hash, and how many of them were kept from earlier runs."""
    log = sandbox.run("inbetween", "stage", "samples", "someone").stderr
    tables = sorted((sandbox.root / "data/samples/someone").iterdir())
    kept = re.search(r"clips, (\d+) kept from earlier runs", log)
    assert kept
    return {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in tables}, int(kept[1])


@needs_footage
def test_a_renderers_set_is_made_once_and_follows_its_clips_and_settings(tmp_path):
    sandbox = copy_project(tmp_path / "project")
    write_batch(sandbox, "batch", CLIPS)
    set_batches(sandbox, ["batch"])
    set_renderer(sandbox, "[]", "base")
    for name, item in (("download", "batch"), ("split", "batch"), ("background", "batch-8")):
        sandbox.run("inbetween", "stage", name, item)
    for clip, *_ in CLIPS:
        write_poses(sandbox, clip)
    first, kept = run_samples(sandbox)
    assert (list(first), kept) == (["a", "b"], 0)
    table = Table("samples", sandbox.root / "data/samples/someone/b.parquet")
    assert table.frames.tolist() == [0, 8, 16, 24, 32, 40]
    assert table.read_image(3).shape == (160, 96, 3)
    assert run_samples(sandbox) == (first, 2)
    # One clip less is kept whole; another kind of background makes it anew.
    set_renderer(sandbox, "[kick_back]", "base")
    assert run_samples(sandbox) == ({"b": first["b"]}, 1)
    set_renderer(sandbox, "[kick_back]", "warp")
    warped, kept = run_samples(sandbox)
    assert (list(warped), kept) == (["b"], 0)
    assert warped["b"] != first["b"]
    sandbox.env["INBETWEEN_FRESH"] = "1"
    assert run_samples(sandbox) == (warped, 0)

    set_renderer(sandbox, "[kick_side]", "base")
    refused = sandbox.run("inbetween", "stage", "samples", "someone", check=False)
    assert refused.returncode == 2
    assert refused.stderr.strip().splitlines()[-1] == (
        "inbetween stage samples: renderers.someone in params.yaml: video kick_side has no clip of split test in"
        " data/batch/clips; those with one: kick_back, kick_front"
    )
    done = sandbox.run("dvc", "stage", "list", "--name-only")
    assert "samples@someone" in done.stdout


@pytest.mark.slow
@needs_footage
def test_a_clean_set_has_no_frame_that_a_test_clip_shows(tmp_path):
    sandbox = copy_project(tmp_path / "project")
    write_batch(sandbox, "batch", [("a", "kick_front", 0, 96), ("b", "kick_back", 0, 40), ("c", "kick_front", 40, 48)])
    path = sandbox.root / "catalog/batch/clips.csv"
    path.write_text(re.sub(r"^([ab],\w+),test", r"\1,train", path.read_text(), flags=re.MULTILINE))
    set_batches(sandbox, ["batch"])
    set_renderer(sandbox, "[]", "base")
    params = sandbox.root / "params.yaml"
    params.write_text(params.read_text().replace("videos: [], split: test", "videos: [], split: clean"))
    logs = [
        sandbox.run("inbetween", "stage", name, item).stderr
        for name, item in (("download", "batch"), ("split", "batch"), ("background", "batch-8"))
    ]
    assert "test clips share frames with training clips: inbetween catalog check batch" in logs[1]
    said = json.loads((sandbox.root / "data/batch/clips/manifest.json").read_text())
    assert said["leaks"]["clips"] == {"c": {"train_clips": ["a"], "frames": list(range(40, 49))}}
    for clip in "abc":
        write_poses(sandbox, clip)
    first, _ = run_samples(sandbox)
    assert list(first) == ["a+1", "a+2", "b"]
    frames = {name: Table("samples", sandbox.root / f"data/samples/someone/{name}.parquet").frames for name in first}
    assert frames["a+1"].tolist() == [0, 8, 16, 24, 32]
    assert frames["a+2"].tolist() == [56, 64, 72, 80, 88, 96]
    assert run_samples(sandbox) == (first, 2)
