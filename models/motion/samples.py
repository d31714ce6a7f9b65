"""Training samples of the learned tangents: crops of 2D motion with the faults of a detector.

A batch depends on (seed, step) alone: not on what was drawn before it, nor on how many processes draw it.
Axes: B batch, K key frames, T frames, J joints (19), 2 = (x, y) projected units.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from models.skeleton import LEG_JOINTS, MIRRORED, NUM_JOINTS, FloatArray, Joint

Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Array = TypeVar("Array")

_LEGS_SWAPPED = [MIRRORED[joint] if joint in LEG_JOINTS else joint for joint in Joint]
J = Joint
# What the 2021 code's noise moves, and what it drops.
PAPER_JITTERED = (
    J.RIGHT_ELBOW, J.RIGHT_WRIST, J.LEFT_ELBOW, J.LEFT_WRIST, J.RIGHT_KNEE, J.RIGHT_ANKLE, J.LEFT_KNEE, J.LEFT_ANKLE,
    J.LEFT_BIG_TOE, J.RIGHT_BIG_TOE, J.LEFT_HAND, J.RIGHT_HAND,
)  # fmt: skip
PAPER_DROPPED = (J.NOSE, *PAPER_JITTERED)
PAPER_MAX_OFFSET = 0.5
PAPER_NUM_JITTERED = 5
PAPER_NUM_DROPPED = 3
MIN_OFFSET = 0.03  # a point moved by less is not called bad: filling it would be no better


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """What a batch is drawn from."""

    rates: tuple[int, ...]  # frames from key to key
    rate_shares: tuple[float, ...]
    min_frames: int
    max_frames: int
    num_key_tokens: int  # clips x keys of a batch
    clean_share: float  # clips without any fault
    taught_share: float  # clips whose true labels take the detector's place
    speed_range: tuple[float, float]
    size_range: tuple[float, float]  # of the person in the picture
    roll_rad: float  # of the camera, both ways
    max_faulty_keys: int  # each fault hits 1 to this many keys of a clip, and leaves one of them alone

    def __post_init__(self) -> None:
        if len(self.rates) != len(self.rate_shares) or not np.isclose(sum(self.rate_shares), 1):
            raise ValueError(f"rate_shares {self.rate_shares}: one a rate of {self.rates}, with the sum 1, are needed")
        if self.max_frames < max(self.rates) + 1 or self.min_frames > self.max_frames:
            raise ValueError(f"min_frames {self.min_frames}, max_frames {self.max_frames}: no clip fits {self.rates}")
        for name, (low, high) in (("speed_range", self.speed_range), ("size_range", self.size_range)):
            if not 0 < low <= high:
                raise ValueError(f"{name} ({low}, {high}): must be above 0 and in order")


class Batch(NamedTuple, Generic[Array]):
    """Clips of one length and one rate.

    points_BKJ2: the keys as a detector gives them.  is_seen_BKJ: False = dropped, the point is (0, 0).
    truth_BTJ2: all frames.  is_bad_BKJ: moved or dropped.  is_swapped_BK: the legs are exchanged (is_bad is in the
    order of points, after the exchange).  is_taught_B: true labels take the detector's place.  rate: frames a key step.
    share: of the whole batch that these clips are, 1 where one process has them all.
    """

    points_BKJ2: Array
    is_seen_BKJ: Array
    truth_BTJ2: Array
    is_bad_BKJ: Array
    is_swapped_BK: Array
    is_taught_B: Array
    rate: int
    share: float = 1.0


def draw_batch(
    sequences: Sequence[Float32Array], config: SampleConfig, seed: int, step: int, rank: int = 0, num_ranks: int = 1
) -> Batch[npt.NDArray[np.generic]]:
    """One process's clips of the batch of one training step; those of all ranks together are the batch.

    Args:
        sequences: each (T, 19, 2), projected units, 60 fps.
        seed, step: alone decide what is drawn.
        rank, num_ranks: which clips are wanted: number rank, rank + num_ranks, ...

    Raises: ValueError if no sequence is long enough for a clip of any rate, or there are more ranks than clips.
    """
    generator = np.random.default_rng([seed, step])
    lengths = np.array([len(sequence) for sequence in sequences])
    rate = int(generator.choice(config.rates, p=config.rate_shares))
    longest = int((lengths.max(initial=0) - 1) / config.speed_range[0])
    most = min(config.max_frames - 1, longest) // rate
    if most < 1:
        raise ValueError(f"the longest sequence has {lengths.max(initial=0)} frames: no clip of rate {rate} fits")
    num_steps = int(generator.integers(min(-(-(config.min_frames - 1) // rate), most), most + 1))
    num_clips = max(1, config.num_key_tokens // (num_steps + 1))
    weights = lengths * (lengths - 1 >= num_steps * rate * config.speed_range[0])
    chosen = generator.choice(len(sequences), num_clips, p=weights / weights.sum())
    own = range(rank, num_clips, num_ranks)
    if not own:
        raise ValueError(f"{num_ranks} processes share a batch of {num_clips} clips; use fewer, or more key tokens")
    # Each clip by a generator of its own: what a process draws does not depend on how many there are.
    generators = [np.random.default_rng([seed, step, 1 + clip]) for clip in own]
    truth_BTJ2 = np.stack(
        [
            draw_clip(sequences[chosen[clip]], num_steps * rate + 1, config, each)
            for clip, each in zip(own, generators, strict=True)
        ]
    )
    points_BKJ2 = truth_BTJ2[:, ::rate].copy()
    is_bad_BKJ = np.zeros(points_BKJ2.shape[:3], bool)
    is_seen_BKJ = np.ones_like(is_bad_BKJ)
    is_swapped_BK = np.zeros(points_BKJ2.shape[:2], bool)
    is_taught_B = np.array([each.random() < config.taught_share for each in generators])
    for clip, each in enumerate(generators):
        if each.random() >= config.clean_share:
            faults = add_faults(points_BKJ2[clip], each, config.max_faulty_keys)
            points_BKJ2[clip], is_seen_BKJ[clip], is_bad_BKJ[clip], is_swapped_BK[clip] = faults
    share = len(own) / num_clips
    return Batch(points_BKJ2, is_seen_BKJ, truth_BTJ2, is_bad_BKJ, is_swapped_BK, is_taught_B, rate, share)


def draw_clip(
    sequence_TJ2: Float32Array, num_frames: int, config: SampleConfig, generator: np.random.Generator
) -> Float32Array:
    """A random stretch of a sequence: faster or slower, backwards, mirrored, larger or smaller, the camera rolled.

    Returns: (num_frames, 19, 2) projected units. Slowed down as far as it must be to fill num_frames.
    """
    low, high = config.speed_range
    speed = min(generator.uniform(low, high), (len(sequence_TJ2) - 1) / max(num_frames - 1, 1))
    room = max(0.0, len(sequence_TJ2) - 1 - speed * (num_frames - 1))
    times_T = generator.uniform(0, room) + speed * np.arange(num_frames)
    start_T = np.minimum(times_T.astype(int), len(sequence_TJ2) - 2)
    share_T11 = (times_T - start_T)[:, None, None].astype(np.float32)
    clip_TJ2 = sequence_TJ2[start_T]
    clip_TJ2 += (sequence_TJ2[start_T + 1] - clip_TJ2) * share_T11
    if generator.random() < 0.5:
        clip_TJ2 = clip_TJ2[::-1]
    side = 1.0
    if generator.random() < 0.5:  # the mirror image, in which left is right
        clip_TJ2 = clip_TJ2[:, list(MIRRORED)]
        side = -1.0
    size = float(np.exp(generator.uniform(*np.log(config.size_range))))
    roll = generator.uniform(-config.roll_rad, config.roll_rad)
    c, s = size * np.cos(roll), size * np.sin(roll)
    turn_22 = np.array([[side * c, side * s], [-s, c]], np.float32)
    turned_TJ2: Float32Array = (clip_TJ2.reshape(-1, 2) @ turn_22).reshape(clip_TJ2.shape)
    return turned_TJ2


class Faults(NamedTuple):
    """What a detector made of a clip's keys, and what is wrong with it; as in Batch."""

    points_KJ2: Float32Array
    is_seen_KJ: BoolArray
    is_bad_KJ: BoolArray
    is_swapped_K: BoolArray


def add_faults(points_KJ2: FloatArray, generator: np.random.Generator, max_faulty_keys: int) -> Faults:
    """Points moved to any side, points dropped, legs exchanged; any joint may be hit, the mid hip included.

    Differs from the 2021 noise, whose offsets are never negative and which never touches the trunk: a network
    learns both, and a real detector keeps to neither. Signs are symmetric: the mirror image is as likely.
    """
    num_keys = len(points_KJ2)
    most = max(1, min(max_faulty_keys, num_keys - 1))
    points_KJ2 = points_KJ2.astype(np.float32)
    truth_KJ2 = points_KJ2.copy()
    # Most often all offsets of the clip point one way along each axis, else each its own; some are only a bit off.
    common_sign_2 = generator.choice([-1.0, 1.0], 2)
    is_common = generator.random() < 0.7
    size = PAPER_MAX_OFFSET * (1 if generator.random() < 0.7 else 10 ** generator.uniform(-1, 0))
    for key, joints in _draw_places(generator, num_keys, most, PAPER_NUM_JITTERED):
        sign = common_sign_2 if is_common else generator.choice([-1.0, 1.0], (len(joints), 2))
        points_KJ2[key, joints] += (sign * generator.uniform(0, size, (len(joints), 2))).astype(np.float32)
    is_bad_KJ = np.linalg.norm(points_KJ2 - truth_KJ2, axis=2) > MIN_OFFSET
    is_seen_KJ = np.ones_like(is_bad_KJ)
    for key, joints in _draw_places(generator, num_keys, most, PAPER_NUM_DROPPED):
        is_seen_KJ[key, joints if generator.random() < 0.9 else slice(None)] = False
    is_swapped_K = np.zeros(num_keys, bool)
    is_swapped_K[generator.choice(num_keys, generator.integers(1, most + 1), replace=False)] = True
    is_bad_KJ |= ~is_seen_KJ
    points_KJ2[~is_seen_KJ] = 0
    for values in (points_KJ2, is_seen_KJ, is_bad_KJ):
        values[is_swapped_K] = values[is_swapped_K][:, _LEGS_SWAPPED]
    return Faults(points_KJ2, is_seen_KJ, is_bad_KJ, is_swapped_K)


def _draw_places(
    generator: np.random.Generator, num_keys: int, most: int, usual: int
) -> list[tuple[int, npt.NDArray[np.int64]]]:
    """Keys, and the joints that are hit in each: most often the same in all keys, else others in each."""
    keys = generator.choice(num_keys, generator.integers(1, most + 1), replace=False)
    num_joints = usual if generator.random() < 0.6 else int(generator.integers(1, 2 * usual))
    same = generator.permutation(NUM_JOINTS)[:num_joints]
    is_same = generator.random() < 0.7
    return [(int(key), same if is_same else generator.permutation(NUM_JOINTS)[:num_joints]) for key in keys]


def add_paper_noise(
    points_KJ2: FloatArray,
    generator: np.random.Generator,
    num_keys: tuple[int, int, int],
    sign: tuple[int, int] = (1, 1),
) -> Faults:
    """The 2021 code's faults, to score by: (jitter, drop, exchange) in so many keys, of a clip of any length.

    Args:
        points_KJ2: (K, 19, 2) projected units.
        num_keys: (15, 15, 8) of 41 in training, (4, 4, 4) in evaluation; cut to K.
        sign: of the offsets in x and y; (-1, 1) gives the mirror image in x, with the same sizes.
    """
    jitter, drop, swap = (generator.choice(len(points_KJ2), min(n, len(points_KJ2)), replace=False) for n in num_keys)
    points_KJ2 = points_KJ2.astype(np.float32)
    is_bad_KJ = np.zeros(points_KJ2.shape[:2], bool)
    moved = generator.choice(PAPER_JITTERED, PAPER_NUM_JITTERED, replace=False)
    offsets = generator.uniform(0, PAPER_MAX_OFFSET, (len(jitter), PAPER_NUM_JITTERED, 2))
    points_KJ2[np.ix_(jitter, moved)] += (np.array(sign) * offsets).astype(np.float32)
    is_bad_KJ[np.ix_(jitter, moved)] = True
    is_seen_KJ = np.ones_like(is_bad_KJ)
    dropped = generator.choice(PAPER_DROPPED, PAPER_NUM_DROPPED, replace=False)
    points_KJ2[np.ix_(drop, dropped)] = 0
    is_seen_KJ[np.ix_(drop, dropped)] = False
    is_swapped_K = np.zeros(len(points_KJ2), bool)
    is_swapped_K[swap] = True
    is_bad_KJ |= ~is_seen_KJ
    for values in (points_KJ2, is_seen_KJ, is_bad_KJ):
        values[swap] = values[swap][:, _LEGS_SWAPPED]
    return Faults(points_KJ2, is_seen_KJ, is_bad_KJ, is_swapped_K)
