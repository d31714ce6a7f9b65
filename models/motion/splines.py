"""Cubic splines through evenly spaced keys as fixed matrices, so that any rate is one product.

Axes: B batch, K keys, T times, C channels. Time is counted in keys: key k is at time k. Slopes are per key step.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

Float64Array = npt.NDArray[np.float64]


def spline_matrix(num_keys: int, times_T: Float64Array) -> Float64Array:
    """The matrix that makes values at any times of key values: a cubic spline, not-a-knot ends.

    Args:   num_keys: at least 1; 1, 2 and 3 keys give a constant, a line and a parabola.
            times_T: (T,) within 0..num_keys - 1.
    Returns: (T, K); the rows at keys are exactly the key, so that a product with them gives its very bits.
    """
    if num_keys == 1:
        return np.ones((len(times_T), 1))
    matrix_TK = np.asarray(CubicSpline(np.arange(num_keys), np.eye(num_keys))(times_T), np.float64)
    is_key_T = times_T == np.rint(times_T)
    matrix_TK[is_key_T] = np.eye(num_keys)[times_T[is_key_T].astype(int)]
    return matrix_TK


def spline_slope_matrix(num_keys: int) -> Float64Array:
    """(K, K): the same spline's slope at each key."""
    if num_keys == 1:
        return np.zeros((1, 1))
    return np.asarray(CubicSpline(np.arange(num_keys), np.eye(num_keys))(np.arange(num_keys), 1), np.float64)


def hermite_matrix(num_keys: int, times_T: Float64Array) -> Float64Array:
    """(T, K): what a slope of 1 at each key adds at the times, all key values staying where they are; 0 at keys."""
    matrix_TK = np.zeros((len(times_T), num_keys))
    if num_keys == 1:
        return matrix_TK
    start_T = np.clip(np.floor(times_T).astype(int), 0, num_keys - 2)
    share_T = times_T - start_T
    row_T = np.arange(len(times_T))
    matrix_TK[row_T, start_T] = share_T * (1 - share_T) ** 2
    matrix_TK[row_T, start_T + 1] = share_T**2 * (share_T - 1)
    return matrix_TK


def frame_times(num_keys: int, rate: int) -> Float64Array:
    """((num_keys - 1) * rate + 1,) the times of all frames, `rate` of them to a key step."""
    return np.arange((num_keys - 1) * rate + 1) / rate


@lru_cache(maxsize=64)
def frame_matrices(num_keys: int, rate: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """spline_matrix and hermite_matrix at all frames, as tensors, kept between calls."""
    times_T = frame_times(num_keys, rate)
    return _as_tensors((spline_matrix(num_keys, times_T), hermite_matrix(num_keys, times_T)), device, dtype)


@lru_cache(maxsize=64)
def slope_matrix(num_keys: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """spline_slope_matrix as a tensor, kept between calls."""
    matrix_KK = spline_slope_matrix(num_keys)
    return _as_tensors((matrix_KK, matrix_KK), device, dtype)[0]


def _as_tensors(
    matrices: tuple[Float64Array, Float64Array], device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(mode=False):  # kept by a cache: training may meet them after inference
        first, second = (torch.tensor(matrix, device=device, dtype=dtype) for matrix in matrices)
        return first, second


def pchip_slopes(keys_BKC: Tensor) -> Tensor:
    """The slopes at evenly spaced keys with which a cubic never goes beyond them.

    Args:   keys_BKC: (B, K, C).
    Returns: (B, K, C): inside, the harmonic mean of the two secants, 0 where they differ in sign; at the ends the
        parabola's slope, 0 if it points the other way, at most three times the secant if the secants differ in sign.
    Source: Fritsch and Butland (1984), as scipy.interpolate.PchipInterpolator.
    """
    num_keys = keys_BKC.shape[1]
    if num_keys == 1:
        return torch.zeros_like(keys_BKC)
    secant_BKC = keys_BKC.diff(dim=1)
    if num_keys == 2:
        return secant_BKC.expand_as(keys_BKC)
    before, after = secant_BKC[:, :-1], secant_BKC[:, 1:]
    product = before * after
    total = torch.where(product > 0, before + after, torch.ones_like(before))
    inside = torch.where(product > 0, 2 * product / total, torch.zeros_like(product))
    first = _end_slope(secant_BKC[:, :1], secant_BKC[:, 1:2])
    last = _end_slope(secant_BKC[:, -1:], secant_BKC[:, -2:-1])
    return torch.cat([first, inside, last], dim=1)


def _end_slope(nearest: Tensor, next_one: Tensor) -> Tensor:
    slope = (3 * nearest - next_one) / 2
    slope = torch.where(slope * nearest > 0, slope, torch.zeros_like(slope))
    turns = (nearest * next_one <= 0) & (slope.abs() > 3 * nearest.abs())
    return torch.where(turns, 3 * nearest, slope)
