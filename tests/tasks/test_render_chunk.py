"""Chunks made by hand: a person who swings an arm in two keys, and nobody in the third."""

from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest

from models.renderer.methods import KeyPair, render_between
from models.skeleton import NUM_JOINTS, torso_length
from tasks.items import ItemStore
from tasks.render import RenderSettings, predict_joints
from tasks.render_chunk import ROWS, Gap, RenderChunk, ShotPart, has_frames, read_rows, render_chunk
from tasks.timeline import Moment
from tests.models.renderer.scenes import person, pose, texture
from tests.models.renderer.test_neural import make_folder
from tests.tasks.video_samples import FFMPEG, decode

SETTINGS = RenderSettings(
    key_step=1, motion="linear", method="warp", motion_model="", base="flow", renderer="", background="warp"
)
TIMES = np.array([0.0, 0.1, 0.2])


@pytest.fixture(scope="module")
def keys():
    """Pictures, mattes and joints of three keys."""
    behind = texture(256, 240, 7)
    joints = np.stack([pose(10), pose(70), np.zeros((NUM_JOINTS, 3))])
    seen = [person(joints_JD, behind) for joints_JD in joints[:2]]
    return [*(image for image, _ in seen), behind], [*(matte for _, matte in seen), None], joints


def make_chunk(folder, keys, **changes):
    pictures, mattes, joints = keys
    path = folder / "pictures.npy"
    np.save(path, np.stack(pictures))
    gaps = [
        Gap(key, TIMES[key], 0.1, [Moment(3 * key + j, 3 * key + j, j / 3) for j in range(3)], False, key == 2, part)
        for key, part in ((0, 0), (1, 0), (2, None))
    ]
    chunk = RenderChunk(
        key="abcd", pictures=path, gaps=gaps, mattes=mattes, parts=[ShotPart(0, TIMES, joints, torso_length(joints))],
        settings=SETTINGS, tick_s=1 / 30, first_tick=0, fps=Fraction(30), crf=10, ffmpeg=FFMPEG, frames_folder=folder,
    )  # fmt: skip
    return replace(chunk, **changes)


def frames_in(folder):
    return [cv2.imread(str(folder / f"frame_{n:06d}.png")) for n in range(9)]


def test_keys_pass_and_the_frames_between_are_the_methods_or_the_bases(tmp_path, keys):
    store, told = ItemStore(tmp_path / "items"), []
    record = render_chunk(make_chunk(tmp_path, keys), told.append, store)
    assert record == (3, 4, 2, 2)
    assert sum(told) == 9
    shown = frames_in(tmp_path)
    pictures, mattes, joints = keys
    for key in range(3):
        assert np.array_equal(shown[3 * key], pictures[key])
    predicted = list(predict_joints(TIMES, joints, np.array([0.1 / 3, 0.2 / 3]), SETTINGS))
    pair = KeyPair(*pictures[:2], tuple(mattes[:2]), joints[0], joints[1], torso_length(joints))
    expected = render_between("warp", pair, [1 / 3, 2 / 3], predicted, "flow")
    assert np.array_equal(shown[1], expected[0].image)
    assert np.array_equal(shown[2], expected[1].image)
    base = render_between("flow", KeyPair(*pictures[1:]), [1 / 3, 2 / 3])
    assert np.array_equal(shown[5], base[1].image)
    assert np.array_equal(shown[7], pictures[2])
    rows = read_rows(store.output("abcd"))
    assert rows["method"].to_pylist() == ["", "warp", "warp", "", "flow", "flow", "", "hold", "hold"]
    assert rows["posed_share"].to_pylist()[1] == pytest.approx(expected[0].posed_share)
    assert rows["posed_share"].to_pylist()[1] > 0
    assert rows["key_after"].to_pylist() == [0, 1, 1, 1, 2, 2, 2, 2, 2]
    assert len(decode(store.output("abcd") / "segment.mp4")) == 9
    assert not (tmp_path / "pictures.npy").exists()


def test_a_lost_picture_is_noticed(tmp_path, keys):
    store = ItemStore(tmp_path / "items")
    render_chunk(make_chunk(tmp_path, keys, settings=replace(SETTINGS, method="blend")), lambda _: None, store)
    rows = read_rows((store.output("abcd") / ROWS).parent)
    assert has_frames(rows, tmp_path)
    (tmp_path / "frame_000004.png").unlink()
    assert not has_frames(rows, tmp_path)


@pytest.mark.parametrize("behind", ["warp", "base"])
def test_a_trained_renderer_paints_where_somebody_is_seen(tmp_path, keys, behind):
    renderer = make_folder(tmp_path / "renderer")
    settings = replace(SETTINGS, method="neural", renderer=str(renderer), background=behind)
    store = ItemStore(tmp_path / "items")
    assert render_chunk(make_chunk(tmp_path, keys, settings=settings), lambda _: None, store) == (3, 4, 2, 2)
    rows = read_rows(store.output("abcd"))
    assert rows["method"].to_pylist() == ["", "neural", "neural", "", "flow", "flow", "", "hold", "hold"]
    assert 0 < rows["posed_share"].to_pylist()[1] < 1


def test_a_chunk_holds_the_nearer_key_across_a_cut(tmp_path, keys):
    chunk = make_chunk(tmp_path, keys)
    cut = [gap._replace(is_cut=gap.key == 0, part=None if gap.key == 0 else gap.part) for gap in chunk.gaps]
    render_chunk(replace(chunk, gaps=cut), lambda _: None, ItemStore(tmp_path / "items"))
    shown = frames_in(tmp_path)
    assert np.array_equal(shown[1], keys[0][0])
    assert np.array_equal(shown[2], keys[0][1])
