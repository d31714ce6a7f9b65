"""Fill points that are missing or not to be trusted, from the key frames around them.

Axes: B batch, K key frames, C channels, J joints (19), 2 = (x, y).
"""

import torch
from torch import Tensor

from models.skeleton import Joint

# How far a joint is trusted to tell where the mid hip is: those of the trunk keep their distance to it.
_TRUNK = (Joint.NECK, Joint.RIGHT_SHOULDER, Joint.LEFT_SHOULDER, Joint.RIGHT_HIP, Joint.LEFT_HIP)
_LIMB_TRUST = 0.05
_TRUST = [0.0 if joint is Joint.MID_HIP else 1.0 if joint in _TRUNK else _LIMB_TRUST for joint in Joint]


def fill_gaps(values_BKC: Tensor, is_good_BKC: Tensor) -> tuple[Tensor, Tensor]:
    """Straight lines over time between the nearest good values; before the first and after the last, that one.

    Args:   values_BKC: (B, K, C).  is_good_BKC: (B, K, C) bool, True = keep.
    Returns: (values (B, K, C), the good ones unchanged and channels without any good one 0; distance (B, K, C), keys
        to the nearest good one, 0 where good, K where there is none).
    """
    num_keys = values_BKC.shape[1]
    index_K1 = torch.arange(num_keys, device=values_BKC.device)[:, None]
    before_BKC = torch.where(is_good_BKC, index_K1, -1).cummax(dim=1).values
    after_BKC = torch.where(is_good_BKC, index_K1, num_keys).flip(1).cummin(dim=1).values.flip(1)
    has_before, has_after = before_BKC >= 0, after_BKC < num_keys
    start_BKC = torch.where(has_before, before_BKC, after_BKC).clamp(max=num_keys - 1)
    end_BKC = torch.where(has_after, after_BKC, before_BKC).clamp(min=0)
    clean_BKC = torch.where(is_good_BKC, values_BKC, torch.zeros_like(values_BKC))
    start_value, end_value = clean_BKC.gather(1, start_BKC), clean_BKC.gather(1, end_BKC)
    share = (index_K1 - start_BKC) / (end_BKC - start_BKC).clamp(min=1)
    filled_BKC = start_value + (end_value - start_value) * share.to(values_BKC.dtype)
    distance_BKC = torch.minimum(
        torch.where(has_before, index_K1 - before_BKC, num_keys), torch.where(has_after, after_BKC - index_K1, num_keys)
    )
    return torch.where(is_good_BKC, values_BKC, filled_BKC), distance_BKC


def fill_points(points_BKJ2: Tensor, is_good_BKJ: Tensor, usual_J2: Tensor) -> tuple[Tensor, Tensor]:
    """Fill joints over time relative to the mid hip, and the mid hip itself from the joints that are there.

    Args:
        points_BKJ2: (B, K, 19, 2); what is not good is not read.
        is_good_BKJ: (B, K, 19) bool, True = keep as it is.
        usual_J2: (19, 2) each joint's usual place relative to the mid hip: for one that is never good.

    Returns: (points (B, K, 19, 2), the good ones bit for bit; distance (B, K, 19), keys to the nearest good one).
        A clip without a single good point becomes the usual pose at (0, 0).
    """
    is_good_BKJ2 = is_good_BKJ[..., None].expand_as(points_BKJ2)
    hip = slice(Joint.MID_HIP, Joint.MID_HIP + 1)
    with_hip_BKJ2 = is_good_BKJ2 & is_good_BKJ2[:, :, hip]
    offsets_BKJ2, _ = _fill_offsets(points_BKJ2 - points_BKJ2[:, :, hip], with_hip_BKJ2, usual_J2)
    hip_BK12 = _find_hip(points_BKJ2, is_good_BKJ, offsets_BKJ2)
    offsets_BKJ2, distance_BKJ = _fill_offsets(points_BKJ2 - hip_BK12, is_good_BKJ2, usual_J2)
    return torch.where(is_good_BKJ2, points_BKJ2, hip_BK12 + offsets_BKJ2), distance_BKJ


def _fill_offsets(offsets_BKJ2: Tensor, is_good_BKJ2: Tensor, usual_J2: Tensor) -> tuple[Tensor, Tensor]:
    filled, distance = fill_gaps(offsets_BKJ2.flatten(2), is_good_BKJ2.flatten(2))
    is_known_BJ2 = is_good_BKJ2.any(dim=1, keepdim=True)
    filled_BKJ2 = torch.where(is_known_BJ2, filled.view_as(offsets_BKJ2), usual_J2)
    return filled_BKJ2, distance.view_as(offsets_BKJ2)[..., 0]


def _find_hip(points_BKJ2: Tensor, is_good_BKJ: Tensor, offsets_BKJ2: Tensor) -> Tensor:
    """(B, K, 1, 2): the mid hip where it is good; else where the good joints put it; else over time."""
    weight_BKJ = points_BKJ2.new_tensor(_TRUST) * is_good_BKJ
    total_BK1 = weight_BKJ.sum(dim=2, keepdim=True)
    implied_BKJ2 = torch.where(is_good_BKJ[..., None], points_BKJ2 - offsets_BKJ2, torch.zeros_like(points_BKJ2))
    implied_BK2 = (implied_BKJ2 * weight_BKJ[..., None]).sum(dim=2) / total_BK1.clamp(min=_LIMB_TRUST / 2)
    is_good_BK1 = is_good_BKJ[:, :, Joint.MID_HIP, None]
    hip_BK2 = torch.where(is_good_BK1, points_BKJ2[:, :, Joint.MID_HIP], implied_BK2)
    is_known_BK2 = (is_good_BK1 | (total_BK1 > 0)).expand_as(hip_BK2)
    return fill_gaps(hip_BK2, is_known_BK2)[0][:, :, None]
