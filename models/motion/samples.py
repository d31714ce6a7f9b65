"""Training samples of the motion networks: crops of 3D motion, seen by random cameras, with faults of a detector.

A batch depends on (seed, step) alone: not on what was drawn before it, nor on how many processes draw.
Axes: B batch, K key frames, T frames, J joints (19), D = 3 (x, y, z) m, 2 = (x, y) projected units.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.motion.views import FOCAL, JITTER, project_points
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
MIN_OFFSET = 0.01  # a point moved by less is not called bad: detectors are no better


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """What a batch is drawn from. The recipe's values stand behind each field."""

    rates: tuple[int, ...]  # 8, 16: frames from key to key
    rate_shares: tuple[float, ...]  # 0.4, 0.6
    min_frames: int  # 65
    max_frames: int  # 321
    num_key_tokens: int  # 768: clips x keys of a batch
    clean_share: float  # 0.5: clips without any fault
    taught_share: float  # 0.25: clips whose true labels take the detector's place
    speed_range: tuple[float, float]  # 0.75, 1.35
    size_jitter: float  # 0.12: of the person's size, both ways
    tilt_pi: float  # 0.2: of the camera, times pi, both ways
    depth_range_m: tuple[float, float]  # 3.2, 6
    max_faulty_keys: int  # 6: each fault hits 1 to this many keys of a clip, and at most a third of them

    def __post_init__(self) -> None:
        if len(self.rates) != len(self.rate_shares) or not np.isclose(sum(self.rate_shares), 1):
            raise ValueError(f"rate_shares {self.rate_shares}: one a rate of {self.rates}, with the sum 1, are needed")
        if self.max_frames < max(self.rates) + 1 or self.min_frames > self.max_frames:
            raise ValueError(f"min_frames {self.min_frames}, max_frames {self.max_frames}: no clip fits {self.rates}")


class Batch(NamedTuple, Generic[Array]):
    """Clips of one length and one rate.

    points_BKJ2: the keys as a detector gives them.  is_seen_BKJ: False = dropped, the point is (0, 0).
    truth_BTJ2: all frames.  is_bad_BKJ: moved or dropped.  is_swapped_BK: the legs are exchanged (is_bad is in the
    order of points, after the exchange).  is_taught_B: true labels take the detector's place.  rate: frames a key step.
    """

    points_BKJ2: Array
    is_seen_BKJ: Array
    truth_BTJ2: Array
    is_bad_BKJ: Array
    is_swapped_BK: Array
    is_taught_B: Array
    rate: int


def to_tensors(batch: Batch[npt.NDArray[np.generic]], device: torch.device | str = "cpu") -> Batch[Tensor]:
    def move(array: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(device, non_blocking=True)

    return Batch(
        points_BKJ2=move(batch.points_BKJ2),
        is_seen_BKJ=move(batch.is_seen_BKJ),
        truth_BTJ2=move(batch.truth_BTJ2),
        is_bad_BKJ=move(batch.is_bad_BKJ),
        is_swapped_BK=move(batch.is_swapped_BK),
        is_taught_B=move(batch.is_taught_B),
        rate=batch.rate,
    )


def draw_batch(
    sequences: Sequence[Float32Array], config: SampleConfig, seed: int, step: int
) -> Batch[npt.NDArray[np.generic]]:
    """The batch of one training step.

    Args:
        sequences: each (T, 19, 3) m, z up, 60 fps.
        seed, step: alone decide what is drawn. Processes that share a step give each its own seed.

    Raises: ValueError if no sequence is long enough for a clip of any rate.
    """
    generator = np.random.default_rng([seed, step])
    lengths = np.array([len(sequence) for sequence in sequences])
    rate = int(generator.choice(config.rates, p=config.rate_shares))
    longest = int((lengths.max(initial=0) - 1) / config.speed_range[0])
    most = min(config.max_frames - 1, longest) // rate
    if most < 1:
        raise ValueError(f"the longest sequence has {lengths.max(initial=0)} frames: no clip of rate {rate} fits")
    num_steps = int(generator.integers(min(-(-(config.min_frames - 1) // rate), most), most + 1))
    num_keys = num_steps + 1
    num_clips = max(1, config.num_key_tokens // num_keys)
    share = lengths * (lengths - 1 >= num_steps * rate * config.speed_range[0])
    chosen = generator.choice(len(sequences), num_clips, p=share / share.sum())
    truth_BTJ2 = np.stack([draw_clip(sequences[i], num_steps * rate + 1, config, generator) for i in chosen])
    points_BKJ2 = truth_BTJ2[:, ::rate].copy()
    is_bad_BKJ = np.zeros(points_BKJ2.shape[:3], bool)
    is_seen_BKJ = np.ones_like(is_bad_BKJ)
    is_swapped_BK = np.zeros(points_BKJ2.shape[:2], bool)
    for clip in np.flatnonzero(generator.random(num_clips) >= config.clean_share):
        faults = add_faults(points_BKJ2[clip], generator, config.max_faulty_keys)
        points_BKJ2[clip], is_seen_BKJ[clip], is_bad_BKJ[clip], is_swapped_BK[clip] = faults
    is_taught_B = generator.random(num_clips) < config.taught_share
    return Batch(points_BKJ2, is_seen_BKJ, truth_BTJ2, is_bad_BKJ, is_swapped_BK, is_taught_B, rate)


def draw_clip(
    sequence_m_TJD: Float32Array, num_frames: int, config: SampleConfig, generator: np.random.Generator
) -> Float32Array:
    """A random stretch of a sequence at a random speed, from a random side: (num_frames, 19, 2) projected units."""
    low, high = config.speed_range
    speed = min(generator.uniform(low, high), (len(sequence_m_TJD) - 1) / max(num_frames - 1, 1))
    room = max(0.0, len(sequence_m_TJD) - 1 - speed * (num_frames - 1))
    times_T = generator.uniform(0, room) + speed * np.arange(num_frames)
    start_T = np.minimum(times_T.astype(int), len(sequence_m_TJD) - 2)
    share_T11 = (times_T - start_T)[:, None, None].astype(np.float32)
    clip_TJD = sequence_m_TJD[start_T]
    clip_TJD += (sequence_m_TJD[start_T + 1] - clip_TJD) * share_T11
    if generator.random() < 0.5:
        clip_TJD = clip_TJD[::-1]
    if generator.random() < 0.5:
        clip_TJD = clip_TJD[:, list(MIRRORED)] * np.array([-1, 1, 1], np.float32)
    clip_TJD = clip_TJD - clip_TJD[:, Joint.MID_HIP].mean(axis=0)
    turn = generator.uniform(-np.pi, np.pi)
    tilt = generator.uniform(-config.tilt_pi, config.tilt_pi) * np.pi
    size = 1 + generator.uniform(-config.size_jitter, config.size_jitter)
    rotation_33 = size * _about_x(tilt) @ _about_z(turn)
    depth = generator.uniform(*config.depth_range_m)
    focal = FOCAL + generator.uniform(-JITTER, JITTER)
    # As one matrix: over the frames, product by product, it takes three times as long.
    turned_TJD = (clip_TJD.reshape(-1, 3) @ rotation_33.T.astype(np.float32)).reshape(clip_TJD.shape)
    return project_points(turned_TJD, float(focal), float(depth)).astype(np.float32, copy=False)


def _about_x(angle_rad: float) -> npt.NDArray[np.float64]:
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _about_z(angle_rad: float) -> npt.NDArray[np.float64]:
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


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
    most = max(1, min(max_faulty_keys, num_keys // 3))
    points_KJ2 = points_KJ2.astype(np.float32)
    truth_KJ2 = points_KJ2.copy()
    # As often all offsets of the clip point one way, along each axis, as each its own; some clips are only a bit off.
    common_sign_2 = generator.choice([-1.0, 1.0], 2)
    is_common = generator.random() < 0.5
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
    """Keys, and the joints that are hit in each: as often the same in all keys as others in each."""
    keys = generator.choice(num_keys, generator.integers(1, most + 1), replace=False)
    num_joints = usual if generator.random() < 0.5 else int(generator.integers(1, 2 * usual))
    same = generator.permutation(NUM_JOINTS)[:num_joints]
    is_same = generator.random() < 0.5
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
