"""Poses between key poses, for callers: NumPy in and out, in the caller's units, clips of any length.

A clip's motion is a curve in time (Motion): `predict_motions` finds it, `inbetween` reads it off at the frames. A clip
longer than a window passes through the network in overlapping windows, whose answers are cross-faded; what holds the
curve together (filling of gaps, the spline through the keys) spans the whole clip. Time and memory grow linearly.
Axes: K keys, T target times, N knots of a curve, J joints (19), B windows in a pass, 2 = (x, y) in the caller's units.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar, get_args

import numpy as np
import numpy.typing as npt
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor, nn

import models
from models.checkpoint import CONFIG, WEIGHTS, CheckpointError
from models.motion.filling import fill_points
from models.motion.splines import frame_times
from models.motion.tangents import BAD_FROM, LEGS_SWAPPED, TangentNetwork
from models.motion.transformer import MotionTransformer, spread_keys
from models.motion.views import (
    PAPER_OFFSET_PX,
    PAPER_SCALE_PX,
    Normalisation,
    hidden_frames,
    pixels_from_units,
    points_from_entries,
)
from models.skeleton import NUM_JOINTS, FloatArray, Joint

Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
KeepKeys = Literal["denoise", "exact"]
Scale = Literal["skeleton", "paper"]
Checkpoint = str | Path | nn.Module | None

EMBEDDED = Path(__file__).resolve().parents[2] / "data" / "raw" / "embedded" / "motion" / "tangents"
FRAMES_PER_S = 60  # what the networks count the time between keys in

TANGENT_WINDOW = 64  # keys
TANGENT_OVERLAP = 16
TANGENT_PASS = 32  # windows
# Key steps in 1/60 s, an octave wider than what the tangents learn from. Others count as the nearest of these.
TANGENT_KEY_STEPS = (2.0, 32.0)
TRANSFORMER_FRAMES = 321  # of a window: what the paper trains on
TRANSFORMER_PASS = 8
# A body this many times larger or smaller than usual is given in other units; one within is only near or far.
SAME_UNITS = 2.5


@dataclass(frozen=True)
class Motion:
    """The motion of a clip: cubic pieces between evenly spaced knots, continuous in place and speed.

    knots_NJ2: (N, 19, 2) in the caller's units; knot 0 is the first key, the last the last key.
    slopes_NJ2: (N, 19, 2) per knot.  num_steps: knots from one key to the next.
    is_made_KJ: (K, 19) True = the point at this key is the network's, not the caller's: not seen, or taken for bad.
    is_swapped_K: (K,) True = the caller's left and right legs were exchanged at this key.
    gap_KJ: (K, 19) int, keys to the nearest one whose point is the caller's: 0 = this one, K = there is none.
    """

    knots_NJ2: Float64Array
    slopes_NJ2: Float64Array
    num_steps: int
    is_made_KJ: BoolArray
    is_swapped_K: BoolArray
    gap_KJ: npt.NDArray[np.int64]

    @property
    def keys(self) -> Float64Array:
        """(K, 19, 2)."""
        return self.knots_NJ2[:: self.num_steps]

    def at(self, times_T: npt.ArrayLike) -> Float64Array:
        """(T, 19, 2) points at times counted in keys, 0..K - 1 in any order; at a key its very bits.

        Raises: ValueError on a time that is not within the clip.
        """
        times_T = np.asarray(times_T, np.float64)
        last = len(self.is_swapped_K) - 1
        if times_T.ndim != 1:
            raise ValueError(f"times has shape {times_T.shape}; (times,) is needed")
        is_outside_T = ~((times_T >= 0) & (times_T <= last))
        if is_outside_T.any():
            raise ValueError(f"time {times_T[is_outside_T][0]:g} is outside the clip's keys, 0 to {last}")
        if len(self.knots_NJ2) == 1:
            return np.repeat(self.knots_NJ2, len(times_T), axis=0)
        place_T = times_T * self.num_steps
        start_T = np.clip(np.floor(place_T).astype(int), 0, len(self.knots_NJ2) - 2)
        s = (place_T - start_T)[:, None, None]
        points_TJ2: Float64Array = (1 + 2 * s) * (1 - s) ** 2 * self.knots_NJ2[start_T]
        points_TJ2 += s**2 * (3 - 2 * s) * self.knots_NJ2[start_T + 1]
        points_TJ2 += s * (1 - s) ** 2 * self.slopes_NJ2[start_T]
        points_TJ2 -= s**2 * (1 - s) * self.slopes_NJ2[start_T + 1]
        return points_TJ2


def inbetween(
    points_KJ2: npt.ArrayLike,
    rate: int | None,
    checkpoint: Checkpoint = None,
    *,
    is_seen_KJ: npt.ArrayLike | None = None,
    keep_keys: KeepKeys = "denoise",
    times: npt.ArrayLike | None = None,
    key_step_s: float | None = None,
    scale: Scale = "skeleton",
) -> FloatArray:
    """Poses at every frame from poses at the key frames.

    Args:
        points_KJ2: (K, 19, 2) at evenly spaced keys, K >= 1, joints in the order of models.skeleton.Joint, x to the
            right and y down; projected units or pixels of a picture of any size. A point that is exactly (0, 0) or
            has a NaN is not seen; whole keys may be.
        rate: frames from one key to the next, >= 1. May be None where times are given.
        checkpoint: a folder, a network of models.load, or None: the embedded tangents.
        is_seen_KJ: (K, 19) bool, True = seen, instead of (0, 0) and NaN; the other points are not read.
        keep_keys: "denoise": points taken for bad are replaced, all others pass bit for bit (tangents), or keys are
            as the network cleans them (transformer). "exact": every seen point passes bit for bit.
        times: (T,) instead of the frames, counted in keys (2.5 = half-way from key 2 to key 3), in any order.
        key_step_s: seconds from one key to the next; by default rate / 60.
        scale: "skeleton": size and place of the body are found from the points; points in projected units stay as
            they are. "paper": (pixels - 256) / 512, whatever the picture's size.

    Returns: ((K - 1) * rate + 1, 19, 2), or (T, 19, 2) at times, every point filled; float32 if points are, else
        float64.
    Raises: ValueError that names the argument, on wrong shapes, values or options, or if no point is seen at all.
        models.checkpoint.CheckpointError, a ValueError, if there is no such checkpoint.
    """
    return inbetween_clips(
        [points_KJ2],
        rate,
        checkpoint,
        is_seen=None if is_seen_KJ is None else [is_seen_KJ],
        keep_keys=keep_keys,
        times=None if times is None else [times],
        key_step_s=key_step_s,
        scale=scale,
    )[0]


def inbetween_clips(
    clips: Sequence[npt.ArrayLike],
    rate: int | None,
    checkpoint: Checkpoint = None,
    *,
    is_seen: Sequence[npt.ArrayLike | None] | None = None,
    keep_keys: KeepKeys = "denoise",
    times: Sequence[npt.ArrayLike] | None = None,
    key_step_s: float | None = None,
    scale: Scale = "skeleton",
) -> list[FloatArray]:
    """`inbetween` for many clips at once, of any lengths: each is answered by itself alone, to rounding.

    Args: clips, is_seen, times: one a clip; the others hold for all.
    """
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | np.integer) or rate < 1):
        raise ValueError(f"rate {rate!r}: a whole number of frames from key to key, at least 1, is needed")
    if rate is None and times is None:
        raise ValueError("rate is None; give it, or times")
    if key_step_s is None:
        if rate is None:
            raise ValueError("rate and key_step_s are None; one of them must say how far apart the keys are")
        key_step_s = rate / FRAMES_PER_S
    if times is not None and len(times) != len(clips):
        raise ValueError(f"times has {len(times)} entries for {len(clips)} clips")
    motions = predict_motions(clips, key_step_s, checkpoint, is_seen=is_seen, keep_keys=keep_keys, scale=scale)
    found: list[FloatArray] = []
    for i, (clip, motion) in enumerate(zip(clips, motions, strict=True)):
        at_T = times[i] if times is not None else frame_times(len(motion.keys), rate or 1)
        is_single = getattr(clip, "dtype", None) == np.float32
        found.append(motion.at(at_T).astype(np.float32 if is_single else np.float64, copy=False))
    return found


def predict_motions(
    clips: Sequence[npt.ArrayLike],
    key_step_s: float,
    checkpoint: Checkpoint = None,
    *,
    is_seen: Sequence[npt.ArrayLike | None] | None = None,
    keep_keys: KeepKeys = "denoise",
    scale: Scale = "skeleton",
) -> list[Motion]:
    """The motion of each clip as a curve, with what was done to its keys. Arguments as `inbetween_clips` has them."""
    for name, value, known in (("keep_keys", keep_keys, get_args(KeepKeys)), ("scale", scale, get_args(Scale))):
        if value not in known:
            raise ValueError(f"{name} {value!r}: must be one of {', '.join(known)}")
    if not 0 < key_step_s < np.inf:
        raise ValueError(f"key_step_s {key_step_s!r}: seconds above 0 are needed")
    if is_seen is not None and len(is_seen) != len(clips):
        raise ValueError(f"is_seen has {len(is_seen)} entries for {len(clips)} clips")
    network = _find_network(checkpoint)
    usual = network.rows.get()
    read = []
    for i, points in enumerate(clips):
        name = "points" if len(clips) == 1 else f"clip {i}"
        read.append(_read_clip(points, None if is_seen is None else is_seen[i], name, usual, scale))
    predict = _predict_tangents if isinstance(network, TangentNetwork) else _predict_transformer
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            # Both of one signature; mypy cannot tell that the network fits its own function.
            return predict(network, read, key_step_s * FRAMES_PER_S, keep_keys)  # type: ignore[arg-type]
    finally:
        network.train(was_training)


class Units(NamedTuple):
    """A caller's point = a network's (projected units) * scale + offset_2."""

    scale: float
    offset_2: Float64Array


class _Clip(NamedTuple):
    """points_KJ2: as the caller gave them, 0 where not seen.  units_KJ2: the same in projected units."""

    points_KJ2: Float64Array
    units_KJ2: Float64Array
    is_seen_KJ: BoolArray
    units: Units


def measure_units(points_KJ2: Float64Array, is_seen_KJ: BoolArray, usual: Normalisation) -> Units:
    """Size and place of a body in the caller's units, by how far its seen joints spread about their centre.

    Each key's spread is held against that of the same joints in the usual pose; the clip's is the median, over keys
    that show at least half as many joints as the best one. Where the size is within SAME_UNITS of the usual the points
    are taken to be in projected units. The hip comes to its usual place.

    Args: usual: of the network's training motion, mean and deviation.
    """
    mean_J2 = points_from_entries(usual.mean_E2[None])[0]
    variance_E2 = np.square(usual.std_E2)
    variance_E2[-1] = 0  # of where the person stands
    variance_J2 = points_from_entries(variance_E2[None])[0]
    count_K = is_seen_KJ.sum(axis=1)
    is_counted_K = (count_K >= 2) & (2 * count_K >= count_K.max())
    if not is_counted_K.any():
        return Units(1.0, np.zeros(2))
    count_K1 = count_K[is_counted_K, None]
    points_KJ2, is_seen_KJ1 = points_KJ2[is_counted_K], is_seen_KJ[is_counted_K, :, None]
    centre_K2, usual_centre_K2 = ((p * is_seen_KJ1).sum(axis=1) / count_K1 for p in (points_KJ2, mean_J2))
    spread_K, usual_spread_K = (
        (np.square(p - c[:, None]) * is_seen_KJ1).sum(axis=(1, 2))
        for p, c in ((points_KJ2, centre_K2), (mean_J2, usual_centre_K2))
    )
    usual_spread_K += (variance_J2 * is_seen_KJ1).sum(axis=(1, 2)) * (1 - 1 / count_K1[:, 0])
    scale = float(np.median(np.sqrt(spread_K / usual_spread_K)))
    if scale == 0 or 1 / SAME_UNITS <= scale <= SAME_UNITS:
        return Units(1.0, np.zeros(2))
    return Units(scale, np.median(centre_K2 - scale * usual_centre_K2, axis=0))


def _find_network(checkpoint: Checkpoint) -> TangentNetwork | MotionTransformer:
    if checkpoint is None:
        if not EMBEDDED.is_dir():
            raise CheckpointError(f"{EMBEDDED}: there is no such checkpoint; run `inbetween data`")
        checkpoint = EMBEDDED
    network = checkpoint if isinstance(checkpoint, nn.Module) else _load_once(Path(checkpoint).absolute())
    if not isinstance(network, TangentNetwork | MotionTransformer):
        raise CheckpointError(f"checkpoint is a {type(network).__name__}; a motion network is needed")
    return network


def _load_once(folder: Path) -> nn.Module:
    files = [folder / CONFIG, folder / WEIGHTS]
    stamp = tuple((file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file())
    return _load_stamped(folder, stamp)


@lru_cache(maxsize=2)
def _load_stamped(folder: Path, stamp: tuple[tuple[int, int], ...]) -> nn.Module:
    del stamp  # a checkpoint that was replaced is another one
    return models.load(folder)


def _read_clip(
    points: npt.ArrayLike, is_seen: npt.ArrayLike | None, name: str, usual: Normalisation, scale: Scale
) -> _Clip:
    """Raises: ValueError that begins with `name` on what is no clip."""
    points_KJ2 = np.asarray(points)
    if points_KJ2.dtype.kind not in "fiu":
        raise ValueError(f"{name}: values of type {points_KJ2.dtype}; numbers are needed")
    if points_KJ2.ndim != 3 or not len(points_KJ2) or points_KJ2.shape[1:] != (NUM_JOINTS, 2):
        raise ValueError(
            f"{name}: shape {points_KJ2.shape}; (keys, {NUM_JOINTS}, 2) is needed, at least one key, the {NUM_JOINTS}"
            " joints of models.skeleton.Joint"
        )
    points_KJ2 = points_KJ2.astype(np.float64)
    if is_seen is None:
        is_seen_KJ = (points_KJ2 != 0).any(axis=2) & ~np.isnan(points_KJ2).any(axis=2)
    else:
        is_seen_KJ = np.asarray(is_seen)
        if is_seen_KJ.dtype != np.bool_ or is_seen_KJ.shape != points_KJ2.shape[:2]:
            raise ValueError(
                f"{name}: is_seen is {is_seen_KJ.dtype} {is_seen_KJ.shape}; bool {points_KJ2.shape[:2]} is needed"
            )
    wrong = np.argwhere(is_seen_KJ & ~np.isfinite(points_KJ2).all(axis=2))
    if len(wrong):
        key, joint = wrong[0]
        raise ValueError(f"{name}: key {key}, {Joint(joint).name} is {tuple(points_KJ2[key, joint].tolist())}")
    if not is_seen_KJ.any():
        raise ValueError(f"{name}: no joint is seen in any of {len(points_KJ2)} keys; there is nobody to follow")
    points_KJ2[~is_seen_KJ] = 0
    if scale == "paper":
        units = Units(PAPER_SCALE_PX, np.full(2, PAPER_OFFSET_PX))
    else:
        units = measure_units(points_KJ2, is_seen_KJ, usual)
    units_KJ2 = np.where(is_seen_KJ[..., None], (points_KJ2 - units.offset_2) / units.scale, 0)
    return _Clip(points_KJ2, units_KJ2, is_seen_KJ, units)


def _predict_tangents(
    network: TangentNetwork, clips: Sequence[_Clip], key_step: float, keep_keys: KeepKeys
) -> list[Motion]:
    """key_step: 1/60 s from key to key."""
    key_step = float(np.clip(key_step, *TANGENT_KEY_STEPS))
    usual_J2 = network.rows.usual_pose().double().cpu()
    weight = next(network.parameters())

    def over_windows(call: Callable[..., tuple[Tensor, Tensor]], inputs: Sequence[Sequence[Tensor]]) -> _Answers:
        return _over_windows(call, inputs, weight, TANGENT_WINDOW, TANGENT_OVERLAP, TANGENT_PASS)

    is_swapped = [np.zeros(len(clip.points_KJ2), np.bool_) for clip in clips]
    is_bad = [np.zeros_like(clip.is_seen_KJ) for clip in clips]
    if keep_keys == "denoise":
        inputs = [
            (_fill(clip.units_KJ2, clip.is_seen_KJ, usual_J2)[0], torch.from_numpy(clip.is_seen_KJ)) for clip in clips
        ]
        logits = over_windows(lambda filled, is_seen: network.detect(filled, is_seen, key_step), inputs)
        is_swapped = [swap_K.numpy() > 0 for swap_K, _ in logits]
        is_bad = [bad_KJ.numpy() > BAD_FROM for _, bad_KJ in logits]
    own, is_good, filled = [], [], []
    for clip, swap_K, bad_KJ in zip(clips, is_swapped, is_bad, strict=True):
        from_KJ = np.where(swap_K[:, None], LEGS_SWAPPED, np.arange(NUM_JOINTS))[..., None]
        own.append(np.take_along_axis(clip.points_KJ2, from_KJ, axis=1))
        is_good.append(np.take_along_axis(clip.is_seen_KJ & ~bad_KJ, from_KJ[..., 0], axis=1))
        units_KJ2 = np.take_along_axis(clip.units_KJ2, from_KJ, axis=1)
        filled.append(_fill(units_KJ2, is_good[-1], usual_J2))
    # Farther gaps than a window are unknown to the network.
    inputs3 = [
        (filled_KJ2, torch.from_numpy(good_KJ), gap_KJ.clamp(max=TANGENT_WINDOW))
        for (filled_KJ2, gap_KJ), good_KJ in zip(filled, is_good, strict=True)
    ]
    answers = over_windows(lambda filled, good, gap: network.find_slopes(filled, good, gap, key_step), inputs3)
    motions = []
    for i, (keys_KJ2, slopes_KJ2) in enumerate(answers):
        units, good_KJ = clips[i].units, is_good[i]
        made_KJ2 = pixels_from_units(keys_KJ2.numpy(), units.scale, units.offset_2)
        knots_KJ2 = np.where(good_KJ[..., None], own[i], made_KJ2)
        slopes = _spline_slopes(knots_KJ2) + units.scale * slopes_KJ2.numpy()
        motions.append(Motion(knots_KJ2, slopes, 1, ~good_KJ, is_swapped[i], filled[i][1].numpy()))
    return motions


def _predict_transformer(
    network: MotionTransformer, clips: Sequence[_Clip], key_step: float, keep_keys: KeepKeys
) -> list[Motion]:
    """key_step: 1/60 s from key to key; the network itself takes whole ones."""
    rate = int(np.clip(round(key_step), 1, TRANSFORMER_FRAMES - 1))
    window = (TRANSFORMER_FRAMES - 1) // rate + 1
    normalisation, usual_J2 = network.rows.get(), network.rows.usual_pose().double().cpu()

    def predict(rows_BKC: Tensor) -> tuple[Tensor, Tensor]:
        source_BCT = spread_keys(rows_BKC.transpose(1, 2), rate)
        is_hidden_T = torch.from_numpy(hidden_frames(source_BCT.shape[2], rate)).to(source_BCT.device)
        found = network(source_BCT, is_hidden_T.expand(len(source_BCT), -1), None, rate)
        return found.pred_BCT.transpose(1, 2), found.reco_BCT.transpose(1, 2)

    filled = [_fill(clip.units_KJ2, clip.is_seen_KJ, usual_J2) for clip in clips]
    inputs = []
    for clip, (filled_KJ2, _) in zip(clips, filled, strict=True):
        # A joint not seen is (0, 0), as in training, where the mid hip, on which all else rests, always is.
        has_hip_K11 = clip.is_seen_KJ[:, Joint.MID_HIP, None, None]
        source_KJ2 = np.where(has_hip_K11, clip.units_KJ2, filled_KJ2.numpy())
        inputs.append((torch.from_numpy(normalisation.to_rows(source_KJ2).T.copy()),))
    answers = _over_windows(
        predict, inputs, next(network.parameters()), window, max(window // 4, 1), TRANSFORMER_PASS, rate
    )
    motions = []
    for clip, (_, gap_KJ), (pred_TC, reco_TC) in zip(clips, filled, answers, strict=True):
        frames_TJ2 = normalisation.to_points(pred_TC.numpy().T)
        keys_KJ2 = normalisation.to_points(reco_TC[::rate].numpy().T)
        if keep_keys == "exact":
            # The frames between move along with their keys, else a key would stand out.
            shift_KJ2 = np.where(clip.is_seen_KJ[..., None], clip.units_KJ2 - keys_KJ2, 0)
            times_T = frame_times(len(keys_KJ2), rate)
            frames_TJ2 += _interpolate_linearly(shift_KJ2, times_T)
        frames_TJ2[::rate] = keys_KJ2
        knots_NJ2 = pixels_from_units(frames_TJ2, clip.units.scale, clip.units.offset_2)
        is_made_KJ = np.ones_like(clip.is_seen_KJ)
        if keep_keys == "exact":
            knots_NJ2[::rate][clip.is_seen_KJ] = clip.points_KJ2[clip.is_seen_KJ]
            is_made_KJ = ~clip.is_seen_KJ
        is_swapped_K = np.zeros(len(keys_KJ2), np.bool_)
        motions.append(Motion(knots_NJ2, _spline_slopes(knots_NJ2), rate, is_made_KJ, is_swapped_K, gap_KJ.numpy()))
    return motions


_Answers = list[list[Tensor]]


def _over_windows(
    call: Callable[..., tuple[Tensor, ...]],
    clips: Sequence[Sequence[Tensor]],
    weight: Tensor,
    num_keys: int,
    overlap: int,
    windows_per_pass: int,
    num_steps: int = 1,
) -> _Answers:
    """What a network answers for whole clips, from windows that overlap.

    Args:
        call: its inputs (B, k, ...) to answers (B, (k - 1) * num_steps + 1, ...).
        clips: each clip's inputs, (K, ...).
        weight: one of the network's, whose device and type its inputs are to have.
        num_keys, overlap: keys of a window, and that two neighbours share at least. A shorter clip is one window.

    Returns: each clip's answers, ((K - 1) * num_steps + 1, ...) float64. Over the middle half of an overlap one
        window's answer passes into the next one's; what is nearer to a window's end is not used, for there it knows
        one side alone.
    """
    windows: dict[int, list[tuple[int, int, int | None]]] = {}  # by length: clip, first key, the window's before
    for i, (first, *_) in enumerate(clips):
        previous = None
        for start in _window_starts(len(first), num_keys, overlap):
            windows.setdefault(min(len(first), num_keys), []).append((i, start, previous))
            previous = start
    answers: _Answers = [[] for _ in clips]
    for length, all_places in windows.items():
        for places in _chunks(all_places, windows_per_pass):
            stacked = [
                torch.stack([clips[i][n][start : start + length] for i, start, _ in places])
                for n in range(len(clips[places[0][0]]))
            ]
            found = call(*(x.to(weight.device, weight.dtype if x.is_floating_point() else None) for x in stacked))
            for row, (i, start, previous) in enumerate(places):
                if previous is None:
                    num_frames = (len(clips[i][0]) - 1) * num_steps + 1
                    answers[i] = [
                        x.new_zeros(num_frames, *x.shape[2:], dtype=torch.float64, device="cpu") for x in found
                    ]
                share_T = _share_of_window(start, previous, length, (overlap - 1) / 2, num_steps)
                for whole, part in zip(answers[i], found, strict=True):
                    old = whole[start * num_steps : start * num_steps + len(share_T)]
                    share = share_T.reshape(-1, *[1] * (old.dim() - 1))
                    old.copy_((1 - share) * old + share * part[row].cpu())
    return answers


_Item = TypeVar("_Item")


def _chunks(items: list[_Item], size: int) -> Iterator[list[_Item]]:
    return (items[i : i + size] for i in range(0, len(items), size))


def _window_starts(num_all: int, num_keys: int, overlap: int) -> list[int]:
    if num_all <= num_keys:
        return [0]
    num_windows = -(-(num_all - overlap) // (num_keys - overlap))
    return [int(start) for start in np.rint(np.linspace(0, num_all - num_keys, num_windows))]


def _share_of_window(start: int, previous: int | None, length: int, fade: float, num_steps: int) -> Tensor:
    """How much of the answer is this window's, over its times: from 0 to 1 within `fade` keys, amid the overlap."""
    times_T = torch.arange((length - 1) * num_steps + 1, dtype=torch.float64) / num_steps + start
    if previous is None:
        return torch.ones_like(times_T)
    middle = (start + previous + length - 1) / 2
    return ((times_T - middle) / max(fade, 1e-9) + 0.5).clamp(0, 1)


def _fill(units_KJ2: Float64Array, is_good_KJ: BoolArray, usual_J2: Tensor) -> tuple[Tensor, Tensor]:
    filled_1KJ2, gap_1KJ = fill_points(torch.from_numpy(units_KJ2)[None], torch.from_numpy(is_good_KJ)[None], usual_J2)
    return filled_1KJ2[0], gap_1KJ[0]


def _spline_slopes(knots_NJ2: Float64Array) -> Float64Array:
    """(N, 19, 2): slopes of the not-a-knot cubic spline, by a banded solve."""
    if len(knots_NJ2) == 1:
        return np.zeros_like(knots_NJ2)
    return np.asarray(CubicSpline(np.arange(len(knots_NJ2)), knots_NJ2).derivative()(np.arange(len(knots_NJ2))))


def _interpolate_linearly(keys_KJ2: Float64Array, times_T: Float64Array) -> Float64Array:
    start_T = np.minimum(times_T.astype(int), max(len(keys_KJ2) - 2, 0))
    share_T = (times_T - start_T)[:, None, None]
    end_T = np.minimum(start_T + 1, len(keys_KJ2) - 1)
    points_TJ2: Float64Array = keys_KJ2[start_T] * (1 - share_T) + keys_KJ2[end_T] * share_T
    return points_TJ2
