"""Training samples of the paper's transformer: stretches of 2D motion as network rows, keys with the paper's noise.

Axes: B batch, K key frames, T frames, J joints (19), C rows (38), 2 = (x, y) projected units. A mask's True means
hidden or padding. Source: ../shared/reference/README.md, "Motion network: training".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple

import numpy as np

from models.motion.samples import Array, BoolArray, Float32Array, add_paper_noise
from models.motion.views import NUM_ROWS, Normalisation, hidden_frames


@dataclass(frozen=True, kw_only=True)
class PaperSampleConfig:
    """What a batch is drawn from. The paper's: rate 8, 321 frames, 64 clips, noise on (15, 15, 8) of 41 keys."""

    rate: int
    num_frames: int
    batch_size: int
    noise_keys: tuple[int, int, int]

    def __post_init__(self) -> None:
        if (self.num_frames - 1) % self.rate:
            raise ValueError(f"num_frames {self.num_frames} is not a multiple of rate {self.rate} plus 1")


class PaperBatch(NamedTuple, Generic[Array]):
    """source_BCT: noisy keys in their columns.  truth_BCT: all frames; both are 0 in padded columns.

    source_mask_BT, pad_mask_BT: as models.motion.transformer has them.  reco_share, pred_share: of all values that
    count in the whole batch's losses, those that these clips have.
    """

    source_BCT: Array
    source_mask_BT: Array
    pad_mask_BT: Array
    truth_BCT: Array
    rate: int
    reco_share: float
    pred_share: float


def draw_paper_batch(
    sequences: Sequence[Float32Array],
    config: PaperSampleConfig,
    normalisation: Normalisation,
    seed: int,
    step: int,
    rank: int = 0,
    num_ranks: int = 1,
) -> PaperBatch[np.ndarray]:
    """One process's clips of the batch of one training step; those of all ranks together are the batch.

    A clip is a random stretch of a sequence; one that is shorter is cut to a multiple of the rate plus 1, and padded.

    Args:
        sequences: each (T, 19, 2), projected units, 60 fps.
        seed, step: alone decide what is drawn.
        rank, num_ranks: which clips are wanted: number rank, rank + num_ranks, ...

    Raises: ValueError if no sequence has two keys, or there are more ranks than clips.
    """
    usable = [sequence for sequence in sequences if len(sequence) > config.rate]
    if not usable:
        raise ValueError(f"no sequence has the {config.rate + 1} frames of two keys")
    generator = np.random.default_rng([seed, step])
    chosen = generator.integers(0, len(usable), config.batch_size)
    own = range(rank, config.batch_size, num_ranks)
    if not own:
        raise ValueError(f"{num_ranks} processes share a batch of {config.batch_size} clips; use fewer")
    length_B = [_usable_frames(len(usable[i]), config) for i in chosen]
    num_own = len(own)
    source_BCT = np.zeros((num_own, NUM_ROWS, config.num_frames), np.float32)
    truth_BCT = np.zeros_like(source_BCT)
    is_padding_BT: BoolArray = np.ones((num_own, config.num_frames), bool)
    for place, clip in enumerate(own):
        each = np.random.default_rng([seed, step, 1 + clip])
        sequence, length = usable[chosen[clip]], length_B[clip]
        start = int(each.integers(0, len(sequence) - length + 1))
        points_TJ2 = sequence[start : start + length]
        keys_KJ2 = add_paper_noise(points_TJ2[:: config.rate], each, config.noise_keys).points_KJ2
        truth_BCT[place, :, :length] = normalisation.to_rows(points_TJ2)
        source_BCT[place, :, : length : config.rate] = normalisation.to_rows(keys_KJ2)
        is_padding_BT[place, :length] = False
    is_hidden_BT = hidden_frames(config.num_frames, config.rate) | is_padding_BT
    num_keys_B = np.array([(length - 1) // config.rate + 1 for length in length_B])
    num_between_B = np.array(length_B) - num_keys_B
    return PaperBatch(
        source_BCT,
        is_hidden_BT,
        is_padding_BT,
        truth_BCT,
        config.rate,
        reco_share=float(num_keys_B[list(own)].sum() / num_keys_B.sum()),
        pred_share=float(num_between_B[list(own)].sum() / num_between_B.sum()),
    )


def _usable_frames(num_frames: int, config: PaperSampleConfig) -> int:
    return min(config.num_frames, (num_frames - 1) // config.rate * config.rate + 1)
