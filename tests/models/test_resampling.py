import numpy as np
import pytest

from models.resampling import plan_grid, resample

RATES = [30.0, 59.94, 60.0, 100.0, 120.0, 120.00004577636719, 250.0]


def move(times_s):
    """An analytic motion of three numbers, up to 4 Hz, as fast as a kicking foot (6 m/s)."""
    phases = 2 * np.pi * np.outer(times_s, [0.7, 2.0, 4.0])
    return np.sin(phases) * [0.5, 0.3, 0.24] + [1, 2, 3]


@pytest.mark.parametrize("fps", RATES)
def test_every_rate_comes_to_sixty_frames_a_second_without_drift(fps):
    num_source = int(120 * fps)  # two minutes
    grid = plan_grid(num_source, fps, 60)
    source = move(np.arange(num_source) / fps)
    first, last = grid.source_span(0, grid.num_frames)
    got = resample(source[first:last], grid, 0, grid.num_frames)
    assert abs(grid.num_frames - 120 * 60) <= 2
    error = np.abs(got - move(np.arange(grid.num_frames) / 60))
    # Frame t lies at t / 60 s at the end as at the beginning; 30 fps has only seven frames of the 4 Hz wave.
    assert error[:200].max() < (3e-3 if fps == 30 else 1e-4)
    assert error[-200:].max() < (3e-3 if fps == 30 else 1e-4)


def test_a_measured_rate_is_not_rounded():
    grid = plan_grid(1_000_001, 120.00004577636719, 60)
    # By hand: 1,000,000 source steps are 8333.330154 s, 499,999.81 steps of 1/60 s.
    assert grid.num_frames == 500_000
    assert grid.step == 120.00004577636719 / 60


def test_where_the_grid_lies_on_source_frames_these_are_taken_exactly():
    source = np.random.default_rng(0).normal(size=(101, 4)).astype(np.float32)
    for fps, step in ((60.0, 1), (120.0, 2), (240.0, 4)):
        grid = plan_grid(101, fps, 60)
        first, last = grid.source_span(0, grid.num_frames)
        np.testing.assert_array_equal(resample(source[first:last], grid, 0, grid.num_frames), source[::step])


def test_a_polynomial_of_the_fifth_degree_is_met_everywhere_even_at_the_ends():
    times = np.arange(20) / 100

    def curve(t):
        return 2 - t + 40 * t**2 - 300 * t**3 + 900 * t**4 - 700 * t**5

    grid = plan_grid(20, 100.0, 60)
    got = resample(curve(times)[:, None], grid, 0, grid.num_frames)
    np.testing.assert_allclose(got[:, 0], curve(np.arange(grid.num_frames) / 60), atol=1e-12)


def test_chunks_are_the_whole():
    source = np.random.default_rng(1).normal(size=(500, 6))
    grid = plan_grid(500, 100.0, 60, trim_share=0.1)
    whole_span = grid.source_span(0, grid.num_frames)
    whole = resample(source[slice(*whole_span)], grid, 0, grid.num_frames)
    chunks = []
    for start in range(0, grid.num_frames, 37):
        stop = min(start + 37, grid.num_frames)
        first, last = grid.source_span(start, stop)
        assert last - first <= 37 * 100 / 60 + 7
        chunks.append(resample(source[first:last], grid, start, stop))
    np.testing.assert_array_equal(np.concatenate(chunks), whole)


@pytest.mark.parametrize(("fps", "first", "num_frames"), [(60.0, 10, 80), (120.0, 10, 40), (100.0, 10, 48)])
def test_trimming_leaves_the_middle(fps, first, num_frames):
    # 100 frames, a tenth off each end: frames 10..89, 79 source steps.
    grid = plan_grid(100, fps, 60, trim_share=0.1)
    assert (grid.first, grid.num_frames) == (first, num_frames)
    assert grid.first + (num_frames - 1) * grid.step <= 89


@pytest.mark.parametrize("num_source", [0, 1, 2, 5])
def test_fewer_frames_than_the_polynomial_wants(num_source):
    source = np.arange(num_source, dtype=float)[:, None]
    grid = plan_grid(num_source, 30.0, 60)
    if not num_source:
        assert grid.num_frames == 0
        return
    first, last = grid.source_span(0, grid.num_frames)
    got = resample(source[first:last], grid, 0, grid.num_frames)[:, 0]
    np.testing.assert_allclose(got, np.arange(2 * num_source - 1) / 2, atol=1e-12)
