import math

import pytest
import torch

from models.renderer.authors import discriminator_from_authors_state
from models.renderer.discriminator import Judgement, Judgements, Pair
from models.renderer.generator import GeneratedPicture
from models.renderer.losses import (
    PerceptualLoss,
    discriminator_loss,
    generator_loss,
    hinge_discriminator,
    hinge_generator,
    load_perceptual_loss,
    mask_loss,
    match_features,
    person_l1,
)
from models.renderer.paper_measures import measure_pictures
from tests.models.renderer.reference import authors_state, load_json, load_tensors, needs_reference


@needs_reference
def test_losses_are_the_fixtures():
    io, expected = load_tensors("discriminator_io.npz"), load_json("render_losses.json")
    is_person = io["foreground"][None, None]
    network = discriminator_from_authors_state(authors_state("discriminator"))
    with torch.inference_mode():
        found = network(io["label"], io["real"], io["fake"], io["raw"], is_person)
    for part, theirs in (("fused", "indv"), ("raw", "raw"), ("face", "face"), ("hand", "hand")):
        pair = getattr(found, part)
        assert hinge_discriminator(pair).item() == pytest.approx(expected[f"{theirs}_hinge_d"], rel=1e-5)
        assert hinge_generator(pair).item() == pytest.approx(expected[f"{theirs}_hinge_g"], rel=1e-5)
        assert match_features(pair).item() == pytest.approx(expected[f"{theirs}_feature_matching"], rel=1e-5)
    assert (io["fake"] - io["real"]).abs().mean().item() == pytest.approx(expected["l1_fake_vs_real"], rel=1e-5)
    # The fixture's is the whole term: nine parts of the person's and one of the picture's.
    masked = 0.9 * person_l1(io["raw"], io["real"], is_person) + 0.1 * (io["raw"] - io["real"]).abs().mean()
    assert masked.item() == pytest.approx(expected["masked_l1_raw_vs_real"], rel=1e-5)
    probe = load_tensors("render_losses_io.npz")["mask_probe"][None, None]
    assert mask_loss(probe).item() == pytest.approx(expected["mask_regulation_of_probe_repeated_3"], rel=1e-5)


@needs_reference
def test_measures_are_the_fixtures():
    io, expected = load_tensors("discriminator_io.npz"), load_json("render_losses.json")
    pictures = ((io["fake"] + 1) / 2, (io["real"] + 1) / 2)
    for is_person, suffix in ((None, ""), (io["foreground"][None, None], "_masked")):
        found = measure_pictures(*pictures, is_person)
        assert found.psnr_B.item() == pytest.approx(expected[f"psnr{suffix}"], rel=1e-5)
        assert found.ssim_B.item() == pytest.approx(expected[f"ssim{suffix}"], abs=2e-5)


def judgement(score, *features):
    return Judgement(torch.full((1, 1, 2, 2), score), [torch.full((1, 2), feature) for feature in features])


PAIR = Pair([judgement(0.5, 1.0, 2.0), judgement(2.0, 0.0, 0.0)], [judgement(-0.5, 3.0, 2.5), judgement(0.5, 1.0, 0.0)])


def test_hinge_and_features_worked_by_hand():
    assert hinge_discriminator(PAIR).item() == pytest.approx(((0.5 + 0.5) + (0 + 1.5)) / 2)
    assert hinge_generator(PAIR).item() == 0
    assert match_features(PAIR).item() == pytest.approx(((2 + 0.5) + 1) / 2)
    with_hand, without = Judgements(PAIR, PAIR, PAIR, PAIR), Judgements(PAIR, PAIR, PAIR, None)
    assert discriminator_loss(with_hand).item() == pytest.approx((0 + 1 + 0.1 + 0.1) * 1.25)
    assert discriminator_loss(without).item() == pytest.approx((0 + 1 + 0.1) * 1.25)


def test_the_generators_loss_worked_by_hand():
    real = torch.zeros(1, 3, 2, 2)
    made = GeneratedPicture(real + 0.5, real + 0.25, torch.ones(1, 1, 2, 2))
    is_person = torch.tensor([[[[True, False], [False, False]]]])
    loss = generator_loss(Judgements(PAIR, PAIR, PAIR, None), made, real, is_person, None)
    assert loss.adversarial.item() == 0
    assert loss.features.item() == pytest.approx(3 * 1.75)
    assert loss.perceptual.item() == 0
    assert loss.l1.item() == pytest.approx(30 * (0.5 + (9 * 0.25 + 0.25) / 10))
    assert loss.mask.item() == pytest.approx(5 * 3 * 4 / 16)
    assert loss.total.item() == pytest.approx(sum(part.item() for part in loss[1:]))
    nobody = generator_loss(Judgements(PAIR, PAIR, PAIR, None), made, real, is_person & False, None)
    assert nobody.l1.item() == pytest.approx(30 * (0.5 + 0.025))


def vgg_weights():
    torch.manual_seed(0)
    own = PerceptualLoss().state_dict()
    names = {name: name.replace("convolutions.", "features.") for name in own if name.startswith("convolutions.")}
    return {theirs: own[ours] for ours, theirs in names.items()} | {"classifier.0.weight": torch.zeros(2, 2)}


def test_perceptual_weights_are_read_with_torchvisions_names(tmp_path):
    weights = vgg_weights()
    torch.save(weights, tmp_path / "vgg19.pth")
    loss = load_perceptual_loss(tmp_path / "vgg19.pth")
    picture, truth = torch.rand(2, 1, 3, 32, 32).requires_grad_() * 2 - 1
    # The plain way: torchvision's order of convolution, ReLU and pooling, numbered through.
    pools, ends = (4, 9, 18, 27), {1: 1 / 32, 6: 1 / 16, 11: 1 / 8, 20: 1 / 4, 29: 1.0}
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = torch.cat([((y + 1) / 2 - mean[:, None, None]) / std[:, None, None] for y in (picture, truth)])
    x, expected = x.reshape(2, 3, 32, 32), 0.0
    for place in range(30):
        if place in pools:
            x = torch.nn.functional.max_pool2d(x, 2, 2)
        elif f"features.{place}.weight" in weights:
            x = torch.nn.functional.conv2d(
                x, weights[f"features.{place}.weight"], weights[f"features.{place}.bias"], padding=1
            )
        else:
            x = x.relu()
        expected = expected + ends.get(place, 0) * (x[0] - x[1]).abs().mean()
    found = loss(picture, truth)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert not any(p.requires_grad for p in loss.parameters())
    assert load_perceptual_loss(None) is None


def test_what_are_no_vgg_weights_is_refused(tmp_path):
    file = tmp_path / "vgg.pth"
    with pytest.raises(ValueError, match=r"vgg\.pth: there is no such file"):
        load_perceptual_loss(file)
    file.write_bytes(b"words")
    with pytest.raises(ValueError, match=r"vgg\.pth: not a readable file of tensors alone"):
        load_perceptual_loss(file)
    torch.save({"features.0.weight": torch.zeros(1)}, file)
    with pytest.raises(ValueError, match=r"features\.0\.weight has shape \(1,\); a VGG-19 has \(64, 3, 3, 3\)"):
        load_perceptual_loss(file)
    torch.save({"conv.weight": torch.zeros(1)}, file)
    with pytest.raises(ValueError, match=r"lacks features\.0\.weight"):
        load_perceptual_loss(file)


def test_measures_of_known_pictures():
    truth = torch.zeros(2, 3, 16, 16)
    found = measure_pictures(truth + torch.tensor([0.1, 0.0])[:, None, None, None], truth)
    assert found.psnr_B[0].item() == pytest.approx(20, rel=1e-5)
    assert math.isinf(found.psnr_B[1])
    assert found.ssim_B[0].item() == pytest.approx(1e-4 / (0.01 + 1e-4), rel=1e-2)
    assert found.ssim_B[1].item() == 1
