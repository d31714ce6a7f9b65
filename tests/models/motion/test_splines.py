import numpy as np
import pytest
import torch
from scipy.interpolate import CubicHermiteSpline, CubicSpline, PchipInterpolator

from models.motion.splines import (
    frame_matrices,
    frame_times,
    hermite_matrix,
    pchip_slopes,
    spline_matrix,
    spline_slope_matrix,
)


def keys(num_keys, seed=0):
    return np.random.default_rng(seed).normal(size=(num_keys, 4))


@pytest.mark.parametrize("num_keys", [2, 3, 4, 9])
def test_matrices_are_the_spline_and_its_slopes(num_keys):
    values, times = keys(num_keys), np.linspace(0, num_keys - 1, 23)
    spline = CubicSpline(np.arange(num_keys), values)
    np.testing.assert_allclose(spline_matrix(num_keys, times) @ values, spline(times), atol=1e-12)
    slopes = spline_slope_matrix(num_keys) @ values
    np.testing.assert_allclose(slopes, spline(np.arange(num_keys), 1), atol=1e-12)
    # Added slopes bend the cubic of every gap as Hermite's form does.
    extra = keys(num_keys, 1)
    bent = CubicHermiteSpline(np.arange(num_keys), values, slopes + extra)(times)
    both = spline_matrix(num_keys, times) @ values + hermite_matrix(num_keys, times) @ extra
    np.testing.assert_allclose(both, bent, atol=1e-12)


def test_keys_come_back_bit_for_bit():
    spline, hermite = frame_matrices(9, 5, torch.device("cpu"), torch.float32)
    values = torch.from_numpy(keys(9)).float()
    assert torch.equal((spline @ values + hermite @ (7 * values))[::5], values)


def test_a_lone_key_stays_where_it_is():
    assert spline_matrix(1, frame_times(1, 8)).tolist() == [[1.0]]
    assert (hermite_matrix(1, frame_times(1, 8)) == 0).all()
    assert pchip_slopes(torch.ones(1, 1, 2)).tolist() == [[[0, 0]]]


@pytest.mark.parametrize("num_keys", [2, 3, 4, 12])
def test_pchip_slopes_are_scipys(num_keys):
    values = np.concatenate([keys(num_keys), np.repeat([[1.0], [2.0]], num_keys, axis=0)[:num_keys]], axis=1)
    expected = PchipInterpolator(np.arange(num_keys), values)(np.arange(num_keys), 1)
    found = pchip_slopes(torch.from_numpy(values)[None])[0]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
