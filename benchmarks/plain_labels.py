"""The generator's labels the plain way, as they are described, for benchmarks/labels.py and the tests.

A pose map is a whole picture through a Gaussian filter; a limb is painted one brush offset after another.
Axes: T frames, J joints (19), D (x px, y px, score), C colours, H, W.
"""

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

Array = npt.NDArray[np.generic]
SIGMA_PX = 5.0
LIMBS = (
    (0, 1, (153, 0, 51)),
    (1, 8, (153, 0, 0)),
    (1, 2, (153, 51, 0)),
    (2, 3, (153, 102, 0)),
    (3, 4, (153, 153, 0)),
    (1, 5, (102, 153, 0)),
    (5, 6, (51, 153, 0)),
    (6, 7, (0, 153, 0)),
    (8, 9, (0, 153, 51)),
    (9, 10, (0, 153, 102)),
    (10, 11, (0, 153, 153)),
    (8, 12, (0, 102, 153)),
    (12, 13, (0, 51, 153)),
    (13, 14, (0, 0, 153)),
    (4, 18, (208, 208, 0)),
    (7, 17, (0, 208, 0)),
    (11, 16, (0, 208, 208)),
    (14, 15, (0, 0, 208)),
)
MASK_LINES = [(a, b, 30) for a, b, _ in LIMBS if (a, b) != (1, 8)] + [(1, 8, 40), (2, 9, 40), (5, 12, 40)]
STROKE = [(dy, dx) for dy in range(-4, 4) for dx in range(-4, 4)]
DOT = [(dy, dx) for dy in range(-12, 12) for dx in range(-12, 12) if dy * dy + dx * dx < 64]


def draw_pose_maps(joints_px_TJD: Array, height: int, width: int, sigma_px_TJ: Array | None = None) -> Array:
    maps_TJHW = np.zeros((*joints_px_TJD.shape[:2], height, width), np.float32)
    if sigma_px_TJ is None:
        sigma_px_TJ = np.full(joints_px_TJD.shape[:2], SIGMA_PX)
    for frame, joints_px_JD, sigma_px_J in zip(maps_TJHW, joints_px_TJD, sigma_px_TJ, strict=True):
        for pose_map, (x, y, score), sigma_px in zip(frame, joints_px_JD, sigma_px_J, strict=True):
            if counts(x, y, score, height, width):
                spot = np.zeros((height, width))
                spot[int(y), int(x)] = 1
                spot = gaussian_filter(spot, sigma_px)
                pose_map[...] = spot / spot.max()
    return maps_TJHW


def counts(x: float, y: float, score: float, height: int, width: int) -> bool:
    return score > 0.001 and 0 <= x < width and 0 <= y < height


def without_missing(joints_px_JD: Array, height: int, width: int) -> Array:
    """(0, 0) for each joint that does not count."""
    return np.array([(x, y) if counts(x, y, score, height, width) else (0, 0) for x, y, score in joints_px_JD])


def draw_skeletons(joints_px_TJD: Array, height: int, width: int, is_drawn_TL: Array | None = None) -> Array:
    pictures_THWC = np.zeros((len(joints_px_TJD), height, width, 3), np.uint8)
    if is_drawn_TL is None:
        is_drawn_TL = np.ones((len(joints_px_TJD), len(LIMBS)), bool)
    for picture, joints_px_JD, is_drawn_L in zip(pictures_THWC, joints_px_TJD, is_drawn_TL, strict=True):
        points_px = without_missing(joints_px_JD, height, width)
        for (start, end, colour), is_drawn in zip(LIMBS, is_drawn_L, strict=True):
            if is_drawn and points_px[start, 0] != 0 and points_px[end, 0] != 0:
                x, y = limb_points(points_px[start], points_px[end])
                if len(x):
                    paint(picture, x, y, STROKE, colour)
                    paint(picture, x[[0, -1]], y[[0, -1]], DOT, colour)
    return pictures_THWC


def limb_points(start: Array, end: Array) -> tuple[Array, Array]:
    """x and y of the limb's points."""
    along = 0 if abs(end[0] - start[0]) >= abs(end[1] - start[1]) else 1
    if start[along] > end[along]:
        start, end = end, start
    extent = end[along] - start[along]
    major = np.linspace(int(start[along]), int(end[along]), int(extent))
    minor = start[1 - along] + (major - start[along]) * ((end[1 - along] - start[1 - along]) / (extent or 1))
    points = (major.astype(int), minor.astype(int))
    return points if along == 0 else (points[1], points[0])


def paint(picture: Array, x: Array, y: Array, brush: list[tuple[int, int]], colour: tuple[int, int, int]) -> None:
    height, width = picture.shape[:2]
    for dy, dx in brush:
        rows, columns = np.clip(y + dy, 0, height - 1), np.clip(x + dx, 0, width - 1)
        old = picture[rows, columns]
        if (old == 0).all():
            picture[rows, columns] = colour
        else:
            picture[rows, columns] = ((old.astype(float) + colour) / 2).astype(np.uint8)


def draw_human_masks(joints_px_TJD: Array, height: int, width: int) -> Array:
    masks_THW = np.zeros((len(joints_px_TJD), height, width), np.uint8)
    for mask, joints_px_JD in zip(masks_THW, joints_px_TJD, strict=True):
        points = [(int(x), int(y)) for x, y, _ in joints_px_JD]
        seen = [counts(*joint, height, width) for joint in joints_px_JD]
        for start, end, thickness in MASK_LINES:
            if seen[start] and seen[end]:
                cv2.line(mask, points[start], points[end], 1, thickness)
        for joint, point in enumerate(points):
            if seen[joint]:
                cv2.circle(mask, point, 30 if joint == 0 else 15, 1, -1)
    return masks_THW.astype(bool)
