"""AlphaPose as a worker, against a stand-in that speaks its command line and writes its files (alphapose_stand_in)."""

import json
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from models.skeleton import Joint
from tasks.errors import ToolError
from tasks.items import hash_file
from tasks.people import read_people
from tasks.workers.alphapose import AlphaposeSettings, check_alphapose, run_alphapose
from tasks.workers.alphapose_results import read_results
from tests.tasks.alphapose_stand_in import BLUE, RED, TORSO_PX, write_checkout, write_pictures

PICTURES = {
    "a_000000000000.png": [(100, RED)],
    "a_000000000008.png": [(110, RED), (250, BLUE)],
    "b_000000000000.png": [],
    "b_000000000001.png": [(300, BLUE)],
}
HEAD_TOP = 17


@pytest.fixture
def settings(tmp_path, monkeypatch) -> AlphaposeSettings:
    monkeypatch.setenv("STAND_IN_CALLS", str(tmp_path / "calls"))
    home = write_checkout(tmp_path / "AlphaPose")
    return AlphaposeSettings(
        home,
        sys.executable,
        "configs/halpe.yaml",
        "pretrained_models/halpe.pth",
        None,
        "yolo",
        "default",
        0,
        5,
        64,
        20.0,
    )


@pytest.fixture
def run(tmp_path, settings, monkeypatch):
    def run(do="", gpu=1, on_progress=None, **changes):
        monkeypatch.setenv("STAND_IN_DO", do)
        pictures = write_pictures(tmp_path / "pictures", PICTURES)
        work = tmp_path / "work"
        work.mkdir()
        return run_alphapose(pictures, work, replace(settings, **changes), gpu, on_progress)

    return run


def calls(tmp_path):
    return [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]


def joints_of(tmp_path, person):
    path = tmp_path / "frame.json"
    path.write_text(json.dumps({"people": [person]}))
    return read_people(path, (400, 260))[0]


def test_each_picture_has_its_people_whatever_their_order_in_the_file(run, tmp_path):
    seen = []
    people = run(on_progress=lambda done, total: seen.append((done, total)))
    assert {name: len(listed) for name, listed in people.items()} == {name: len(p) for name, p in PICTURES.items()}
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    red = joints_of(tmp_path, people["a_000000000008.png"][0])
    x = 110 - 0.5
    np.testing.assert_allclose(red.joints_px_JD[Joint.NECK], [x, 60, 1], atol=1e-3)  # a score of 1.3 is 1
    np.testing.assert_allclose(
        red.joints_px_JD[Joint.LEFT_WRIST, :2], [x + 0.8 * TORSO_PX, 60 + 0.6 * TORSO_PX], atol=1e-3
    )
    np.testing.assert_allclose(
        red.joints_px_JD[Joint.RIGHT_BIG_TOE, :2], [x - 0.5 * TORSO_PX, 60 + 2.5 * TORSO_PX], atol=1e-3
    )
    assert red.joints_px_JD[Joint.LEFT_HAND, 2] == pytest.approx(0.7)
    assert not red.joints_px_JD[Joint.RIGHT_HAND].any()  # 21 points with hardly a score
    assert red.points_PD.shape == (136, 3)
    assert red.points_PD[18, 2] == pytest.approx(1.3)  # the raw points stay as they were written
    assert np.isnan(red.points_PD[26, 0])


def test_the_command_line_is_its_own_and_asks_for_no_tracker(run, tmp_path):
    run(output="default", min_box_area=100)
    (call,) = calls(tmp_path)
    assert call["gpu"] == "1"
    assert (call["gpus"], call["detbatch"], call["posebatch"], call["detector"]) == ("0", 5, 64, "yolo")
    assert (call["sp"], call["format"], call["min_box_area"]) == (True, "", 100)
    assert not any(call[name] for name in ("pose_track", "pose_flow", "save_img", "vis", "eval"))


def test_without_a_gpu_it_runs_on_the_processor(run, tmp_path):
    run(gpu=None)
    assert (calls(tmp_path)[0]["gpu"], calls(tmp_path)[0]["gpus"]) == ("", "-1")


@pytest.mark.parametrize("output", ["cmu", "open"])
def test_the_formats_of_18_points_give_the_body_and_neither_feet_nor_hands(run, tmp_path, output):
    """In their second place, for the neck, stands Halpe's top of the head: the neck is between the shoulders."""
    people = run(output=output)
    assert calls(tmp_path)[0]["format"] == output
    person = joints_of(tmp_path, people["b_000000000001.png"][0])
    x = 300 - 0.5
    np.testing.assert_allclose(person.joints_px_JD[Joint.NECK], [x, 60, 1], atol=1e-3)
    np.testing.assert_allclose(person.joints_px_JD[Joint.MID_HIP, :2], [x, 60 + TORSO_PX], atol=1e-3)
    np.testing.assert_allclose(
        person.joints_px_JD[Joint.LEFT_ANKLE, :2], [x + 0.4 * TORSO_PX, 60 + 2.4 * TORSO_PX], atol=1e-3
    )
    np.testing.assert_allclose(person.points_PD[HEAD_TOP, :2], [x, 60 - 0.7 * TORSO_PX], atol=1e-3)
    for joint in (Joint.LEFT_BIG_TOE, Joint.RIGHT_BIG_TOE, Joint.LEFT_HAND, Joint.RIGHT_HAND):
        assert not person.joints_px_JD[joint].any()


def test_the_2021_authors_open_format_is_read_as_body_25_and_hands(tmp_path):
    body = np.zeros((25, 3))
    body[[1, 8, 19]] = [(10, 20, 0.9), (10, 80, 0.9), (15, 160, 1.2)]
    hand = np.tile([30.0, 40.0, 0.5], (21, 1))
    person = {"pose_keypoints_2d": body.ravel().tolist(), "hand_left_keypoints_2d": hand.ravel().tolist()}
    content = {"a.png": {"version": "AlphaPose v0.3", "people": [person]}}
    (tmp_path / "alphapose-results.json").write_text(json.dumps(content))
    people = read_results(tmp_path, ["a.png", "b.png"])
    assert people["b.png"] == []
    joints = joints_of(tmp_path, people["a.png"][0]).joints_px_JD
    np.testing.assert_allclose(joints[Joint.NECK], [10, 20, 0.9], atol=1e-6)
    np.testing.assert_allclose(joints[Joint.LEFT_BIG_TOE], [15, 160, 1], atol=1e-6)
    np.testing.assert_allclose(joints[Joint.LEFT_HAND], [30, 40, 0.5], atol=1e-5)


def test_memory_that_does_not_do_is_tried_once_more_with_smaller_batches(run, tmp_path):
    people = run("out of memory")
    assert sum(map(len, people.values())) == 4
    assert [(call["detbatch"], call["posebatch"]) for call in calls(tmp_path)] == [(5, 64), (1, 16)]


@pytest.mark.parametrize(
    ("do", "message"),
    [
        ("always out of memory", "GPU's memory is too small, for batches of 1 pictures and 16 people too; lower alpha"),
        ("detector out of memory", "GPU's memory is too small, for batches of 1 pictures and 16 people too"),
        (
            "unfit",
            r"the checkpoint pretrained_models/halpe.pth does not fit the config configs/halpe.yaml; name the two",
        ),
        ("no module", r"its environment lacks a package; run `python setup.py build develop`.*easydict"),
        ("error", r"ValueError\('cannot reshape array of size 0'\) \(all its messages: .*alphapose.log\)"),
        ("picture", r"cv2.error: OpenCV.*cvtColor.*\(all its messages: "),
        ("killed", "was killed by signal 9"),
        ("nobody", "it found nobody in 4 pictures"),
        ("17 points", "a person of .* has 17 points, not 136; name a Halpe-136 config and checkpoint"),
    ],
)
def test_failures_are_one_line_though_it_stays_after_them(run, tmp_path, do, message):
    start = time.monotonic()
    with pytest.raises(ToolError, match=message) as caught:
        run(do)
    assert str(caught.value).startswith("alphapose: ")
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 15  # not its 600 s
    assert len(calls(tmp_path)) == (2 if "memory" in do else 1)


def test_silence_ends_it(run):
    with pytest.raises(ToolError, match=r"no word for 1\.5 s, so it was stopped"):
        run("silent", timeout_s=1.5)


def test_what_a_checkout_lacks_is_named(settings, tmp_path):
    assert check_alphapose(settings).startswith("halpe ")
    for change, message in (
        ({"home": tmp_path}, "ALPHAPOSE_HOME is .*, where there is no scripts/demo_inference.py"),
        ({"config": "configs/none.yaml"}, "alphapose.config: .*none.yaml is not there"),
        (
            {"checkpoint": "none.pth"},
            r"alphapose.checkpoint: .*none.pth is not there; get it \(its docs/MODEL_ZOO.md\)",
        ),
        ({"detector": "yolox-x"}, "weights of its detector yolox-x are missing: .*detector/yolox/data/yolox_x.pth"),
        ({"checkpoint_sha256": "0" * 64}, "its sha256 is .*, not alphapose.checkpoint_sha256"),
    ):
        with pytest.raises(ToolError, match=message):
            check_alphapose(replace(settings, **change))
    sha256 = hash_file(settings.home / settings.checkpoint)
    assert check_alphapose(replace(settings, checkpoint_sha256=sha256)) == check_alphapose(settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("DATA_PRESET: {NUM_JOINTS: 133}", "is of 133 points, where the whole body's 136 are needed"),
        ("MODEL: {}", "not a config of AlphaPose's: no DATA_PRESET.NUM_JOINTS"),
        ("a: [", "not a config of AlphaPose's"),
    ],
)
def test_config_of_another_skeleton_is_refused_before_anything_runs(settings, text, message):
    (settings.home / settings.config).write_text(text)
    with pytest.raises(ToolError, match=message) as caught:
        check_alphapose(settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "not results as AlphaPose writes them"),
        ('[{"keypoints": []}]', r"not results .*KeyError\('image_id'\)"),
        ('[{"image_id": "z.png", "keypoints": []}]', "names the picture z.png, which it was not given"),
        ('{"a.png": {"people": [{"pose_keypoints_2d": ["x"]}]}}', "no list of numbers"),
        (None, "it left no result files in .*, not alphapose-results.json"),
    ],
)
def test_results_that_are_none_are_named(tmp_path, text, message):
    if text is not None:
        (tmp_path / "alphapose-results.json").write_text(text)
    with pytest.raises(ToolError, match=message):
        read_results(tmp_path, ["a.png"])
