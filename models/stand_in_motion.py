"""Motions of ours for the stand-in body: walking, running, kicks, jumps and more, as SMPL-H poses.

They stand in where the licensed motions are not at hand: joint angles made of periodic curves and of key poses, with a
subject's own tempo, reach and unrest; the root follows from the feet, which stay at the floor and do not slide.
Axes: N frames, P pose numbers (156 = 52 x 3 axis-angle, rad), D = 3 (m, z up). Angles of a limb are named for what a
person does: flexion lifts a thigh forwards, `lower` brings an arm down from the side.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from models.body import NUM_SMPL_H_JOINTS, Body, compute_joints

Float64Array = npt.NDArray[np.float64]
Angles = dict[str, Float64Array]

GRAVITY_M_S2 = 9.81
# Of the stand-in's feet: SMPL-H's joint, its height above the sole.
_CONTACTS = ((7, 0.08), (8, 0.08), (10, 0.02), (11, 0.02))
_SIDES = (("left", 1, 0), ("right", -1, 1))  # name, sign along x, distance from the left joint's number
_SPINE = (3, 6, 9)
_STILL_KNEE_RAD = 0.08


@dataclass(frozen=True)
class Style:
    """How a subject moves. tempo, reach: factors; lag: of the arms behind the legs, rad; elbow, curl: rad, at rest."""

    tempo: float
    reach: float
    right_reach: float
    lag: float
    elbow: float
    lower: float
    curl: float
    unrest: float


class Motion(NamedTuple):
    poses_NP: Float64Array
    trans_ND: Float64Array


@dataclass
class _Stage:
    """A motion in the making. lift_m: height of flight.  travels: False = the root stays in its place."""

    times_s: Float64Array
    style: Style
    angles: Angles = field(default_factory=dict)
    lift_m: Float64Array | None = None
    travels: bool = True

    def set(self, name: str, values: Float64Array | float) -> None:
        self.angles[name] = np.broadcast_to(np.asarray(values, float), self.times_s.shape).copy()

    def key(self, name: str, keys: Sequence[tuple[float, float]]) -> None:
        """Key poses (time s, rad), smoothly joined; the first and last are held."""
        times, values = zip(*keys, strict=True)
        within_s = np.clip(self.times_s, times[0], times[-1])
        curve = np.asarray(PchipInterpolator(times, values)(within_s), float)
        self.angles[name] = gaussian_filter1d(curve, 0.035 / (self.times_s[1] - self.times_s[0]), mode="nearest")


def draw_style(generator: np.random.Generator) -> Style:
    draw = generator.uniform
    return Style(
        draw(0.88, 1.12), draw(0.85, 1.15), draw(0.93, 1.07), draw(-0.3, 0.3),
        draw(0.15, 0.5), draw(1.2, 1.4), draw(0.15, 0.35), draw(0.01, 0.03),
    )  # fmt: skip


def make_motion(
    kind: str, style: Style, body: Body, betas_B: Float64Array, times_s: Float64Array, generator: np.random.Generator
) -> Motion:
    """One motion of a kind in KINDS.

    Args:
        body, betas_B: whose feet shall stay at the floor.
        times_s: (N,), evenly spaced.
        generator: of the start's heading and of what no two takes have alike.
    """
    stage = _Stage(times_s, style)
    stage.set("heading", generator.uniform(-np.pi, np.pi))
    for side, _, _ in _SIDES:
        stage.set(f"{side}_lower", style.lower)
        stage.set(f"{side}_elbow", style.elbow)
        stage.set(f"{side}_knee", _STILL_KNEE_RAD)
        stage.set(f"{side}_curl", style.curl)
    KINDS[kind](stage)
    _add_unrest(stage, generator)
    poses_NP = _to_poses(stage.angles, len(times_s))
    return Motion(poses_NP, _place_root(stage, body, betas_B, poses_NP))


def _walk(stage: _Stage, stride_hz: float = 0.95, reach: float = 1.0) -> None:
    style = stage.style
    for side, _, number in _SIDES:
        gain = reach * style.reach * (style.right_reach if number else 1)
        phase = 2 * np.pi * stride_hz * style.tempo * stage.times_s + number * np.pi
        stage.set(f"{side}_flexion", 0.1 + 0.42 * gain * np.cos(phase))
        swing = np.exp(2.5 * (np.cos(phase - 1.42 * np.pi) - 1))  # the knee bends while the leg comes forward
        stage.set(f"{side}_knee", 0.1 + gain * (0.8 * swing + 0.1 * np.exp(4 * (np.cos(phase - 0.5) - 1))))
        stage.set(f"{side}_ankle", 0.05 + gain * (0.3 * np.exp(4 * (np.cos(phase - 1.1 * np.pi) - 1)) - 0.12 * swing))
        arm = -np.cos(phase + style.lag)
        stage.set(f"{side}_swing", 0.38 * gain * arm + 0.05)
        stage.set(f"{side}_elbow", style.elbow + 0.18 * gain * (1 + arm))
    legs = 2 * np.pi * stride_hz * style.tempo * stage.times_s
    stage.set("twist", -0.1 * style.reach * np.cos(legs + style.lag))
    stage.set("lean", 0.05 + 0.015 * np.cos(2 * legs))
    stage.set("side", 0.03 * np.sin(legs))


def _run(stage: _Stage) -> None:
    style = stage.style
    for side, _, number in _SIDES:
        gain = style.reach * (style.right_reach if number else 1)
        phase = 2 * np.pi * 1.35 * style.tempo * stage.times_s + number * np.pi
        lifted = np.exp(1.6 * (np.cos(phase) - 1))
        stage.set(f"{side}_flexion", 0.12 + 0.95 * gain * lifted)
        stage.set(f"{side}_knee", 0.25 + 1.25 * gain * np.exp(1.6 * (np.cos(phase + 0.35) - 1)))
        stage.set(f"{side}_ankle", 0.35 * gain * lifted - 0.1)
        stage.set(f"{side}_swing", -0.6 * gain * np.cos(phase + style.lag) - 0.1)
        stage.set(f"{side}_elbow", 1.35 + 0.25 * gain * np.sin(phase))
    step = 2 * np.pi * 2.7 * style.tempo * stage.times_s
    stage.lift_m = 0.03 * (1 + np.cos(step - 0.4))
    stage.set("lean", 0.12)
    stage.set("twist", 0.12 * np.cos(step / 2 + style.lag))
    stage.travels = False


def _kick(stage: _Stage) -> None:
    style = stage.style
    keys: dict[str, list[tuple[float, float]]] = {}
    time_s, number = 0.3, 0
    while time_s + 1.7 / style.tempo < stage.times_s[-1]:
        leg, other = ("right", "left") if number % 2 == 0 else ("left", "right")
        gain = style.reach * (1.0 + 0.05 * (number % 3))
        # share of the kick, the kicking thigh, its knee, its foot, the standing knee, the trunk
        course = (
            (0.0, 0.0, 0.1, 0.0, 0.1, 0.03), (0.2, -0.25, 0.5, 0.2, 0.25, 0.1), (0.42, 1.15, 1.75, 0.5, 0.3, -0.1),
            (0.54, 1.45, 0.25, 0.6, 0.2, -0.28), (0.68, 1.1, 1.5, 0.4, 0.25, -0.1), (1.0, 0.0, 0.1, 0.0, 0.1, 0.03),
        )  # fmt: skip
        for share, thigh, knee, foot, standing, trunk in course:
            at_s = time_s + share * 1.6 / style.tempo
            values = {
                f"{leg}_flexion": thigh * gain, f"{leg}_knee": knee, f"{leg}_ankle": foot,
                f"{other}_knee": standing, f"{other}_flexion": 0.5 * standing, f"{other}_ankle": -0.5 * standing,
                "lean": trunk, f"{leg}_swing": -0.5 * max(thigh, 0) * gain, f"{other}_swing": 0.5 + 0.4 * thigh,
                f"{leg}_elbow": 1.2, f"{other}_elbow": 1.5, "twist": (0.25 if leg == "right" else -0.25) * thigh,
            }  # fmt: skip
            for name, value in values.items():
                keys.setdefault(name, []).append((at_s, value))
        time_s += 1.75 / style.tempo
        number += 1
    for name, pairs in keys.items():
        stage.key(name, list(dict(pairs).items()))


def _swing_arms(stage: _Stage) -> None:
    style = stage.style
    phase = 2 * np.pi * 0.55 * style.tempo * stage.times_s
    for side, sign, number in _SIDES:
        gain = style.reach * (style.right_reach if number else 1)
        own = phase + (style.lag if number else 0)
        stage.set(f"{side}_swing", gain * (0.9 - 1.0 * np.cos(own)))
        stage.set(f"{side}_lower", style.lower - 0.55 * gain * (1 + np.sin(own + 0.6)))
        stage.set(f"{side}_elbow", style.elbow + 0.35 * (1 + np.sin(2 * own)))
        bend = 0.12 * (1 - np.cos(2 * phase)) + 0.1
        stage.set(f"{side}_knee", 2 * bend)
        stage.set(f"{side}_flexion", bend + sign * 0.04 * np.sin(phase))
        stage.set(f"{side}_ankle", -bend)
    stage.set("lean", 0.08 - 0.12 * np.cos(phase))
    stage.set("twist", 0.25 * np.sin(phase / 2))


def _crouch(stage: _Stage, course: Sequence[tuple[float, float]], period_s: float, arms: float) -> list[float]:
    """Both legs bend together by `course`: (share of the period, depth 0..1). Returns when each period begins."""
    starts_s = []
    time_s = 0.3
    depths: list[tuple[float, float]] = []
    while time_s + period_s < stage.times_s[-1]:
        starts_s.append(time_s)
        depths += [(time_s + share * period_s, depth) for share, depth in course]
        time_s += period_s * 1.02
    stage.key("depth", depths)
    depth_N = stage.angles.pop("depth") * min(stage.style.reach, 1.05)
    for side, _, _ in _SIDES:
        stage.set(f"{side}_flexion", 1.15 * depth_N)
        stage.set(f"{side}_knee", _STILL_KNEE_RAD + 1.75 * np.clip(depth_N, -0.02, None))
        stage.set(f"{side}_ankle", np.where(depth_N > 0, -0.6, -2.5) * depth_N)
        stage.set(f"{side}_swing", arms * (0.35 - depth_N))
        stage.set(f"{side}_elbow", stage.style.elbow + 0.4 * np.abs(depth_N))
    stage.set("lean", 0.05 + 0.55 * np.clip(depth_N, 0, None))
    return starts_s


def _jump(stage: _Stage) -> None:
    """Crouch, take off, fly, land, rise; in flight the root's height follows from gravity."""
    period_s = 1.9 / stage.style.tempo
    course = ((0.0, 0.0), (0.26, 0.8), (0.4, -0.12), (0.52, 0.1), (0.62, 0.02), (0.74, 0.6), (1.0, 0.0))
    starts_s = _crouch(stage, course, period_s, arms=1.1)
    lift_m = np.zeros_like(stage.times_s)
    for start_s in starts_s:
        off_s, on_s = start_s + 0.39 * period_s, start_s + 0.63 * period_s
        flight_m = GRAVITY_M_S2 / 2 * (stage.times_s - off_s) * (on_s - stage.times_s)
        lift_m += np.where((stage.times_s > off_s) & (stage.times_s < on_s), flight_m, 0)
    stage.lift_m = gaussian_filter1d(lift_m, 0.03 / (stage.times_s[1] - stage.times_s[0]), mode="nearest")


def _squat(stage: _Stage) -> None:
    _crouch(stage, ((0.0, 0.0), (0.4, 0.95), (0.55, 0.95), (1.0, 0.0)), 2.3 / stage.style.tempo, arms=-1.3)


def _turn(stage: _Stage) -> None:
    """Round about on the spot in small steps, the head ahead of the body."""
    _walk(stage, stride_hz=0.8, reach=0.4)
    rate = 0.9 * stage.style.tempo
    slow = 1.4 * (1 - np.cos(2 * np.pi * 0.12 * stage.times_s))
    stage.set("heading", stage.angles["heading"] + rate * stage.times_s + 0.5 * slow)
    stage.set("head", 0.35 + 0.15 * np.sin(2 * np.pi * 0.4 * stage.times_s))
    for side, sign, _ in _SIDES:
        stage.set(f"{side}_outward", 0.15 * sign * np.sin(2 * np.pi * 0.8 * stage.style.tempo * stage.times_s))
    stage.travels = False


KINDS: Mapping[str, Callable[[_Stage], None]] = {
    "walk": _walk,
    "run": _run,
    "kick": _kick,
    "swing": _swing_arms,
    "jump": _jump,
    "squat": _squat,
    "turn": _turn,
}


def _add_unrest(stage: _Stage, generator: np.random.Generator) -> None:
    """Nobody stands quite still: three slow waves on every angle that is used, and on the trunk's and the head's."""
    names = sorted({*stage.angles, "lean", "side", "twist", "head", "nod"} - {"heading", "left_curl", "right_curl"})
    for name in names:
        rates_hz, phases = generator.uniform(0.15, 0.7, 3), generator.uniform(0, 2 * np.pi, 3)
        waves = np.sin(2 * np.pi * rates_hz[:, None] * stage.times_s + phases[:, None]).sum(axis=0)
        base = stage.angles.get(name, np.zeros_like(stage.times_s))
        legs = 0.4 if name.endswith(("flexion", "knee", "ankle")) else 1.0
        stage.angles[name] = base + stage.style.unrest * legs * waves


def _to_poses(angles: Angles, num_frames: int) -> Float64Array:
    """Named angles to SMPL-H's axis-angles; a joint's turns about x, y and z are composed as its comment says."""

    def get(name: str) -> Float64Array:
        return angles.get(name, np.zeros(num_frames))

    def turn(axis: str, values: Float64Array) -> Rotation:
        return Rotation.from_euler(axis, values[:, None])

    poses_NJ3 = np.zeros((num_frames, NUM_SMPL_H_JOINTS, 3))
    # The body's y is up; the world's is z.
    poses_NJ3[:, 0] = (turn("z", get("heading")) * Rotation.from_rotvec((np.pi / 2, 0.0, 0.0))).as_rotvec()
    for joint in _SPINE:
        third = (turn("y", get("twist") / 3), turn("x", get("lean") / 3), turn("z", get("side") / 3))
        poses_NJ3[:, joint] = (third[0] * third[1] * third[2]).as_rotvec()
    poses_NJ3[:, 12] = (turn("y", get("head") / 2) * turn("x", get("nod") / 2)).as_rotvec()
    poses_NJ3[:, 15] = poses_NJ3[:, 12]
    for side, sign, offset in _SIDES:
        hip = turn("y", sign * get(f"{side}_outward")) * turn("x", -get(f"{side}_flexion"))
        poses_NJ3[:, 1 + offset] = hip.as_rotvec()
        poses_NJ3[:, 4 + offset, 0] = get(f"{side}_knee")
        poses_NJ3[:, 7 + offset, 0] = get(f"{side}_ankle")
        shoulder = turn("x", -get(f"{side}_swing")) * turn("z", -sign * get(f"{side}_lower"))
        poses_NJ3[:, 16 + offset] = shoulder.as_rotvec()
        poses_NJ3[:, 18 + offset, 1] = -sign * get(f"{side}_elbow")
        first = 22 + 15 * offset
        poses_NJ3[:, first : first + 12, 2] = -sign * get(f"{side}_curl")[:, None]
        poses_NJ3[:, first + 12 : first + 15, 2] = -0.4 * sign * get(f"{side}_curl")[:, None]  # the thumb
    return poses_NJ3.reshape(num_frames, -1)


def _place_root(stage: _Stage, body: Body, betas_B: Float64Array, poses_NP: Float64Array) -> Float64Array:
    """(N, 3) m: the root such that the lowest foot is at the floor, in flight above it, and does not slide."""
    step_s = stage.times_s[1] - stage.times_s[0]
    joints_NJD = compute_joints(body, poses_NP, np.zeros((len(poses_NP), 3)), betas_B).astype(np.float64)
    feet_NKD = joints_NJD[:, [joint for joint, _ in _CONTACTS]]
    heights_NK = feet_NKD[..., 2] - np.array([height for _, height in _CONTACTS])
    lowest_N1 = heights_NK.min(axis=1, keepdims=True)
    weights_NK = np.exp((lowest_N1 - heights_NK) / 0.01)
    weights_NK /= weights_NK.sum(axis=1, keepdims=True)
    trans_ND = np.zeros((len(poses_NP), 3))
    if stage.travels:
        velocities_NKD = np.gradient(feet_NKD[..., :2], step_s, axis=0)
        slide_ND = -np.einsum("nk,nkd->nd", weights_NK, velocities_NKD)
        trans_ND[:, :2] = np.cumsum(gaussian_filter1d(slide_ND, 0.03 / step_s, axis=0, mode="nearest"), axis=0) * step_s
    floor_N = -np.einsum("nk,nk->n", weights_NK, heights_NK)
    trans_ND[:, 2] = gaussian_filter1d(floor_N, 0.02 / step_s, mode="nearest")
    # The body's own root joint is not at trans but at its place at rest; both are counted from the same frame.
    trans_ND[:, :2] -= joints_NJD[:1, 0, :2] + trans_ND[:1, :2]
    if stage.lift_m is not None:
        trans_ND[:, 2] += stage.lift_m
    return trans_ND
