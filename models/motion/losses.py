"""What the paper's motion network is trained on.

Axes: B batch, T frames, C rows (38). A mask's True means hidden or padding.
"""

from typing import NamedTuple

from torch import Tensor

RECO_WEIGHT = 2.0
TOTAL_WEIGHT = 5.0


class MotionLoss(NamedTuple):
    """Scalars. total = 5 (2 reco + pred); reco: of the cleaned keys; pred: of the frames between them."""

    total: Tensor
    reco: Tensor
    pred: Tensor


def motion_loss(
    pred_BCT: Tensor,
    reco_BCT: Tensor,
    truth_BCT: Tensor,
    source_mask_BT: Tensor,
    pad_mask_BT: Tensor | None,
    *,
    reco_weight: float = 1.0,
    pred_weight: float = 1.0,
) -> MotionLoss:
    """Mean absolute difference from the truth, keys and in-betweens apart, padding left out.

    Args:
        pred_BCT, reco_BCT, truth_BCT: (B, 38, T) network rows; of reco only key columns count.
        source_mask_BT: (B, T) bool, True = hidden: not a key, or padding.
        pad_mask_BT: (B, T) bool, True = padding; None = no padding.
        reco_weight, pred_weight: factors of the means, for processes that hold unequal parts of a batch.

    Returns: MotionLoss; a part without a column to count is 0.
    Source: paper, section 3.1. Differs from the 2021 code, whose means divide by a count that may be 0.
    """
    is_between_BT = source_mask_BT if pad_mask_BT is None else source_mask_BT & ~pad_mask_BT
    reco = reco_weight * _mean_where(reco_BCT, truth_BCT, ~source_mask_BT)
    pred = pred_weight * _mean_where(pred_BCT, truth_BCT, is_between_BT)
    return MotionLoss(TOTAL_WEIGHT * (RECO_WEIGHT * reco + pred), reco, pred)


def _mean_where(value_BCT: Tensor, truth_BCT: Tensor, is_counted_BT: Tensor) -> Tensor:
    # A product, not a selection: no shape depends on the data, so a GPU does not wait.
    difference_BT = (value_BCT - truth_BCT).abs().sum(dim=1)
    count = is_counted_BT.sum().clamp(min=1) * value_BCT.shape[1]
    return difference_BT.masked_fill(~is_counted_BT, 0).sum() / count
