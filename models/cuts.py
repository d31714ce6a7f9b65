"""Where a video is cut: between two pictures that do not show the same thing.

Cheap (some milliseconds a picture) and meant for what must not be interpolated: two neighbouring pictures are laid on
each other along their optical flow, at the size of a thumbnail, and what still differs is compared with what differs
elsewhere around. A pan, a fast limb or a change of light is no cut; a whip pan in which nothing is found again is one.

Axes: H, W a thumbnail, G gaps between neighbouring pictures. Pictures are BGR uint8 HWC.
"""

import cv2
import numpy as np
import numpy.typing as npt

from models.renderer.flow import Float32Array, FlowPair, ImageArray

THUMBNAIL_PX = 96  # longer side

# Likeness 0..1 of two pictures after the flow. On four real clips neighbours up to half a second apart have .84 and
# more, pans by a quarter of the width .63; pictures of different scenes have .40 and less, and so has a whip pan.
SURE = 0.50  # less: a cut, whatever is around
POSSIBLE = 0.80  # less: a cut where the gaps around are much more alike inside ...
CONTRAST = 3.0  # ... whose unlikeness is less than this part of it
AROUND = 2  # gaps on either side

_WINDOW = (9, 9)  # px over which likeness is taken
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # of SSIM


def make_thumbnail(image: ImageArray) -> ImageArray:
    """(H, W, 3), each pixel the mean of what it covers, the longer side THUMBNAIL_PX; never enlarged."""
    height, width = image.shape[:2]
    scale = min(1.0, THUMBNAIL_PX / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small: ImageArray = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return small


def measure_likeness(first: ImageArray, second: ImageArray) -> float:
    """How alike two thumbnails are once one is moved onto the other: SSIM of their grey, mean of both directions.

    Returns: 1 = the same picture; about .3 = nothing in common.
    """
    flows = FlowPair(first, second).flows
    greys = [cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in (first, second)]
    height, width = greys[0].shape
    x_HW, y_HW = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    found = []
    for here, there, flow_HWD in zip(greys, greys[::-1], flows, strict=True):
        maps = (x_HW + flow_HWD[..., 0], y_HW + flow_HWD[..., 1])
        moved = cv2.remap(there, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        found.append(_ssim(here.astype(np.float32), moved.astype(np.float32)))
    return float(np.mean(found))


def _ssim(a_HW: Float32Array, b_HW: Float32Array) -> float:
    mean_a, mean_b = cv2.blur(a_HW, _WINDOW), cv2.blur(b_HW, _WINDOW)
    variance_a = cv2.blur(a_HW * a_HW, _WINDOW) - mean_a**2
    variance_b = cv2.blur(b_HW * b_HW, _WINDOW) - mean_b**2
    covariance = cv2.blur(a_HW * b_HW, _WINDOW) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    structure = (2 * covariance + _C2) / (variance_a + variance_b + _C2)
    return float((luminance * structure).mean(dtype=np.float64))


def find_cuts(likeness_G: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """(G,) True where a gap is a cut.

    Args: likeness_G: of each two neighbouring pictures, as measure_likeness has it, in order.
    """
    unlike_G = 1.0 - np.asarray(likeness_G, np.float64)
    is_cut_G = unlike_G > 1.0 - SURE
    for gap in np.flatnonzero(~is_cut_G & (unlike_G > 1.0 - POSSIBLE)):
        around = np.concatenate([unlike_G[max(0, gap - AROUND) : gap], unlike_G[gap + 1 : gap + 1 + AROUND]])
        # A sure cut beside it says nothing of how much this scene moves.
        around = around[around <= 1.0 - SURE]
        is_cut_G[gap] = bool(len(around)) and bool(unlike_G[gap] > CONTRAST * around.max())
    return is_cut_G
