"""How well motion methods fill the frames between keys, on sequences they have not seen: clean keys and noisy ones.

Axes: K key frames, T frames, J joints (19), 2 = (x, y) projected units.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from models.motion.classical import MotionMethod, interpolate_joints, repair_keys
from models.motion.measures import MotionMeasures, MotionScore, is_between_keys, jerk
from models.motion.samples import Faults, Float32Array, add_paper_noise
from models.skeleton import FloatArray, Joint

# clean: the true keys.  noisy: with the paper's test noise.  mirrored: the same, offsets in x the other way.
Condition = Literal["clean", "noisy", "mirrored"]
CONDITIONS: tuple[Condition, ...] = get_args(Condition)
LENGTH_STEP = 16  # test clips have a multiple of this many frames, plus 1, whatever the key step

BoolArray = npt.NDArray[np.bool_]
# (keys (K, 19, 2), is_seen (K, 19), frames a key step) -> (T, 19, 2)
Predictor = Callable[[FloatArray, BoolArray, int], FloatArray]


class TestKeys(NamedTuple):
    """The keys of a clip as a method gets them, and all its frames. What is not seen is (0, 0)."""

    points_KJ2: Float32Array
    is_seen_KJ: BoolArray
    truth_TJ2: Float32Array


class MethodScore(NamedTuple):
    """measures: of the frames between keys, projected units.  jerk_ratio: mean jerk over the truth's; 1: as smooth."""

    measures: MotionMeasures
    jerk_ratio: float


@dataclass
class _Sums:
    score: MotionScore = field(default_factory=MotionScore)
    jerk: float = 0.0
    true_jerk: float = 0.0


def middle(points_TJ2: Float32Array, max_frames: int) -> Float32Array:
    """The middle max_frames of a sequence, or what a multiple of 16 plus 1 leaves of it; empty if there are not 17."""
    num_frames = (min(len(points_TJ2), max_frames) - 1) // LENGTH_STEP * LENGTH_STEP + 1
    if num_frames <= LENGTH_STEP:
        return points_TJ2[:0]
    start = (len(points_TJ2) - num_frames) // 2
    return points_TJ2[start : start + num_frames]


def make_keys(
    truth_TJ2: Float32Array, key_step: int, condition: Condition, noise_keys: tuple[int, int, int], seed: Sequence[int]
) -> TestKeys:
    """A test clip's keys. noisy and mirrored of one seed have the same faults, but for the sign of offsets in x."""
    keys_KJ2 = truth_TJ2[::key_step]
    if condition == "clean":
        return TestKeys(keys_KJ2, np.ones(keys_KJ2.shape[:2], bool), truth_TJ2)
    generator = np.random.default_rng([*seed, key_step])
    sign = (1, 1) if condition == "noisy" else (-1, 1)
    faults: Faults = add_paper_noise(keys_KJ2, generator, noise_keys, sign)
    return TestKeys(faults.points_KJ2, faults.is_seen_KJ, truth_TJ2)


def score_methods(
    clips: Sequence[Float32Array],
    methods: Mapping[str, Predictor],
    key_steps: Sequence[int],
    noise_keys: tuple[int, int, int],
    seed: int,
    on_clip: Callable[[], None] = lambda: None,
) -> dict[int, dict[Condition, dict[str, MethodScore]]]:
    """key step -> condition -> method -> score, over all clips.

    Args:
        clips: each (T, 19, 2), T a multiple of 16 plus 1 (see middle).
        noise_keys: keys of a clip with moved, dropped and exchanged joints.
        on_clip: called after each clip.
    """
    sums = {(step, c, method): _Sums() for step in key_steps for c in CONDITIONS for method in methods}
    for number, truth_TJ2 in enumerate(clips):
        for step in key_steps:
            is_between_T = is_between_keys(len(truth_TJ2), step)
            true_jerk = jerk(truth_TJ2)
            for condition in CONDITIONS:
                keys = make_keys(truth_TJ2, step, condition, noise_keys, [seed, number])
                for method, predict in methods.items():
                    points_TJ2 = predict(keys.points_KJ2, keys.is_seen_KJ, step)
                    found = sums[step, condition, method]
                    found.score.add(points_TJ2, truth_TJ2, is_between_T)
                    found.jerk += jerk(points_TJ2)
                    found.true_jerk += true_jerk
        on_clip()
    return {
        step: {
            condition: {
                method: MethodScore(found.score.result(), found.jerk / max(found.true_jerk, 1e-12))
                for method in methods
                for found in [sums[step, condition, method]]
            }
            for condition in CONDITIONS
        }
        for step in key_steps
    }


def classical_predictor(method: MotionMethod) -> Predictor:
    """A method of models.motion.classical that answers for every joint.

    What keys do not show is filled first: over time with straight lines, at the ends with the nearest key that shows
    it; a joint that no key shows lies at the mid hip.
    """

    def predict(points_KJ2: FloatArray, is_seen_KJ: BoolArray, key_step: int) -> FloatArray:
        times_K = np.arange(len(points_KJ2), dtype=np.float64) * key_step
        keys_KJD = np.concatenate([points_KJ2, is_seen_KJ[..., None]], axis=2).astype(np.float64)
        if method == "robust":
            keys_KJD = repair_keys(times_K, keys_KJD)
        filled_KJD = _fill(keys_KJD)
        times_T = np.arange((len(points_KJ2) - 1) * key_step + 1, dtype=np.float64)
        plain: MotionMethod = "pchip" if method == "robust" else method
        frames_TJ2: FloatArray = interpolate_joints(times_K, filled_KJD, times_T, plain)[..., :2]
        return frames_TJ2

    return predict


def _fill(keys_KJD: FloatArray) -> FloatArray:
    filled_KJD = keys_KJD.copy()
    order = [Joint.MID_HIP, *(joint for joint in Joint if joint is not Joint.MID_HIP)]
    for joint in order:
        seen_K = np.flatnonzero(keys_KJD[:, joint, 2] > 0)
        for axis in (0, 1):
            filled_KJD[:, joint, axis] = (
                np.interp(np.arange(len(keys_KJD)), seen_K, keys_KJD[seen_K, joint, axis])
                if len(seen_K)
                else filled_KJD[:, Joint.MID_HIP, axis]
            )
    filled_KJD[..., 2] = 1.0
    return filled_KJD
