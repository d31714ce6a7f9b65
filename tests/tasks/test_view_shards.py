import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.motion.views import Moments, entries_from_points
from tasks.errors import TableError
from tasks.items import ItemStore
from tasks.tables import VIEWS_SCHEMA, write_table
from tasks.view_shards import (
    SETTINGS,
    SequenceFacts,
    ViewShards,
    check_leaks,
    moments_from_json,
    moments_to_json,
    read_normalisation,
)
from tasks.views import finish_views, list_sequences, make_views, plan_views, write_views
from tests.tasks.mocap_samples import make_motion, write_joints


def make_shards(folder: Path, subset: str, names: str, num_views: int = 2, lengths: int = 40) -> Path:
    """The views of made-up motions in folder/views/SUBSET."""
    path, views = folder / "joints" / subset / f"{subset}-000.parquet", folder / "views" / subset
    write_joints(path, [(f"{subset}/s", name, make_motion(ord(name), lengths)) for name in names], subset)
    store = ItemStore(folder / "store")
    plan = plan_views(path, lambda *parts: f"{subset}{parts}", seed=1, num_views=num_views, angles_rad=None)
    for item in plan.items:
        store.put(item.key, make_views(item.args))
    write_views(plan, views, store=store, shard_bytes=2**20, facts={"subset": subset})
    finish_views(views, list_sequences({plan.name: path}))
    return views


def test_row_groups_of_several_subsets_are_one_list_in_the_order_given(tmp_path):
    folders = [make_shards(tmp_path, "two", "ab"), make_shards(tmp_path, "one", "c", lengths=50)]
    shards = ViewShards(folders)
    assert [(size.num_sequences, size.num_frames, size.num_bytes) for size in shards.sizes] == [
        (4, 160, 160 * 152),
        (2, 100, 100 * 152),
    ]
    assert len(shards) == 2
    (first, second) = shards.read_group(1)
    assert (first.subset, first.sequence, first.view, second.view) == ("one", "c", 0, 1)
    assert first.points_TJ2.shape == (50, 19, 2)
    assert first.points_TJ2.dtype == np.float32
    assert not np.array_equal(first.points_TJ2, second.points_TJ2)


def test_reading_opens_no_file_again(tmp_path):
    folder = make_shards(tmp_path, "set", "ab")
    shards = ViewShards([folder])
    (path,) = folder.glob("*.parquet")
    path.unlink()
    assert [row.sequence for row in shards] == ["a", "b", "a", "b"]
    assert [facts.sequence for facts in shards.index()] == ["a", "b"]


def test_sizes_and_index_do_not_read_points(tmp_path):
    folder = make_shards(tmp_path, "set", "ab")
    (path,) = folder.glob("*.parquet")
    group = pq.ParquetFile(path).metadata.row_group(0)
    points = group.column(group.num_columns - 1)
    with path.open("r+b") as file:
        file.seek(points.data_page_offset)
        file.write(bytes(points.total_compressed_size))
    shards = ViewShards([folder])
    assert shards.sizes[0].num_frames == 160
    assert shards.index() == [
        SequenceFacts("set", "set/s", name, "Apache-2.0", f"hash of set/s {name}", 40) for name in "ab"
    ]
    with pytest.raises(TableError, match=r"set-000-00000\.parquet: row group 0 is damaged"):
        shards.read_group(0)


def test_normalisations_of_subsets_are_merged_as_if_measured_together(tmp_path):
    folders = [make_shards(tmp_path, "x", "ab"), make_shards(tmp_path, "y", "c", num_views=5, lengths=200)]
    entries = np.concatenate([entries_from_points(row.points_TJ2) for row in ViewShards(folders)])
    found = read_normalisation(folders)
    np.testing.assert_allclose(found.mean_E2, entries.mean(axis=0), atol=1e-14)
    np.testing.assert_allclose(found.std_E2, entries.std(axis=0), rtol=1e-13)
    assert np.abs(read_normalisation(folders[:1]).std_E2 - found.std_E2).max() > 1e-3


def test_every_digit_of_a_normalisation_survives_the_text():
    moments = Moments(7, *np.random.default_rng(0).uniform(size=(2, 19, 2)))
    found = moments_from_json(moments_to_json(moments), Path("x"))
    assert found.num_frames == 7
    assert (found.mean_E2 == moments.mean_E2).all()
    assert (found.std_E2 == moments.std_E2).all()


def test_a_normalisation_that_is_missing_or_damaged_is_one_line(tmp_path):
    folder = make_shards(tmp_path, "set", "a")
    path = folder / "normalisation.json"
    for text in ("", "[]", '{"count": 3}', path.read_text().replace("[[", "[[NaN, ", 1), path.read_text()[:-40]):
        path.write_text(text)
        with pytest.raises(TableError, match=r"normalisation\.json: its normalisation is damaged; run stage views"):
            read_normalisation([folder])
    path.unlink()
    with pytest.raises(TableError, match=r"normalisation\.json: there is no such file; run stage views"):
        read_normalisation([folder])
    with pytest.raises(TableError, match="no subset: there is no frame"):
        read_normalisation([])


@pytest.mark.parametrize(("name", "value"), [("focal", "5.0"), ("num_joints", "25"), ("jitter", None)])
def test_a_shard_of_another_camera_or_skeleton_is_refused_with_both_values(tmp_path, name, value):
    make_shards(tmp_path, "set", "a")
    facts = {key: text for key, text in (dict(SETTINGS) | {name: value}).items() if text is not None}
    write_table("views", tmp_path / "views/set/z.parquet", [], facts)
    with pytest.raises(
        TableError, match=rf"z\.parquet: was made with {name} {value or 'not told'}, where {SETTINGS[name]}"
    ):
        ViewShards([tmp_path / "views/set"])


def test_a_table_of_another_kind_and_a_folder_without_shards_are_refused(tmp_path):
    write_joints(tmp_path / "a/x.parquet", [])
    with pytest.raises(TableError, match=r"x\.parquet: holds joints, where a views table is needed"):
        ViewShards([tmp_path / "a"])
    with pytest.raises(TableError, match=r"b: holds no table; run the stage that makes it"):
        ViewShards([tmp_path / "b"])


def test_a_row_whose_points_do_not_fit_its_frames_is_refused(tmp_path):
    row = {"num_frames": 3, "points": [0.0] * 38, "view": 0, "angles_rad": [0.0] * 3}
    table = pa.Table.from_pylist([row], schema=VIEWS_SCHEMA)
    write_table("views", tmp_path / "x.parquet", [table], SETTINGS)
    with pytest.raises(TableError, match=r"x\.parquet: row group 0 row 0 has 38 numbers, where 3 frames of 19 x 2"):
        ViewShards([tmp_path]).read_group(0)


def facts(subset, subject, sequence, sha256):
    return SequenceFacts(subset, subject, sequence, "", sha256, 40)


TRAIN = [facts("cmu-train", "cmu/1", "walk", "x"), facts("cmu-train", "cmu/2", "run", "y")]


def test_subsets_without_anything_in_common_do_not_leak():
    check_leaks(TRAIN, [facts("cmu-test", "cmu/3", "jump", "z"), facts("cmu-test", "cmu/3", "walk", "w")])
    check_leaks(TRAIN, [])


@pytest.mark.parametrize(
    ("leak", "message", "subjects"),
    [
        (facts("cmu-test", "cmu/2", "hop", "w"), "subject cmu/2 of cmu-test (test) is also in", ("cmu/2", "cmu/2")),
        (facts("cmu-test", "copy/1", "walk", "w"), "sequence copy/1/walk of cmu-test", ("copy/1", "cmu/1")),
        (facts("cmu-test", "cmu/3", "hop", "y"), "recording cmu/3/hop of cmu-test", ("cmu/3", "cmu/2")),
    ],
)
def test_a_subject_a_name_or_a_recording_on_both_sides_is_refused(leak, message, subjects):
    with pytest.raises(TableError, match=rf"^{re.escape(message)}.* cmu-train \(train\)") as caught:
        check_leaks(TRAIN, [facts("cmu-test", "cmu/4", "skip", "v"), leak])
    test, train = subjects
    assert f"write {test} into mocap.cmu-test.without, or {train} into mocap.cmu-train.without" in str(caught.value)
