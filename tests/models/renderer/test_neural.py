import json
from pathlib import Path

import numpy as np
import pytest
import torch

import models
from models.checkpoint import save
from models.renderer.blocks import fold_spectral_norm
from models.renderer.discriminator import Discriminator
from models.renderer.generator import Generator
from models.renderer.keys import KeyPair, WeightsError
from models.renderer.labels import draw_labels
from models.renderer.methods import render_between, render_neural
from models.renderer.neural import NeuralPair, Renderer, load_renderer
from models.skeleton import NUM_JOINTS, Joint
from tests.models.renderer.pictures import DISCRIMINATOR, GENERATOR

HEIGHT, WIDTH = 32, 48


def make_generator(mask_bias=0.0):
    torch.manual_seed(0)
    generator = Generator(GENERATOR).eval()
    generator.mask.leave.bias.data.fill_(mask_bias)
    return generator


def make_folder(folder, size=(HEIGHT, WIDTH)):
    provenance = {"size": {"height": size[0], "width": size[1]}} if size else {}
    save(folder, make_generator(), GENERATOR, provenance)
    return folder


def pictures(num, height=HEIGHT, width=WIDTH):
    return list(np.random.default_rng(1).integers(0, 256, (num, height, width, 3), dtype=np.uint8))


def poses(num):
    joints_TJD = np.zeros((num, NUM_JOINTS, 3))
    joints_TJD[:, Joint.NOSE] = [[10.5 + 3 * t, 12.5, 1.0] for t in range(num)]
    return joints_TJD


def to_network(image):
    return torch.from_numpy(image[..., ::-1].astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1


def test_at_the_networks_own_size_frames_are_the_networks_one_after_the_other():
    generator = make_generator()
    key, *backgrounds = pictures(3)
    pair = NeuralPair(key, Renderer(generator, HEIGHT, WIDTH))
    previous_BCHW = to_network(key)
    for joints_JD, background in zip(poses(2), backgrounds, strict=True):
        label_BCHW = torch.from_numpy(draw_labels(joints_JD[None], HEIGHT, WIDTH))
        with torch.inference_mode():
            previous_BCHW, mask_B1HW = generator(label_BCHW, to_network(background), previous_BCHW)
        expected = ((previous_BCHW[0].permute(1, 2, 0).numpy()[..., ::-1] + 1) * 127.5).astype(np.float64)
        frame = pair.next(joints_JD, background)
        assert np.abs(frame.image - expected).max() < 0.51
        assert frame.posed_share == pytest.approx(mask_B1HW.mean().item(), abs=1e-6)


def test_where_nothing_is_painted_the_background_keeps_every_bit_at_the_clips_size():
    (background, key) = pictures(2, 3 * HEIGHT, 2 * WIDTH)
    untouched = NeuralPair(key, Renderer(make_generator(-200.0), HEIGHT, WIDTH)).next(poses(1)[0], background)
    assert np.array_equal(untouched.image, background)
    assert untouched.posed_share == 0
    painted = NeuralPair(key, Renderer(make_generator(200.0), HEIGHT, WIDTH)).next(poses(1)[0], background)
    # All is the network's picture, three and two times as large: neighbouring pixels hardly differ.
    steps = [np.abs(np.diff(image.astype(int), axis=0)).mean() for image in (painted.image, background)]
    assert steps[0] < 0.5 * steps[1]
    with pytest.raises(ValueError, match=r"a background of \(32, 48\) for pictures of \(96, 96\)"):
        NeuralPair(key, Renderer(make_generator(), HEIGHT, WIDTH)).next(poses(1)[0], pictures(1)[0])


def test_joints_are_drawn_where_they_lie_at_the_networks_size():
    torch.manual_seed(1)
    key, background = pictures(2)
    small = NeuralPair(key, Renderer(make_generator(), HEIGHT, WIDTH)).next(poses(1)[0], background)
    large = [np.kron(image, np.ones((2, 2, 1), np.uint8)) for image in (key, background)]
    twice_JD = poses(1)[0] * [2, 2, 1]
    doubled = NeuralPair(large[0], Renderer(make_generator(), HEIGHT, WIDTH)).next(twice_JD, large[1])
    assert doubled.posed_share == pytest.approx(small.posed_share, rel=1e-6)


def test_a_checkpoint_is_loaded_folded_and_paints_as_it_did_before(tmp_path):
    folder = make_folder(tmp_path / "r")
    renderer = load_renderer(folder)
    assert (renderer.height, renderer.width) == (HEIGHT, WIDTH)
    assert not any("parametrizations" in name for name, _ in renderer.generator.named_parameters())
    inputs = [torch.rand(2, channels, HEIGHT, WIDTH) for channels in (22, 3, 3)]
    with torch.inference_mode():
        before, loaded, folded = (
            network(*inputs) for network in (make_generator(), models.load(folder), renderer.generator)
        )
        again = fold_spectral_norm(models.load(folder))(*inputs)
    assert all(torch.equal(one, other) for one, other in zip(before, loaded, strict=True))
    for one, other in zip(before, folded, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    assert torch.equal(folded[0], again[0])


def test_imported_checkpoints_take_the_papers_size(tmp_path):
    assert load_renderer(make_folder(tmp_path / "r", size=None))[1:] == (320, 480)


def refused(folder, message):
    with pytest.raises(WeightsError, match=message) as caught:
        load_renderer(folder)
    assert "\n" not in str(caught.value)


def test_what_is_no_renderer_is_one_line(tmp_path):
    refused(tmp_path / "none", r"renderer: .*none/config\.json: there is no such file")
    save(tmp_path / "d", Discriminator(DISCRIMINATOR), DISCRIMINATOR, {})
    refused(tmp_path / "d", "holds a Discriminator, where a Generator is needed")
    refused(make_folder(tmp_path / "odd", size=(30, 48)), "takes multiples of 4 px, not 30 x 48")
    damaged = make_folder(tmp_path / "damaged")
    (damaged / "provenance.json").write_text(json.dumps({"size": 3}))
    refused(damaged, r"provenance\.json: not a checkpoint's provenance")
    (damaged / "model.safetensors").write_bytes(b"")
    refused(damaged, "not a readable safetensors file")


def test_it_paints_over_the_pictures_given_one_after_the_other(tmp_path):
    folder = make_folder(tmp_path / "r", size=(64, 64))
    image_0, image_1 = pictures(2, 64, 64)
    joints_KJD = poses(2)
    keys = KeyPair(image_0, image_1, joints_0_px_JD=joints_KJD[0], joints_1_px_JD=joints_KJD[1], torso_px=20.0)
    behind = [frame.image for frame in render_between("flow", keys, [0.25, 0.5], joints_KJD, "flow")]
    pair = NeuralPair(image_0, load_renderer(folder))
    expected = [pair.next(joints_JD, image) for joints_JD, image in zip(joints_KJD, behind, strict=True)]
    found = render_neural(keys, joints_KJD, behind, Path(folder))
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one.image, other.image)
