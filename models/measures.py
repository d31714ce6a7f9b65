"""How far a generated frame lies from the true one: PSNR, SSIM, joints; on the whole frame and on the person.

Axes: H height, W width, C channels (3, BGR), J joints (19), D coordinates (x px, y px, score 0..1).
A joint with score 0 is not seen.
"""

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from models.distances import distance_px
from models.skeleton import BONES, FloatArray, is_seen

Image = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

PEAK = 255
MAX_PSNR_DB = 100.0  # what identical pictures count as, so that means stay finite
_WINDOW = 7  # px, of SSIM
MATTE_THRESHOLD = 127  # of 255: more person than not
# Half the width of a limb in torso lengths: what the skeleton alone is widened by where there is no matte.
BODY_RADIUS_TORSO_SHARE = 0.15
ERROR_MAP_FULL_SCALE = 64  # grey levels shown as the brightest colour; one scale, so that maps can be compared


class FrameMeasures(NamedTuple):
    """PSNR in dB, SSIM -1..1; the person's are NaN where the mask is empty."""

    full_psnr: float
    full_ssim: float
    person_psnr: float
    person_ssim: float


def psnr(image_HWC: Image, truth_HWC: Image, is_counted_HW: BoolArray | None = None) -> float:
    """Peak signal-to-noise ratio in dB over all channels, of 255.

    Args:
        image_HWC, truth_HWC: (H, W, C) uint8.
        is_counted_HW: (H, W) bool, True = the pixel counts; None counts all.

    Returns: at most 100, which identical pixels have; NaN where no pixel counts.
    """
    mask_HW = None if is_counted_HW is None else is_counted_HW.astype(np.uint8)
    num_pixels = image_HWC.shape[0] * image_HWC.shape[1] if mask_HW is None else cv2.countNonZero(mask_HW)
    if num_pixels == 0:
        return float("nan")
    # A sum of whole numbers is exact, so the result does not depend on the order of the sum.
    mean = cv2.norm(image_HWC, truth_HWC, cv2.NORM_L2SQR, mask_HW) / (num_pixels * image_HWC.shape[2])
    return MAX_PSNR_DB if mean == 0 else min(MAX_PSNR_DB, float(10 * np.log10(PEAK**2 / mean)))


def ssim(image_HWC: Image, truth_HWC: Image, is_counted_HW: BoolArray | None = None) -> tuple[float, float]:
    """Structural similarity of a frame and of its part: 7 x 7 uniform window, mean of channels.

    Source: scikit-image's structural_similarity, whose numbers these are to 1e-6, in a third of its time
    (benchmarks/ssim.py): the sums over windows are whole numbers, exact in 32 bits, and only the last step is not.

    Args:
        image_HWC, truth_HWC: (H, W, C) uint8, sides of at least 7.
        is_counted_HW: (H, W) bool, True = the pixel belongs to the part.

    Returns: (whole frame without its border of 3 px, mean of the SSIM map over the part), -1..1; the second
        is NaN where no pixel counts. Windows reach past the part's edge: what is around a person counts too.
    """
    map_HWC = _ssim_map(image_HWC, truth_HWC)
    border = _WINDOW // 2
    whole = float(map_HWC[border:-border, border:-border].mean(dtype=np.float64))
    if is_counted_HW is None or not is_counted_HW.any():
        return whole, float("nan")
    return whole, float(map_HWC[is_counted_HW].mean(dtype=np.float64))


def _ssim_map(image_HWC: Image, truth_HWC: Image) -> npt.NDArray[np.float32]:
    """(H, W, C). A channel at a time: what is worked on stays in the processor's cache."""
    channels = [_ssim_channel(*pair) for pair in zip(cv2.split(image_HWC), cv2.split(truth_HWC), strict=True)]
    return np.asarray(cv2.merge(channels), np.float32)


def _ssim_channel(image_HW: Image, truth_HW: Image) -> npt.NDArray[np.float32]:
    """Of n pixels a window: mean = sum(x) / n, covariance = (n sum(xy) - sum(x) sum(y)) / (n (n - 1))."""
    n = _WINDOW**2
    x_HW, y_HW = image_HW.astype(np.uint16), truth_HW.astype(np.uint16)
    sum_x, sum_y, sum_xx, sum_yy, sum_xy = (
        cv2.boxFilter(values, cv2.CV_32S, (_WINDOW, _WINDOW), normalize=False, borderType=cv2.BORDER_REFLECT)
        for values in (x_HW, y_HW, x_HW * x_HW, y_HW * y_HW, x_HW * y_HW)
    )
    means_xy = sum_x * sum_y
    squares = sum_x * sum_x + sum_y * sum_y
    covariance = n * sum_xy - means_xy
    variances = n * (sum_xx + sum_yy) - squares
    floor_means, floor_variances = (np.float32((k * PEAK) ** 2) for k in (0.01, 0.03))
    floor_means *= np.float32(n**2)
    floor_variances *= np.float32(n * (n - 1))
    map_HW: npt.NDArray[np.float32] = np.float32(2) * means_xy.astype(np.float32) + floor_means
    map_HW *= np.float32(2) * covariance.astype(np.float32) + floor_variances
    scale_HW = squares.astype(np.float32) + floor_means
    scale_HW *= variances.astype(np.float32) + floor_variances
    map_HW /= scale_HW  # at once: identical pictures have exactly 1
    return map_HW


def compare_frames(image_HWC: Image, truth_HWC: Image, is_person_HW: BoolArray) -> FrameMeasures:
    """PSNR and SSIM of a generated frame against the true one, on the whole frame and on the person.

    Args:
        image_HWC, truth_HWC: (H, W, 3) uint8 BGR.
        is_person_HW: (H, W) bool, True = person in the true frame.

    Raises: ValueError if the shapes differ.
    """
    if image_HWC.shape != truth_HWC.shape or is_person_HW.shape != truth_HWC.shape[:2]:
        raise ValueError(f"shapes {image_HWC.shape}, {truth_HWC.shape}, mask {is_person_HW.shape}: must be the same")
    full_ssim, person_ssim = ssim(image_HWC, truth_HWC, is_person_HW)
    return FrameMeasures(
        full_psnr=psnr(image_HWC, truth_HWC),
        full_ssim=full_ssim,
        person_psnr=psnr(image_HWC, truth_HWC, is_person_HW),
        person_ssim=person_ssim,
    )


def person_mask(
    matte_HW: Image | None,
    joints_px_JD: FloatArray,
    height: int,
    width: int,
    margin_torso_share: float,
    torso_px: float,
) -> BoolArray:
    """Where the person is: the matte joined with the dilated skeleton, so that a limb lost by the matte counts.

    Args:
        matte_HW: (H, W) uint8, 255 = person; None = the estimator gives none: bones are drawn as wide as limbs.
        joints_px_JD: (19, 3) of the same frame; a bone with an end not seen is not drawn.
        height, width: px.
        margin_torso_share: bones are widened by this to each side, in torso lengths.
        torso_px: the clip's torso length; NaN = never seen, bones are then one px wide.

    Returns: (H, W) bool, True = person.
    """
    share = margin_torso_share if matte_HW is not None else max(margin_torso_share, BODY_RADIUS_TORSO_SHARE)
    radius_px = 0.0 if np.isnan(torso_px) else share * torso_px
    is_free_HW = np.ones((height, width), np.uint8)
    is_seen_J = is_seen(joints_px_JD)
    for start, end in BONES:
        if is_seen_J[start] and is_seen_J[end]:
            ends = [tuple(np.rint(joints_px_JD[joint, :2]).astype(int).tolist()) for joint in (start, end)]
            cv2.line(is_free_HW, ends[0], ends[1], 0)
    # Not cv2.line's own thickness, which draws a line of 5 px 7 wide.
    distance_px_HW = distance_px(is_free_HW)
    is_person_HW: BoolArray = np.asarray(distance_px_HW <= radius_px)
    if matte_HW is not None:
        is_person_HW |= matte_HW > MATTE_THRESHOLD
    return is_person_HW


def joint_errors(found_px_JD: FloatArray, truth_px_JD: FloatArray) -> npt.NDArray[np.float64]:
    """Distance between two poses, joint by joint.

    Args: found_px_JD, truth_px_JD: (..., 19, 3).
    Returns: (..., 19) px; NaN where a joint is not seen in either.
    """
    distance_J = np.linalg.norm(
        found_px_JD[..., :2].astype(np.float64) - truth_px_JD[..., :2].astype(np.float64), axis=-1
    )
    return np.where(is_seen(found_px_JD) & is_seen(truth_px_JD), distance_J, np.nan)


def correct_share(found_px_JD: FloatArray, truth_px_JD: FloatArray, torso_px: float, torso_share: float) -> float:
    """PCK: the share of the true pose's seen joints that are found within a share of the torso's length.

    A joint seen in truth and not found counts as wrong. NaN where truth sees no joint, or the torso's length is not
    known.
    """
    is_asked_J = is_seen(truth_px_JD)
    if not is_asked_J.any() or np.isnan(torso_px):
        return float("nan")
    # NaN <= x is False: not found is wrong.
    is_right_J = joint_errors(found_px_JD, truth_px_JD) <= torso_share * torso_px
    return float(is_right_J[is_asked_J].mean())


def error_map(image_HWC: Image, truth_HWC: Image) -> Image:
    """The absolute difference, mean of the channels, as colours: black = none, pale yellow = 64 grey levels and more.

    Args: image_HWC, truth_HWC: (H, W, 3) uint8 BGR.
    Returns: (H, W, 3) uint8 BGR.
    """
    difference_HW = cv2.absdiff(image_HWC, truth_HWC).mean(axis=2)
    level_HW = np.minimum(difference_HW * (PEAK / ERROR_MAP_FULL_SCALE), PEAK).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(level_HW, cv2.COLORMAP_INFERNO), dtype=np.uint8)
