import json

import pytest
import torch

import models
from models.checkpoint import save
from models.renderer import draw_labels
from models.renderer.authors import discriminator_from_authors_state, discriminator_name
from models.renderer.blocks import fold_spectral_norm
from models.renderer.discriminator import PAPER_DISCRIMINATOR, Discriminator, DiscriminatorConfig, find_boxes
from models.skeleton import Joint
from tests.models.renderer.reference import authors_state, load_json, load_tensors, needs_reference
from tests.sandbox import SHARED

SMALL = DiscriminatorConfig(
    num_filters=4, max_filters=8, num_layers=2, num_scales=2, num_crop_filters=4, max_crop_filters=8, num_crop_layers=1
)
PARTS = (("fused", "indv"), ("raw", "raw"), ("face", "face"), ("hand", "hand"))


def small_network(seed=0):
    torch.manual_seed(seed)
    return Discriminator(SMALL).eval()


def labels(*poses, height=128, width=192):
    """One picture a pose, which is a mapping from joints to (x, y) px."""
    joints = torch.zeros(len(poses), 19, 3)
    for row, pose in zip(joints, poses, strict=True):
        for joint, (x, y) in pose.items():
            row[joint] = torch.tensor([x, y, 1.0])
    return torch.from_numpy(draw_labels(joints.numpy(), height, width))


def inputs(label, seed=1):
    generator = torch.Generator().manual_seed(seed)
    batch, _, height, width = label.shape
    pictures = [torch.rand(batch, 3, height, width, generator=generator) * 2 - 1 for _ in range(3)]
    return label, *pictures, torch.rand(batch, 1, height, width, generator=generator) > 0.5


@needs_reference
@pytest.mark.parametrize("is_folded", [False, True])
def test_outputs_are_the_fixtures(is_folded):
    io, expected = load_tensors("discriminator_io.npz"), load_json("render_losses.json")
    network = discriminator_from_authors_state(authors_state("discriminator"))
    if is_folded:
        fold_spectral_norm(network)
    with torch.inference_mode():
        found = network(io["label"], io["real"], io["fake"], io["raw"], io["foreground"][None, None])
    for ours, theirs in PARTS:
        for side in ("real", "fake"):
            judgements = getattr(getattr(found, ours), side)
            assert len(judgements) == (2 if ours in ("fused", "raw") else 1)
            for scale, (score, features) in enumerate(judgements):
                truth = io[f"{theirs}_pred_{side}_{scale}"]
                torch.testing.assert_close(score, truth, atol=1e-5, rtol=0)
                means = [feature.abs().mean().item() for feature in features]
                assert means == pytest.approx(expected[f"{theirs}_pred_{side}_feature_abs_means"][scale], abs=1e-6)
    boxes = find_boxes(io["label"])
    assert [list(box) for box in boxes.faces] == [expected["face_box_ys_ye_xs_xe"]]
    assert [list(box) for _, box in boxes.hands] == expected["hand_boxes_ys_ye_xs_xe"]


@needs_reference
def test_names_are_the_authors():
    names = json.loads((SHARED / "reference" / "state_dict_keys.json").read_text())["discriminator"]
    with torch.device("meta"):
        own = Discriminator(PAPER_DISCRIMINATOR).state_dict()
    ours = {discriminator_name(name, PAPER_DISCRIMINATOR): list(value.shape) for name, value in own.items()}
    assert ours == {name: value["shape"] for name, value in names.items()}


def test_boxes_are_around_the_spots_and_inside_the_picture():
    nose, hand = Joint.NOSE, Joint.RIGHT_HAND
    boxes = find_boxes(labels({nose: (96, 60), hand: (100, 90)}, {nose: (2, 126)}, {}))
    # A whole spot is 40 px from first to last: a side of 100, the centre 2/5 from top 40 to bottom 80.
    assert boxes.faces[0] == (6, 106, 46, 146)
    # A spot at the border is cut to 22 by 21 px: sides of 21 * 2.5 = 52, moved inside.
    assert boxes.faces[1].left == 0
    assert boxes.faces[1].bottom <= 128
    assert boxes.faces[1].bottom - boxes.faces[1].top == boxes.faces[1].right - boxes.faces[1].left
    # Without a nose: around (H / 4, W / 2), side H // 32 * 8.
    assert boxes.faces[2] == (16, 48, 80, 112)
    assert boxes.hands == [(0, (82, 98, 92, 108))]


def test_hands_of_a_batch_are_stacked_and_no_hands_are_no_pair():
    left, right = Joint.LEFT_HAND, Joint.RIGHT_HAND
    network = small_network()
    found = network(*inputs(labels({left: (50, 60), right: (90, 60)}, {right: (4, 4)})))
    assert found.hand.real[0].score_BCHW.shape[0] == 3
    assert found.face.fake[0].score_BCHW.shape[0] == 2
    assert network(*inputs(labels({}, {}))).hand is None


def test_raw_is_judged_on_the_person_alone():
    network = small_network()
    label, real, fused, raw, is_person = inputs(labels({Joint.NOSE: (60, 60)}))
    before = network(label, real, fused, raw, is_person).raw
    after = network(label, real * is_person, fused, raw * is_person, is_person).raw
    for a, b in zip(before.real + before.fake, after.real + after.fake, strict=True):
        assert torch.equal(a.score_BCHW, b.score_BCHW)


def test_a_gradient_reaches_every_parameter_and_the_pictures():
    network = small_network().train()
    label, real, fused, raw, is_person = inputs(labels({Joint.NOSE: (60, 60), Joint.LEFT_HAND: (90, 60)}))
    fused.requires_grad_()
    raw.requires_grad_()
    found = network(label, real, fused, raw, is_person)
    sum(j.score_BCHW.square().mean() for pair in found for j in pair.real + pair.fake).backward()
    assert all(p.grad is not None for p in network.parameters())
    assert fused.grad.abs().sum() > 0
    assert raw.grad.abs().sum() > 0


def test_saved_and_loaded_it_judges_the_same(tmp_path):
    network, shown = small_network(), inputs(labels({Joint.NOSE: (60, 60)}))
    save(tmp_path / "d", network, SMALL, {})
    loaded = models.load(tmp_path / "d")
    assert torch.equal(loaded(*shown).raw.fake[1].score_BCHW, network(*shown).raw.fake[1].score_BCHW)


def test_what_does_not_fit_is_refused():
    label, real, _, raw, is_person = inputs(labels({}))
    with pytest.raises(ValueError, match=r"fused has shape \(1, 22, .*; \(1, 3, 128, 192\) is needed"):
        small_network()(label, real, label, raw, is_person)
    with pytest.raises(ValueError, match="num_scales 0: must be 1 or more"):
        DiscriminatorConfig(**(vars(SMALL) | {"num_scales": 0}))
