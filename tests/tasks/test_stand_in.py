"""The stand-ins: what is embedded is what the code makes, and it is a person's motion."""

import filecmp
from pathlib import Path

import numpy as np
import pytest

from models.body import compute_joints, load_body
from tasks.mocap import read_amass, survey_motions
from tasks.stand_in import SUBJECTS, write_stand_ins
from tests.sandbox import ROOT

EMBEDDED = ROOT / "data/raw/embedded"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stand-ins")
    write_stand_ins(folder)
    return folder


def files_of(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def motions_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("amass/*/*/*_poses.npz"))


def joints_of(folder: Path, path: Path):
    with np.load(path) as file:
        arrays = dict(file)
    motion = read_amass(path)
    body = load_body(folder / f"body_models/smplh/{motion.gender}/model.npz")
    return compute_joints(body, arrays["poses"], arrays["trans"], arrays["betas"]).astype(float), motion.fps


def test_the_same_bytes_each_time(folder, tmp_path):
    write_stand_ins(tmp_path)
    assert files_of(tmp_path) == files_of(folder)
    assert filecmp.cmpfiles(folder, tmp_path, files_of(folder), shallow=False)[1:] == ([], [])


@pytest.mark.skipif(not EMBEDDED.is_dir(), reason="the embedded data is not here yet; run `inbetween data`")
def test_what_is_embedded_is_what_the_code_makes(folder):
    # Values, not bytes: another processor's last bit may round another way, another zlib pack another way.
    for name in files_of(folder):
        if name.suffix == ".npz":
            with np.load(folder / name) as made, np.load(EMBEDDED / name) as kept:
                assert made.files == kept.files
                for key in made.files:
                    if made[key].dtype.kind == "f":
                        np.testing.assert_allclose(made[key], kept[key], atol=2.0**-13, rtol=0)
                    else:
                        np.testing.assert_array_equal(made[key], kept[key])
        else:
            assert (EMBEDDED / name).read_bytes() == (folder / name).read_bytes()


def test_both_forms_of_everything_are_among_them(folder):
    keys, genders, rates = set(), set(), set()
    for path in motions_of(folder):
        with np.load(path) as file:
            keys |= set(file.files)
            genders.add(file["gender"].dtype.kind)
            rates.add(read_amass(path).fps)
    assert {"mocap_framerate", "mocap_frame_rate", "dmpls"} < keys
    assert genders == {"U", "S"}
    assert rates == {100.0, 120.0, 120.00004577636719}
    for subset, subjects in SUBJECTS.items():
        found = survey_motions(folder / "amass" / subset, "amass")
        assert found.num_motions == sum(len(subject.takes) for subject in subjects)
        assert found.num_others == len(subjects)
        assert found.problems == []
    assert not {s.name for s in SUBJECTS["train"]} & {s.name for s in SUBJECTS["test"]}
    assert sum((folder / name).stat().st_size for name in files_of(folder)) < 3e6


def test_the_motions_are_a_persons(folder):
    """Upright, feet at the floor, nothing faster than a kick, nothing that jerks."""
    for path in motions_of(folder):
        joints, fps = joints_of(folder, path)
        heights = joints[..., 2]
        lowest = heights[:, [7, 8, 10, 11]].min(axis=1)
        assert lowest.min() > 0.005, path
        assert np.percentile(lowest, 20) < 0.03, path
        assert (heights[:, 15] > heights[:, 0] + 0.2).all(), path  # the head over the pelvis
        assert 1.2 < np.median(heights[:, 15]) < 2.0, path
        speeds = np.linalg.norm(np.diff(joints, axis=0), axis=-1) * fps
        assert 0.5 < speeds.max() < 12, path
        assert np.linalg.norm(np.diff(joints, n=2, axis=0), axis=-1).max() * fps**2 < 400, path


def test_a_foot_that_stands_does_not_slide(folder):
    for path in motions_of(folder):
        if path.name.startswith(("walk", "kick", "squat")):
            joints, fps = joints_of(folder, path)
            for toe in (10, 11):
                stands = joints[1:, toe, 2] < joints[:, toe, 2].min() + 0.008
                speed = np.linalg.norm(np.diff(joints[:, toe, :2], axis=0), axis=-1)[stands] * fps
                assert np.median(speed) < 0.25, path


def test_a_jump_falls_as_gravity_says(folder):
    joints, fps = joints_of(folder, folder / "amass/train/ada/jump_poses.npz")
    flight = np.flatnonzero(joints[:, [7, 8, 10, 11], 2].min(axis=1) > 0.15)
    first = flight[: np.flatnonzero(np.diff(flight) > 1)[0] + 1] if (np.diff(flight) > 1).any() else flight
    # The pelvis, not the centre of mass: the legs' own motion is in it.
    fall = np.polyfit(first / fps, joints[first, 0, 2], 2)[0] * 2
    assert -16 < fall < -5


def test_views_are_in_their_range(folder):
    views = np.load(folder / "evaluation_views.npy")
    assert views.shape == (1000, 3)
    assert views.dtype == np.float64
    assert (views[:, 1] == 0).all()
    np.testing.assert_allclose(np.abs(views).max(axis=0), [0.2, 0, 1], atol=0.01)
