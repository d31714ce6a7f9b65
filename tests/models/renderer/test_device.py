"""Where a network makes its pictures; what needs a GPU is left out where there is none."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.renderer.device import DeviceError, best_device, open_device, saying_what_lacks
from models.renderer.generator import Generator
from models.renderer.keys import KeyPair
from models.renderer.methods import available_base, render_between
from models.renderer.neural import NeuralPair, Renderer
from tests.models.renderer.pictures import GENERATOR, Discs
from tests.models.renderer.test_training import CONFIG, held_out, networks, run


def photos(height=96, width=160):
    """Two smooth pictures, the second moved by (6, 3) px, with a grain that has to be found again."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), np.uint8)
    large = np.kron(small, np.ones((8, 8, 1), np.uint8))
    return large[8 : 8 + height, 8 : 8 + width].copy(), large[5 : 5 + height, 2 : 2 + width].copy()


def test_a_device_that_is_none_is_named():
    with pytest.raises(DeviceError, match=r"no device 'tpu'; there are cpu, cuda"):
        open_device("tpu")
    assert open_device("cpu") == torch.device("cpu")


def test_a_gpu_that_is_not_there_is_one_line():
    assert best_device() == "cpu"
    with pytest.raises(DeviceError, match=r"^device cuda: torch finds no GPU here; use cpu$"):
        open_device("cuda")


def test_torchs_word_for_a_full_memory_becomes_ours():
    with pytest.raises(DeviceError, match="its memory does not do"), saying_what_lacks():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
    with pytest.raises(RuntimeError, match="other"), saying_what_lacks():
        raise RuntimeError("other")


@pytest.mark.gpu
def test_a_gpus_pictures_are_the_cpus_to_a_level():
    if available_base("rife") != "rife":
        pytest.skip("RIFE's weights are not installed")
    keys = KeyPair(*photos())
    ours, other = (
        [frame.image.astype(int) for frame in render_between("rife", keys, [0.25, 0.5], device=device)]
        for device in ("cuda", "cpu")
    )
    for made, expected in zip(ours, other, strict=True):
        off = np.abs(made - expected)
        assert off.max() <= 2
        assert off.mean() < 0.05


@pytest.mark.gpu
def test_a_generator_paints_the_same_on_a_gpu():
    torch.manual_seed(0)
    generator = Generator(GENERATOR).eval()
    height, width = Discs().sample([1], 1).pictures_BSCHW.shape[-2:]
    key, background = photos(height, width)
    joints_JD = np.column_stack([np.linspace(8, width - 8, 19), np.linspace(8, height - 8, 19), np.ones(19)])
    expected = NeuralPair(key, Renderer(generator, height, width)).next(joints_JD, background).image.astype(int)
    found = NeuralPair(key, Renderer(generator.to(open_device("cuda")), height, width)).next(joints_JD, background)
    assert np.abs(found.image.astype(int) - expected).max() <= 1


@pytest.mark.gpu
def test_a_full_gpu_is_one_line():
    with pytest.raises(DeviceError, match="its memory does not do"), saying_what_lacks():
        torch.empty(2**50, dtype=torch.uint8, device="cuda")


@pytest.mark.gpu
def test_a_run_on_a_gpu_learns_in_bf16_and_goes_on_where_it_was_cut_off(tmp_path):
    seen = []

    class Watched(Generator):
        def generate(self, *arguments):
            made = super().generate(*arguments)
            if self.training:
                seen.append((made.raw_BCHW.device.type, torch.is_autocast_enabled("cuda")))
            return made

    torch.manual_seed(0)
    config = replace(CONFIG, num_steps=40, log_every=1, save_every=20, evaluate_every=40)
    _, logged = run(config, tmp_path / "state", made=(Watched(GENERATOR), networks()[1]))
    assert set(seen) == {("cuda", True)}
    losses = [values["l1"] for _, values in logged if "l1" in values]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    result, _ = run(replace(config, num_steps=40), tmp_path / "state", made=(Watched(GENERATOR), networks()[1]))
    assert result.first_step == 40
    assert next(result.generator.parameters()).device.type == "cpu"  # as it is saved
    assert np.isfinite(held_out().score(result.generator)["score"])
