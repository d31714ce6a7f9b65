"""The chooser's features, its arithmetic, and its file."""

import itertools

import numpy as np
import pytest
import torch

from models.renderer import chooser
from models.renderer.chooser import CELLS_PER_TORSO, FEATURES, Chooser, Posed, load_chooser, measure
from models.renderer.flow import FlowResult
from models.renderer.keys import WeightsError

HEIGHT, WIDTH, TORSO_PX = 84, 126, 84.0


def still(level):
    image = np.full((HEIGHT, WIDTH, 3), level, np.uint8)
    return FlowResult(image, image, image, np.zeros((2, HEIGHT, WIDTH, 2), np.float32))


def posed(**changes):
    zeros, ones = np.zeros((HEIGHT, WIDTH), np.float32), np.ones((HEIGHT, WIDTH), np.float32)
    facts = {
        "offsets_px_KHWD": np.zeros((2, HEIGHT, WIDTH, 2), np.float32),
        "pull_HW": ones,
        "camera_px_KHWD": None,
        "motion_px_HW": zeros,
        "left_px_HW": zeros,
        "alphas": (ones, ones),
        "returns": (ones, ones),
        "plain_mattes": (ones, ones),
        "behind": still(100).image,
        "shown_HW": ones,
        "fastest_px": 0.0,
    }
    return Posed(**(facts | changes))


def feature(name, features):
    return features[FEATURES.index(name)]


def test_every_person_has_as_many_cells_to_the_torso():
    features = measure(posed(), still(100), still(100), TORSO_PX, 0.5)
    assert features.shape == (len(FEATURES), HEIGHT / TORSO_PX * CELLS_PER_TORSO, WIDTH / TORSO_PX * CELLS_PER_TORSO)
    assert measure(posed(), still(100), still(100), TORSO_PX / 4, 0.5).shape[1] == 4 * features.shape[1]


def test_features_are_the_measures_by_hand():
    motion = np.full((HEIGHT, WIDTH), TORSO_PX / 10, np.float32)
    features = measure(posed(motion_px_HW=motion, fastest_px=TORSO_PX / 4), still(130), still(100), TORSO_PX, 0.25)
    assert feature("motion", features) == pytest.approx(0.5)
    assert feature("apart_fine", features) == pytest.approx(30 / 20)
    assert feature("posed_fine", features) == pytest.approx(0)
    assert feature("plain_behind", features) == pytest.approx(0)
    assert feature("posed_behind", features) == pytest.approx(1.5)
    assert feature("time", features) == pytest.approx(0.75)
    assert feature("fastest", features) == pytest.approx(0.5)


def test_a_camera_takes_its_motion_off_what_the_base_moved():
    offsets = np.zeros((2, HEIGHT, WIDTH, 2), np.float32)
    offsets[0, ..., 0], offsets[1, ..., 0] = -4, 4
    panned = still(100)._replace(offsets_px_KHWD=offsets)
    alone = feature("plain_motion", measure(posed(), still(100), panned, TORSO_PX, 0.5))
    within = feature("plain_motion", measure(posed(camera_px_KHWD=offsets), still(100), panned, TORSO_PX, 0.5))
    assert alone == pytest.approx(5 * 8 / TORSO_PX, abs=1e-5)
    assert within == pytest.approx(0)


def test_the_network_is_the_layers_one_after_the_other():
    generator = np.random.default_rng(0)
    features = generator.uniform(0, 2, (len(FEATURES), 6, 5)).astype(np.float32)
    features[0] = 1.0  # moving everywhere
    sizes = (len(FEATURES), 8, 1)
    layers = [
        (
            generator.normal(0, 0.3, (outputs, inputs)).astype(np.float32),
            generator.normal(0, 0.3, outputs).astype(np.float32),
        )
        for inputs, outputs in itertools.pairwise(sizes)
    ]
    first, second = layers
    weight, bias = map(torch.from_numpy, first)
    values = torch.nn.functional.leaky_relu(
        torch.einsum("oi,ihw->ohw", weight, torch.from_numpy(features)) + bias[:, None, None],
        0.1,
    )
    logit = torch.einsum("oi,ihw->ohw", torch.from_numpy(second[0]), values)[0] + torch.from_numpy(second[1])
    expected = torch.sigmoid(logit).numpy()
    found = Chooser(layers).choose(features, 6, 5)
    # The share is blurred a little: a mean of its neighbours, the same in total on the inside.
    assert found.min() >= expected.min()
    assert found.max() <= expected.max()
    flat = np.repeat(np.repeat(features[:, 2:3, 2:3], 6, axis=1), 5, axis=2)
    assert Chooser(layers).choose(flat, 12, 10) == pytest.approx(expected[2, 2], abs=1e-5)


def test_where_nothing_moves_the_base_stays():
    features = np.full((len(FEATURES), 60, 60), 0.2, np.float32)
    features[0, 30, 30] = 1.0
    share = Chooser([(np.zeros((1, len(FEATURES)), np.float32), np.full(1, 9, np.float32))]).choose(features, 60, 60)
    assert share[30, 30] > 0.99
    assert share[30, 34] > 0.9
    assert not share[:20].any()
    assert not share[:, 40:].any()


@pytest.mark.parametrize("base", ["flow", "rife"])
def test_the_shipped_networks_see_every_feature(base):
    network = load_chooser(base)
    assert network._layers[0][0].shape[1] == len(FEATURES)
    assert network._layers[-1][0].shape[0] == 1


def test_a_base_without_a_network_and_a_damaged_file_are_named(tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match="no network for the base 'magic'"):
        load_chooser("magic")
    path = tmp_path / "chooser.safetensors"
    path.write_bytes(b"not weights")
    monkeypatch.setattr(chooser, "WEIGHTS", path)
    load_chooser.cache_clear()
    with pytest.raises(WeightsError, match=r"chooser\.safetensors: cannot be read"):
        load_chooser("flow")
    load_chooser.cache_clear()
