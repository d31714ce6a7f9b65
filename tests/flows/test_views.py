"""Stage views, run in a folder of its own."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from flows.params import load_params
from flows.project import ROOT
from flows.stage import Stage
from flows.stages import views
from models.motion.views import (
    entries_from_points,
    evaluation_view,
    random_view,
    view_joints,
)
from models.skeleton import NUM_JOINTS
from tasks import views as views_tasks
from tasks.errors import SourceError, TableError
from tasks.items import ItemStore
from tasks.view_shards import ViewShards
from tests.models.motion.reference import load_arrays, needs_reference
from tests.tasks.mocap_samples import make_motion, write_joints

VIEWS = Path("data/views/set")


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("views.npy", np.random.default_rng(1).uniform(-1, 1, (3, 3)))


def run(split="train", num_views=3, shard_mb=64, *, workers=1, store="store", seed=1):
    params = load_params(ROOT / "params.yaml")
    subset = next(iter(params.mocap.values())).model_copy(update={"split": split})
    section = params.views.model_copy(
        update={
            "seed": seed,
            "views_per_sequence": num_views,
            "evaluation_views": "views.npy",
            "shard_mb": shard_mb,
        }
    )
    params = params.model_copy(update={"views": section, "mocap": {"set": subset}})
    views.run(Stage("views", "set", params, {}, {}, ItemStore(Path(store)), workers))


def write_motions(names="abc", table="s-000", **lengths):
    rows = [("s/" + name, name, make_motion(ord(name), lengths.get(name, 40))) for name in names]
    write_joints(Path(f"data/joints/set/{table}.parquet"), rows)
    return {name: joints for _, name, joints in rows}


def hash_outputs():
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(VIEWS.iterdir())}


def test_each_training_sequence_is_seen_from_its_random_views_view_by_view():
    motions = write_motions("ab")
    run(num_views=2)
    rows = list(ViewShards([VIEWS]))
    assert [(row.view, row.sequence) for row in rows] == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]
    for row in rows:
        wanted = view_joints(motions[row.sequence], random_view(1, f"{row.subject}/{row.sequence}", row.view))
        np.testing.assert_array_equal(row.points_TJ2, wanted.astype(np.float32))
        assert (row.subset, row.licence) == ("set", "Apache-2.0")
        assert row.source_sha256 == f"hash of {row.subject} {row.sequence}"
    (cells,) = pq.read_table(VIEWS / "s-000-00000.parquet").slice(2, 1).to_pylist()
    view = random_view(1, "s/a/a", 1)
    assert (tuple(cells["angles_rad"]), cells["focal"], cells["depth"]) == view
    assert (cells["fps"], cells["num_frames"]) == (60.0, 40)


def test_a_test_sequence_takes_the_fixed_view_of_its_number_in_the_sorted_subset():
    motions = write_motions("ca", "y-000") | write_motions("db", "x-000")
    run("test", num_views=5)
    rows = list(ViewShards([VIEWS]))
    assert [row.sequence for row in rows] == ["d", "b", "c", "a"]  # tables by name, rows as they stand there
    angles = np.load("views.npy")
    for row in rows:
        wanted = view_joints(motions[row.sequence], evaluation_view(angles, "abcd".index(row.sequence)))
        np.testing.assert_array_equal(row.points_TJ2, wanted.astype(np.float32))
        assert row.view == 0


@needs_reference
def test_the_fixture_goes_through_the_tables():
    path = load_arrays("amass_path.npz")
    write_joints(Path("data/joints/set/s-000.parquet"), [("s", "a", path["joints"])])
    np.save("views.npy", path["view"][None])
    run("test")
    (row,) = ViewShards([VIEWS])
    np.testing.assert_allclose(row.points_TJ2.transpose(1, 2, 0), path["gt"], atol=1e-6, rtol=0)


def test_order_workers_and_the_size_of_items_do_not_change_a_byte(monkeypatch):
    write_motions("abcde", "x-000")
    write_motions("fgh", "y-000")
    run()
    first = hash_outputs()
    assert len(first) == 3
    monkeypatch.setattr(views_tasks, "MAX_ITEM_BYTES", 40 * 152)  # one view of one sequence an item
    run(store="other", workers=2)
    assert hash_outputs() == first
    points = points_by_row()
    write_motions("edcba", "x-000")
    run(store="third")
    assert points_by_row() == points


def points_by_row():
    return {(row.sequence, row.view): row.points_TJ2.tobytes() for row in ViewShards([VIEWS])}


def test_a_changed_joints_table_redoes_its_own_work_alone(capfd):
    write_motions("ab", "x-000")
    write_motions("cd", "y-000")
    run()
    first = hash_outputs()
    write_motions("cd", "y-000", c=50)
    capfd.readouterr()
    run()
    log = capfd.readouterr().err
    assert re.findall(r"tables, (\d+) kept|items, 0 kept from earlier runs, (\d+) to do", log) == [("1", ""), ("", "1")]
    changed = hash_outputs()
    assert {name for name in first if first[name] != changed[name]} == {"y-000-00000.parquet", "normalisation.json"}
    run(store="fresh")
    assert hash_outputs() == changed


def test_a_new_test_sequence_moves_only_the_views_of_those_after_it(capfd):
    write_motions("ad", "x-000")
    write_motions("ef", "y-000")
    run("test")
    write_motions("efg", "y-000")
    capfd.readouterr()
    run("test")
    assert "2 joints tables, 1 kept" in capfd.readouterr().err
    write_motions("abd", "x-000")
    run("test")
    assert "2 joints tables, 0 kept" in capfd.readouterr().err


def test_shards_and_row_groups_are_bounded_and_a_longer_sequence_is_alone():
    frames = {"a": 3000, "b": 4000, "c": 8000, "d": 2000}  # 1 MB is 6898 frames
    write_motions("abcd", **frames)
    run(num_views=2, shard_mb=1)
    shards = [pq.read_table(path, columns=["sequence", "view"]) for path in sorted(VIEWS.glob("*.parquet"))]
    found = ["".join(f"{row['sequence']}{row['view']} " for row in shard.to_pylist()).split() for shard in shards]
    assert found == [["a0"], ["b0"], ["c0"], ["d0", "a1"], ["b1"], ["c1"], ["d1"]]
    assert [path.name for path in sorted(VIEWS.glob("*.parquet"))][-1] == "s-000-00006.parquet"


def test_row_groups_hold_different_sequences(monkeypatch):
    monkeypatch.setattr(views_tasks, "ROW_GROUP_BYTES", 3 * 40 * 152)
    write_motions("abc")
    run(num_views=4)
    shards = ViewShards([VIEWS])
    assert [size.num_sequences for size in shards.sizes] == [3, 3, 3, 3]
    for number in range(len(shards)):
        assert [row.sequence for row in shards.read_group(number)] == ["a", "b", "c"]


def test_who_faces_nowhere_is_left_out_with_a_word(capfd):
    upright = make_motion(9)
    upright[:, [16, 17, 1, 2], :2] = 0.5
    write_joints(Path("data/joints/set/s-000.parquet"), [("s", "a", make_motion(1)), ("s", "up", upright)])
    write_joints(Path("data/joints/set/t-000.parquet"), [("t", "up", upright)])
    run()
    assert "goes on without t/up: shoulders and hips lie above one another" in capfd.readouterr().err
    assert {row.sequence for row in ViewShards([VIEWS])} == {"a"}
    rejects = json.loads((VIEWS / "rejects.json").read_text())
    assert [(row["sequence"], row["reason"]) for row in rejects] == [
        ("s/up", "faces_nowhere"),
        ("t/up", "faces_nowhere"),
    ]
    Path("data/joints/set/s-000.parquet").unlink()
    with pytest.raises(TableError, match=r"data/views/set: of 1 sequences none is left: shoulders"):
        run()


def test_normalisation_is_measured_on_the_rows_that_are_stored():
    write_motions("ab", "x-000", a=33)
    write_motions("c", "y-000", c=90)
    run(num_views=4)
    entries = np.concatenate([entries_from_points(row.points_TJ2) for row in ViewShards([VIEWS])])
    stored = json.loads((VIEWS / "normalisation.json").read_text())
    assert stored["count"] == 4 * (33 + 40 + 90)
    np.testing.assert_allclose(stored["mean_E2"], entries.mean(axis=0), atol=1e-14)
    np.testing.assert_allclose(stored["std_E2"], entries.std(axis=0), rtol=1e-13)


def test_the_shards_are_read_without_our_code():
    motions = write_motions("ab", "x-000", b=50)
    write_motions("c", "y-000")
    run(num_views=2)
    code = """
import sys, glob, json, pandas, pyarrow.parquet, datasets
datasets.disable_progress_bars()
files = sorted(glob.glob("data/views/set/*.parquet"))
tables = [
    [row for file in files for row in pyarrow.parquet.read_table(file).to_pylist()],
    [row for file in files for row in pandas.read_parquet(file).to_dict("records")],
    datasets.load_dataset("parquet", data_files=files, cache_dir="hf")["train"],
]
assert not any(name.split(".")[0] in ("tasks", "models", "flows") for name in sys.modules)
cells = [[(r["sequence"], int(r["view"]), len(r["points"]), float(r["points"][-1])) for r in table] for table in tables]
print(json.dumps(cells))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    by_pyarrow, by_pandas, by_datasets = json.loads(done.stdout)
    assert by_pyarrow == by_pandas == by_datasets
    assert [row[:3] for row in by_pyarrow[:3]] == [["a", 0, 40 * 38], ["b", 0, 50 * 38], ["a", 1, 40 * 38]]
    wanted = view_joints(motions["b"], random_view(1, "s/b/b", 0))[-1, NUM_JOINTS - 1, 1]
    assert by_pyarrow[1][3] == np.float32(wanted)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such file; it is named by views.evaluation_views"),
        (b"", "not an array that NumPy reads without unpickling"),
        (b"PK\x03\x04 not a zip", "not an array that NumPy reads without unpickling"),
        (np.array([{"a": 1}], dtype=object), "not an array that NumPy reads without unpickling"),
        (np.zeros(3), r"has shape \(3,\), where \(N, 3\) with N > 0 is needed"),
        (np.zeros((0, 3)), r"has shape \(0, 3\)"),
        (np.array([[0, 0, 1], [0, np.nan, 0]]), r"row 1 is \[0.0, nan, 0.0\]; finite angles \(rad\) are needed"),
        (np.array([["a", "b", "c"]]), "holds <U1, where one array of numbers"),
    ],
)
def test_a_file_of_evaluation_views_that_is_none_is_one_line(content, message):
    path = Path("views.npy")
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content, allow_pickle=True)
    write_motions()
    with pytest.raises(SourceError, match=r"^views\.npy: .*" + message) as caught:
        run("test")
    assert "\n" not in str(caught.value)
    assert not VIEWS.exists()


def test_an_empty_subset_is_one_line():
    write_joints(Path("data/joints/set/s-000.parquet"), [])
    with pytest.raises(TableError, match=r"data/joints/set: no sequence; check `only` and `without`"):
        run()
    Path("data/joints/set/s-000.parquet").unlink()
    with pytest.raises(TableError, match="data/joints/set: holds no table; run the stage that makes it"):
        run()


def test_a_sequence_that_stands_twice_is_refused():
    write_motions("a", "x-000")
    write_motions("a", "y-000")
    with pytest.raises(TableError, match=r"y-000\.parquet: sequence s/a/a stands twice, also in x-000\.parquet"):
        run()


def test_joints_that_are_not_finite_are_refused_by_name():
    joints = make_motion()
    joints[3, 4, 1] = np.inf
    write_joints(Path("data/joints/set/s-000.parquet"), [("s", "a", joints)])
    with pytest.raises(TableError, match=r"s-000\.parquet: sequence s/a is not 40 frames of 52 x 3 finite numbers"):
        run()
