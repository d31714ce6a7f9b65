"""What the generator is told about the body: pose maps, a soft skeleton picture; and in training the person's area.

Axes: T frames, J joints (19), D (x px, y px, score 0..1), L limbs (18), C channels, H, W, O brush offsets, N points.
A joint counts when it lies inside the picture with a score above 0.001; one that does not is missing from everything.
Nothing is random here: what training varies is given as arguments.
Source: the authors' rendering network; no drawing differs from theirs by a pixel.
"""

import math
import mmap
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from models.skeleton import NUM_JOINTS, FloatArray, Joint

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
J = Joint

MIN_SCORE = 0.001
SIGMA_PX = 5.0
WINDOW_SIGMAS = 4.0
NUM_SKELETON_CHANNELS = 3
NUM_CHANNELS = NUM_SKELETON_CHANNELS + NUM_JOINTS


class Limb(NamedTuple):
    """A stroke of the skeleton picture."""

    start: Joint
    end: Joint
    colour: tuple[int, int, int]  # RGB


# In the order of drawing: each is painted over the ones before.
LIMBS = (
    Limb(J.NOSE, J.NECK, (153, 0, 51)),
    Limb(J.NECK, J.MID_HIP, (153, 0, 0)),
    Limb(J.NECK, J.RIGHT_SHOULDER, (153, 51, 0)),
    Limb(J.RIGHT_SHOULDER, J.RIGHT_ELBOW, (153, 102, 0)),
    Limb(J.RIGHT_ELBOW, J.RIGHT_WRIST, (153, 153, 0)),
    Limb(J.NECK, J.LEFT_SHOULDER, (102, 153, 0)),
    Limb(J.LEFT_SHOULDER, J.LEFT_ELBOW, (51, 153, 0)),
    Limb(J.LEFT_ELBOW, J.LEFT_WRIST, (0, 153, 0)),
    Limb(J.MID_HIP, J.RIGHT_HIP, (0, 153, 51)),
    Limb(J.RIGHT_HIP, J.RIGHT_KNEE, (0, 153, 102)),
    Limb(J.RIGHT_KNEE, J.RIGHT_ANKLE, (0, 153, 153)),
    Limb(J.MID_HIP, J.LEFT_HIP, (0, 102, 153)),
    Limb(J.LEFT_HIP, J.LEFT_KNEE, (0, 51, 153)),
    Limb(J.LEFT_KNEE, J.LEFT_ANKLE, (0, 0, 153)),
    Limb(J.RIGHT_WRIST, J.RIGHT_HAND, (208, 208, 0)),
    Limb(J.LEFT_WRIST, J.LEFT_HAND, (0, 208, 0)),
    Limb(J.RIGHT_ANKLE, J.RIGHT_BIG_TOE, (0, 208, 208)),
    Limb(J.LEFT_ANKLE, J.LEFT_BIG_TOE, (0, 0, 208)),
)
NUM_LIMBS = len(LIMBS)
_LEVELS = (np.arange(256) / 255 * 2 - 1).astype(np.float32)  # of a byte in a label

# Offsets (dy, dx) of the two brushes in the order in which they are painted: the line's, and that of its two ends.
_STROKE_O2 = np.array([(dy, dx) for dy in range(-4, 4) for dx in range(-4, 4)])
_DOT_O2 = np.array([(dy, dx) for dy in range(-12, 12) for dx in range(-12, 12) if dy * dy + dx * dx < 64])

# The person's area: thickness in px of the line between two joints.
_TORSO_PX, _LIMB_PX, _HEAD_RADIUS_PX, _JOINT_RADIUS_PX = 40, 30, 30, 15
_TORSO_LINES = ((J.NECK, J.MID_HIP), (J.RIGHT_SHOULDER, J.RIGHT_HIP), (J.LEFT_SHOULDER, J.LEFT_HIP))


class MaskLine(NamedTuple):
    """A line of the person's area, drawn where both joints count."""

    start: Joint
    end: Joint
    thickness_px: int


MASK_LINES = (
    *(MaskLine(limb.start, limb.end, _LIMB_PX) for limb in LIMBS if (limb.start, limb.end) not in _TORSO_LINES),
    *(MaskLine(start, end, _TORSO_PX) for start, end in _TORSO_LINES),
)


def draw_labels(
    joints_px_TJD: FloatArray,
    height: int,
    width: int,
    *,
    sigma_px_TJ: FloatArray | None = None,
    is_dropped_TJ: BoolArray | None = None,
    is_drawn_TL: BoolArray | None = None,
) -> Float32Array:
    """The generator's label of each pose: the skeleton picture, then one pose map a joint.

    Args: see draw_pose_maps and draw_skeletons; without the keywords, as for evaluation.
    Returns: (T, 22, height, width) float32. Channels 0..2: the skeleton's RGB from -1 (0) to 1 (255), background -1.
        Channels 3..21: the pose maps in the order of the joints, 0..1.
    Raises: ValueError as draw_pose_maps.
    Source: "Labels" of the authors' rendering network; equal to theirs.
    """
    _check(joints_px_TJD, height, width)
    canvas = LabelCanvas(len(joints_px_TJD), height, width)
    return canvas.draw_labels(
        joints_px_TJD, sigma_px_TJ=sigma_px_TJ, is_dropped_TJ=is_dropped_TJ, is_drawn_TL=is_drawn_TL
    )


class LabelCanvas:
    """Labels drawn time and again into the same memory: a call clears what the one before it drew, and draws.

    For loops over many frames. Memory written for the first time costs several times what the spots cost.
    The arrays returned are the canvas itself: to be read, or copied, before the next call on it.
    """

    def __init__(self, num_frames: int, height: int, width: int) -> None:
        """Args: num_frames: poses that one call may draw, at most. height, width: px."""
        self._labels_TCHW = _untouched_zeros((num_frames, NUM_CHANNELS, height, width))
        self._labels_TCHW[:, :NUM_SKELETON_CHANNELS] = -1
        self._spots: list[Float32Array] = []
        self._strokes: list[Float32Array] = []

    def draw_labels(
        self,
        joints_px_TJD: FloatArray,
        *,
        sigma_px_TJ: FloatArray | None = None,
        is_dropped_TJ: BoolArray | None = None,
        is_drawn_TL: BoolArray | None = None,
    ) -> Float32Array:
        """As models.renderer.labels.draw_labels, bit by bit. Raises: ValueError also on more poses than num_frames."""
        self._clear(joints_px_TJD)
        labels_TCHW = self._labels_TCHW[: len(joints_px_TJD)]
        _add_pose_maps(labels_TCHW[:, NUM_SKELETON_CHANNELS:], joints_px_TJD, sigma_px_TJ, is_dropped_TJ, self._spots)
        height, width = labels_TCHW.shape[2:]
        skeletons_THWC, boxes = _draw_skeletons(joints_px_TJD, height, width, is_drawn_TL)
        for label_CHW, skeleton_HWC, (rows, columns) in zip(labels_TCHW, skeletons_THWC, boxes, strict=True):
            box = label_CHW[:NUM_SKELETON_CHANNELS, rows, columns]
            box[...] = _LEVELS[skeleton_HWC[rows, columns].transpose(2, 0, 1)]
            self._strokes.append(box)
        return labels_TCHW

    def draw_pose_maps(
        self,
        joints_px_TJD: FloatArray,
        *,
        sigma_px_TJ: FloatArray | None = None,
        is_dropped_TJ: BoolArray | None = None,
    ) -> Float32Array:
        """As models.renderer.labels.draw_pose_maps, bit by bit. Raises: ValueError also on too many poses."""
        self._clear(joints_px_TJD)
        maps_TJHW = self._labels_TCHW[: len(joints_px_TJD), NUM_SKELETON_CHANNELS:]
        _add_pose_maps(maps_TJHW, joints_px_TJD, sigma_px_TJ, is_dropped_TJ, self._spots)
        return maps_TJHW

    def _clear(self, joints_px_TJD: FloatArray) -> None:
        num_frames, _, height, width = self._labels_TCHW.shape
        _check(joints_px_TJD, height, width)
        if len(joints_px_TJD) > num_frames:
            raise ValueError(f"{len(joints_px_TJD)} poses for a canvas of {num_frames}")
        for spot in self._spots:
            spot.fill(0)
        for box in self._strokes:
            box.fill(-1)
        self._spots, self._strokes = [], []


def draw_pose_maps(
    joints_px_TJD: FloatArray,
    height: int,
    width: int,
    *,
    sigma_px_TJ: FloatArray | None = None,
    is_dropped_TJ: BoolArray | None = None,
) -> Float32Array:
    """A blurred spot a joint: a single 1, Gaussian-filtered with the picture mirrored at its borders, its maximum 1.

    Args:
        joints_px_TJD: (T, 19, 3) x px, y px, score, as models.skeleton names them; (0, 0, 0) = not seen. T may be 0.
        height, width: of the picture, px, 1 or more.
        sigma_px_TJ: (T, 19) standard deviations, px, above 0; None = 5 for all. Training draws 4 or 5.
        is_dropped_TJ: (T, 19), True = an empty map for a joint that counts; None = none. Training drops 0.02 of them.

    Returns: (T, 19, height, width) float32, 0..1; exactly 0 further than 4 standard deviations along x or y, and
        everywhere for a joint that does not count.
    Raises: ValueError on another shape, a joint or size that is not finite or not above 0.
    Source: "Labels" of the authors' rendering network. They filter whole pictures; the filter separates, so here two
        profiles are multiplied inside the window alone, with the same result to 1e-6.
    """
    _check(joints_px_TJD, height, width)
    maps_TJHW = _untouched_zeros((len(joints_px_TJD), NUM_JOINTS, height, width))
    _add_pose_maps(maps_TJHW, joints_px_TJD, sigma_px_TJ, is_dropped_TJ, [])
    return maps_TJHW


def draw_skeletons(
    joints_px_TJD: FloatArray, height: int, width: int, *, is_drawn_TL: BoolArray | None = None
) -> UInt8Array:
    """A picture of 18 soft, coloured strokes a pose.

    Args:
        joints_px_TJD, height, width: see draw_pose_maps.
        is_drawn_TL: (T, 18), False = this limb of LIMBS is left out; None = all are drawn. Training draws 0.98 of them.

    Returns: (T, height, width, 3) uint8 RGB, background 0. A limb is there if both ends count and neither's x is
        exactly 0.
    Raises: ValueError on another shape or a joint that is not finite.
    Source: "Labels" of the authors' rendering network, to the pixel.
    """
    _check(joints_px_TJD, height, width)
    return _draw_skeletons(joints_px_TJD, height, width, is_drawn_TL)[0]


def draw_human_masks(joints_px_TJD: FloatArray, height: int, width: int) -> BoolArray:
    """Roughly where the person is: thick lines along the bones, a disc at every joint.

    Args: see draw_pose_maps.
    Returns: (T, height, width) bool, True = the person. A line is there if both its joints count.
    Raises: ValueError on another shape or a joint that is not finite.
    Source: "Labels" of the authors' rendering network, to the pixel.
    """
    _check(joints_px_TJD, height, width)
    counts_TJ = _counts(joints_px_TJD, height, width)
    masks_THW = np.zeros((len(joints_px_TJD), height, width), np.uint8)
    for mask_HW, joints_px_JD, counts_J in zip(masks_THW, joints_px_TJD, counts_TJ, strict=True):
        points = _draw_mask_lines(mask_HW, joints_px_JD, counts_J, MASK_LINES)
        for joint, point in points.items():
            cv2.circle(mask_HW, point, _HEAD_RADIUS_PX if joint == J.NOSE else _JOINT_RADIUS_PX, 1, cv2.FILLED)
    return masks_THW.view(np.bool_)


def draw_mask_lines(joints_px_JD: FloatArray, height: int, width: int, is_drawn_M: BoolArray) -> UInt8Array:
    """Some lines of one pose's human mask, without the discs.

    Args: joints_px_JD: (19, 3). height, width: px. is_drawn_M: True = this line of MASK_LINES.
    Returns: (height, width) uint8, 1 = inside a line, 0 elsewhere.
    Raises: ValueError as draw_human_masks, and on another number of lines.
    """
    _check(joints_px_JD[None], height, width)
    _check_shape("is_drawn_M", is_drawn_M, (len(MASK_LINES),))
    mask_HW = np.zeros((height, width), np.uint8)
    lines = [line for line, is_drawn in zip(MASK_LINES, is_drawn_M, strict=True) if is_drawn]
    _draw_mask_lines(mask_HW, joints_px_JD, _counts(joints_px_JD, height, width), lines)
    return mask_HW


def _draw_mask_lines(
    mask_HW: UInt8Array, joints_px_JD: FloatArray, counts_J: BoolArray, lines: Sequence[MaskLine]
) -> dict[Joint, tuple[int, int]]:
    """Returns: the cells (x, y) of the joints that count."""
    points = {joint: (int(joints_px_JD[joint, 0]), int(joints_px_JD[joint, 1])) for joint in Joint if counts_J[joint]}
    for start, end, thickness_px in lines:
        if start in points and end in points:
            cv2.line(mask_HW, points[start], points[end], 1, thickness_px)
    return points


def _check(joints_px_TJD: FloatArray, height: int, width: int) -> None:
    if joints_px_TJD.ndim != 3 or joints_px_TJD.shape[1:] != (NUM_JOINTS, 3):
        raise ValueError(f"joints have shape {joints_px_TJD.shape}; (frames, {NUM_JOINTS}, 3) is needed")
    if height < 1 or width < 1:
        raise ValueError(f"a picture of {height} x {width} px (height x width); at least 1 x 1 is needed")
    if not np.isfinite(joints_px_TJD).all():
        raise ValueError("joints have a value that is not finite; a joint that was not seen is (0, 0, 0)")


def _check_shape(name: str, values: npt.NDArray[np.generic] | None, shape: tuple[int, ...]) -> None:
    if values is not None and values.shape != shape:
        raise ValueError(f"{name} has shape {values.shape}; {shape} is needed")


def _counts(joints_px_TJD: FloatArray, height: int, width: int) -> BoolArray:
    x_TJ, y_TJ, score_TJ = np.moveaxis(joints_px_TJD, -1, 0)
    counts: BoolArray = (score_TJ > MIN_SCORE) & (x_TJ >= 0) & (x_TJ < width) & (y_TJ >= 0) & (y_TJ < height)
    return counts


def _draw_skeletons(
    joints_px_TJD: FloatArray, height: int, width: int, is_drawn_TL: BoolArray | None
) -> tuple[UInt8Array, list[tuple[slice, slice]]]:
    """The pictures, and a box (rows, columns) of each outside of which it is black."""
    num_frames = len(joints_px_TJD)
    _check_shape("is_drawn_TL", is_drawn_TL, (num_frames, NUM_LIMBS))
    can_draw_TJ = _counts(joints_px_TJD, height, width) & (joints_px_TJD[..., 0] != 0)
    can_draw_TL = can_draw_TJ[:, [limb.start for limb in LIMBS]] & can_draw_TJ[:, [limb.end for limb in LIMBS]]
    if is_drawn_TL is not None:
        can_draw_TL &= is_drawn_TL
    pictures_THWC = np.zeros((num_frames, height, width, 3), np.uint8)
    boxes = []
    for picture_HWC, joints_px_JD, can_draw_L in zip(pictures_THWC, joints_px_TJD, can_draw_TL, strict=True):
        is_touched_HW = np.zeros((height, width), np.bool_)
        for limb, can_draw in zip(LIMBS, can_draw_L, strict=True):
            if can_draw:
                points_N2 = _limb_points(joints_px_JD[limb.start], joints_px_JD[limb.end])
                if len(points_N2):
                    ends_N2 = points_N2[:: max(len(points_N2) - 1, 1)]
                    _paint(picture_HWC, is_touched_HW, points_N2, _STROKE_O2, limb.colour)
                    _paint(picture_HWC, is_touched_HW, ends_N2, _DOT_O2, limb.colour)
        boxes.append((_span(is_touched_HW, 1), _span(is_touched_HW, 0)))
    return pictures_THWC, boxes


def _span(is_touched_HW: BoolArray, across: int) -> slice:
    places = np.flatnonzero(np.logical_or.reduce(is_touched_HW, axis=across))
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0)


def _untouched_zeros(shape: tuple[int, ...]) -> Float32Array:
    """Zeros that take memory as they are written, 4 kB at a time: a spot needs 80 kB of a map's 600.

    NumPy asks for its large arrays in pages of 2 MB, which are cleared whole; that takes longer than all the spots.
    """
    num_bytes = 4 * math.prod(shape)
    if num_bytes == 0:
        return np.zeros(shape, np.float32)
    memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(memory, np.float32).reshape(shape)


def _add_pose_maps(
    maps_TJHW: Float32Array,
    joints_px_TJD: FloatArray,
    sigma_px_TJ: FloatArray | None,
    is_dropped_TJ: BoolArray | None,
    spots: list[Float32Array],
) -> None:
    """Write the spots into maps of zeros, and add to `spots` the parts of them that were written."""
    height, width = maps_TJHW.shape[2:]
    shape = joints_px_TJD.shape[:2]
    _check_shape("sigma_px_TJ", sigma_px_TJ, shape)
    _check_shape("is_dropped_TJ", is_dropped_TJ, shape)
    if sigma_px_TJ is not None and not (np.isfinite(sigma_px_TJ) & (sigma_px_TJ > 0)).all():
        raise ValueError("sigma_px_TJ has a value that is not above 0")
    is_drawn_TJ = _counts(joints_px_TJD, height, width)
    if is_dropped_TJ is not None:
        is_drawn_TJ &= ~is_dropped_TJ
    cells_TJ2 = joints_px_TJD[..., :2].astype(np.int64)
    for t, j in zip(*(index.tolist() for index in np.nonzero(is_drawn_TJ)), strict=True):
        sigma_px = SIGMA_PX if sigma_px_TJ is None else float(sigma_px_TJ[t, j])
        x, y = cells_TJ2[t, j].tolist()
        left, along_x = _spot_profile(x, width, sigma_px)
        top, along_y = _spot_profile(y, height, sigma_px)
        window = maps_TJHW[t, j, top : top + len(along_y), left : left + len(along_x)]
        np.multiply(along_y[:, None], along_x, out=window)
        spots.append(window)


class _Profile(NamedTuple):
    start: int
    values: Float32Array


@lru_cache(maxsize=4096)
def _spot_profile(place: int, size: int, sigma_px: float) -> _Profile:
    """A 1 at `place` of a line of `size` cells, filtered and divided by its maximum: the cells that are not 0.

    The line goes on beyond its ends as its mirror image (d c b a | a b c d | d c b a), so each cell adds up the spot
    and its images, however short the line is.
    """
    reach = int(WINDOW_SIGMAS * sigma_px + 0.5)
    start, stop = max(0, place - reach), min(size, place + reach + 1)
    cells = np.arange(start, stop)
    num_turns = -(-reach // (2 * size)) + 1
    shift = 2 * size * np.arange(-num_turns, num_turns + 1)
    images = np.concatenate([place + shift, -1 - place + shift])
    distance = cells[:, None] - images
    weight = np.where(np.abs(distance) <= reach, np.exp(-0.5 * (distance / sigma_px) ** 2), 0)
    values = weight.sum(axis=1)
    values /= values.max()
    profile = values.astype(np.float32)
    profile.setflags(write=False)  # kept by the cache
    return _Profile(start, profile)


def _limb_points(start_D: FloatArray, end_D: FloatArray) -> IntArray:
    """The cells (row, column) of a limb's line, one for each step along its longer axis; none if it is shorter than 1.

    Joints lie inside the picture, so no cell comes twice.
    """
    (x_0, y_0), (x_1, y_1) = start_D[:2].tolist(), end_D[:2].tolist()
    is_wide = abs(x_1 - x_0) >= abs(y_1 - y_0)
    ends = ((x_0, y_0), (x_1, y_1)) if is_wide else ((y_0, x_0), (y_1, x_1))
    (a, minor_a), (b, minor_b) = min(ends), max(ends)
    if b - a < 1:
        return np.zeros((0, 2), np.int64)
    major_N = np.linspace(int(a), int(b), int(b - a))
    minor_N = minor_a + (major_N - a) * ((minor_b - minor_a) / (b - a))
    return np.stack((minor_N, major_N) if is_wide else (major_N, minor_N), axis=1).astype(np.int64)


def _paint(
    picture_HWC: UInt8Array,
    is_touched_HW: BoolArray,
    points_N2: IntArray,
    brush_O2: IntArray,
    colour: Sequence[int],
) -> None:
    """Paint different points with a brush: for each of its offsets in turn, all shifted points at once.

    A shifted point that leaves the picture is clamped to it. If all of an offset's cells are black they become the
    colour, else each channel becomes (old + colour) / 2 cut to a byte. A cell that is touched never is black again, so
    only its first touch can be of the first kind, and k touches of the other kind make colour + floor((old - colour) /
    2^k) of it: counting the touches is enough.
    """
    height, width = is_touched_HW.shape
    (dy_0, dx_0), (dy_1, dx_1) = brush_O2.min(axis=0).tolist(), brush_O2.max(axis=0).tolist()
    (y_0, x_0), (y_1, x_1) = points_N2.min(axis=0).tolist(), points_N2.max(axis=0).tolist()
    top, left = max(0, y_0 + dy_0), max(0, x_0 + dx_0)
    bottom, right = min(height, y_1 + dy_1 + 1), min(width, x_1 + dx_1 + 1)
    box_width = right - left
    area = (bottom - top) * box_width
    is_clamped = y_0 + dy_0 < 0 or x_0 + dx_0 < 0 or y_1 + dy_1 >= height or x_1 + dx_1 >= width
    if is_clamped:
        row_ON = (points_N2[:, 0] + brush_O2[:, :1]).clip(top, bottom - 1) - top
        column_ON = (points_N2[:, 1] + brush_O2[:, 1:]).clip(left, right - 1) - left
        cell_ON = row_ON * box_width + column_ON
    else:
        cell_N = (points_N2[:, 0] - top) * box_width + (points_N2[:, 1] - left)
        cell_ON = cell_N + (brush_O2[:, 0] * box_width + brush_O2[:, 1])[:, None]

    box = (slice(top, bottom), slice(left, right))
    is_touched_A = is_touched_HW[box].ravel()
    order_ON = np.broadcast_to(np.arange(len(brush_O2))[:, None], cell_ON.shape)
    first_A = np.empty(area, np.int64)  # which offset touches a cell first
    first_A[cell_ON[::-1].ravel()] = order_ON[::-1].ravel()  # the last one written stays
    first_A[is_touched_A] = -1
    is_fresh_O = (first_A[cell_ON] == order_ON).all(axis=1)

    # At the borders an offset may reach a cell through several points, and touches it once.
    cells = np.unique(cell_ON + order_ON * area) % area if is_clamped else cell_ON.ravel()
    touches_A = np.bincount(cells, minlength=area)

    patch_A3 = picture_HWC[box].reshape(area, 3).astype(np.int16)
    patch_A3[cell_ON[is_fresh_O].ravel()] = colour
    patch_A3 -= np.asarray(colour, np.int16)
    patch_A3 >>= np.minimum(touches_A, 15).astype(np.int16)[:, None]
    patch_A3 += np.asarray(colour, np.int16)
    picture_HWC[box] = patch_A3.reshape(bottom - top, box_width, 3)
    is_touched_HW[box] |= (touches_A > 0).reshape(bottom - top, box_width)
