import json
from dataclasses import asdict

import cv2
import numpy as np
import pytest
import torch

from models.checkpoint import build_network, save
from models.motion.tangents import TangentNetwork
from models.motion.transformer import MotionTransformer
from tasks.errors import SourceError, TableError
from tasks.evaluate_motion import (
    MotionTest,
    evaluate_motion,
    load_network,
    plot_rows,
    read_test_clips,
    summarise,
    write_animation,
)
from tasks.video import ffmpeg_path
from tasks.view_shards import ViewShards, read_normalisation
from tests.tasks.test_train_motion import NETWORK, TRANSFORMER
from tests.tasks.test_view_shards import make_shards


@pytest.fixture
def test(tmp_path):
    return MotionTest(
        train=[make_shards(tmp_path, "train", "ab")],
        test=[
            make_shards(tmp_path, "held", "c", num_views=1, lengths=40),
            make_shards(tmp_path, "more", "d", num_views=1, lengths=16),
        ],
        model=tmp_path / "model",
        key_steps=[4, 16],
        max_frames=321,
        noise_keys=(1, 1, 1),
        seed=1,
    )


def make_model(test, name="tangents"):
    torch.manual_seed(1)
    config = NETWORK if name == "tangents" else TRANSFORMER
    network = build_network(name, asdict(config))
    assert isinstance(network, TangentNetwork | MotionTransformer)
    network.rows.set(read_normalisation(test.train))
    save(test.model, network, config, {})


def test_clips_are_the_middles_of_the_test_sequences_that_are_long_enough(test):
    (clip,) = read_test_clips(test)
    assert (clip.name, clip.subject) == ("held/s/c", "held/s")
    (row,) = ViewShards(test.test[:1])
    np.testing.assert_array_equal(clip.points_TJ2, row.points_TJ2[3:36])
    assert clip.points_TJ2.base is None  # does not hold its row group in memory


@pytest.mark.parametrize("network", ["tangents", "transformer"])
def test_a_network_is_scored_beside_the_classical_methods(test, network):
    make_model(test, network)
    done = []
    result = evaluate_motion(test, lambda: done.append(1))
    assert len(done) == 1
    found = json.loads(json.dumps(summarise(result), allow_nan=False))
    assert (found["network"], found["num_clips"], found["num_frames"], found["subjects"]) == (
        network,
        1,
        33,
        ["held/s"],
    )
    for step in ("step_4", "step_16"):
        assert set(found[step]) == {"clean", "noisy", "mirrored"}
        for scores in found[step].values():
            assert set(scores["measures"]) == {network, "linear", "cubic", "pchip", "robust"}
            assert set(scores["mae_ratio"]) == {"linear", "cubic", "pchip", "robust"}
            for method, ratio in scores["mae_ratio"].items():
                assert ratio == scores["measures"][network]["mae"] / scores["measures"][method]["mae"]
    rows = plot_rows(result)
    assert len(rows) == 2 * 3 * 5
    assert {
        "key_step": 4,
        "method": "cubic, clean",
        "mae": found["step_4"]["clean"]["measures"]["cubic"]["mae"],
    } in rows
    assert summarise(evaluate_motion(test, lambda: None)) == summarise(result)


def test_an_untrained_network_of_tangents_is_the_cubic_spline_on_clean_keys(test):
    make_model(test)
    scores = evaluate_motion(test, lambda: None).scores
    for step in (4, 16):
        clean = scores[step]["clean"]
        assert clean["tangents"].measures == pytest.approx(clean["cubic"].measures, rel=1e-3)


def test_the_animation_shows_keys_network_a_classical_method_and_truth_side_by_side(test, tmp_path):
    make_model(test)
    clips = read_test_clips(test)
    paths = [tmp_path / "one.mp4", tmp_path / "two.mp4"]
    for path in paths:
        write_animation(path, test, clips, ffmpeg_path("pinned"))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    film = cv2.VideoCapture(str(paths[0]))
    frames = []
    while True:
        ok, frame = film.read()
        if not ok:
            break
        frames.append(frame)
    film.release()
    assert len(frames) == 2 * 33  # clean keys, then noisy ones
    assert frames[0].shape == (280, 4 * 280, 3)
    panels = [[frame[30:240, i * 280 + 4 : (i + 1) * 280].astype(int) for i in range(4)] for frame in frames]
    keys, network, cubic, truth = panels[5]
    assert truth.max() > 150  # a figure is drawn
    assert np.abs(network - cubic).mean() < np.abs(truth - cubic).mean()  # untrained, it is the spline
    assert np.abs(keys - panels[0][0]).mean() < 1  # held until the next key
    assert np.abs(keys - panels[16][0]).mean() > 1
    is_marked = [frame[10:22, 3 * 280 + 230 : 3 * 280 + 242].max() > 150 for frame in frames]
    assert [number for number, marked in enumerate(is_marked) if marked] == [0, 16, 32, 33, 49, 65]  # the keys


def test_what_cannot_be_scored_is_one_line(test, tmp_path):
    with pytest.raises(SourceError, match=r"model/config\.json: there is no such file.*; run stage train_motion$"):
        load_network(test.model)
    short = test.__class__(**{**test.__dict__, "test": test.test[1:]})
    with pytest.raises(TableError, match=r"views/more: no test sequence has 17 frames to score"):
        read_test_clips(short)
    leaking = test.__class__(**{**test.__dict__, "test": [make_shards(tmp_path, "copy", "a")]})
    with pytest.raises(TableError, match=r"sequence copy/s/a of copy \(test\) is also in train \(train\)"):
        read_test_clips(leaking)
