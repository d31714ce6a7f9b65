"""Stages pose and background by the user's checkouts (stand-ins that speak their command lines) and by imports."""

import json
import sys
import threading
import time
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from flows.gpus import hold_gpu
from models.skeleton import Joint
from tasks.tables import CLIP_SCHEMA, Table, encode_png, picture_column, write_table
from tests.sandbox import NO_SOURCE, Sandbox, copy_project, set_batches
from tests.tasks import alphapose_stand_in, dain_stand_in
from tests.tasks.alphapose_stand_in import BLUE, RED, draw
from tests.tasks.h5_files import write_humanslomo

NUM_FRAMES = 17


def write_clip(folder, clip, people):
    """A clip of NUM_FRAMES pictures, frame n of which shows people(n)."""
    frames = pa.array(range(NUM_FRAMES), pa.int32())
    pictures = [encode_png(draw(people(frame))) for frame in range(NUM_FRAMES)]
    columns = [frames, pa.compute.divide(frames.cast(pa.float64()), 30.0), picture_column(pictures, ["x"] * NUM_FRAMES)]
    facts = {"clip": clip, "batch": "batch", "video": "v", "source_sha256": "0", "width": "400", "height": "260"}
    write_table("clip", folder / f"{clip}.parquet", [pa.Table.from_arrays(columns, schema=CLIP_SCHEMA)], facts)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Sandbox:
    root = tmp_path_factory.mktemp("workers")
    sandbox = copy_project(root / "project")
    set_batches(sandbox, ["batch"])
    text = (sandbox.root / "params.yaml").read_text()
    for old, new in (
        ("halpe_136/resnet/256x192_res50_lr1e-3_2x-regression.yaml", "halpe.yaml"),
        ("halpe136_fast50_regression_256x192.pth", "halpe.pth"),
        (f"{{worker: mediapipe, source: {NO_SOURCE}}}", f"{{worker: alphapose, source: {NO_SOURCE}}}"),
        ("key_step: 8, interpolator: flow", "key_step: 8, interpolator: dain"),
    ):
        assert old in text
        text = text.replace(old, new)
    sandbox.write("params.yaml", text)
    sandbox.env |= {
        "ALPHAPOSE_HOME": str(alphapose_stand_in.write_checkout(root / "AlphaPose")),
        "ALPHAPOSE_PYTHON": sys.executable,
        "DAIN_HOME": str(dain_stand_in.write_checkout(root / "DAIN")),
        "DAIN_PYTHON": sys.executable,
        "STAND_IN_CALLS": str(root / "calls"),
    }
    return sandbox


def calls(sandbox):
    path = sandbox.root.parent / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [json.loads(line) for line in lines]


def read_pass(sandbox, clip, which):
    table = Table("pose", sandbox.root / f"data/batch/poses/{clip}.parquet")
    return table.column("joints").reshape(-1, 19, 3)[table.column("pass") == which]


def test_alphapose_is_called_once_for_the_batch_and_hidden_frames_have_no_say(project):
    clips = project.root / "data/batch/clips"
    write_clip(clips, "a", lambda frame: [(100 + frame, RED), (300, BLUE)] if frame % 8 else [(100 + frame, RED)])
    write_clip(clips, "b", lambda frame: [(150 - frame, BLUE)] if frame != 3 else [])
    project.run("inbetween", "stage", "pose", "batch")
    (call,) = calls(project)
    assert (call["gpu"], call["gpus"]) == ("0", "0")
    truth, observed = (read_pass(project, "a", which) for which in ("truth", "observed-8"))
    # One person through the clip, though another stands beside: red, who is in every frame.
    np.testing.assert_allclose(truth[:, Joint.NECK, 0], 99.5 + np.arange(NUM_FRAMES), atol=1e-3)
    np.testing.assert_allclose(observed[:, Joint.NECK, 0], [99.5, 107.5, 115.5], atol=1e-3)
    assert not read_pass(project, "b", "truth")[3].any()
    table = Table("pose", project.root / "data/batch/poses/a.parquet")
    assert table.metadata["estimator"] == "alphapose"
    assert table.metadata["estimator_version"].startswith("halpe ")
    assert len(table.read_cell("keypoints", 0)) == 136 * 3

    project.run("inbetween", "stage", "pose", "batch")
    assert not calls(project)  # what is finished is kept
    write_clip(clips, "a", lambda frame: [(320 - frame, BLUE)] if frame % 8 else [(100 + frame, RED)])
    project.run("inbetween", "stage", "pose", "batch")
    assert len(calls(project)) == 1
    np.testing.assert_array_equal(read_pass(project, "a", "observed-8"), observed)
    assert not np.array_equal(read_pass(project, "a", "truth"), truth)


def test_dain_makes_the_backgrounds_and_its_absence_is_one_line(project):
    clips = project.root / "data/batch/clips"
    write_clip(clips, "a", lambda frame: [(100 + frame, RED)])
    write_clip(clips, "b", lambda frame: [])
    project.run("inbetween", "stage", "background", "batch-8")
    assert sorted((call["time_step"], call["gpu"]) for call in calls(project)) == [(0.125, "0"), (0.5, "0")]
    table = Table("background", project.root / "data/batch/backgrounds-8/b.parquet")
    expected = [(frame, "render") for frame in range(1, 16) if frame != 8]
    assert sorted(zip(table.frames.tolist(), table.column("use"), strict=True)) == sorted([*expected, (8, "train")])
    assert table.metadata["interpolator_version"].startswith("DAIN_slowmotion")
    for change, message in (
        ({"DAIN_HOME": ""}, "dain: set DAIN_HOME to the folder of your checkout (docs/workers.md)"),
        (
            {"DAIN_PYTHON": "/no/python"},
            "dain: DAIN_PYTHON names /no/python, which is no program; set it to the Python",
        ),
    ):
        kept = dict(project.env)
        project.env |= change
        done = project.run("inbetween", "stage", "background", "batch-8", check=False)
        project.env = kept
        assert done.returncode == 2
        assert message in done.stderr.strip().splitlines()[-1]


def test_an_import_of_the_authors_set_is_named_by_the_batch(project):
    """Picture n of the set is grey n, its DAIN's 100 + n: keys are every second frame, so key step 2."""
    source = write_humanslomo(project.root.parent / "HumanSlomo.h5", {"test_001": NUM_FRAMES}, {})
    said = project.run("inbetween", "import", "h5", str(source), "--name", "h5").stderr
    place = "data/raw/given/imports/h5"
    assert f"batches.B.pose: {{worker: imported, source: {place}/poses}}" in said
    assert "then: dvc commit -f data.dvc && git commit data.dvc params.yaml" in said
    text = (project.root / "params.yaml").read_text()
    for old, new in (
        (f"{{worker: alphapose, source: {NO_SOURCE}}}", f"{{worker: imported, source: {place}/poses}}"),
        ("key_steps: [8]", "key_steps: [2]"),
        (
            f"batch-8: {{batch: batch, key_step: 8, interpolator: dain, source: {NO_SOURCE}}}",
            f"batch-2: {{batch: batch, key_step: 2, interpolator: imported, source: {place}/backgrounds}}",
        ),
    ):
        assert old in text
        text = text.replace(old, new)
    project.write("params.yaml", text.split("renders:")[0] + "renders: {}\n")
    for path in (project.root / "data/batch/clips").iterdir():
        path.unlink()
    write_clip(project.root / "data/batch/clips", "test_001", lambda frame: [])
    project.run("inbetween", "stage", "background", "batch-2")
    table = Table("background", project.root / "data/batch/backgrounds-2/test_001.parquet")
    assert table.frames.tolist() == [*range(1, NUM_FRAMES, 2)]
    assert table.read_image(0).shape == (260, 400, 3)  # the clip's size
    assert int(table.read_image(1)[0, 0, 0]) == 103
    project.run("inbetween", "stage", "pose", "batch")
    assert len(read_pass(project, "test_001", "observed-2")) == 9
    assert not calls(project)
    exported = project.root.parent / "json"
    project.run("inbetween", "export", "poses", "batch", str(exported))
    assert len(list((exported / "test_001").iterdir())) == NUM_FRAMES
    done = project.run("inbetween", "import", "poses", str(exported), "--name", "h5", check=False)
    assert done.returncode == 2
    assert "data/raw/given/imports/h5: is there already" in done.stderr


def test_no_two_calls_are_on_one_gpu_and_both_gpus_are_used(tmp_path):
    """Threads: a lock is held by an opened file, whoever opened it."""
    spans = []

    def hold(name):
        with hold_gpu([0, 1], tmp_path, name) as gpu:
            start = time.monotonic()
            time.sleep(0.3)
            spans.append((gpu, start, time.monotonic()))

    threads = [threading.Thread(target=hold, args=(f"call {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {gpu for gpu, _, _ in spans} == {0, 1}
    for gpu in (0, 1):
        mine = sorted((start, end) for one, start, end in spans if one == gpu)
        assert all(before[1] <= after[0] for before, after in pairwise(mine))
    with hold_gpu([], tmp_path, "no gpu") as gpu:
        assert gpu is None
