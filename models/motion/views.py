"""From 3D joints to what a camera sees of them, and from there to the rows that the motion networks read.

World: metres, z up. Camera: pinhole on the y axis at -depth, looking along +y. Projected units: u to the right,
v down, 1 = a metre at `depth` when focal = depth. Axes: T frames, P points (52 or 19), J joints (19), E entries of
a row (19), C rows (38 = 19 entries x (x, y)), 2 = (u, v).
Source: ../shared/reference/README.md, "Motion network: numbers in and out" and "training"; as the 2021 code, but for
padding, which here never counts in the root's mean.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.skeleton import NUM_JOINTS, FloatArray, Joint, is_seen, joints_from_smpl_h

Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

NEAR_M = 0.4  # points nearer to the camera are drawn as if they were here
BORDER = 10.0  # points are kept within +- this
FOCAL = 4.0
DEPTH_M = 4.0
_VALUES_AT_ONCE = 2**17  # 1 MB of float64: what a core's cache holds
# Training views: angles within +- these times pi, focal and depth each off by up to JITTER.
ANGLE_RANGES = (0.2, 0.0, 1.0)
JITTER = 0.4
# Network units of image pixels in the 2021 code: (pixel - 256) / 512, whatever the picture's size.
PAPER_SCALE_PX = 512.0
PAPER_OFFSET_PX = 256.0

# Entries of a row: every joint but the mid hip, relative to it, then the mid hip's own place.
ENTRIES: tuple[Joint, ...] = (*(joint for joint in Joint if joint is not Joint.MID_HIP), Joint.MID_HIP)
NUM_ROWS = 2 * len(ENTRIES)
_PLACES = np.argsort(ENTRIES)  # joint -> its entry

# SMPL-H's order, for the facing direction; the 19 joints have names of their own.
_SMPL_H_SIDES = {"right": (17, 2), "left": (16, 1)}  # shoulder, hip


class View(NamedTuple):
    """angles_rad: (3,) tilt about x, unused, turn about z.  focal: projected units.  depth: m."""

    angles_rad: tuple[float, float, float]
    focal: float = FOCAL
    depth: float = DEPTH_M


def random_view(seed: int, sequence: str, number: int) -> View:
    """A training view that depends on its arguments alone: not on order, nor on how many processes draw.

    Args: seed: of the run.  sequence: the sequence's name.  number: 0, 1, ... of the sequence's views.
    """
    name = int.from_bytes(hashlib.sha256(sequence.encode()).digest(), "little")
    generator = np.random.default_rng([seed, number, name])
    tilt, roll, turn = generator.uniform(-1, 1, 3) * ANGLE_RANGES * np.pi
    focal_off, depth_off = generator.uniform(-JITTER, JITTER, 2)
    return View((float(tilt), float(roll), float(turn)), float(FOCAL + focal_off), float(DEPTH_M + depth_off))


def evaluation_view(angles_rad: Float64Array, clip: int) -> View:
    """The fixed view of test clip number `clip`: that row of the (N, 3) angles, and after the last the first again."""
    tilt, roll, turn = angles_rad[clip % len(angles_rad)].tolist()
    return View((tilt, roll, turn))


def facing_rotation(joints_m_T52D: FloatArray) -> Float64Array:
    """The rotation that turns a person to face the camera, from the mean line of shoulders and hips.

    Args:   joints_m_T52D: (T, 52, 3) SMPL-H joints.
    Returns: (3, 3), its rows the x (to the person's left), y (away from the camera) and z axes.
    Raises: ValueError where shoulders and hips lie above one another on average: there is no direction then.
    """
    right, left = (list(_SMPL_H_SIDES[side]) for side in ("right", "left"))
    sides_T4D = joints_m_T52D[:, right + left].astype(np.float64)
    across = (sides_T4D[:, : len(right)] - sides_T4D[:, len(right) :]).sum(axis=1).mean(axis=0)
    up = np.array([0.0, 0.0, 1.0])
    ahead = np.cross(across, up)
    length = np.linalg.norm(ahead)
    if not length > 0:
        raise ValueError("the mean line from left to right shoulder and hip is upright; the person faces nowhere")
    ahead /= length
    return np.stack([np.cross(ahead, up), ahead, up])


def view_rotation(facing_33: Float64Array, angles_rad: tuple[float, float, float]) -> Float64Array:
    """The whole rotation of a view, for column vectors: a turn about z, a tilt about the world's x, then facing.

    In this order, the 2021 code's, a tilt means another thing for a person who looks along x than for one along y.
    """
    tilt, _, turn = angles_rad
    tilt_33 = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    turn_33 = np.array([[np.cos(turn), np.sin(turn), 0], [-np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    rotation_33: Float64Array = facing_33 @ tilt_33.T @ turn_33
    return rotation_33


def project_points(points_m_TPD: FloatArray, focal: float | FloatArray, depth: float | FloatArray) -> FloatArray:
    """Pinhole projection of points that are already turned.

    Args:
        points_m_TPD: (..., 3) m, the origin `depth` in front of the camera.
        focal, depth: numbers, or arrays that broadcast to (...).

    Returns: (..., 2) projected units, within +-10; points behind NEAR_M are seen as at NEAR_M.
    """
    distance_TP = np.maximum(points_m_TPD[..., 1] + depth, NEAR_M)
    plane_TP2 = np.stack([points_m_TPD[..., 0], -points_m_TPD[..., 2]], axis=-1)
    projected: FloatArray = plane_TP2 * np.asarray(focal / distance_TP)[..., None]
    clipped: FloatArray = np.clip(projected, -BORDER, BORDER)
    return clipped


def view_joints(joints_m_T52D: FloatArray, view: View) -> Float64Array:
    """What a view shows of a sequence: its 19 joints in projected units.

    Args:   joints_m_T52D: (T, 52, 3) SMPL-H joints, m, z up, anywhere.
    Returns: (T, 19, 2). The root's mean over time lies on the camera's axis; a hand is the mean of its 15 joints'
        projections.
    """
    return np.asarray(view_joints_often(joints_m_T52D, [view])[0], np.float64)


def view_joints_often(
    joints_m_T52D: FloatArray, views: Sequence[View], dtype: type[np.floating] = np.float64
) -> FloatArray:
    """What each of V views shows of a sequence; centre and direction are found once.

    Args:   joints_m_T52D: as in view_joints.  dtype: of what is returned; all is computed in float64.
    Returns: (V, T, 19, 2) projected units.
    Raises: ValueError where the person faces nowhere (facing_rotation).
    """
    facing_33 = facing_rotation(joints_m_T52D)
    centre_D = joints_m_T52D[:, 0].mean(axis=0, dtype=np.float64)
    turns_VDD = np.stack([view_rotation(facing_33, view.angles_rad).T for view in views])
    focal_V11 = np.array([view.focal for view in views])[:, None, None]
    depth_V11 = np.array([view.depth for view in views])[:, None, None]
    points_VTJ2 = np.empty((len(views), len(joints_m_T52D), NUM_JOINTS, 2), dtype)
    at_once = max(1, _VALUES_AT_ONCE // (len(views) * joints_m_T52D[0].size))
    for start in range(0, len(joints_m_T52D), at_once):
        centred_TPD = joints_m_T52D[start : start + at_once].astype(np.float64) - centre_D
        turned_VTPD = (centred_TPD.reshape(-1, 3) @ turns_VDD).reshape(len(views), *centred_TPD.shape)
        shown_VTP2 = project_points(turned_VTPD, focal_V11, depth_V11)
        shown_TJ2 = joints_from_smpl_h(shown_VTP2.reshape(-1, *shown_VTP2.shape[2:]))
        points_VTJ2[:, start : start + at_once] = shown_TJ2.reshape(len(views), -1, NUM_JOINTS, 2)
    return points_VTJ2


@dataclass(frozen=True)
class Normalisation:
    """What rows are measured by: row = (value - mean) / std, in the order of ENTRIES.

    mean_E2, std_E2: (19, 2) projected units; std > 0.
    """

    mean_E2: Float64Array
    std_E2: Float64Array

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean_E2), ("std", self.std_E2)):
            if values.shape != (NUM_JOINTS, 2):
                raise ValueError(f"{name} has shape {values.shape}; ({NUM_JOINTS}, 2) is needed")
        if not (self.std_E2 > 0).all():
            raise ValueError("std has a value that is not above 0: a point never moved; give more sequences")

    def to_rows(self, points_TJ2: FloatArray) -> Float64Array:
        """(T, 19, 2) points in projected units to (38, T) network rows; keeps float64."""
        rows_TE2 = (entries_from_points(points_TJ2) - self.mean_E2) / self.std_E2
        return rows_TE2.reshape(len(points_TJ2), NUM_ROWS).T

    def to_points(self, rows_CT: FloatArray) -> Float64Array:
        """(38, T) network rows to (T, 19, 2) points in projected units."""
        return points_from_entries(rows_CT.T.reshape(-1, NUM_JOINTS, 2) * self.std_E2 + self.mean_E2)


def entries_from_points(points_TJ2: FloatArray) -> Float64Array:
    """Points to entries: all but the mid hip relative to it, the mid hip last."""
    hip_T12 = points_TJ2[:, Joint.MID_HIP : Joint.MID_HIP + 1]
    entries_TE2 = points_TJ2[:, list(ENTRIES)].astype(np.float64)
    entries_TE2[:, :-1] -= hip_T12
    return entries_TE2


def points_from_entries(entries_TE2: FloatArray) -> Float64Array:
    """The inverse of entries_from_points."""
    points_TE2 = entries_TE2.astype(np.float64)
    points_TE2[:, :-1] += points_TE2[:, -1:]
    return points_TE2[:, _PLACES]


class Moments(NamedTuple):
    """What some frames' entries are on average; parts measured apart are merged as if measured together.

    num_frames: > 0.  mean_E2, std_E2: (19, 2) float64 projected units; std >= 0.
    """

    num_frames: int
    mean_E2: Float64Array
    std_E2: Float64Array


def measure_moments(points_TJ2: FloatArray) -> Moments:
    """Of a clean clip, (T, 19, 2) with T > 0."""
    entries_TE2 = entries_from_points(points_TJ2)
    mean_E2 = entries_TE2.mean(axis=0)
    entries_TE2 -= mean_E2
    squares_E2 = np.einsum("tea,tea->ea", entries_TE2, entries_TE2)  # half the time of std, which keeps its squares
    return Moments(len(entries_TE2), mean_E2, np.sqrt(squares_E2 / len(entries_TE2)))


def merge_moments(parts: Iterable[Moments]) -> Moments:
    """The moments of all parts' frames together. Raises: ValueError if there is no frame."""
    parts = list(parts)
    counts_P11 = np.array([part.num_frames for part in parts], np.float64)[:, None, None]
    num_frames = sum(part.num_frames for part in parts)
    if num_frames == 0:
        raise ValueError("there is no frame to measure mean and standard deviation on")
    means_PE2, stds_PE2 = np.stack([part.mean_E2 for part in parts]), np.stack([part.std_E2 for part in parts])
    mean_E2 = (counts_P11 * means_PE2).sum(axis=0) / num_frames
    # About the common mean: a difference of squares would lose the digits of a point that hardly moves.
    variance_E2 = (counts_P11 * (np.square(stds_PE2) + np.square(means_PE2 - mean_E2))).sum(axis=0) / num_frames
    return Moments(num_frames, mean_E2, np.sqrt(variance_E2))


def measure_normalisation(clips: Iterable[FloatArray]) -> Normalisation:
    """Mean and standard deviation of the entries over all frames of clean clips, each (T, 19, 2).

    Differs from the 2021 code, which took the mean of the clips' own deviations, and added camera noise first.
    Raises: ValueError if there is no frame, or a point never moves.
    """
    moments = merge_moments(measure_moments(points_TJ2) for points_TJ2 in clips if len(points_TJ2))
    return Normalisation(moments.mean_E2, moments.std_E2)


def units_from_pixels(joints_px_TJD: FloatArray, scale_px: float, offset_px: float | FloatArray) -> Float64Array:
    """Detected joints to projected units; a joint not seen becomes (0, 0), before anything is relative to the hip.

    Args:
        joints_px_TJD: (T, 19, 3) x px, y px, score; score 0 = not seen.
        scale_px, offset_px: pixels of one unit, pixel of (0, 0): a number or (2,). The paper's are 512 and 256.
    """
    units_TJ2 = (joints_px_TJD[..., :2].astype(np.float64) - offset_px) / scale_px
    return np.where(is_seen(joints_px_TJD)[..., None], units_TJ2, 0.0)


def pixels_from_units(points_TJ2: FloatArray, scale_px: float, offset_px: float | FloatArray) -> Float64Array:
    """The inverse of units_from_pixels for points that are there."""
    return (points_TJ2 * scale_px + offset_px).astype(np.float64)


def hidden_frames(num_frames: int, rate: int) -> BoolArray:
    """(num_frames,) bool, True = hidden: not one of the key frames 0, rate, 2 rate, ..."""
    is_hidden_T: BoolArray = np.arange(num_frames) % rate != 0
    return is_hidden_T


def spread_rows(keys_CK: FloatArray, rate: int) -> FloatArray:
    """(C, K) key rows to the network's (C, (K - 1) * rate + 1) source: keys in their columns, 0 elsewhere."""
    source_CT = np.zeros((keys_CK.shape[0], (keys_CK.shape[1] - 1) * rate + 1), keys_CK.dtype)
    source_CT[:, ::rate] = keys_CK
    return source_CT
