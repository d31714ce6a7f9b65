"""How each motion network is taught: its samples and its loss, behind one interface (models.motion.training)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from torch import nn

from models.motion.losses import MotionLoss, motion_loss
from models.motion.paper_samples import PaperBatch, PaperSampleConfig, draw_paper_batch
from models.motion.samples import Batch, Float32Array, SampleConfig, draw_batch
from models.motion.tangents import TangentLoss, TangentNetwork, tangent_loss
from models.motion.views import Normalisation

Loss: TypeAlias = TangentLoss | MotionLoss
AnyBatch = TypeVar("AnyBatch", bound=NamedTuple)


class Recipe(Protocol):
    """draw: one process's part of a step's batch, by (seed, step) alone, as arrays.  loss: of a batch of tensors.

    A loss's first field is what is minimised. With several processes the mean of theirs is the whole batch's.
    """

    @property
    def frames_per_step(self) -> int: ...

    def draw(
        self, sequences: Sequence[Float32Array], seed: int, step: int, rank: int, num_ranks: int
    ) -> NamedTuple: ...

    def loss(self, network: nn.Module, batch: NamedTuple, num_ranks: int) -> Loss: ...


@dataclass(frozen=True)
class TangentRecipe:
    samples: SampleConfig

    @property
    def frames_per_step(self) -> int:
        return int(self.samples.num_key_tokens * np.dot(self.samples.rates, self.samples.rate_shares))

    def draw(self, sequences: Sequence[Float32Array], seed: int, step: int, rank: int, num_ranks: int) -> NamedTuple:
        return draw_batch(sequences, self.samples, seed, step, rank, num_ranks)

    def loss(self, network: nn.Module, batch: NamedTuple, num_ranks: int) -> TangentLoss:
        assert isinstance(network, TangentNetwork)
        assert isinstance(batch, Batch)
        return tangent_loss(network, batch, num_ranks)


@dataclass(frozen=True)
class PaperRecipe:
    """The paper's losses and noise.  rows: the network's own normalisation (network.rows.get())."""

    samples: PaperSampleConfig
    rows: Normalisation

    @property
    def frames_per_step(self) -> int:
        return self.samples.batch_size * self.samples.num_frames

    def draw(self, sequences: Sequence[Float32Array], seed: int, step: int, rank: int, num_ranks: int) -> NamedTuple:
        return draw_paper_batch(sequences, self.samples, self.rows, seed, step, rank, num_ranks)

    def loss(self, network: nn.Module, batch: NamedTuple, num_ranks: int) -> MotionLoss:
        assert isinstance(batch, PaperBatch)
        pred_BCT, reco_BCT = network(batch.source_BCT, batch.source_mask_BT, batch.pad_mask_BT, batch.rate)
        return motion_loss(
            pred_BCT,
            reco_BCT,
            batch.truth_BCT,
            batch.source_mask_BT,
            batch.pad_mask_BT,
            reco_weight=batch.reco_share * num_ranks,
            pred_weight=batch.pred_share * num_ranks,
        )


def to_tensors(batch: AnyBatch, device: torch.device | str = "cpu") -> AnyBatch:
    """A batch of arrays as one of tensors on a device; numbers stay as they are."""
    moved = (torch.from_numpy(v).to(device, non_blocking=True) if isinstance(v, np.ndarray) else v for v in batch)
    return batch._replace(**dict(zip(batch._fields, moved, strict=True)))
