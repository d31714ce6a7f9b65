"""Folders of the 2021 authors' scripts in, our poses out, and back."""

import json

import numpy as np
import pyarrow as pa
import pytest

from models.skeleton import Joint
from tasks.errors import SourceError, TableError
from tasks.export_poses import export_poses
from tasks.import_folders import import_backgrounds, import_poses
from tasks.import_record import Import
from tasks.pose import PoseSequence, read_openpose
from tasks.tables import POSE_SCHEMA, Table, write_table
from tests.tasks.h5_files import SIZE, joints, picture
from tests.tasks.openpose_samples import person_at


def run(do, source, tmp_path, frames=None, name="mine"):
    work = Import(source, tmp_path / "staging" / name, tmp_path / "imports" / name, "x", {})
    done = []
    said = do(source, work, frames or {}, done.append)
    return tmp_path / "imports" / name, said


def write_json(folder, names, x=50):
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text(json.dumps({"version": 1.3, "people": [person_at(x, 60, hands=True)]}))


def write_pngs(folder, names):
    folder.mkdir(parents=True)
    for value, name in enumerate(names):
        (folder / name).write_bytes(picture(value))


def test_poses_keep_the_frames_of_their_names(tmp_path):
    write_json(tmp_path / "in/a", ["v_000000000012_keypoints.json", "v_000000000013_keypoints.json"])
    write_json(tmp_path / "in/b", ["frame00007_keypoints.json"])
    write_json(tmp_path / "in/c", ["frame00009.json"])
    folder, said = run(import_poses, tmp_path / "in", tmp_path)
    assert said == "3 clips, 4 frames"
    assert [path.name for path in sorted((folder / "poses/a").iterdir())] == [
        "a_000000000012_keypoints.json",
        "a_000000000013_keypoints.json",
    ]
    image = np.zeros((200, 200, 3), np.uint8)
    found = read_openpose(folder / "poses/c", PoseSequence("c", [9], [image]))
    np.testing.assert_allclose(found.tracked_TJD[0, Joint.NECK, :2], [50, 60])
    assert json.loads((folder / "import.json").read_text())["contents"] == {"clips": 3, "frames": 4, "left_out": {}}


def test_files_counted_from_nought_are_given_the_catalogues_frames_in_order(tmp_path):
    write_json(tmp_path / "in/a", [f"{n:06d}_keypoints.json" for n in range(3)])
    folder, _ = run(import_poses, tmp_path / "in", tmp_path, {"a": (100, 104, 108)})
    assert [path.name[2:14] for path in sorted((folder / "poses/a").iterdir())] == [
        f"{n:012d}" for n in (100, 104, 108)
    ]
    with pytest.raises(SourceError, match=r"holds 3 files, which are not the 4 frames .*; frame 100 is missing"):
        run(import_poses, tmp_path / "in", tmp_path, {"a": (100, 104, 108, 112)}, "other")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("pose.json", "{}", "pose.json: its name has no frame number"),
        ("f_2.json", "{", "f_2.json: not a JSON file as OpenPose writes it"),
        ("g_1.json", '{"people": []}', "frame 1 is there twice"),
    ],
)
def test_what_is_no_pose_is_named(tmp_path, name, text, message):
    write_json(tmp_path / "in/a", ["f_1.json"])
    (tmp_path / "in/a" / name).write_text(text)
    with pytest.raises(SourceError, match=message):
        run(import_poses, tmp_path / "in", tmp_path)
    assert not (tmp_path / "imports").exists()


def test_folders_without_clips_are_named(tmp_path):
    with pytest.raises(SourceError, match="there is no such file or folder"):
        run(import_poses, tmp_path / "nowhere", tmp_path)
    (tmp_path / "in").mkdir()
    with pytest.raises(SourceError, match="holds no folder; it must hold one for each clip"):
        run(import_backgrounds, tmp_path / "in", tmp_path)


def test_pictures_between_frames_are_placed_by_their_times(tmp_path):
    names = [f"frame{frame:05d}_{time}.png" for frame in (12, 20) for time in ("0.000000", "0.250000", "0.500000")]
    write_pngs(tmp_path / "in/a", [*names, "frame00012_0.750000.png", "frame00028_0.000000.png"])
    folder, said = run(import_backgrounds, tmp_path / "in", tmp_path)
    table = Table("background", folder / "backgrounds/a.parquet")
    assert said == "1 clips, 5 pictures"
    assert table.frames.tolist() == [14, 16, 18, 22, 24]
    assert [int(table.read_image(row)[0, 0, 0]) for row in range(5)] == [1, 2, 6, 4, 5]
    assert (table.metadata["key_step"], set(table.column("use"))) == ("4", {"render"})


def test_the_catalogue_places_pictures_where_frames_are_irregular(tmp_path):
    write_pngs(tmp_path / "in/a", ["frame01841_0.500000.png", "frame01850_0.500000.png"])
    folder, _ = run(import_backgrounds, tmp_path / "in", tmp_path, {"a": (1841, 1846, 1850, 1854, 1858)})
    table = Table("background", folder / "backgrounds/a.parquet")
    assert (table.frames.tolist(), table.metadata["key_step"]) == ([1846, 1854], "2")
    with pytest.raises(SourceError, match=r"frame01841_0\.500000\.png: nothing tells which frame it is"):
        run(import_backgrounds, tmp_path / "in", tmp_path, name="without")


def test_pictures_for_training_stand_for_the_frame_after_the_one_they_are_named_by(tmp_path):
    write_pngs(tmp_path / "in/a", [f"train-frame{frame:05d}_0.500000.png" for frame in (4, 8, 12)])
    folder, _ = run(import_backgrounds, tmp_path / "in", tmp_path, {"a": (4, 8, 12, 16, 20)})
    table = Table("background", folder / "backgrounds/a.parquet")
    assert (table.frames.tolist(), table.metadata["key_step"]) == ([8, 12, 16], "1")
    assert set(table.column("use")) == {"train"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["0001.png"], "no name of DAIN's pictures: FRAME_TIME.png"),
        (["f1_0.500000.png", "train-f1_0.500000.png"], "holds pictures for training and others"),
        (["f1_0.000000.png"], "holds the frames themselves alone"),
        (["f1_0.300000.png", "f1_0.500000.png"], r"its times \(0.3, 0.5, ...\) are no equal steps"),
    ],
)
def test_names_that_say_no_time_are_named(tmp_path, names, message):
    write_pngs(tmp_path / "in/a", names)
    with pytest.raises(SourceError, match=message):
        run(import_backgrounds, tmp_path / "in", tmp_path)


def test_poses_go_out_and_come_back(tmp_path):
    """19 joints as BODY_25 and hands, read by our own OpenPose reader."""
    given = joints(4).clip(max=[np.inf, np.inf, 1]).astype(np.float32)
    given[1, [Joint.LEFT_HAND, Joint.NOSE]] = 0
    given[2] = 0
    rows = pa.Table.from_arrays(
        [
            pa.array([10, 14, 18, 22], pa.int32()),
            pa.array(["truth"] * 4),
            pa.FixedSizeListArray.from_arrays(pa.array(given.reshape(-1)), 57),
            pa.nulls(4, pa.list_(pa.float32())),
            pa.nulls(4, pa.binary()),
        ],
        schema=POSE_SCHEMA,
    )
    write_table("pose", tmp_path / "poses/a.parquet", [rows], {"clip": "a"})
    said = export_poses(tmp_path / "poses", "truth", tmp_path / "out", lambda _: None)
    assert said.endswith("4 frames of 1 clips, pass truth")
    text = json.loads((tmp_path / "out/a/a_000000000010_keypoints.json").read_text())["people"][0]
    assert [len(text[f"{part}_keypoints_2d"]) for part in ("pose", "hand_left", "hand_right")] == [75, 63, 63]
    assert text["pose_keypoints_2d"][19 * 3] == pytest.approx(given[0, Joint.LEFT_BIG_TOE, 0])
    assert json.loads((tmp_path / "out/a/a_000000000018_keypoints.json").read_text())["people"] == []
    folder, _ = run(import_poses, tmp_path / "out", tmp_path)
    back = read_openpose(folder / "poses/a", PoseSequence("a", [10, 14, 18, 22], [np.zeros((*SIZE, 3), np.uint8)] * 4))
    np.testing.assert_allclose(back.tracked_TJD, given, atol=1e-3)
    np.testing.assert_array_equal(back.tracked_TJD[..., 2] > 0, given[..., 2] > 0)
    with pytest.raises(SourceError, match="a: is there already"):
        export_poses(tmp_path / "poses", "truth", tmp_path / "out", lambda _: None)
    with pytest.raises(TableError, match="has no pass 'observed-8'"):
        export_poses(tmp_path / "poses", "observed-8", tmp_path / "elsewhere", lambda _: None)
