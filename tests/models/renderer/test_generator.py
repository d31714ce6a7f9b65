import json
from dataclasses import replace

import pytest
import torch

import models
from models.checkpoint import CheckpointError, build_network, save
from models.renderer.authors import generator_from_authors_state, generator_name
from models.renderer.blocks import fold_spectral_norm
from models.renderer.generator import PAPER_GENERATOR, Generator, GeneratorConfig
from tests.models.renderer.reference import authors_state, load_tensors, needs_reference
from tests.sandbox import SHARED

SMALL = GeneratorConfig(
    num_filters=4, max_filters=12, num_condition_filters=6, max_condition_filters=8, num_downsamples=2,
    num_middle_blocks=1, num_mask_filters=4, max_mask_filters=6, num_mask_downsamples=2, num_mask_blocks=2,
    paints_change=False,
)  # fmt: skip


def small_network(seed=0, **changes):
    torch.manual_seed(seed)
    return Generator(replace(SMALL, **changes)).eval()


def inputs(batch=2, height=16, width=24, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(batch, channels, height, width, generator=generator) * 2 - 1 for channels in (22, 3, 3))


def close(found, expected, atol=1e-5):
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


@needs_reference
def test_outputs_are_the_fixtures():
    io = load_tensors("generator_io.npz")
    network = generator_from_authors_state(authors_state("generator"))
    shown = io["label"], io["background"], io["previous"]
    with torch.inference_mode():
        made = network.generate(*shown)
        fused, mask = network(*shown)
        folded = fold_spectral_norm(network).generate(*shown)
    close(made.raw_BCHW, io["image"])
    close(made.mask_B1HW, io["mask"])
    close(made.fused_BCHW, io["fused"])
    assert torch.equal(fused, made.fused_BCHW)
    assert torch.equal(mask, made.mask_B1HW)
    for found, expected in zip(folded, made, strict=True):
        close(found, expected, 1e-6)


@needs_reference
def test_training_outputs_are_the_fixtures_with_the_authors_power_step():
    """Torch's newer spectral norm steps u and then v from the stored v; the one that the authors used, v and then u."""
    state = authors_state("generator")
    for name in [name for name in state if name.endswith(".weight_orig")]:
        weight, stem = state[name].flatten(1), name.removesuffix("_orig")
        state[f"{stem}_v"] = torch.nn.functional.normalize(weight.T @ state[f"{stem}_u"], dim=0)
        state[f"{stem}_u"] = torch.nn.functional.normalize(weight @ state[f"{stem}_v"], dim=0)
    io = load_tensors("generator_io.npz")
    with torch.inference_mode():
        made = generator_from_authors_state(state).generate(io["label"], io["background"], io["previous"])
    close(made.raw_BCHW, io["train_image"])
    close(made.mask_B1HW, io["train_mask"])


@needs_reference
def test_names_are_the_authors_and_dead_parameters_are_not_there():
    names = json.loads((SHARED / "reference" / "state_dict_keys.json").read_text())["generator"]
    with torch.device("meta"):
        ours = {generator_name(name): list(v.shape) for name, v in Generator(PAPER_GENERATOR).state_dict().items()}
    used = {name: v["shape"] for name, v in names.items() if not name.startswith(("label_embedding.", "conv_mask."))}
    assert ours == used


def test_the_picture_is_fused_with_the_background_by_the_mask():
    network, (label, background, previous) = small_network(), inputs()
    made = network.generate(label, background, previous)
    assert made.fused_BCHW.shape == made.raw_BCHW.shape == (2, 3, 16, 24)
    assert made.mask_B1HW.shape == (2, 1, 16, 24)
    assert made.raw_BCHW.abs().max() <= 1
    assert 0 <= made.mask_B1HW.min() <= made.mask_B1HW.max() <= 1
    close(made.fused_BCHW, background + made.mask_B1HW * (made.raw_BCHW - background), 1e-6)


def test_pictures_of_a_batch_do_not_meet():
    network, shown = small_network(), inputs()
    with torch.inference_mode():
        together, alone = network.generate(*shown), network.generate(*(x[1:] for x in shown))
    for a, b in zip(together, alone, strict=True):
        close(a[1:], b)


def test_every_parameter_is_trained_and_one_picture_is_learned():
    network, shown = small_network().train(), inputs(batch=1)
    truth = torch.zeros_like(shown[1])
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(25):
        optimiser.zero_grad()
        loss = (network(*shown)[0] - truth).abs().mean()
        loss.backward()
        losses.append(loss.item())
        if len(losses) == 1:
            # A bias before an instance norm has no effect: its gradient is there, and 0.
            assert all(p.grad is not None for p in network.parameters())
        optimiser.step()
    assert losses[-1] < 0.5 * losses[0]


def test_saved_and_loaded_it_gives_the_same_picture(tmp_path):
    network, shown = small_network(), inputs()
    save(tmp_path / "g", network, SMALL, {})
    loaded = models.load(tmp_path / "g")
    assert loaded.config == SMALL
    with torch.inference_mode():
        assert torch.equal(loaded(*shown)[0], network(*shown)[0])


def test_folding_keeps_the_picture_and_leaves_plain_weights():
    network, shown = small_network(), inputs()
    with torch.inference_mode():
        before = network(*shown)[0]
        folded = fold_spectral_norm(network)
        close(folded(*shown)[0], before, 1e-6)
    assert not any("parametrizations" in name for name in folded.state_dict())


def test_what_does_not_fit_is_refused():
    network, (label, background, previous) = small_network(), inputs()
    with pytest.raises(ValueError, match=r"background has shape \(1, 3, 16, 24\); \(2, 3, 16, 24\) is needed"):
        network(label, background[:1], previous)
    with pytest.raises(ValueError, match=r"label has shape \(2, 3, 16, 24\); \(2, 22, 16, 24\) is needed"):
        network(background, background, previous)
    with pytest.raises(ValueError, match=r"pictures of 15 x 24 px .*multiples of 4 are needed"):
        network(*(x[:, :, 1:] for x in (label, background, previous)))
    with pytest.raises(CheckpointError, match="generator: num_filters 0: must be 1 or more"):
        build_network("generator", vars(SMALL) | {"num_filters": 0})
