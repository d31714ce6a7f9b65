"""Stage samples run for real: clips from footage, poses that the test writes."""

import hashlib
import re

import numpy as np
import pyarrow as pa

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
