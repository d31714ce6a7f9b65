from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline

import models
from models.checkpoint import save
from models.motion.recipes import to_tensors
from models.motion.samples import draw_batch
from models.motion.tangents import TangentConfig, TangentNetwork, tangent_loss
from models.motion.transformer import spread_keys
from models.motion.views import Normalisation
from models.skeleton import LEG_JOINTS, MIRRORED, Joint
from tests.models.motion.motions import RECIPE, swaying

CONFIG = TangentConfig(width=32, num_heads=2, num_detector_blocks=2, num_tangent_blocks=2, reach=8)
SWAPPED = [MIRRORED[j] if j in LEG_JOINTS else j for j in Joint]


def network(seed=0, *, stirred=True):
    """A small network; stirred: its outputs do not start at 0, as if trained."""
    torch.manual_seed(seed)
    made = TangentNetwork(CONFIG)
    generator = np.random.default_rng(seed)
    made.rows.set(Normalisation(generator.normal(0, 0.3, (19, 2)), generator.uniform(0.1, 1, (19, 2))))
    if stirred:
        for stack in (made.detector, made.second_detector, made.tangents):
            torch.nn.init.normal_(stack.unembed.weight, std=0.3)
        for points in (made.points, made.second_points):
            torch.nn.init.normal_(points.contract.weight, std=0.3)
            torch.nn.init.zeros_(points.contract.bias)
        for detector in (made.detector, made.second_detector):
            torch.nn.init.constant_(detector.unembed.bias, -2.0)
    return made.eval()


def key_points(num_clips, num_keys, seed=0):
    return torch.randn(num_clips, num_keys, 19, 2, generator=torch.Generator().manual_seed(seed)) * 0.3 + 0.5


def seen(points):
    return torch.ones(points.shape[:3], dtype=torch.bool)


def test_it_starts_as_the_cubic_spline():
    points = key_points(2, 6)
    found = network(stirred=False).predict(points, seen(points), 8)
    frames = TangentNetwork.decode(found.keys_BKJ2, found.slopes_BKJ2, 8)
    expected = CubicSpline(np.arange(6), points.double().numpy(), axis=1)(np.arange(41) / 8)
    np.testing.assert_allclose(frames.detach().numpy(), expected, atol=2e-6)


def test_clean_keys_come_back_bit_for_bit_at_any_rate_and_time():
    points = key_points(1, 7)
    found = network().predict(points, seen(points), 8, trust_seen=True)
    assert torch.equal(found.keys_BKJ2, points)
    assert found.slopes_BKJ2.abs().max() > 1e-3
    for rate in (1, 3, 8):
        frames = TangentNetwork.decode(found.keys_BKJ2, found.slopes_BKJ2, rate)
        assert frames.shape[1] == 6 * rate + 1
        assert torch.equal(frames[:, ::rate], points)
    eighths = TangentNetwork.decode(found.keys_BKJ2, found.slopes_BKJ2, 8)
    anywhere = TangentNetwork.decode_at(found.keys_BKJ2, found.slopes_BKJ2, np.array([0.125, 4.0, 5.75]))
    torch.testing.assert_close(anywhere, eighths[:, [1, 32, 46]], atol=1e-6, rtol=0)
    assert torch.equal(anywhere[:, 1], points[:, 4])


def test_points_that_the_detector_leaves_alone_pass_and_the_others_change():
    points = key_points(3, 9)
    found = network(1).predict(points, seen(points), 16)
    assert found.is_bad_BKJ.any()
    assert not found.is_bad_BKJ.all()
    restored = torch.where(found.is_swapped_BK[..., None, None], points[:, :, SWAPPED], points)
    assert torch.equal(found.keys_BKJ2[~found.is_bad_BKJ], restored[~found.is_bad_BKJ])
    assert (found.keys_BKJ2[found.is_bad_BKJ] != restored[found.is_bad_BKJ]).all()


def test_where_the_person_stands_does_not_matter():
    points = key_points(1, 6)
    made = network().double()
    here, there = (made.predict(p.double(), seen(p), 8) for p in (points, points.double() + 3))
    torch.testing.assert_close(there.keys_BKJ2, here.keys_BKJ2 + 3, atol=1e-9, rtol=0)
    torch.testing.assert_close(there.slopes_BKJ2, here.slopes_BKJ2, atol=1e-9, rtol=0)


def test_what_is_not_seen_is_not_read():
    points = key_points(1, 6)
    is_seen = seen(points)
    is_seen[0, 2] = False
    is_seen[0, 4, [Joint.MID_HIP, Joint.LEFT_HAND]] = False
    made = network()
    found = made.predict(points, is_seen, 8)
    other = made.predict(torch.where(is_seen[..., None], points, torch.full_like(points, torch.nan)), is_seen, 8)
    assert torch.equal(found.keys_BKJ2, other.keys_BKJ2)
    assert found.keys_BKJ2.isfinite().all()


def test_rows_in_rows_out_is_the_same_and_padding_changes_nothing():
    made, rate = network(), 4
    points = key_points(2, 6)
    points[1, 3, Joint.LEFT_KNEE] = 0  # not seen
    rows = spread_keys(made.rows.to_rows(points), rate)
    frames = rows.shape[2]
    pad = torch.arange(frames)[None] >= torch.tensor([frames, 13])[:, None]
    hidden = pad | (torch.arange(frames) % rate != 0)
    pred, reco = made(rows.masked_fill(hidden[:, None], 7), hidden, pad, rate)
    for clip, num_keys in ((0, 6), (1, 4)):
        is_seen = (points[[clip], :num_keys] != 0).any(dim=3)
        found = made.predict(points[[clip], :num_keys], is_seen, rate)
        expected = made.decode(found.keys_BKJ2, found.slopes_BKJ2, rate)
        ours = made.rows.to_points(pred[[clip], :, : expected.shape[1]])
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
        keys = made.rows.to_points(reco[[clip], :, : expected.shape[1] : rate])
        torch.testing.assert_close(keys, found.keys_BKJ2, atol=1e-5, rtol=0)
        alone = made(rows[[clip], :, : expected.shape[1]], hidden[[clip], : expected.shape[1]], None, rate)
        assert torch.equal(alone.pred_BCT[0], pred[clip, :, : expected.shape[1]])
    assert (pred[1, :, 13:] == 0).all()


def test_a_key_hidden_among_others_is_a_key_not_seen():
    made, points = network(), key_points(1, 6)
    rows = spread_keys(made.rows.to_rows(points), 4)
    hidden = (torch.arange(rows.shape[2]) % 4 != 0)[None]
    hidden[0, 8] = True
    is_seen = seen(points)
    is_seen[0, 2] = False
    found = made.predict(points, is_seen, 4)
    expected = made.decode(found.keys_BKJ2, found.slopes_BKJ2, 4)
    ours = made.rows.to_points(made(rows, hidden, None, 4).pred_BCT)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    assert (made(rows, torch.ones_like(hidden), None, 4).pred_BCT == 0).all()


@pytest.mark.parametrize("num_keys", [1, 2, 3])
def test_very_short_clips_are_answered(num_keys):
    points = key_points(1, num_keys)
    found = network().predict(points, seen(points), 8)
    assert TangentNetwork.decode(found.keys_BKJ2, found.slopes_BKJ2, 8).isfinite().all()


def test_gradient_reaches_every_parameter():
    made = network()
    batch = to_tensors(draw_batch([swaying(200)], replace(RECIPE, num_key_tokens=60), 0, 1))
    tangent_loss(made, batch).total.backward()
    still = [name for name, p in made.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert still == []


def test_a_tiny_batch_is_learnt_faults_and_all():
    torch.manual_seed(0)
    made = TangentNetwork(CONFIG)
    small = replace(RECIPE, num_key_tokens=60, clean_share=0.3, rates=(8,), rate_shares=(1.0,), max_frames=81)
    batch = to_tensors(draw_batch([swaying(200)], small, 0, 2))
    adam = torch.optim.AdamW(made.parameters(), lr=4e-3)
    losses = []
    for _ in range(120):
        adam.zero_grad()
        losses.append(tangent_loss(made, batch))
        losses[-1].total.backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        adam.step()
    assert losses[-1].detector < 0.2 * losses[0].detector
    assert losses[-1].frames < 0.3 * losses[0].frames
    found = made.predict(batch.points_BKJ2, batch.is_seen_BKJ, 8)
    assert (found.is_swapped_BK == batch.is_swapped_BK).float().mean() > 0.98
    is_moved = batch.is_bad_BKJ & batch.is_seen_BKJ
    found_moved = (found.bad_logits_BKJ > 0) & is_moved
    assert found_moved.sum() > 0.9 * is_moved.sum() > 0
    clean = ~batch.is_bad_BKJ.any(dim=2).any(dim=1) & ~batch.is_swapped_BK.any(dim=1)
    assert clean.any()
    assert not found.is_bad_BKJ[clean].any()
    assert torch.equal(found.keys_BKJ2[clean], batch.truth_BTJ2[clean, ::8])


def test_its_checkpoint_keeps_the_rows_measure(tmp_path):
    made = network()
    save(tmp_path / "m", made, made.config, {})
    loaded = models.load(tmp_path / "m")
    points = key_points(1, 5)
    assert torch.equal(loaded.rows.to_rows(points), made.rows.to_rows(points))
    np.testing.assert_array_equal(loaded.rows.get().std_E2, made.rows.get().std_E2)
    assert torch.equal(
        loaded.predict(points, seen(points), 8).slopes_BKJ2, made.predict(points, seen(points), 8).slopes_BKJ2
    )


def test_rows_are_what_the_views_make():
    made = network()
    points = key_points(1, 5)
    expected = made.rows.get().to_rows(points[0].double().numpy())
    np.testing.assert_allclose(made.rows.to_rows(points)[0].numpy(), expected, atol=1e-5)
    torch.testing.assert_close(made.rows.to_points(made.rows.to_rows(points)), points, atol=1e-6, rtol=0)


def test_in_half_precision_keys_still_come_back_bit_for_bit_and_it_trains():
    made, points = network(), key_points(2, 6)
    with torch.autocast("cpu", torch.bfloat16):
        found = made.predict(points, seen(points), 8, trust_seen=True)
        frames = made.decode(found.keys_BKJ2, found.slopes_BKJ2, 8)
        batch = to_tensors(draw_batch([swaying(200)], replace(RECIPE, num_key_tokens=60), 0, 1))
        loss = tangent_loss(made, batch)
        loss.total.backward()
    assert frames.dtype == torch.float32
    assert torch.equal(frames[:, ::8], points)
    assert loss.total.isfinite()
