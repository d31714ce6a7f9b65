"""What a rendering method is given: two key frames and what is known of the person in them.

Axes: H, W the picture, J joints (19), D (x px, y px, score 0..1; score 0 = not seen).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ImageArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.floating]


class WeightsError(ValueError):
    """The weights that a method needs are missing, or another network's; says which and the remedy."""


@dataclass(frozen=True)
class KeyPair:
    """Two neighbouring key frames.

    image_0, image_1: (H, W, 3) uint8 BGR.
    mattes: of each key (H, W) uint8, 255 = person; None = the estimator gives none.
    joints_0_px_JD, joints_1_px_JD: (19, 3) observed joints; None where the method needs no pose.
    torso_px: the clip's torso length, the measure of every threshold; NaN = never seen.
    """

    image_0: ImageArray
    image_1: ImageArray
    mattes: tuple[ImageArray | None, ImageArray | None] = (None, None)
    joints_0_px_JD: FloatArray | None = None
    joints_1_px_JD: FloatArray | None = None
    torso_px: float = float("nan")
