"""A renderer's own picture size: pictures and joints brought to it.

Axes: H, W, C channels, J joints (19), D (x px, y px, score 0..1).
Joints are measured from the picture's corner, so that the pixel in column 3 covers x from 3 to 4; a joint's label is
drawn into the pixel that it lies in.
"""

from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]
Picture = TypeVar("Picture", bound=npt.NDArray[Any])


def resize_picture(image: Picture, height: int, width: int) -> Picture:
    """A picture at another size, its sides stretched each for itself.

    Enlarged, it is bicubic as in the paper. Where a side shrinks, pixels are averaged by area: OpenCV's bicubic reads
    4 x 4 pixels however far it shrinks, so that fine patterns would flicker between frames; the paper's library widens
    its bicubic kernel there, as an average does.

    Args: image: (H, W) or (H, W, C) uint8. height, width: px.
    Returns: the same with (height, width); itself if it has that size.
    """
    if image.shape[:2] == (height, width):
        return image
    is_smaller = height < image.shape[0] or width < image.shape[1]
    resized: Picture = cv2.resize(
        image, (width, height), interpolation=cv2.INTER_AREA if is_smaller else cv2.INTER_CUBIC
    )
    return resized


def scale_joints(joints_px: FloatArray, size: tuple[int, int], new_size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Joints where they lie after resize_picture.

    Args: joints_px: (..., 3) x px, y px, score. size, new_size: (height, width), px.
    Returns: (..., 3); (0, 0, 0) stays.
    """
    scaled: npt.NDArray[np.float64] = joints_px * np.array([new_size[1] / size[1], new_size[0] / size[0], 1.0])
    return scaled
