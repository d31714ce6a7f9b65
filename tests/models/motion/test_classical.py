"""Joints between keys: values worked by hand, and what happens to joints not seen and to wrong keys."""

import numpy as np
import pytest

from models.motion.classical import MOTION_METHODS, interpolate_joints, repair_keys
from models.skeleton import ARM_JOINTS, LEG_JOINTS, MIRRORED, NUM_JOINTS, Joint

ALL = sorted(MOTION_METHODS)


def keys_along(path_x, score=1.0):
    """(K, 19, 3): every joint at (path, 2 path) px."""
    path = np.asarray(path_x, float)
    keys = np.stack([path, 2 * path, np.full_like(path, score)], axis=-1)
    return np.repeat(keys[:, None], NUM_JOINTS, axis=1)


def standing(num_keys):
    """A person of 100 px torso who drifts 2 px a key to the right; left limbs right of the right ones."""
    keys = np.zeros((num_keys, NUM_JOINTS, 3))
    keys[..., 2] = 1.0
    for joint in Joint:
        side = 1 if joint.name.startswith("LEFT") else -1 if joint.name.startswith("RIGHT") else 0
        keys[:, joint, 0] = 300 + 60 * side
        keys[:, joint, 1] = 150 if joint in ARM_JOINTS else 350 if joint in LEG_JOINTS else 200
    keys[:, Joint.NECK, 1], keys[:, Joint.MID_HIP, 1] = 100, 200
    keys[..., 0] += 2 * np.arange(num_keys)[:, None]
    return keys


@pytest.mark.parametrize("method", ALL)
def test_shape_and_exactly_the_keys_at_key_times(method):
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.1, 0.4, 7))
    keys = standing(7) + rng.normal(0, 1, (7, NUM_JOINTS, 3)) * [1, 1, 0]
    between = np.linspace(times[0], times[-1], 31)
    assert interpolate_joints(times, keys, between, method).shape == (31, NUM_JOINTS, 3)
    assert np.array_equal(interpolate_joints(times, keys, times, method), keys)


def test_linear_at_irregular_times():
    joints = interpolate_joints([0.0, 1.0, 4.0], keys_along([0, 10, 40]), [0.5, 1.75, 3.0], "linear")
    assert joints[:, Joint.NOSE, :2] == pytest.approx(np.array([[5, 10], [17.5, 35], [30, 60]]))


@pytest.mark.parametrize("polynomial", [(1, -2, 3), (0.5, 1, -2, 4)])
def test_cubic_reproduces_polynomials_on_uneven_keys(polynomial):
    times = np.array([0, 0.5, 1.5, 2, 3.25, 4])
    targets = np.linspace(0, 4, 41)
    joints = interpolate_joints(times, keys_along(np.polyval(polynomial, times)), targets, "cubic")
    assert joints[:, Joint.LEFT_WRIST, 0] == pytest.approx(np.polyval(polynomial, targets), abs=1e-9)
    assert joints[:, Joint.LEFT_WRIST, 1] == pytest.approx(2 * np.polyval(polynomial, targets), abs=1e-9)


def test_pchip_stays_between_keys_where_cubic_overshoots():
    times, targets = np.arange(6.0), np.linspace(0, 5, 101)
    keys = keys_along([10, 10, 10, 60, 60, 60])
    cubic, pchip = (interpolate_joints(times, keys, targets, method)[:, Joint.NOSE, 0] for method in ("cubic", "pchip"))
    assert cubic.min() < 9.5
    assert cubic.max() > 60.5
    assert pchip.min() >= 10
    assert pchip.max() <= 60
    assert (np.diff(pchip) >= 0).all()


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("num_keys", [1, 2, 3])
def test_few_keys(method, num_keys):
    times = np.arange(num_keys, dtype=float)
    joints = interpolate_joints(times, keys_along(10 * times), [(num_keys - 1) / 2], method)
    assert joints[0, Joint.NOSE] == pytest.approx([5 * (num_keys - 1), 10 * (num_keys - 1), 1])


def test_score_is_linear():
    keys = keys_along([0, 1, 2, 3])
    keys[:, :, 2] = np.array([1.0, 0.5, 0.9, 0.1])[:, None]
    joints = interpolate_joints(np.arange(4.0), keys, [0.5, 2.5], "cubic")
    assert joints[:, Joint.NOSE, 2] == pytest.approx([0.75, 0.5])


@pytest.mark.parametrize("method", ALL)
def test_a_joint_that_one_key_misses_is_carried_over_it(method):
    keys = keys_along([100, 110, 120, 130, 140])
    keys[2, Joint.LEFT_HAND] = 0
    joints = interpolate_joints(np.arange(5.0), keys, [1.5, 2.0, 2.5], method)
    assert joints[:, Joint.LEFT_HAND, 0] == pytest.approx([115, 120, 125])
    assert (joints[:, Joint.LEFT_HAND, 2] > 0).all()


@pytest.mark.parametrize("method", ALL)
def test_a_joint_that_two_keys_miss_has_gone(method):
    keys = keys_along([100, 110, 120, 130, 140, 150])
    keys[2:4, Joint.LEFT_HAND] = 0
    joints = interpolate_joints(np.arange(6.0), keys, [0.5, 1.0, 1.5, 2.0, 3.0, 3.5, 4.0, 4.5], method)
    is_seen = joints[:, Joint.LEFT_HAND, 2] > 0
    assert is_seen.tolist() == [True, True, False, False, False, False, True, True]
    assert (joints[~is_seen, Joint.LEFT_HAND] == 0).all()
    assert (joints[:, Joint.RIGHT_HAND, 2] > 0).all()


@pytest.mark.parametrize("method", ALL)
def test_before_it_is_first_seen_a_joint_is_not_seen(method):
    keys = keys_along([100, 110, 120, 130])
    keys[0, Joint.NOSE] = 0
    joints = interpolate_joints(np.arange(4.0), keys, [0.0, 0.5, 1.0, 1.5], method)
    assert (joints[:2, Joint.NOSE] == 0).all()
    assert joints[2:, Joint.NOSE, 0] == pytest.approx([110, 115])


@pytest.mark.parametrize("method", ALL)
def test_a_joint_never_seen_stays_so_and_harms_no_other(method):
    keys = keys_along([100, 110, 120])
    keys[:, Joint.RIGHT_HAND] = 0
    keys[:, Joint.RIGHT_HAND, 0] = np.nan  # what stands beside a score of 0 does not matter
    joints = interpolate_joints(np.arange(3.0), keys, [0.5, 1.5], method)
    assert (joints[:, Joint.RIGHT_HAND] == 0).all()
    assert joints[:, Joint.NOSE, 0] == pytest.approx([105, 115])


def test_robust_repairs_one_outlier_and_keeps_the_rest():
    clean = standing(9)
    keys = clean.copy()
    keys[4, Joint.LEFT_WRIST, :2] += [150, -120]
    times = np.linspace(0, 8, 33)
    robust = interpolate_joints(np.arange(9.0), keys, times, "robust")
    expected = interpolate_joints(np.arange(9.0), clean, times, "pchip")
    assert robust == pytest.approx(expected)
    assert np.abs(interpolate_joints(np.arange(9.0), keys, times, "pchip") - expected).max() > 100


@pytest.mark.parametrize("limbs", [ARM_JOINTS, LEG_JOINTS])
def test_robust_undoes_a_swap_of_arms_or_legs(limbs):
    clean = standing(9)
    keys = clean.copy()
    own, other = list(limbs), [MIRRORED[joint] for joint in limbs]
    keys[3:5, own] = clean[3:5, other]
    assert repair_keys(np.arange(9.0), keys) == pytest.approx(clean)


def test_a_foot_that_swings_out_and_back_is_kept():
    keys = standing(9)
    swing = np.array([0, 0, 0, 70, 150, 70, 0, 0, 0.0])
    for joint in (Joint.LEFT_ANKLE, Joint.LEFT_BIG_TOE):
        keys[:, joint, 0] += swing
    assert np.array_equal(repair_keys(np.arange(9.0), keys), keys)


def test_without_a_torso_nothing_is_repaired():
    keys = standing(9)
    keys[:, Joint.NECK] = 0
    keys[4, Joint.LEFT_WRIST, 0] += 150
    assert np.array_equal(repair_keys(np.arange(9.0), keys), keys)


def test_wrong_input_is_named():
    keys = keys_along([0, 1, 2])
    with pytest.raises(ValueError, match="no motion method 'spline'; there are linear"):
        interpolate_joints(np.arange(3.0), keys, [0.5], "spline")
    with pytest.raises(ValueError, match="outside the keys' span 0 to 2"):
        interpolate_joints(np.arange(3.0), keys, [2.5], "linear")
    with pytest.raises(ValueError, match="increase strictly"):
        interpolate_joints([0, 1, 1], keys, [0.5], "linear")
    with pytest.raises(ValueError, match="do not fit"):
        interpolate_joints(np.arange(4.0), keys, [0.5], "linear")


def test_input_is_left_as_it_was():
    keys = standing(9)
    keys[4, Joint.LEFT_WRIST, 0] += 150
    before = keys.copy()
    interpolate_joints(np.arange(9.0), keys, [0.5], "robust")
    assert np.array_equal(keys, before)
