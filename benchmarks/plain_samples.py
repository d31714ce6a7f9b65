"""One training sample of the renderer the plain way, as it is described, for benchmarks/samples.py and the tests.

Every frame of the run is decoded, moved and drawn in full, with the labels of benchmarks/plain_labels.py; then what the
step does not use is left out.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks import plain_labels

Array = npt.NDArray[np.generic]


class Variation(NamedTuple):
    """What is random, each but the first for all N + 2 frames of the run.

    place_23: x' = A x + b.  is_drawn_SL: in the order of the limbs.  is_blurred_SM: of the mask's lines: the limbs but
    the spine, the spine, the two flanks.
    """

    place_23: Array
    sigma_px_SJ: Array
    is_dropped_SJ: Array
    is_drawn_SL: Array
    is_blurred_SM: Array


def make_sample(
    pictures: Sequence[bytes],
    backgrounds: Sequence[bytes],
    joints_px: Array,
    variation: Variation,
    height: int,
    width: int,
    blur_sigma_px: float,
) -> tuple[Array, ...]:
    """One sample.

    Args:
        pictures, backgrounds: PNG of N + 2 key frames in a row.
        joints_px: (N + 2, 19, 3) x px, y px from the picture's corner, score.
        variation: what is random.
    Returns: previous (3, H, W), labels (N, 22, H, W), pictures and backgrounds (N, 3, H, W), RGB -1..1, and the
        person's masks (N, 1, H, W).
    """
    labels, images, behinds, masks = [], [], [], []
    for frame, (picture, background) in enumerate(zip(pictures, backgrounds, strict=True)):
        joints = move_joints(joints_px[frame], variation.place_23)
        image, behind = (move_picture(decode(data), variation.place_23) for data in (picture, background))
        blur_limbs(behind, joints, variation.is_blurred_SM[frame], blur_sigma_px)
        images.append(to_levels(image[..., ::-1]))
        behinds.append(to_levels(behind[..., ::-1]))
        kept = joints * ~variation.is_dropped_SJ[frame][:, None]
        skeleton = plain_labels.draw_skeletons(joints[None], height, width, variation.is_drawn_SL[frame][None])[0]
        maps = plain_labels.draw_pose_maps(kept[None], height, width, variation.sigma_px_SJ[frame][None])[0]
        labels.append(np.concatenate([to_levels(skeleton), maps]))
        masks.append(plain_labels.draw_human_masks(joints[None], height, width).astype(np.float32))
    inner = slice(1, -1)
    return images[0], *(np.stack(parts[inner]) for parts in (labels, images, behinds, masks))


def decode(data: bytes) -> Array:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def move_joints(joints: Array, place: Array) -> Array:
    moved = [(*(place @ (x, y, 1)), score) if score > 0 else (0, 0, 0) for x, y, score in joints]
    return np.array(moved, float)


def move_picture(image: Array, place: Array) -> Array:
    to_corner, to_centre = np.eye(3), np.eye(3)
    to_corner[:2, 2], to_centre[:2, 2] = 0.5, -0.5
    moved = to_centre @ np.vstack([place, (0, 0, 1)]) @ to_corner
    return cv2.warpAffine(image, moved[:2], image.shape[1::-1], flags=cv2.INTER_LINEAR)


def blur_limbs(image: Array, joints: Array, is_blurred: Array, sigma_px: float) -> None:
    height, width = image.shape[:2]
    sharp = image.copy()
    size = 2 * int(np.ceil(3 * sigma_px)) + 1
    for (start, end, thickness), wanted in zip(plain_labels.MASK_LINES, is_blurred, strict=True):
        if wanted and all(plain_labels.counts(*joints[end], height, width) for end in (start, end)):
            inside = np.zeros((height, width), np.uint8)
            points = [(int(joints[end, 0]), int(joints[end, 1])) for end in (start, end)]
            cv2.line(inside, *points, 1, thickness)
            image[inside == 1] = cv2.GaussianBlur(sharp, (size, size), sigma_px)[inside == 1]


def to_levels(image: Array) -> Array:
    return (image.transpose(2, 0, 1) / 255 * 2 - 1).astype(np.float32)
