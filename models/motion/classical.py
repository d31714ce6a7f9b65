"""Joints between key frames by interpolation alone: nothing is learned.

Axes: K keys, T target times, J joints (19), G joints that are seen at the same keys, D (x px, y px, score 0..1).
A joint with score 0 is not seen, and is (0, 0, 0).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from models.skeleton import ARM_JOINTS, LEG_JOINTS, MIRRORED, FloatArray, Joint, is_seen, torso_length

MotionMethod = Literal["linear", "cubic", "pchip", "robust"]

# A joint that one key misses is carried over it; one that two keys in a row miss has gone.
MAX_GAP_KEYS = 2


@dataclass(frozen=True)
class RepairSettings:
    """Lengths are in torsos (clip median)."""

    outlier: float = 0.6  # a key farther than this from where its neighbours put it ...
    outlier_motion: float = 1.25  # ... and than this many times the joint's usual large step, is wrong
    swap: float = 0.3  # what each joint must gain for left and right to be exchanged in a key
    max_step: float = 1.2  # a displacement counts up to this, so that one wrong joint cannot exchange a limb


def interpolate_joints(
    key_times_K: FloatArray,
    key_joints_KJD: FloatArray,
    times_T: FloatArray,
    method: MotionMethod,
    settings: RepairSettings | None = None,
) -> npt.NDArray[np.float64]:
    """Joints at any times from the joints of the keys.

    `linear`: straight between keys. `cubic`: spline with continuous curvature, not-a-knot ends.
    `pchip`: monotone cubic, never beyond the keys. `robust`: wrong keys repaired (repair_keys), then pchip.

    Args:
        key_times_K: (K,) s or any unit, strictly increasing; the gaps may differ.
        key_joints_KJD: (K, 19, 3) x px, y px, score; score 0 = not seen.
        times_T: (T,) within the keys' span, in any order.
        method: a name of MOTION_METHODS.
        settings: of the repair.

    Returns:
        (T, 19, 3). At a key, exactly what was seen there (the repaired key with robust). A joint is interpolated
        from the keys that saw it where those around the time are at most two key gaps apart, else (0, 0, 0);
        so is one missed by the first or last key, before or after the others. The score is linear.

    Raises: ValueError on an unknown method, shapes that do not fit, times not increasing or outside the span.
    """
    if method not in MOTION_METHODS:
        raise ValueError(f"no motion method {method!r}; there are {', '.join(MOTION_METHODS)}")
    key_times_K, times_T = np.asarray(key_times_K, np.float64), np.asarray(times_T, np.float64)
    keys_KJD = np.array(key_joints_KJD, np.float64)
    if key_times_K.ndim != 1 or not len(key_times_K) or keys_KJD.shape != (len(key_times_K), len(Joint), 3):
        raise ValueError(f"{key_times_K.shape} key times do not fit {keys_KJD.shape} key joints (K, 19, 3)")
    if not (np.diff(key_times_K) > 0).all():
        raise ValueError("key times must increase strictly")
    if len(times_T) and not (key_times_K[0] <= times_T.min() and times_T.max() <= key_times_K[-1]):
        raise ValueError(f"times outside the keys' span {key_times_K[0]:g} to {key_times_K[-1]:g}")
    keys_KJD[~is_seen(keys_KJD)] = 0.0
    if method == "robust":
        keys_KJD = repair_keys(key_times_K, keys_KJD, settings)
    joints_TJD = np.zeros((len(times_T), len(Joint), 3))
    # Joints that are seen at the same keys share their splines: most often all of them.
    patterns_PK, pattern_of_J = np.unique(is_seen(keys_KJD).T, axis=0, return_inverse=True)
    for pattern, is_seen_K in enumerate(patterns_PK):
        group = np.flatnonzero(pattern_of_J.ravel() == pattern)
        for run in _unbroken_runs(np.flatnonzero(is_seen_K)):
            is_inside_T = (key_times_K[run[0]] <= times_T) & (times_T <= key_times_K[run[-1]])
            values_KGD = keys_KJD[np.ix_(run, group)]
            joints_TJD[np.ix_(is_inside_T, group)] = _interpolate_run(
                key_times_K[run], values_KGD, times_T[is_inside_T], MOTION_METHODS[method]
            )
    return joints_TJD


Interpolator = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]


def _linear(key_times_K: FloatArray, values_KGD: FloatArray, times_T: FloatArray) -> FloatArray:
    after_T = np.clip(np.searchsorted(key_times_K, times_T, side="right"), 1, len(key_times_K) - 1)
    before_T = after_T - 1
    share_T = (times_T - key_times_K[before_T]) / (key_times_K[after_T] - key_times_K[before_T])
    share_T11 = share_T[:, None, None]
    return values_KGD[before_T] * (1.0 - share_T11) + values_KGD[after_T] * share_T11


def _cubic(key_times_K: FloatArray, values_KGD: FloatArray, times_T: FloatArray) -> FloatArray:
    # With three keys not-a-knot is the parabola through them, with two the straight line.
    from scipy.interpolate import CubicSpline  # 0.7 s to import, and most renders need none

    spline = CubicSpline(key_times_K, values_KGD, bc_type="not-a-knot")
    return np.asarray(spline(times_T))


def _pchip(key_times_K: FloatArray, values_KGD: FloatArray, times_T: FloatArray) -> FloatArray:
    from scipy.interpolate import PchipInterpolator

    return np.asarray(PchipInterpolator(key_times_K, values_KGD)(times_T))


MOTION_METHODS: dict[str, Interpolator] = {"linear": _linear, "cubic": _cubic, "pchip": _pchip, "robust": _pchip}
assert set(MOTION_METHODS) == set(get_args(MotionMethod))


def _unbroken_runs(seen_keys: npt.NDArray[np.intp]) -> list[npt.NDArray[np.intp]]:
    """The numbers of the keys that saw a joint, cut where the next one is more than MAX_GAP_KEYS gaps on."""
    if not len(seen_keys):
        return []
    return np.split(seen_keys, np.flatnonzero(np.diff(seen_keys) > MAX_GAP_KEYS) + 1)


def _interpolate_run(
    key_times_K: FloatArray, keys_KGD: FloatArray, times_T: FloatArray, interpolate: Interpolator
) -> FloatArray:
    """(T, G, 3) of joints that all keys of the run saw, at times within it."""
    place_T = np.searchsorted(key_times_K, times_T)
    is_key_T = key_times_K[place_T] == times_T
    joints_TGD = np.empty((len(times_T), *keys_KGD.shape[1:]))
    # Exactly the key's values: a spline may be off by a rounding.
    joints_TGD[is_key_T] = keys_KGD[place_T[is_key_T]]
    between_T = times_T[~is_key_T]
    if len(between_T):
        joints_TGD[~is_key_T, :, :2] = interpolate(key_times_K, keys_KGD[..., :2], between_T)
        joints_TGD[~is_key_T, :, 2:] = _linear(key_times_K, keys_KGD[..., 2:], between_T)
    return joints_TGD


def repair_keys(
    key_times_K: FloatArray, key_joints_KJD: FloatArray, settings: RepairSettings | None = None
) -> npt.NDArray[np.float64]:
    """Exchange left and right where a limb jumped to the other side, and drop joints that jumped away.

    Arms and legs apart, the exchanges are those that make the joints' way through the keys shortest, each
    at a price. A joint is dropped at a key when both the straight line between its neighbours and the median of
    the four around it are far from it, next to the steps it makes elsewhere: one key alone, there and back.

    Args:
        key_times_K: (K,) strictly increasing.
        key_joints_KJD: (K, 19, 3), (0, 0, 0) = not seen.
        settings: thresholds.
    Returns: (K, 19, 3); a dropped joint is (0, 0, 0). As it came where no key shows neck and mid hip.
    """
    settings = settings or RepairSettings()
    keys_KJD = np.array(key_joints_KJD, np.float64)
    torso_px = torso_length(keys_KJD)
    if not torso_px > 0:
        return keys_KJD
    for limbs in (ARM_JOINTS, LEG_JOINTS):
        own, other = list(limbs), [MIRRORED[joint] for joint in limbs]
        own_KGD, other_KGD = keys_KJD[:, own], keys_KJD[:, other]
        is_swapped_K = _find_swaps(own_KGD, other_KGD, torso_px, settings)
        keys_KJD[:, own] = np.where(is_swapped_K[:, None, None], other_KGD, own_KGD)
    keys_KJD[_find_outliers(np.asarray(key_times_K, np.float64), keys_KJD, torso_px, settings)] = 0.0
    return keys_KJD


def _find_swaps(
    own_KGD: FloatArray, other_KGD: FloatArray, torso_px: float, settings: RepairSettings
) -> npt.NDArray[np.bool_]:
    """(K,) True where the joints of the other side continue the limbs: the cheapest way, by Viterbi."""
    states_KSGD = np.stack([own_KGD, other_KGD], axis=1)
    before, after = states_KSGD[:-1, :, None], states_KSGD[1:, None, :]
    step = np.linalg.norm(after[..., :2] - before[..., :2], axis=-1) / torso_px
    is_known = is_seen(before) & is_seen(after)
    steps_KSS = np.where(is_known, np.minimum(step, settings.max_step), 0.0).sum(axis=-1)
    price_S = np.array([0.0, settings.swap * own_KGD.shape[1]])
    cost_S = price_S
    origins = np.zeros((len(own_KGD), 2), np.intp)
    for key in range(1, len(own_KGD)):
        through_SS = cost_S[:, None] + steps_KSS[key - 1]
        origins[key] = through_SS.argmin(axis=0)
        cost_S = through_SS.min(axis=0) + price_S
    is_swapped_K = np.zeros(len(own_KGD), np.bool_)
    state = int(cost_S.argmin())
    for key in range(len(own_KGD) - 1, -1, -1):
        is_swapped_K[key] = state == 1
        state = int(origins[key, state])
    return is_swapped_K


def _find_outliers(
    key_times_K: FloatArray, keys_KJD: FloatArray, torso_px: float, settings: RepairSettings
) -> npt.NDArray[np.bool_]:
    """(K, J) True where a joint jumped away at one key; never at the first and last, nor beside a key that lacks it."""
    is_wrong_KJ = np.zeros(keys_KJD.shape[:2], np.bool_)
    if len(keys_KJD) < 5:  # too few to know a joint's usual motion
        return is_wrong_KJ
    points_KJD = np.where(is_seen(keys_KJD)[..., None], keys_KJD[..., :2], np.nan)
    share_K11 = ((key_times_K[1:-1] - key_times_K[:-2]) / (key_times_K[2:] - key_times_K[:-2]))[:, None, None]
    straight_KJD = points_KJD[:-2] * (1.0 - share_K11) + points_KJD[2:] * share_K11
    padded_KJD = np.pad(points_KJD, ((1, 1), (0, 0), (0, 0)), mode="edge")
    around_NKJD = np.stack([padded_KJD[:-4], padded_KJD[1:-3], padded_KJD[3:-1], padded_KJD[4:]])
    # The plain median of four: NaN where one is not seen, which then is no outlier.
    median_KJD = np.median(around_NKJD, axis=0)
    away_KJ = np.minimum(
        np.linalg.norm(points_KJD[1:-1] - straight_KJD, axis=-1), np.linalg.norm(points_KJD[1:-1] - median_KJD, axis=-1)
    )
    away_KJ = np.nan_to_num(away_KJ, nan=0.0) / torso_px
    step_KJ = np.linalg.norm(np.diff(points_KJD, axis=0), axis=-1) / torso_px
    # A foot that swings out and back is as far from its neighbours as it steps elsewhere: not wrong.
    usual_J = np.percentile(np.nan_to_num(step_KJ, nan=0.0), 75, axis=0)
    is_far_KJ = away_KJ > np.maximum(settings.outlier, settings.outlier_motion * usual_J)
    # A wrong key also pulls its neighbours' lines away, by half: only the worst of neighbours is wrong.
    beside_KJ = np.pad(away_KJ, ((1, 1), (0, 0)))
    is_worst_KJ = (away_KJ >= beside_KJ[:-2]) & (away_KJ > beside_KJ[2:])
    is_wrong_KJ[1:-1] = is_far_KJ & is_worst_KJ
    return is_wrong_KJ
