from dataclasses import replace

import numpy as np
import pytest

from models.motion.samples import PAPER_DROPPED, PAPER_JITTERED, add_faults, add_paper_noise, draw_batch, draw_clip
from models.skeleton import LEG_JOINTS, MIRRORED, Joint
from tests.models.motion.motions import RECIPE, swaying

SWAPPED = [MIRRORED[j] if j in LEG_JOINTS else j for j in Joint]


def test_a_batch_depends_on_seed_and_step_alone():
    sequences = [swaying(n, n) for n in (400, 90, 250)]
    first = draw_batch(sequences, RECIPE, 5, 7)
    draw_batch(sequences, RECIPE, 5, 8)
    again, other = draw_batch(sequences, RECIPE, 5, 7), draw_batch(sequences, RECIPE, 6, 7)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert first.truth_BTJ2.shape != other.truth_BTJ2.shape or (first.truth_BTJ2 != other.truth_BTJ2).any()


def test_batches_keep_to_their_bounds_and_labels_say_what_is_wrong():
    sequences = [swaying(n, n) for n in (400, 90, 250)]
    rates, shares = set(), []
    for step in range(20):
        batch = draw_batch(sequences, RECIPE, 0, step)
        num_clips, num_keys = batch.points_BKJ2.shape[:2]
        num_frames = batch.truth_BTJ2.shape[1]
        assert 65 <= num_frames <= 321
        assert num_frames == (num_keys - 1) * batch.rate + 1
        assert 768 - num_keys < num_clips * num_keys <= 768
        assert batch.points_BKJ2.dtype == batch.truth_BTJ2.dtype == np.float32
        rates.add(batch.rate)
        keys = batch.truth_BTJ2[:, :: batch.rate].copy()
        keys[batch.is_swapped_BK] = keys[batch.is_swapped_BK][:, SWAPPED]
        off = np.linalg.norm(batch.points_BKJ2 - keys, axis=3)
        assert (off[~batch.is_bad_BKJ] <= 0.0101).all()
        assert (off[batch.is_bad_BKJ & batch.is_seen_BKJ] >= 0.0099).all()
        assert (batch.points_BKJ2[~batch.is_seen_BKJ] == 0).all()
        assert batch.is_bad_BKJ[~batch.is_seen_BKJ].all()
        shares.append(batch.is_bad_BKJ.any(axis=(1, 2)).mean())
    assert rates == {8, 16}
    assert 0.4 < np.mean(shares) < 0.6


def test_noise_touches_every_joint_on_both_sides():
    clip = np.zeros((41, 19, 2), np.float32)
    moved, dropped = np.zeros((19, 2, 2)), np.zeros(19)
    for seed in range(300):
        faults = add_faults(clip, np.random.default_rng(seed), 6)
        moved[..., 0] += (faults.points_KJ2 > 0).sum(axis=0)
        moved[..., 1] += (faults.points_KJ2 < 0).sum(axis=0)
        dropped += (~faults.is_seen_KJ).sum(axis=0)
        assert np.abs(faults.points_KJ2).max() <= 0.5
        assert 1 <= faults.is_swapped_K.sum() <= 6
    assert (moved > 30).all()
    assert (dropped > 100).all()
    ratio = moved[..., 0].sum() / moved[..., 1].sum()
    assert 0.85 < ratio < 1.18


def test_a_fault_hits_at_most_a_third_of_a_short_clips_keys():
    for seed in range(30):
        faults = add_faults(np.ones((5, 19, 2)), np.random.default_rng(seed), 6)
        assert faults.is_swapped_K.sum() == 1
        assert (~faults.is_seen_KJ).any(axis=1).sum() == 1


@pytest.mark.parametrize("sign", [(1, 1), (-1, 1)])
def test_the_papers_noise_and_its_mirror_image(sign):
    clip = np.random.default_rng(0).normal(5, 1, (41, 19, 2)).astype(np.float32)
    faults = add_paper_noise(clip, np.random.default_rng(1), (4, 4, 4), sign)
    back = faults.points_KJ2.copy()
    for values in (back, seen := faults.is_seen_KJ.copy()):
        values[faults.is_swapped_K] = values[faults.is_swapped_K][:, SWAPPED]
    offset = np.where(seen[..., None], back - clip, 0) * sign
    assert faults.is_swapped_K.sum() == 4
    assert (~seen).sum() == 4 * 3
    assert set(np.flatnonzero((~seen).any(axis=0))) <= set(PAPER_DROPPED)
    assert (offset > -1e-6).all()
    assert offset.max() < 0.5 + 1e-6
    hit = np.flatnonzero((offset > 1e-5).any(axis=(0, 2)))
    assert len(hit) == 5
    assert set(hit) <= set(PAPER_JITTERED)
    assert (offset > 1e-5).any(axis=(1, 2)).sum() <= 4


def test_a_clip_is_a_picture_of_the_motion():
    # A point that goes straight on at 60 frames a second stays on a line, whatever the speed or the side.
    still = replace(RECIPE, tilt_pi=0.0, size_jitter=0.0)
    standing = np.repeat(swaying(1), 100, axis=0)
    for seed in range(8):
        clip = draw_clip(standing, 65, still, np.random.default_rng(seed))
        assert clip.shape == (65, 19, 2)
        np.testing.assert_allclose(clip, np.broadcast_to(clip[:1], clip.shape), atol=1e-5)
        assert clip[0, Joint.NOSE, 1] < clip[0, Joint.MID_HIP, 1] < clip[0, Joint.LEFT_ANKLE, 1]  # v points down


def test_too_short_sequences_are_left_out_or_refused():
    batch = draw_batch([swaying(20), swaying(300, 1)], replace(RECIPE, rates=(16,), rate_shares=(1.0,)), 0, 0)
    assert np.isfinite(batch.truth_BTJ2).all()
    with pytest.raises(ValueError, match="longest sequence has 9 frames: no clip of rate 16"):
        draw_batch([swaying(9)], replace(RECIPE, rates=(16,), rate_shares=(1.0,)), 0, 0)


def test_shares_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="rate_shares"):
        replace(RECIPE, rate_shares=(0.4, 0.4))
