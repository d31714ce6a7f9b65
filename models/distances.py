"""How far each pixel is from a region, the same bytes for the same region.

Axes: H, W the picture.
"""

import cv2
import numpy as np
import numpy.typing as npt

_ALIGNMENT = 64  # bytes


def distance_px(is_away_HW: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """(H, W) float32: each pixel's distance to the nearest one that is 0, px.

    Args: is_away_HW: not 0 where a pixel is not of the region.

    OpenCV's last bits hang on where in memory the result happens to lie (an x86 library of its works in whole
    registers), so it gets a place that is always aligned alike.
    """
    num_bytes = is_away_HW.size * np.dtype(np.float32).itemsize
    memory = np.empty(num_bytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    result_HW = memory[start : start + num_bytes].view(np.float32).reshape(is_away_HW.shape)
    found = cv2.distanceTransform(is_away_HW, cv2.DIST_L2, cv2.DIST_MASK_PRECISE, dst=result_HW)
    return np.asarray(found, np.float32)
