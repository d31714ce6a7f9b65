"""The 2021 authors' HDF5 sets as tables of ours: files made in their layouts (h5_files)."""

import errno
import json
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import h5py
import numpy as np
import pytest

from tasks.errors import SourceError
from tasks.import_h5 import Options, count_work, find_layout, import_h5
from tasks.import_record import Import
from tasks.joints_plan import Settings, Subset, plan_subset
from tasks.mocap import list_motions, open_positions, read_position_facts
from tasks.pose import PoseSequence
from tasks.pose_passes import read_imported
from tasks.tables import Table, read_poses
from tests.tasks.h5_files import SIZE, joints, motion, picture, write_amass, write_humanslomo, write_pictures

PLAIN = Options({}, {}, "research")


def run(path, tmp_path, options=PLAIN, name="mine"):
    layout = find_layout(path)
    work = Import(path, tmp_path / "staging" / name, tmp_path / "imports" / name, layout, {})
    amounts = []
    said = import_h5(path, layout, work, options, amounts.append)
    assert sum(amounts) == count_work(path, layout)
    return tmp_path / "imports" / name, said


def values(table):
    return [int(table.read_image(row)[0, 0, 0]) for row in range(table.num_rows)]


def test_humanslomo_becomes_clips_poses_and_backgrounds(tmp_path):
    path = write_humanslomo(tmp_path / "HumanSlomo.h5", {"test_001": 5}, {"02_Boxing_101": 6})
    folder, said = run(path, tmp_path, Options({"test_001": (10, 14, 18, 22, 26)}, {"": 25.0}, ""))
    assert said == "2 clips, 11 frames, 2 poses, 2 backgrounds"
    test, train = (Table("clip", folder / f"clips/{clip}.parquet") for clip in ("test_001", "02_Boxing_101"))
    assert test.frames.tolist() == [10, 14, 18, 22, 26]  # the catalogue's
    assert test.column("time").tolist() == [0, 4 / 25, 8 / 25, 12 / 25, 16 / 25]
    assert (train.frames.tolist(), train.metadata["split"], train.metadata["width"]) == ([*range(6)], "train", "16")
    assert values(test) == [0, 1, 2, 3, 4]
    assert test.read_picture(3) == picture(3)  # the file's own bytes
    behind = Table("background", folder / "backgrounds/test_001.parquet")
    assert (behind.frames.tolist(), values(behind), behind.metadata["key_step"]) == ([14, 22], [101, 103], "2")
    behind = Table("background", folder / "backgrounds/02_Boxing_101.parquet")
    assert (behind.frames.tolist(), values(behind)) == ([1, 2, 3, 4], [100, 101, 102, 103])
    assert (behind.column("use").tolist(), behind.metadata["key_step"]) == (["train"] * 4, "1")
    _, found = read_poses(Table("pose", folder / "poses/test_001.parquet"), "truth")
    given = np.minimum(joints(5), [np.inf, np.inf, 1])
    np.testing.assert_allclose(found, given, rtol=1e-6)


def test_the_record_names_the_file_by_its_bytes(tmp_path):
    path = write_humanslomo(tmp_path / "HumanSlomo.h5", {"a": 3}, {})
    folder, _ = run(path, tmp_path)
    record = json.loads((folder / "import.json").read_text())
    data = path.read_bytes()
    assert (record["file"], record["size"], record["sha256"]) == ("HumanSlomo.h5", len(data), sha256(data).hexdigest())
    assert record["contents"]["frames"] == 3
    assert sorted(path.name for path in folder.iterdir()) == ["backgrounds", "clips", "import.json", "poses"]
    assert not (tmp_path / "staging/mine").exists()
    with pytest.raises(SourceError, match="mine: is there already; name another with --name"):
        run(path, tmp_path)


def test_a_hash_that_must_wait_for_the_import_is_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.import_record._AHEAD_BYTES", 0)
    monkeypatch.setattr("tasks.import_record._BLOCK_BYTES", 100)
    path = write_amass(tmp_path / "AMASS_3D_joints.h5", {"CMU": {"01_a.npz": 70, "01_b.npz": 40}})
    folder, _ = run(path, tmp_path)
    assert json.loads((folder / "import.json").read_text())["sha256"] == sha256(path.read_bytes()).hexdigest()


def test_two_imports_are_the_same_bytes(tmp_path):
    path = write_humanslomo(tmp_path / "HumanSlomo.h5", {"a": 3}, {"a": 4})
    first, _ = run(path, tmp_path, name="first")
    second, _ = run(path, tmp_path, name="second")
    names = sorted(path.relative_to(first).as_posix() for path in first.rglob("*") if path.is_file())
    assert "clips/a-gt.parquet" in names  # both sides in one group: a clip each
    assert "poses/a-train.parquet" in names
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_jpeg_is_kept_as_png_and_counts_that_do_not_fit_are_left_out(tmp_path):
    with h5py.File(tmp_path / "HumanSlomo.h5", "w") as file:
        group = file.create_group("a")
        write_pictures(group, "gt_images", [picture(60, kind=".jpg")] * 3)
        write_pictures(group, "gt_dain", [picture(1)] * 7)
        group.create_dataset("gt_poses", data=np.zeros((2, 19, 3)))
    folder, said = run(tmp_path / "HumanSlomo.h5", tmp_path)
    table = Table("clip", folder / "clips/a.parquet")
    assert table.read_picture(0).startswith(b"\x89PNG")
    assert values(table) == [60, 60, 60]
    assert said == (
        "1 clips, 3 frames, 0 poses, 0 backgrounds; left out: a poses ((2, 19, 3), not (3, 19, 3));"
        " a backgrounds (7 pictures for 3 frames)"
    )


def test_amass_becomes_what_the_joints_stage_reads(tmp_path):
    path = write_amass(
        tmp_path / "AMASS_3D_joints.h5",
        {
            "ACCAD": {"s001_walk_poses.npz": 70, "s001_run_poses.npz": 90, "s002_x_poses.npz": 60},
            "CMU": {"01_01.npz": 40},
        },
    )
    folder, said = run(path, tmp_path, Options({}, {"": 60.0, "CMU": 120.0}, "research"))
    assert said == "2 datasets, 4 motions, 260 motion frames"
    rows = [
        row
        for file in list_motions(folder / "CMU", "positions")
        for row in read_position_facts(open_positions(file), 0)
    ]
    assert [(row.subject, row.fps, row.num_frames) for row in rows] == [("CMU/01", 120.0, 40)]
    file = open_positions(folder / "ACCAD/ACCAD-00000.parquet")
    table = file.read()
    assert table["sequence_id"].to_pylist() == ["ACCAD_s001_run_poses", "ACCAD_s001_walk_poses", "ACCAD_s002_x_poses"]
    assert table["subject"].to_pylist() == ["ACCAD/s001", "ACCAD/s001", "ACCAD/s002"]
    given = motion(70, 0).astype(np.float32).ravel()
    np.testing.assert_array_equal(table["joints"][1].values.to_numpy(), given)
    subset = Subset("accad", "positions", folder / "ACCAD", "research", [], [])
    plan = plan_subset(subset, Path("none"), Settings("own", False, 0.0, 33), lambda *parts: str(parts), 1)
    assert not plan.rejects
    assert len(plan.shards) == 2


def test_sets_that_hdf5_keeps_otherwise_become_the_same_tables(tmp_path):
    """Filters, chunks and other precision: what cannot be read past the library."""
    pictures, motions = [picture(n) for n in range(20)], {"01_a.npz": motion(70), "01_b.npz": motion(40, 1)}
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        write_pictures(file.create_group("a"), "gt_images", pictures)
    with h5py.File(tmp_path / "packed.h5", "w") as file:
        settings = {"chunks": (3,), "compression": "gzip", "dtype": h5py.vlen_dtype(np.uint8)}
        dataset = file.create_group("a").create_dataset("gt_images", (20,), **settings)
        for row, data in enumerate(pictures):
            dataset[row] = np.frombuffer(data, np.uint8)
    write_amass(tmp_path / "plain3d.h5", {"CMU": {"01_a.npz": 70, "01_b.npz": 40}})
    with h5py.File(tmp_path / "packed3d.h5", "w") as file:
        for number, (name, values) in enumerate(motions.items()):
            kind, chunks = (np.float32, None) if number else (np.float64, (16, 52, 3))
            file.create_group(f"CMU/{name}").create_dataset("joints", data=values.astype(kind), chunks=chunks)
    for plain, packed, table in (
        ("plain.h5", "packed.h5", "clips/a.parquet"),
        ("plain3d.h5", "packed3d.h5", "CMU/CMU-00000.parquet"),
    ):
        first, second = (run(tmp_path / name, tmp_path, name=name)[0] for name in (plain, packed))
        assert (first / table).read_bytes() == (second / table).read_bytes()


def test_a_disk_that_is_full_ends_the_import(tmp_path, monkeypatch):
    """What fails while tables are written comes out, also where the next ones are already read."""
    path = write_amass(tmp_path / "AMASS_3D_joints.h5", {f"D{n}": {"01_a.npz": 40} for n in range(12)})

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tasks.import_h5.sync_file", full)
    with pytest.raises(OSError, match="No space left"):
        run(path, tmp_path)
    assert not list(tmp_path.rglob("*-00000.parquet"))


def test_imported_poses_serve_a_pass_of_the_pose_stage(tmp_path):
    path = write_humanslomo(tmp_path / "HumanSlomo.h5", {"a": 9}, {})
    folder, _ = run(path, tmp_path)
    images = [np.zeros((*SIZE, 3), np.uint8)] * 3
    found = read_imported(folder / "poses/a.parquet", PoseSequence("a observed-4", [0, 4, 8], images))
    np.testing.assert_allclose(found.tracked_TJD, np.minimum(joints(9), [np.inf, np.inf, 1])[::4], rtol=1e-6)
    np.testing.assert_allclose(found.keypoints_TK.reshape(3, 19, 3), joints(9)[::4], rtol=1e-6)  # as they were given


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-5000]), "not a whole HDF5 file .*; get it again"),
        (lambda path: path.write_bytes(b"not one"), "not a whole HDF5 file"),
        (lambda path: h5py.File(path, "w").create_group("a").create_dataset("b", data=[1]), "neither HumanSlomo.h5"),
    ],
)
def test_files_that_are_none_are_named(tmp_path, spoil, message):
    path = write_humanslomo(tmp_path / "HumanSlomo.h5", {"a": 9}, {})
    spoil(path)
    with pytest.raises(SourceError, match=message) as caught:
        find_layout(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_damaged_picture_and_wrong_catalogue_are_named(tmp_path):
    path = write_humanslomo(tmp_path / "HumanSlomo.h5", {"a": 3}, {})
    with pytest.raises(SourceError, match="a has 3 frames and 2 in the catalogue"):
        run(path, tmp_path, Options({"a": (0, 1)}, {}, ""))
    with h5py.File(path, "a") as file:
        file["a/gt_images"][1] = np.frombuffer(b"no picture", np.uint8)
    with pytest.raises(SourceError, match=r"HumanSlomo\.h5: /a/gt_images row 1 is no picture"):
        run(path, tmp_path)
    assert not (tmp_path / "imports/mine").exists()


KILLED = """
import os, sys
from pathlib import Path
from tasks.import_h5 import Options, import_h5
from tasks.import_record import Import
path, folder, done = Path(sys.argv[1]), Path(sys.argv[2]), 0
def on_done(amount):
    global done
    done += amount
    if done > 40:
        os.kill(os.getpid(), 9)
import_h5(path, "HumanSlomo", Import(path, folder / "staging/mine", folder / "imports/mine", "HumanSlomo", {}),
          Options({}, {}, ""), on_done)
"""


def test_killed_half_way_it_goes_on_where_it_was(tmp_path):
    path = write_humanslomo(tmp_path / "HumanSlomo.h5", {f"test_{n:03d}": 9 for n in range(6)}, {})
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path), str(tmp_path)], cwd=Path(__file__).parents[2])
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "imports").exists()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "staging").rglob("test_*.parquet")}
    assert 2 <= len(before) < 18
    folder, _ = run(path, tmp_path)
    kept = {path.relative_to(tmp_path / "staging"): time for path, time in before.items()}
    assert all((folder.parent / name).stat().st_mtime_ns == time for name, time in kept.items())
    whole, _ = run(path, tmp_path, name="whole")
    for file in sorted(whole.rglob("*.parquet")):
        assert (folder / file.relative_to(whole)).read_bytes() == file.read_bytes()
    assert len(list(folder.rglob("*.parquet"))) == 18


def test_another_file_in_its_place_is_begun_anew(tmp_path):
    path = write_humanslomo(tmp_path / "HumanSlomo.h5", {f"test_{n:03d}": 9 for n in range(6)}, {})
    subprocess.run([sys.executable, "-c", KILLED, str(path), str(tmp_path)], cwd=Path(__file__).parents[2])
    assert (tmp_path / "staging/mine").is_dir()
    write_humanslomo(path, {"test_000": 3}, {})
    folder, _ = run(path, tmp_path)
    assert [path.name for path in (folder / "clips").iterdir()] == ["test_000.parquet"]


MEASURED = """
import resource, sys
from pathlib import Path
from tasks.import_h5 import Options, find_layout, import_h5
from tasks.import_record import Import
import h5py
path, folder = Path(sys.argv[1]), Path(sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
layout = find_layout(path)
import_h5(path, layout, Import(path, folder / "s", folder / "t", layout, {}), Options({}, {}, ""), lambda _: None)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_set(tmp_path):
    """Sets of 140 MB: incompressible pictures of 400 kB, and motions of 1,500 frames."""
    noise = np.random.default_rng(0)
    pictures = [cv2_png(noise.integers(0, 256, (300, 450, 3), dtype=np.uint8)) for _ in range(8)]
    with h5py.File(tmp_path / "HumanSlomo.h5", "w") as file:
        for clip in range(4):
            write_pictures(file.create_group(f"c{clip}"), "gt_images", [pictures[n % 8] for n in range(90)])
    write_amass(tmp_path / "AMASS_3D_joints.h5", {"CMU": {f"{n:02d}_01.npz": 1500 for n in range(80)}})
    for path in (tmp_path / "HumanSlomo.h5", tmp_path / "AMASS_3D_joints.h5"):
        size_mb = path.stat().st_size // 2**20
        assert size_mb > 120
        words = [sys.executable, "-c", MEASURED, str(path), str(tmp_path / path.stem)]
        done = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
        assert int(done.stdout) < 100, f"{path.name}: {done.stdout} MB for {size_mb} MB"


def cv2_png(image):
    import cv2

    return cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 0])[1].tobytes()
