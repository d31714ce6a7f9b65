import math

import numpy as np
import pytest

from models.motion.measures import MotionScore, is_between_keys, jerk, place_at_origin
from tests.models.motion.reference import load_arrays, load_json, needs_reference


@needs_reference
@pytest.mark.parametrize(("name", "suffix"), [("pred", "global"), ("linear", "interp")])
def test_measures_are_the_fixtures(name, suffix):
    path = load_arrays("amass_path.npz")
    truth, found = (place_at_origin(path[key].transpose(2, 0, 1)) for key in ("gt", name))
    score = MotionScore()
    score.add(found, truth)
    expected = load_json("motion_metrics.json")
    assert score.result() == pytest.approx([expected[f"{m}_{suffix}"] for m in ("mse", "mae", "max")], abs=1e-12)


def test_clips_weigh_by_their_numbers_but_each_has_one_largest():
    score = MotionScore()
    score.add(np.full((3, 19, 2), 1.0), np.zeros((3, 19, 2)))
    score.add(np.full((1, 19, 2), 5.0), np.zeros((1, 19, 2)))
    assert score.result() == (7.0, 2.0, 3.0)


def test_frames_that_do_not_count_are_left_out():
    score = MotionScore()
    found = np.arange(5.0)[:, None, None] * np.ones((5, 19, 2))
    score.add(found, 0 * found, is_between_keys(5, 4))
    assert score.result() == (14 / 3, 2.0, 3.0)
    assert is_between_keys(5, 4).tolist() == [False, True, True, True, False]


def test_nothing_counted_is_nan():
    score = MotionScore()
    score.add(np.ones((3, 19, 2)), np.ones((3, 19, 2)), np.zeros(3, bool))
    assert all(math.isnan(value) for value in score.result())


def test_jerk_of_a_cubic_and_of_a_parabola():
    t = np.arange(6.0)[:, None, None] * np.ones((6, 19, 1))
    assert jerk(np.concatenate([t**3, 0 * t], axis=2)) == pytest.approx(6)
    assert jerk(np.concatenate([t**2, t], axis=2)) == pytest.approx(0, abs=1e-12)
    assert math.isnan(jerk(np.zeros((3, 19, 2))))


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 19, 2\).*\(3, 19, 2\)"):
        MotionScore().add(np.zeros((2, 19, 2)), np.zeros((3, 19, 2)))
