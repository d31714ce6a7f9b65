"""PSNR and SSIM as the paper's evaluation of rendering takes them. models.measures has those of the project's tables.

Axes: B batch, C channels, H, W. Pictures are RGB from 0 to 1.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

_SIGMA_PX, _RADIUS_PX = 1.5, 5
_C1, _C2 = 0.01**2, 0.03**2


class PaperMeasures(NamedTuple):
    """Of each picture. psnr_B in dB, infinite for equal pictures; ssim_B up to 1."""

    psnr_B: Tensor
    ssim_B: Tensor


def measure_pictures(picture_BCHW: Tensor, truth_BCHW: Tensor, is_person_B1HW: Tensor | None = None) -> PaperMeasures:
    """How far pictures lie from the truth; with `is_person_B1HW` (1 or True = counts), both are multiplied by it first.

    Args: picture_BCHW, truth_BCHW: (B, 3, H, W) float, 0..1, at least 11 x 11 px.
    Source: paper, section 4; pixels that do not count are equal in both, and count as such.
    """
    if is_person_B1HW is not None:
        is_person_B1HW = is_person_B1HW.to(picture_BCHW.dtype)
        picture_BCHW, truth_BCHW = picture_BCHW * is_person_B1HW, truth_BCHW * is_person_B1HW
    error_B = (picture_BCHW - truth_BCHW).square().mean(dim=(1, 2, 3))
    return PaperMeasures(-10 * error_B.log10(), _ssim(picture_BCHW, truth_BCHW))


def _ssim(a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
    """With a Gaussian window of 11 x 11 px, where it lies inside the picture."""
    offset = torch.arange(-_RADIUS_PX, _RADIUS_PX + 1, device=a_BCHW.device, dtype=a_BCHW.dtype)
    window = (-(offset**2) / (2 * _SIGMA_PX**2)).exp()
    window = window / window.sum()

    def blur(x_BCHW: Tensor) -> Tensor:
        channels = x_BCHW.shape[1]
        rows = window[:, None].expand(channels, 1, -1, 1)
        columns = window[None].expand(channels, 1, 1, -1)
        x_BCHW = functional.conv2d(x_BCHW, rows, groups=channels)
        return functional.conv2d(x_BCHW, columns, groups=channels)

    mean_a, mean_b = blur(a_BCHW), blur(b_BCHW)
    variance_a, variance_b = blur(a_BCHW**2) - mean_a**2, blur(b_BCHW**2) - mean_b**2
    covariance = blur(a_BCHW * b_BCHW) - mean_a * mean_b
    similarity = (2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)
    similarity = similarity / ((mean_a**2 + mean_b**2 + _C1) * (variance_a + variance_b + _C2))
    return similarity.mean(dim=(1, 2, 3))
