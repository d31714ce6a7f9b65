"""DAIN as a worker, against a stand-in that speaks its command line and writes its files (dain_stand_in)."""

import json
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from tasks.background import plan_background
from tasks.background_dain import group_pairs, make_by_dain
from tasks.background_imported import write_imported
from tasks.errors import TableError, ToolError
from tasks.items import item_key
from tasks.tables import CLIP_SCHEMA, Table, decode_png, encode_png, picture_column, write_table
from tasks.workers.dain import DainSettings, check_dain, run_dain
from tests.tasks.dain_stand_in import write_checkout


@pytest.fixture
def settings(tmp_path, monkeypatch) -> DainSettings:
    monkeypatch.setenv("STAND_IN_CALLS", str(tmp_path / "calls"))
    return DainSettings(write_checkout(tmp_path / "DAIN"), sys.executable, None, 20.0)


def grey(value: int, size=(8, 12)) -> bytes:
    return encode_png(np.full((*size, 3), value, np.uint8))


def level(data: bytes, spread: int = 0) -> int:
    image = decode_png(data)
    assert int(image.max()) - int(image.min()) <= spread
    return int(image[0, 0, 0])


def write_clip(path, values, times=None, size=(8, 12)):
    """A clip of grey pictures. times: s; equal steps where they are not given."""
    frames = range(10, 10 + len(values))
    columns = [
        pa.array(frames, pa.int32()),
        pa.array(times or [n / 30 for n in range(len(values))], pa.float64()),
        picture_column((grey(value, size) for value in values), map(str, frames)),
    ]
    metadata = {"clip": path.stem, "batch": "b", "video": "v", "source_sha256": "0", "width": "12", "height": "8"}
    write_table("clip", path, [pa.Table.from_arrays(columns, schema=CLIP_SCHEMA)], metadata)
    return path


def calls(tmp_path):
    return [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]


def test_pictures_stand_at_equal_steps_and_the_checkout_stays_as_it_was(settings, tmp_path):
    before = sorted(path.name for path in settings.home.rglob("*"))
    seen = []
    pairs = {"a": (grey(0), grey(80)), "b": (grey(200), grey(0))}
    made = run_dain(pairs, 8, tmp_path / "work", settings, 2, lambda done, total: seen.append((done, total)))
    assert [level(path.read_bytes()) for path in made["a"]] == [10, 20, 30, 40, 50, 60, 70]
    assert [level(path.read_bytes()) for path in made["b"]] == [175, 150, 125, 100, 75, 50, 25]
    assert seen == [(1, 2), (2, 2)]
    (call,) = calls(tmp_path)
    assert (call["netName"], call["time_step"], call["gpu"]) == ("DAIN_slowmotion", 0.125, "2")
    assert sorted(path.name for path in settings.home.rglob("*")) == before


@pytest.mark.parametrize(
    ("do", "message"),
    [
        ("out of memory", "GPU's memory is too small for two pictures of this size; take smaller ones"),
        ("no extension", r"its extensions are not built \(my_package/build.sh.*depthflowprojection_cuda"),
        ("one short", "holds 4 pictures, not the 5 of time step 0.25"),
    ],
)
def test_failures_are_one_line(settings, tmp_path, monkeypatch, do, message):
    monkeypatch.setenv("STAND_IN_DO", do)
    with pytest.raises(ToolError, match=message) as caught:
        run_dain({"a": (grey(0), grey(80))}, 4, tmp_path / "work", settings, 0)
    assert str(caught.value).startswith("dain: ")
    assert "\n" not in str(caught.value)


def test_what_a_checkout_lacks_is_named(settings, tmp_path):
    assert check_dain(settings).startswith("DAIN_slowmotion, best.pth ")
    with pytest.raises(ToolError, match=r"DAIN_HOME is .*, where there is no demo_MiddleBury_slowmotion.py"):
        check_dain(replace(settings, home=tmp_path))
    with pytest.raises(ToolError, match=r"its sha256 is .*, not dain.weights_sha256"):
        check_dain(replace(settings, weights_sha256="0" * 64))
    (settings.home / "model_weights/best.pth").unlink()
    with pytest.raises(ToolError, match=r"model_weights/best.pth is not there; get it as its README says"):
        check_dain(settings)
    with pytest.raises(ToolError, match="6 steps between two pictures are no power of two"):
        run_dain({}, 6, tmp_path / "work", settings, 0)


def test_keys_and_the_frames_between_them_come_from_two_calls(settings, tmp_path):
    """Keys 0, 80, 160 of step 4: the middle key from the outer ones, the others by quarters."""
    clip = write_clip(tmp_path / "c.parquet", [0, 9, 9, 9, 80, 9, 9, 9, 160])
    plan = plan_background(clip, 4, "dain", "version", item_key)
    (group,) = group_pairs(plan.items, 2)
    tables = dict(make_by_dain(group, tmp_path / "work", settings, 0))
    rows = pa.concat_tables(tables[index] for index in range(len(group))).to_pylist()
    found = {(row["frame"], row["use"]): level(row["image"]["bytes"]) for row in rows}
    assert found == {
        (11, "render"): 20, (12, "render"): 40, (13, "render"): 60, (14, "train"): 80,
        (15, "render"): 100, (16, "render"): 120, (17, "render"): 140,
    }  # fmt: skip
    assert sorted(call["time_step"] for call in calls(tmp_path)) == [0.25, 0.5]
    assert plan.metadata["interpolator_version"] == "version"


def test_frames_at_unequal_times_get_the_nearest_picture(settings, tmp_path):
    clip = write_clip(tmp_path / "c.parquet", [0, 9, 9, 9, 80], [0.0, 0.1, 0.7, 0.75, 1.0])
    plan = plan_background(clip, 4, "dain", "", item_key)
    ((_, table),) = make_by_dain(plan.items, tmp_path / "work", settings, 0)
    assert [level(row["image"]["bytes"]) for row in table.to_pylist()] == [20, 60, 60]


def test_at_key_step_1_every_frame_is_made_from_its_neighbours_and_none_lies_between(settings, tmp_path):
    clip = write_clip(tmp_path / "c.parquet", [0, 9, 80, 9])
    plan = plan_background(clip, 1, "dain", "", item_key)
    tables = dict(make_by_dain(plan.items, tmp_path / "work", settings, 0))
    rows = pa.concat_tables(tables[index] for index in range(len(plan.items))).to_pylist()
    assert [(row["frame"], row["use"], level(row["image"]["bytes"])) for row in rows] == [
        (11, "train", 40),
        (12, "train", 9),
    ]
    write_import(tmp_path / "source", "c", [(11, "train"), (12, "train")], key_step=1)
    write_imported(clip, tmp_path / "source", 1, tmp_path / "out")
    assert Table("background", tmp_path / "out/c.parquet").frames.tolist() == [11, 12]


def test_long_clips_are_several_calls(tmp_path):
    clip = write_clip(tmp_path / "c.parquet", [0] * 401)
    items = plan_background(clip, 2, "dain", "", item_key).items
    groups = group_pairs(items, 1)
    assert [item for group in groups for item in group] == items
    assert len(groups) > 3
    assert max(sum(2 * (item.args.last_key - item.args.first_key) for item in group) for group in groups) <= 64


def write_import(folder, clip, uses, key_step=4, size=(8, 12)):
    rows = pa.Table.from_arrays(
        [
            pa.array([frame for frame, _ in uses], pa.int32()),
            pa.array([use for _, use in uses], pa.string()),
            picture_column((encode_png(np.full((*size, 3), frame, np.uint8)) for frame, _ in uses), ["x"] * len(uses)),
        ],
        names=["frame", "use", "image"],
    )
    write_table("background", folder / f"{clip}.parquet", [rows], {"key_step": str(key_step), "interpolator": "dain"})


def test_imported_pictures_are_those_of_the_clips_frames_at_its_size(tmp_path):
    clip = write_clip(tmp_path / "c.parquet", [0] * 6)
    write_import(tmp_path / "source", "c", [(frame, "render") for frame in (13, 12, 11, 99)], size=(16, 24))
    write_imported(clip, tmp_path / "source", 4, tmp_path / "out")
    table = Table("background", tmp_path / "out/c.parquet")
    assert table.frames.tolist() == [11, 12, 13]
    assert [level(table.read_picture(row)) for row in range(3)] == [11, 12, 13]
    assert table.read_image(0).shape == (8, 12, 3)
    assert table.metadata["interpolator"] == "dain"


def test_imported_pictures_of_another_step_or_with_a_gap_are_refused(tmp_path):
    clip = write_clip(tmp_path / "c.parquet", [0] * 5)
    with pytest.raises(TableError, match=r"c.parquet: there is no such table"):
        write_imported(clip, tmp_path / "source", 4, tmp_path / "out")
    write_import(tmp_path / "source", "c", [(11, "render"), (13, "render")])
    with pytest.raises(TableError, match="lacks the render picture of frame 12; import it with --batch"):
        write_imported(clip, tmp_path / "source", 4, tmp_path / "out")
    with pytest.raises(TableError, match="of key step 4, not 2: others would show hidden frames"):
        write_imported(clip, tmp_path / "source", 2, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
