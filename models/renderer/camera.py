"""How the camera moved between two pictures: the homography that carries the background of one onto the other.

Axes: H, W the picture, P points, D (x, y) px, K the two keys. Pictures are BGR uint8 HWC.
"""

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from models.renderer.keys import ImageArray

Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Homography = npt.NDArray[np.float64]  # (3, 3)

_MAX_CORNERS = 600
_MIN_CORNERS = 12
_QUALITY = 0.01  # share of the strongest corner
_SPACING_SHARE = 0.012  # of the picture's longer side, between corners
_WINDOW_PX = 21
_LEVELS = 5
_LEAST_RESPONSE = 0.1  # of the phase correlation, from which its pan is where tracking starts
_ROUND_TRIP_PX = 0.7  # a point that is tracked there and back and misses by more is lost
_MISFIT_PX = 1.5
_MIN_INLIERS = 0.5  # share of the tracked points that one motion must explain
_SLACK_LEVELS = 1.0  # of 255: a background that differs by no more after a motion shows that motion
_GAIN = 0.8  # a motion must leave less than this share of the difference that standing still leaves
_STILL_PX = 0.25  # a motion of every corner below this is none


class Camera(NamedTuple):
    """to_key: of both keys, the homography from the first key's picture to that key's (the first is the identity).

    is_fixed: the two are the same picture but for what moves in it.
    """

    to_keys: tuple[Homography, Homography]
    is_fixed: bool

    def at(self, t: float, height: int, width: int) -> tuple[Homography, Homography]:
        """From the picture at t, 0..1, to each key's: the corners of the picture move evenly from key to key."""
        if self.is_fixed:
            return np.eye(3), np.eye(3)
        corners_PD = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        there_PD = cv2.perspectiveTransform(corners_PD[None], self.to_keys[1])[0]
        now_PD = (corners_PD + np.float32(t) * (there_PD - corners_PD)).astype(np.float32)
        back = cv2.getPerspectiveTransform(now_PD, corners_PD)
        return back, self.to_keys[1] @ back


FIXED = Camera((np.eye(3), np.eye(3)), is_fixed=True)


def find_camera(images: tuple[ImageArray, ImageArray], is_background: tuple[BoolArray, BoolArray]) -> Camera | None:
    """The camera's motion from one picture to another, seen in their backgrounds.

    Corners of the first background are tracked to the second picture and back; one homography must explain most of
    them. Whether the camera stood or moved is decided by which of the two makes the backgrounds alike.

    Args:
        images: two (H, W, 3) uint8.
        is_background: of each (H, W), True where nothing moves by itself.
    Returns: the motion; None where neither standing still nor one motion explains the background.
    """
    both_HW = is_background[0] & is_background[1]
    if not both_HW.any():
        return None
    still = float(cv2.absdiff(*images)[both_HW].mean())
    if still <= _SLACK_LEVELS:
        return FIXED
    homography = _track(images, is_background)
    if homography is None:
        return FIXED if still <= 2.0 * _SLACK_LEVELS else None
    height, width = both_HW.shape
    corners_PD = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    moved_px = np.linalg.norm(cv2.perspectiveTransform(corners_PD[None], homography)[0] - corners_PD, axis=1).max()
    aligned, alike_HW = _align(images[1], is_background[1], homography, is_background[0])
    if not alike_HW.any():
        return None
    moving = float(cv2.absdiff(images[0], aligned)[alike_HW].mean())
    if moved_px < _STILL_PX or moving > _GAIN * still:
        # Standing explains it as well; flicker and noise are left in both.
        return FIXED if still <= 2.0 * moving + _SLACK_LEVELS else None
    return Camera((np.eye(3), homography), is_fixed=False)


def _track(images: tuple[ImageArray, ImageArray], is_background: tuple[BoolArray, BoolArray]) -> Homography | None:
    greys = [cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in images]
    spacing_px = max(3.0, _SPACING_SHARE * max(greys[0].shape))
    mask_HW = is_background[0].astype(np.uint8)
    corners = cv2.goodFeaturesToTrack(greys[0], _MAX_CORNERS, _QUALITY, spacing_px, mask=mask_HW)
    if corners is None or len(corners) < _MIN_CORNERS:
        return None
    # A pan of fine texture is lost on the pyramid's coarse levels, and found as a whole by the pictures' phases.
    window = cv2.createHanningWindow(greys[0].shape[::-1], cv2.CV_32F)
    grey_0, grey_1 = (grey.astype(np.float32) for grey in greys)
    pan_px_D, response = cv2.phaseCorrelate(grey_0, grey_1, window)
    start = corners + (np.float32(pan_px_D) if response > _LEAST_RESPONSE else np.float32(0))
    there, is_found = _track_points(greys[0], greys[1], corners, start)
    back, is_back = _track_points(greys[1], greys[0], there, corners)
    is_good_P = (is_found & is_back).ravel() == 1
    is_good_P &= np.linalg.norm((back - corners)[:, 0], axis=-1) < _ROUND_TRIP_PX
    if is_good_P.sum() < _MIN_CORNERS:
        return None
    homography, is_inlier = cv2.findHomography(
        corners[is_good_P], there[is_good_P], cv2.USAC_MAGSAC, _MISFIT_PX, maxIters=2000, confidence=0.999
    )
    if homography is None or is_inlier.mean() < _MIN_INLIERS:
        return None
    found: Homography = homography
    return found


def _track_points(
    grey_0: ImageArray, grey_1: ImageArray, points: Float32Array, start: Float32Array
) -> tuple[Float32Array, ImageArray]:
    there, is_found, _ = cv2.calcOpticalFlowPyrLK(
        grey_0,
        grey_1,
        points,
        start.copy(),
        winSize=(_WINDOW_PX, _WINDOW_PX),
        maxLevel=_LEVELS,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    return there, is_found


def _align(
    image: ImageArray, is_background_HW: BoolArray, homography: Homography, is_wanted_HW: BoolArray
) -> tuple[ImageArray, BoolArray]:
    """The second picture on the first one's pixels, and where both show background."""
    height, width = is_background_HW.shape
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    aligned = cv2.warpPerspective(image, homography, (width, height), flags=flags)
    shown_HW = cv2.warpPerspective(is_background_HW.astype(np.float32), homography, (width, height), flags=flags)
    return aligned, (shown_HW > 0.99) & is_wanted_HW


def displacement(homography: Homography, x_HW: Float32Array, y_HW: Float32Array) -> Float32Array:
    """(H, W, 2) px from each pixel to where the homography takes it."""
    (a, b, c), (d, e, f), (g, h, i) = homography.astype(np.float32)
    scale_HW = g * x_HW + h * y_HW + i
    moved_HWD: Float32Array = np.stack(
        [(a * x_HW + b * y_HW + c) / scale_HW - x_HW, (d * x_HW + e * y_HW + f) / scale_HW - y_HW], axis=-1
    )
    return moved_HWD
