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
        assert (off[~batch.is_bad_BKJ] <= 0.0301).all()
        assert (off[batch.is_bad_BKJ & batch.is_seen_BKJ] >= 0.0299).all()
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


def test_a_fault_leaves_at_least_one_key_of_a_short_clip_alone():
    counts = set()
    for seed in range(60):
        faults = add_faults(np.ones((5, 19, 2)), np.random.default_rng(seed), 6)
        counts.add(int(faults.is_swapped_K.sum()))
        assert (~faults.is_seen_KJ).any(axis=1).sum() <= 4
    assert counts == {1, 2, 3, 4}
    assert add_faults(np.ones((1, 19, 2)), np.random.default_rng(0), 6).is_swapped_K.sum() == 1


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


def test_ranks_draw_the_clips_of_the_single_process_between_them():
    sequences = [swaying(n, n) for n in (400, 90, 250)]
    whole = draw_batch(sequences, RECIPE, 5, 7)
    parts = [draw_batch(sequences, RECIPE, 5, 7, rank, 3) for rank in range(3)]
    assert sum(part.share for part in parts) == pytest.approx(1)
    for rank, part in enumerate(parts):
        assert part.rate == whole.rate
        for ours, all_clips in zip(part[:6], whole[:6], strict=True):
            assert np.array_equal(ours, all_clips[rank::3])
    with pytest.raises(ValueError, match="1000 processes share a batch of"):
        draw_batch(sequences, RECIPE, 5, 7, 999, 1000)


def test_a_clip_keeps_its_shape_whatever_its_size_side_and_roll():
    # All distances of a figure that stands still are those of the sequence, but for one size.
    standing = np.repeat(swaying(1), 100, axis=0)

    def distances(points_J2):
        return np.linalg.norm(points_J2[:, None] - points_J2[None], axis=-1)

    sides = set()
    for seed in range(12):
        clip = draw_clip(standing, 65, RECIPE, np.random.default_rng(seed))
        np.testing.assert_allclose(clip, np.broadcast_to(clip[:1], clip.shape), atol=1e-6)
        images = [standing[0], standing[0, list(MIRRORED)]]  # as it is, and with left for right
        sizes = [distances(clip[0]).sum() / distances(image).sum() for image in images]
        away = [
            np.abs(distances(clip[0]) - size * distances(image)).max()
            for size, image in zip(sizes, images, strict=True)
        ]
        side = int(np.argmin(away))
        sides.add(side)
        assert away[side] < 1e-5 < away[1 - side]
        assert RECIPE.size_range[0] <= sizes[side] <= RECIPE.size_range[1]
        assert clip[0, Joint.NOSE, 1] < clip[0, Joint.MID_HIP, 1] < clip[0, Joint.LEFT_ANKLE, 1]  # v points down
    assert sides == {0, 1}


def test_a_clip_plays_the_sequence_at_a_speed_within_the_range():
    # A figure that goes right by a hundredth a frame: the clip's steps are even, and tell its speed.
    still = replace(RECIPE, size_range=(1.0, 1.0), roll_rad=0.0)
    moving = swaying(1) + np.arange(400, dtype=np.float32)[:, None, None] * np.array([0.01, 0], np.float32)
    speeds = []
    for seed in range(20):
        clip = draw_clip(moving, 65, still, np.random.default_rng(seed))
        steps = np.diff(clip[:, Joint.MID_HIP, 0])
        np.testing.assert_allclose(steps, steps[0], atol=1e-5)
        speeds.append(steps[0] / 0.01)
    assert min(speeds) < 0
    assert max(speeds) > 0
    assert all(0.749 < abs(speed) < 1.351 for speed in speeds)


def test_too_short_sequences_are_left_out_or_refused():
    batch = draw_batch([swaying(20), swaying(300, 1)], replace(RECIPE, rates=(16,), rate_shares=(1.0,)), 0, 0)
    assert np.isfinite(batch.truth_BTJ2).all()
    with pytest.raises(ValueError, match="longest sequence has 9 frames: no clip of rate 16"):
        draw_batch([swaying(9)], replace(RECIPE, rates=(16,), rate_shares=(1.0,)), 0, 0)


def test_shares_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="rate_shares"):
        replace(RECIPE, rate_shares=(0.4, 0.4))
    with pytest.raises(ValueError, match="size_range"):
        replace(RECIPE, size_range=(1.2, 0.8))
