import pickle
import zipfile

import numpy as np
import pytest

from tasks.errors import ParamsError, SourceError
from tasks.mocap import (
    MotionError,
    Reason,
    choose_subjects,
    list_motions,
    open_positions,
    read_amass,
    read_amass_frames,
    subject_of,
    survey_motions,
)
from tests.sandbox import SHARED
from tests.tasks.amass_files import amass_arrays, positions, write_amass, write_positions


@pytest.mark.parametrize("name", ["walk_poses.npz", "walk_stageii.npz"])
@pytest.mark.parametrize("gender", ["male", b"male", np.str_("Male")])
@pytest.mark.parametrize("key", ["mocap_framerate", "mocap_frame_rate"])
def test_both_names_both_genders_and_both_rate_keys_are_read(tmp_path, name, gender, key):
    fps = 120.00004577636719
    extra = {"marker_data": np.zeros((3, 2)), "labels": np.array([None, "a"], object), "num_betas": np.array(16)}
    path = tmp_path / name
    write_amass(path, drop=["mocap_framerate"], change={key: np.array(fps), "gender": np.array(gender), **extra})
    motion = read_amass(path)
    assert (motion.num_frames, motion.fps, motion.gender) == (120, fps, "male")
    assert (motion.num_betas, motion.num_dmpls) == (16, 0)


def test_ten_betas_dmpls_and_float32_are_read(tmp_path):
    arrays = amass_arrays(num_betas=10, num_dmpls=8)
    write_amass(tmp_path / "a_poses.npz", change={k: v.astype("f4") for k, v in arrays.items() if v.ndim})
    motion = read_amass(tmp_path / "a_poses.npz")
    assert (motion.num_betas, motion.num_dmpls) == (10, 8)
    assert read_amass_frames(tmp_path / "a_poses.npz", 0, 9, with_dmpls=True).dmpls_NS.dtype == np.float32


def test_any_run_of_frames_is_the_arrays_own(tmp_path):
    path = tmp_path / "a_poses.npz"
    arrays = write_amass(path, num_frames=300, num_dmpls=8, change={})
    for start, stop in ((0, 300), (0, 1), (37, 251), (299, 300)):
        frames = read_amass_frames(path, start, stop, with_dmpls=True)
        np.testing.assert_array_equal(frames.poses_NP, arrays["poses"][start:stop])
        np.testing.assert_array_equal(frames.trans_ND, arrays["trans"][start:stop])
        np.testing.assert_array_equal(frames.dmpls_NS, arrays["dmpls"][start:stop])
        np.testing.assert_array_equal(frames.betas_B, arrays["betas"])
        assert frames.poses_NP.dtype == np.float64
    assert read_amass_frames(path, 0, 5, with_dmpls=False).dmpls_NS is None


def test_columns_that_stand_one_after_the_other_are_read_too(tmp_path):
    path = tmp_path / "a_poses.npz"
    arrays = write_amass(path, change={"poses": np.asfortranarray(amass_arrays()["poses"])})
    np.testing.assert_array_equal(read_amass_frames(path, 5, 50, with_dmpls=False).poses_NP, arrays["poses"][5:50])


@pytest.mark.parametrize(
    ("change", "drop", "reason", "detail"),
    [
        ({}, ["trans"], Reason.MISSING_KEY, "lacks trans"),
        ({}, ["mocap_framerate"], Reason.MISSING_KEY, "lacks mocap_framerate or mocap_frame_rate"),
        ({"poses": np.zeros((120, 72))}, [], Reason.WRONG_SHAPE, r"poses are \(120, 72\), not \(frames, 156\)"),
        ({"poses": np.zeros((120, 165))}, [], Reason.WRONG_SHAPE, "SMPL-X's, take the SMPL\\+H download"),
        ({"poses": np.zeros((120, 156), int)}, [], Reason.WRONG_SHAPE, "poses is of int64"),
        ({"trans": np.zeros((119, 3))}, [], Reason.WRONG_SHAPE, r"trans is \(119, 3\), not \(120, 3\)"),
        ({"betas": np.zeros((1, 16))}, [], Reason.WRONG_SHAPE, r"betas are \(1, 16\)"),
        ({"betas": np.zeros(300)}, [], Reason.WRONG_SHAPE, r"betas are \(300,\)"),
        ({"dmpls": np.zeros((7, 8))}, [], Reason.WRONG_SHAPE, r"dmpls are \(7, 8\)"),
        ({"gender": np.array("robot")}, [], Reason.WRONG_GENDER, "gender is 'robot'"),
        ({"gender": np.array(["male"])}, [], Reason.WRONG_GENDER, r"gender is \(1,\)"),
        ({"gender": np.array(1.0)}, [], Reason.WRONG_GENDER, "float64, not one word"),
        ({"gender": np.array(["male"], object)}, [], Reason.PICKLED, "gender holds pickled objects"),
        ({"poses": np.array([None])}, [], Reason.PICKLED, "poses holds pickled objects"),
        ({"mocap_framerate": np.array(0.0)}, [], Reason.WRONG_RATE, "0.0 frames a second, not 10 to 2000"),
        ({"mocap_framerate": np.array(np.nan)}, [], Reason.WRONG_RATE, "nan frames a second"),
        ({"mocap_framerate": np.array("fast")}, [], Reason.WRONG_RATE, "not one number"),
    ],
)
def test_a_motion_with_a_fault_is_rejected_with_the_reason(tmp_path, change, drop, reason, detail):
    path = tmp_path / "a_poses.npz"
    write_amass(path, drop=drop, change=change)
    with pytest.raises(MotionError, match=detail) as caught:
        read_amass(path)
    assert caught.value.reason is reason


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def test_nothing_is_ever_unpickled(tmp_path):
    path = tmp_path / "a_poses.npz"
    write_amass(path, change={"gender": np.array(Bomb(), object), "betas": np.array([Bomb()], object)})
    with pytest.raises(MotionError, match="betas holds pickled"):
        read_amass(path)
    write_amass(path, drop=["gender"])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("gender.npy", pickle.dumps(Bomb()))
    with pytest.raises(MotionError) as caught:
        read_amass(path)
    assert caught.value.reason is Reason.UNREADABLE


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_file_is_unreadable(tmp_path, keep):
    path = tmp_path / "a_poses.npz"
    write_amass(path)
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])
    with pytest.raises(MotionError) as caught:
        read_amass(path)
    assert caught.value.reason is Reason.UNREADABLE


def test_a_damaged_array_is_found_when_its_end_is_read(tmp_path):
    path = tmp_path / "a_poses.npz"
    arrays = amass_arrays()
    np.savez(path, **arrays)
    data = bytearray(path.read_bytes())
    place = data.index(arrays["poses"].tobytes()[-64:])
    data[place + 3] ^= 0xFF  # in the last frame: no rate or shape tells
    path.write_bytes(data)
    assert read_amass(path).num_frames == 120
    with pytest.raises(MotionError, match="CRC") as caught:
        read_amass_frames(path, 10, 120, with_dmpls=False)
    assert caught.value.reason is Reason.UNREADABLE


def test_a_header_that_promises_more_than_there_is_is_refused_before_memory_is_taken(tmp_path):
    path = tmp_path / "a_poses.npz"
    write_amass(path, drop=["poses"])
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 156), }".ljust(117) + "\n"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("poses.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    with pytest.raises(MotionError, match="poses is shorter than its header says"):
        read_amass(path)


@pytest.mark.parametrize(
    ("key", "row", "value"), [("poses", 50, np.nan), ("trans", 11, np.inf), ("betas", 3, np.nan), ("dmpls", 60, np.nan)]
)
def test_a_number_that_is_not_finite_is_named_with_its_row(tmp_path, key, row, value):
    path = tmp_path / "a_poses.npz"
    arrays = amass_arrays(num_dmpls=8)
    arrays[key][row] = value
    write_amass(path, change=arrays)
    with pytest.raises(MotionError, match=rf"{key}: row {row} is not finite"):
        read_amass_frames(path, 10, 100, with_dmpls=True)


def test_what_is_no_motion_is_told_from_a_broken_one(tmp_path):
    np.savez(tmp_path / "shape.npz", betas=np.zeros(16), gender=np.array("male"))
    np.savez(tmp_path / "male_stagei.npz", betas=np.zeros(16))
    (tmp_path / "notes.npz").write_text("no archive")
    write_amass(tmp_path / "walk.npz")
    for name in ("shape.npz", "male_stagei.npz", "notes.npz"):
        assert read_amass(tmp_path / name) is None
    assert read_amass(tmp_path / "walk.npz").num_frames == 120


def test_subjects_are_named_by_dataset_and_folder(tmp_path):
    folder = tmp_path / "amass" / "CMU"
    assert subject_of(folder / "01" / "01_01_poses.npz", folder) == "CMU/01"
    assert subject_of(folder / "x_poses.npz", folder) == "CMU"


def test_subjects_are_chosen_by_id_or_its_last_part():
    found = ["CMU/01", "CMU/02", "CMU/03"]
    assert choose_subjects(found, [], [], "mocap.cmu") == set(found)
    assert choose_subjects(found, ["01", "CMU/02"], [], "mocap.cmu") == {"CMU/01", "CMU/02"}
    assert choose_subjects(found, [], ["02"], "mocap.cmu") == {"CMU/01", "CMU/03"}
    with pytest.raises(ParamsError, match=r"mocap\.cmu\.without: '2' is no subject; there are CMU/01, CMU/02, CMU/03"):
        choose_subjects(found, [], ["2"], "mocap.cmu")
    with pytest.raises(ParamsError, match=r"mocap\.cmu: `only` and `without` leave none"):
        choose_subjects(found, ["01"], ["01"], "mocap.cmu")


def test_an_empty_or_missing_folder_says_where_to_register_and_what_to_put_there(tmp_path):
    (tmp_path / "empty").mkdir()
    for name, state in (("empty", "holds no motion"), ("gone", "is not there")):
        with pytest.raises(SourceError, match=rf"{name}: {state}; DATASET/SUBJECT/\*_poses.npz files") as caught:
            list_motions(tmp_path / name, "amass")
        for word in ("amass.is.tue.mpg.de", "mano.is.tue.mpg.de", "data/raw/given", "stand-ins in data/raw/embedded"):
            assert word in str(caught.value)


def test_a_positions_file_with_other_columns_is_refused(tmp_path):
    write_positions(tmp_path / "a.parquet", [("s", "p", "CC0", 60, positions(40))])
    assert open_positions(tmp_path / "a.parquet").num_row_groups == 1
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(MotionError) as caught:
        open_positions(tmp_path / "b.parquet")
    assert caught.value.reason is Reason.UNREADABLE


def test_a_survey_counts_motions_seconds_and_problems(tmp_path):
    write_amass(tmp_path / "s/a_poses.npz", num_frames=240, fps=120.0)
    write_amass(tmp_path / "s/b_poses.npz", num_frames=100, fps=100.0)
    write_amass(tmp_path / "s/c_poses.npz", drop=["betas"])
    np.savez(tmp_path / "s/shape.npz", betas=np.zeros(16))
    found = survey_motions(tmp_path, "amass")
    assert (found.num_motions, found.num_others, found.duration_s) == (2, 1, 3.0)
    assert [(p.file, p.reason, p.detail) for p in found.problems] == [
        ("s/c_poses.npz", Reason.MISSING_KEY, "lacks betas")
    ]


@pytest.mark.skipif(not (SHARED / "mocap").is_dir(), reason="the real motion capture of ../shared is not here")
def test_the_real_position_files_are_read():
    found = survey_motions(SHARED / "mocap", "positions")
    assert found.num_motions == 336  # as its README says: 173 + 163
    assert found.problems == []
    assert found.duration_s == pytest.approx(3600 * (0.346 + 0.099), rel=0.01)
