import json
from dataclasses import replace

import pytest
import torch

from models.motion.losses import motion_loss
from models.motion.transformer import (
    MotionTransformer,
    TransformerConfig,
    attend_with_dropout,
    authors_name,
    frame_positions,
    from_authors_state,
    interpolate_keys,
    spread_keys,
    to_authors_state,
)
from tests.models.motion.reference import (
    authors_state,
    load_arrays,
    needs_reference,
    plain_forward,
    plain_positions,
)
from tests.sandbox import SHARED

SMALL = TransformerConfig(
    width=16,
    num_heads=2,
    feedforward=24,
    num_encoder_layers=2,
    num_decoder_layers=2,
    dropout=0.0,
    encoder_mask="exclude",
)


def small_network(seed=0, dtype=torch.float64, **changes):
    torch.manual_seed(seed)
    return MotionTransformer(replace(SMALL, **changes)).to(dtype).eval()


def clips(lengths, rate, dtype=torch.float64, seed=1):
    """Random rows of clips of these lengths, padded to the longest; source, source_mask, pad_mask, truth."""
    frames = max(lengths)
    truth = torch.randn(len(lengths), 38, frames, generator=torch.Generator().manual_seed(seed)).to(dtype)
    pad = torch.arange(frames)[None] >= torch.tensor(lengths)[:, None]
    hidden = pad | (torch.arange(frames) % rate != 0)
    return truth.masked_fill(hidden[:, None], 0), hidden, pad, truth


@needs_reference
@pytest.mark.parametrize(("case", "rate"), [("a", 8), ("b", 16)])
@pytest.mark.parametrize(("encoder_mask", "suffix"), [("exclude", ""), ("plus-one", "_diagonal_plus_one")])
def test_outputs_are_the_fixtures(case, rate, encoder_mask, suffix):
    io = {k: torch.from_numpy(v) for k, v in load_arrays("motion_io.npz").items()}
    network = from_authors_state(authors_state(), num_heads=8, encoder_mask=encoder_mask)
    with torch.inference_mode():
        pred, reco = network(io[f"{case}_source"], io[f"{case}_source_mask"], io[f"{case}_pad_mask"], rate)
    torch.testing.assert_close(pred, io[f"{case}_pred{suffix}"], atol=1e-5, rtol=0)
    is_key = ~io[f"{case}_source_mask"][:, None].expand_as(reco)
    torch.testing.assert_close(reco[is_key], io[f"{case}_reco{suffix}"][is_key], atol=1e-5, rtol=0)
    num_frames = pred.shape[2]
    position = frame_positions(num_frames, 64, torch.device("cpu"), torch.float32)
    torch.testing.assert_close(position, io[f"{case}_position"], atol=2e-6, rtol=0)


@needs_reference
def test_names_are_the_authors():
    names = json.loads((SHARED / "reference" / "state_dict_keys.json").read_text())["motion_transformer"]
    paper = TransformerConfig(
        width=128,
        num_heads=8,
        feedforward=256,
        num_encoder_layers=6,
        num_decoder_layers=6,
        dropout=0.1,
        encoder_mask="plus-one",
    )
    ours = to_authors_state(MotionTransformer(paper))
    assert {k: list(v.shape) for k, v in ours.items()} == {k: v["shape"] for k, v in names.items()}


@pytest.mark.parametrize(("lengths", "rate"), [((17, 9), 4), ((13, 13), 3), ((9, 9), 1)])
def test_keys_alone_give_what_all_frames_give(lengths, rate):
    network = small_network()
    source, hidden, pad, truth = clips(lengths, rate)
    state = {k: v.requires_grad_() for k, v in to_authors_state(network).items()}
    plain = plain_forward(state, SMALL.num_heads, source, hidden, pad, rate)
    ours = network(source, hidden, pad, rate)
    used = ~pad[:, None].expand_as(truth)
    torch.testing.assert_close(ours.pred_BCT[used], plain[0][used], atol=1e-12, rtol=0)
    motion_loss(*plain, truth, hidden, pad).total.backward()
    motion_loss(*ours, truth, hidden, pad).total.backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, state[authors_name(name)].grad, atol=1e-11, rtol=0)


def test_authors_layout_round_trip_finds_the_size():
    network = small_network(num_decoder_layers=3, encoder_mask="plus-one")
    nested = {"epoch": 399, "model": {f"module.{k}": v for k, v in to_authors_state(network).items()}}
    copy = from_authors_state(nested, num_heads=2, encoder_mask="plus-one").double()
    assert replace(copy.config, dropout=0.0) == network.config
    source, hidden, pad, _ = clips((17, 17), 4)
    assert torch.equal(copy(source, hidden, pad, 4).pred_BCT, network(source, hidden, pad, 4).pred_BCT)


def test_a_foreign_checkpoint_is_refused_by_name():
    state = to_authors_state(small_network())
    with pytest.raises(ValueError, match=r"no input_embed\.weight"):
        from_authors_state({"weights": torch.zeros(3)}, num_heads=2, encoder_mask="exclude")
    with pytest.raises(ValueError, match=r"differs in extra\.bias"):
        from_authors_state(state | {"extra.bias": torch.zeros(1)}, num_heads=2, encoder_mask="exclude")
    with pytest.raises(ValueError, match=r"joints_embed\.bias has shape \(4,\).* has \(38,\)"):
        from_authors_state(state | {"joints_embed.bias": torch.zeros(4)}, num_heads=2, encoder_mask="exclude")


def test_attention_with_dropout_is_torchs_on_average():
    query, key, value = (torch.randn(2, 3, n, 4, generator=torch.Generator().manual_seed(n)) for n in (5, 6, 6))
    may = torch.rand(2, 1, 5, 6) > 0.2
    may[..., 0] = True
    bias = torch.randn(5, 6)
    for mask in (None, may, bias):
        exact = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        torch.testing.assert_close(attend_with_dropout(query, key, value, mask, 0.0), exact, atol=1e-6, rtol=1e-5)
    torch.manual_seed(0)
    ones = torch.ones(400, 3, 6, 4)
    kept = attend_with_dropout(query[:1].expand(400, -1, -1, -1), key[:1].expand(400, -1, -1, -1), ones, None, 0.25)
    assert kept.mean().item() == pytest.approx(1, abs=0.02)
    torch.manual_seed(0)
    same = attend_with_dropout(query[:1].expand(400, -1, -1, -1), key[:1].expand(400, -1, -1, -1), ones, None, 0.25)
    assert torch.equal(same, kept)


def test_what_is_hidden_or_padded_changes_nothing():
    network = small_network()
    source, hidden, pad, _ = clips((17, 9), 4)
    pred, reco = network(source, hidden, pad, 4)
    other = torch.where(hidden[:, None], torch.full_like(source, 7.0), source)
    again = network(other, hidden, pad, 4)
    used = ~pad[:, None].expand_as(pred)
    torch.testing.assert_close(again.pred_BCT[used], pred[used], atol=1e-12, rtol=0)
    assert (reco[:, :, 1::4] == 0).all()


def test_the_two_readings_differ_and_a_lone_key_stays_finite():
    source, hidden, pad, _ = clips((17, 17), 4)
    exclude, plus_one = (small_network(encoder_mask=m)(source, hidden, pad, 4) for m in ("exclude", "plus-one"))
    assert (exclude.pred_BCT - plus_one.pred_BCT).abs().max() > 1e-4
    lone = small_network(dtype=torch.float32)(torch.randn(1, 38, 1), torch.zeros(1, 1, dtype=torch.bool), None, 8)
    assert lone.pred_BCT.isfinite().all()


def test_no_padding_may_be_left_out():
    network = small_network()
    source, hidden, pad, _ = clips((17, 17), 4)
    with_mask, without = network(source, hidden, pad, 4), network(source, hidden, None, 4)
    torch.testing.assert_close(with_mask.pred_BCT, without.pred_BCT, atol=1e-12, rtol=0)


def test_gradient_reaches_every_parameter_and_a_tiny_batch_is_learnt():
    network = small_network(dtype=torch.float32, width=32).train()
    source, hidden, pad, truth = clips((9, 9), 4, dtype=torch.float32)
    adam = torch.optim.Adam(network.parameters(), lr=5e-3)
    losses = []
    for _ in range(60):
        loss = motion_loss(*network(source, hidden, pad, 4), truth, hidden, pad).total
        adam.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_training_after_inference_works():
    network = small_network()
    source, hidden, pad, _ = clips((13,), 4, seed=5)
    with torch.inference_mode():
        network(source, hidden, pad, 4)
    network(source, hidden, pad, 4).pred_BCT.sum().backward()


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("encoder_mask", ["exclude", "plus-one"])
def test_half_precision_is_near_the_whole(encoder_mask, dropout):
    network = small_network(encoder_mask=encoder_mask, dtype=torch.float32, dropout=dropout)
    source, hidden, pad, truth = clips((13, 9), 4, dtype=torch.float32)
    whole = network(source, hidden, pad, 4).pred_BCT
    with torch.autocast("cpu", torch.bfloat16):
        half = network(source, hidden, pad, 4).pred_BCT
        motion_loss(*network.train()(source, hidden, pad, 4), truth, hidden, pad).total.backward()
    used = ~pad[:, None].expand_as(whole)
    torch.testing.assert_close(half.float()[used], whole[used], atol=0.1, rtol=0)


def test_interpolation_and_spreading_by_hand():
    keys = torch.tensor([[[0.0, 4.0, 2.0]]])
    assert interpolate_keys(keys, 2).tolist() == [[[0, 2, 4, 3, 2]]]
    assert spread_keys(keys, 2).tolist() == [[[0, 0, 4, 0, 2]]]
    assert spread_keys(keys, 1).tolist() == keys.tolist() == interpolate_keys(keys, 1).tolist()


def test_positions_are_the_formula():
    ours = frame_positions(7, 12, torch.device("cpu"), torch.float64)
    torch.testing.assert_close(ours, plain_positions(7, 12), atol=1e-14, rtol=0)


@pytest.mark.parametrize(
    ("shape", "rate", "message"),
    [((1, 38, 10), 4, "10 frames are not a multiple of the rate 4 plus 1"), ((1, 57, 9), 4, r"\(1, 57, 9\).*38")],
)
def test_a_wrong_layout_is_refused(shape, rate, message):
    mask = torch.zeros(shape[0], shape[2], dtype=torch.bool)
    with pytest.raises(ValueError, match=message):
        small_network(dtype=torch.float32)(torch.zeros(shape), mask, mask, rate)


def test_a_mask_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"pad_mask is torch.bool \(1, 5\).*\(1, 9\)"):
        small_network(dtype=torch.float32)(
            torch.zeros(1, 38, 9), torch.zeros(1, 9, dtype=torch.bool), torch.zeros(1, 5, dtype=torch.bool), 4
        )


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"width 20.*num_heads 8"):
        replace(SMALL, width=20, num_heads=8)
