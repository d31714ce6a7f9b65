import numpy as np
import pytest

from models.motion.paper_samples import PaperSampleConfig, draw_paper_batch
from models.motion.views import measure_normalisation
from tests.models.motion.motions import swaying

SEQUENCES = [swaying(n, n) for n in (400, 75, 250)]
ROWS = measure_normalisation(SEQUENCES)
CONFIG = PaperSampleConfig(rate=8, num_frames=161, batch_size=7, noise_keys=(3, 2, 1))


def test_keys_stand_in_their_columns_and_short_clips_are_padded():
    lengths = set()
    for step in range(6):
        batch = draw_paper_batch(SEQUENCES, CONFIG, ROWS, 1, step)
        assert batch.source_BCT.shape == batch.truth_BCT.shape == (7, 38, 161)
        assert (batch.reco_share, batch.pred_share) == (1, 1)
        for clip in range(7):
            length = int((~batch.pad_mask_BT[clip]).sum())
            lengths.add(length)
            assert (np.flatnonzero(~batch.source_mask_BT[clip]) == np.arange(0, length, 8)).all()
            assert (batch.truth_BCT[clip, :, length:] == 0).all()
            assert (batch.source_BCT[clip][:, batch.source_mask_BT[clip]] == 0).all()
            truth = ROWS.to_points(batch.truth_BCT[clip, :, :length])
            assert any(
                np.abs(s[i : i + length] - truth).max() < 1e-5
                for s in SEQUENCES
                for i in range(len(s))
                if len(s) - i >= length
            )
            keys = ROWS.to_points(batch.source_BCT[clip, :, :length:8])
            off = np.abs(keys - truth[::8]).max(axis=(1, 2)) > 1e-4
            assert 3 <= off.sum() <= 6  # moved in 3, dropped in 2, exchanged in 1
    assert lengths == {73, 161}  # 75 frames: a multiple of 8, plus 1


def test_ranks_draw_the_clips_of_the_single_process_between_them():
    whole = draw_paper_batch(SEQUENCES, CONFIG, ROWS, 1, 4)
    parts = [draw_paper_batch(SEQUENCES, CONFIG, ROWS, 1, 4, rank, 2) for rank in (0, 1)]
    for rank, part in enumerate(parts):
        for ours, all_clips in zip(part[:4], whole[:4], strict=True):
            assert np.array_equal(ours, all_clips[rank::2])
        keys = (~part.source_mask_BT).sum() / (~whole.source_mask_BT).sum()
        assert part.reco_share == pytest.approx(keys)
    assert sum(part.pred_share for part in parts) == pytest.approx(1)


def test_sequences_without_two_keys_are_refused():
    with pytest.raises(ValueError, match="no sequence has the 9 frames of two keys"):
        draw_paper_batch([swaying(8)], CONFIG, ROWS, 0, 0)
