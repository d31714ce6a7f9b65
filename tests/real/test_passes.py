"""Observed and true poses are apart: what is painted may not depend on the frames that were left out."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from models.skeleton import joints_from_body_25
from tasks.tables import CLIP_SCHEMA, Table, encode_png, picture_column, write_table
from tests.sandbox import FOOTAGE, Sandbox, copy_project, needs_footage, set_batches, write_batch

pytestmark = needs_footage


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Sandbox:
    """A project with a clip of 24 frames."""
    sandbox = copy_project(tmp_path_factory.mktemp("split") / "project", has_raw_data=True)
    set_batches(sandbox, ["batch"], methods=("warp",))
    write_batch(sandbox, "batch", [("cut", "kick_front", 0, 23)])
    for name in ("download", "split"):
        sandbox.run("inbetween", "stage", name, "batch")
    return sandbox


@pytest.fixture
def sandbox(split, tmp_path) -> Sandbox:
    return Sandbox(shutil.copytree(split.root, tmp_path / "project", symlinks=True))


def read_passes(sandbox: Sandbox) -> dict[str, np.ndarray]:
    table = Table("pose", sandbox.root / "data/batch/poses/cut.parquet")
    passes, joints = table.column("pass"), table.column("joints").reshape(-1, 19, 3)
    return {which: joints[passes == which] for which in ("observed-8", "truth")}


def hide_frames(sandbox: Sandbox) -> None:
    """Overwrite every frame of the clip that is no key of step 8 with noise."""
    path = sandbox.root / "data/batch/clips/cut.parquet"
    clip = Table("clip", path)
    noise = np.random.default_rng(0)
    shape = clip.read_image(0).shape
    pictures = [
        clip.read_picture(row) if row % 8 == 0 else encode_png(noise.integers(0, 256, shape, dtype=np.uint8))
        for row in range(clip.num_rows)
    ]
    columns = [clip.column("frame"), clip.column("time"), picture_column(pictures, (f"{row}.png" for row in range(24)))]
    import pyarrow as pa

    rows = pa.Table.from_arrays(
        [pa.array(columns[0], pa.int32()), pa.array(columns[1]), columns[2]], schema=CLIP_SCHEMA
    )
    write_table("clip", path, [rows], clip.metadata)


def test_renders_do_not_depend_on_the_frames_that_were_left_out(sandbox):
    stages = (("pose", "batch"), ("background", "batch-8"), ("render", "batch-warp-8"))
    for name, item in stages:
        sandbox.run("inbetween", "stage", name, item)
    render = sandbox.root / "data/renders/batch-warp-8/cut.parquet"
    before, seen = render.read_bytes(), read_passes(sandbox)
    table = Table("render", render)
    share, is_made = table.column("posed_share"), table.column("origin") == "generated"
    assert table.metadata["base"] == "flow"
    assert ((share >= 0) & (share < 0.5)).all()
    assert (share[is_made] > 0).any()
    assert not share[~is_made].any()
    hide_frames(sandbox)
    sandbox.env["INBETWEEN_FRESH"] = "1"
    for name, item in stages:
        sandbox.run("inbetween", "stage", name, item)
    after = read_passes(sandbox)
    assert render.read_bytes() == before
    np.testing.assert_array_equal(after["observed-8"], seen["observed-8"])
    assert not np.array_equal(after["truth"], seen["truth"])


def test_openpose_json_that_exists_already_serves_as_a_worker(sandbox):
    points = pd.read_parquet(FOOTAGE / "kick_front.keypoints.parquet").iloc[:24]
    folder = sandbox.root / "data/raw/given/openpose/cut"
    folder.mkdir(parents=True)
    for row in points.itertuples():
        person = {"pose_keypoints_2d": (row.body / np.tile([2, 2, 1], 25)).tolist()}
        text = json.dumps({"version": 1.3, "people": [person]})
        (folder / f"kick_{row.frame:012d}_keypoints.json").write_text(text)
    params = (sandbox.root / "params.yaml").read_text()
    before = "{worker: mediapipe, source: data/raw/embedded/no-source}"
    sandbox.write("params.yaml", params.replace(before, "{worker: openpose, source: data/raw/given/openpose}"))
    sandbox.run("inbetween", "stage", "pose", "batch")
    found = read_passes(sandbox)
    body = np.stack(points.body.to_list()).reshape(-1, 25, 3)
    nothing = np.zeros((24, 21, 3))
    given = joints_from_body_25(body / np.array([2, 2, 1]), nothing, nothing)
    assert [len(found["observed-8"]), len(found["truth"])] == [3, 24]
    # Repair may exchange or average; nearly all points stay as they are.
    off_px = np.linalg.norm(found["truth"][..., :2] - given[..., :2], axis=-1)
    assert np.median(off_px) < 0.01

    next(folder.iterdir()).write_text("{")
    done = sandbox.run("inbetween", "stage", "pose", "batch", check=False)
    assert done.returncode == 2
    assert "_keypoints.json: not a JSON file as OpenPose writes it" in done.stderr.strip().splitlines()[-1]
