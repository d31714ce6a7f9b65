"""Where the posed picture is better than the base's: a small network that looks at how well each agrees with itself.

Axes: K the two keys, H, W the region around the person, h, w its cells (CELLS_PER_TORSO of them are a torso's length,
so that the network sees every person at one size), F features, C channels, D (x, y) px. Pictures are BGR uint8 HWC.

Differs from the WARP recipe, which multiplies ramps of single measures (its step 9), whose thresholds hold for one base
and one key step. The network sees no colours and no places, only measures of agreement, so that little can be learnt by
heart; benchmarks/chooser.py trains it, and tells what it reaches on clips that it has not seen.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from models.renderer.flow import FlowResult
from models.renderer.keys import FloatArray, ImageArray, WeightsError

Float32Array = npt.NDArray[np.float32]

CELLS_PER_TORSO = 42.0
LEAST_MOTION = 0.06  # torso: where nothing moves farther between the keys, frames are the base's
WEIGHTS = Path(__file__).with_name("chooser.safetensors")

FEATURES = (
    "motion",  # of the bones from key to key
    "pull",  # of the bones: 1 on one, 0 away from the person
    "left",  # motion of what stood here in either key
    "posed_fine",  # disagreement of the posed pair after the base has joined it, near ...
    "posed_coarse",  # ... and around
    "plain_fine",  # the same of the base's own pair
    "plain_coarse",
    "apart_fine",  # difference of the two results
    "apart_coarse",
    "astray",  # between where the bones and where the base fetch a pixel from
    "plain_motion",  # from key to key, as the base has it
    "posed_motion",  # what the base still had to move the posed pair
    "posed_detail",
    "plain_detail",
    "posed_person",  # share of the person in the posed pair, mean and difference
    "posed_person_apart",
    "plain_person",  # the same where the base fetched its pixels
    "plain_person_apart",
    "shown",  # the background is known here
    "returns",  # what was fetched belongs to the part that fetched it
    "plain_behind",  # difference of the base's picture to the known background
    "posed_behind",
    "time",  # 0 at a key, 1 half-way
    "fastest",  # motion of the three fastest joints
)

_LEVELS = 20.0  # of 255: a difference of so many counts 1
_MOTION_GAIN = 5.0  # a motion of a fifth of a torso counts 1
_HIGHEST = 4.0  # of any feature
_LEAST_PULL = 0.01
_REACH = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (11, 11))  # cells: an eighth of a torso each way
_FINE_CELLS, _COARSE_CELLS, _DETAIL_CELLS = 1.0, 4.0, 2.0
_GATE_CELLS = 0.6
_SLOPE = 0.1  # of the network's units below 0


class Posed(NamedTuple):
    """What is known of the posed pair around the person, on the pixels of the frame at t.

    offsets_px_KHWD: (K, H, W, 2) to where each pixel is fetched in the keys; pull_HW: (H, W) of the bones.
    camera_px_KHWD: the same for the background; None = the camera is fixed.
    motion_px_HW, left_px_HW: motion of the person here, and of what stood here in the keys; the camera's taken off.
    alphas, returns: of each key (H, W), 0..1.
    plain_mattes: of each key (H, W), 0..1, where the base fetches its pixels.
    behind: (H, W, 3) the background; shown_HW: (H, W) 0..1, how far it is known.
    fastest_px: motion of the three fastest joints, px.
    """

    offsets_px_KHWD: Float32Array
    pull_HW: Float32Array
    camera_px_KHWD: Float32Array | None
    motion_px_HW: Float32Array
    left_px_HW: Float32Array
    alphas: Sequence[Float32Array]
    returns: Sequence[Float32Array]
    plain_mattes: Sequence[Float32Array]
    behind: ImageArray
    shown_HW: Float32Array
    fastest_px: float


def measure(posed: Posed, joined: FlowResult, plain: FlowResult, torso_px: float, t: float) -> Float32Array:
    """What the network is told.

    Args:
        posed: the posed pair.
        joined: the base's join of it.
        plain: the base's own frame of the same region.
        torso_px: > 0.
        t: 0..1.
    Returns: (F, h, w) float32, 0..4, in the order of FEATURES.
    """
    height, width = posed.pull_HW.shape
    scale = CELLS_PER_TORSO / torso_px
    size = (max(1, round(width * scale)), max(1, round(height * scale)))

    def cells(values_HW: FloatArray) -> Float32Array:
        way = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_LINEAR
        shrunk: Float32Array = cv2.resize(np.ascontiguousarray(values_HW, np.float32), size, interpolation=way)
        return shrunk

    def differ(one: ImageArray, other: ImageArray) -> Float32Array:
        return cells(cv2.absdiff(one, other).mean(axis=2, dtype=np.float32)) / np.float32(_LEVELS)

    def moved(offsets_px_HWD: Float32Array) -> Float32Array:
        return cells(np.hypot(offsets_px_HWD[..., 0], offsets_px_HWD[..., 1])) * np.float32(_MOTION_GAIN / torso_px)

    def detail(image: ImageArray) -> Float32Array:
        grey_HW = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        return _blur(cells(np.abs(cv2.Laplacian(grey_HW, cv2.CV_32F))) / np.float32(_LEVELS), _DETAIL_CELLS)

    posed_px_KHWD, plain_px_KHWD = posed.offsets_px_KHWD, plain.offsets_px_KHWD
    plain_motion_px_HWD = plain_px_KHWD[0] - plain_px_KHWD[1]
    if posed.camera_px_KHWD is not None:
        plain_motion_px_HWD = plain_motion_px_HWD - (posed.camera_px_KHWD[0] - posed.camera_px_KHWD[1])
    is_near_HW = np.minimum(4 * posed.pull_HW, 1.0)
    astray_px_KHWD = plain_px_KHWD - posed_px_KHWD
    astray_px_HW = np.hypot(astray_px_KHWD[..., 0], astray_px_KHWD[..., 1]).mean(axis=0)
    disagree = [
        differ(one, other)
        for one, other in (
            (joined.warped_0, joined.warped_1),
            (plain.warped_0, plain.warped_1),
            (joined.image, plain.image),
        )
    ]
    shown_hw = cells(posed.shown_HW)
    gain = np.float32(_MOTION_GAIN / torso_px)
    features = [
        cells(posed.motion_px_HW) * gain,
        cells(np.minimum(posed.pull_HW, 1.5)),
        cells(posed.left_px_HW) * gain,
        *(_blur(values_hw, sigma) for values_hw in disagree for sigma in (_FINE_CELLS, _COARSE_CELLS)),
        _blur(cells(astray_px_HW * is_near_HW) * gain, _FINE_CELLS),
        _blur(moved(plain_motion_px_HWD), _FINE_CELLS),
        _blur(2 * moved(joined.offsets_px_KHWD[0] - joined.offsets_px_KHWD[1]), _FINE_CELLS),
        detail(joined.image),
        detail(plain.image),
    ]
    for mattes in (posed.alphas, posed.plain_mattes):
        features += [cells((mattes[0] + mattes[1]) / 2), cells(np.abs(mattes[0] - mattes[1]))]
    features += [shown_hw, cells(np.minimum(*posed.returns))]
    features += [_blur(differ(result.image, posed.behind), _FINE_CELLS) * shown_hw for result in (plain, joined)]
    features += [np.full_like(shown_hw, 4 * t * (1 - t)), np.full_like(shown_hw, 2 * posed.fastest_px / torso_px)]
    found_Fhw: Float32Array = np.clip(np.stack(features), 0, np.float32(_HIGHEST), dtype=np.float32)
    return found_Fhw


class Chooser:
    """A network of fully connected layers, the same at every cell."""

    def __init__(self, layers: Sequence[tuple[Float32Array, Float32Array]]) -> None:
        """layers: weight (outputs, inputs) and bias (outputs,) of each; the last has one output."""
        self._layers = layers

    def choose(self, features_Fhw: Float32Array, height: int, width: int) -> Float32Array:
        """(height, width) 0..1, the posed picture's share, for the features of a region of that many px."""
        values_CP = features_Fhw.reshape(len(features_Fhw), -1)
        for number, (weight, bias) in enumerate(self._layers):
            if number:
                values_CP = np.maximum(values_CP, np.float32(_SLOPE) * values_CP)
            values_CP = weight @ values_CP + bias[:, None]
        share_hw = _near_motion(features_Fhw) / (1 + np.exp(-values_CP[0].reshape(features_Fhw.shape[1:])))
        share_HW: Float32Array = cv2.resize(
            _blur(share_hw, _GATE_CELLS), (width, height), interpolation=cv2.INTER_LINEAR
        )
        return share_HW


@cache
def load_chooser(base: str) -> Chooser:
    """The network for a base interpolator, `flow` or `rife`. Raises: WeightsError if its file has none for it."""
    try:
        with safe_open(WEIGHTS, "np") as file:
            names = [name for name in file.keys() if name.startswith(f"{base}.")]  # noqa: SIM118 (not a mapping)
            values = {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{WEIGHTS}: cannot be read ({error}); restore it with `git checkout`") from error
    if not values:
        raise WeightsError(f"{WEIGHTS}: has no network for the base {base!r}; there are flow and rife")
    count = len(values) // 2
    return Chooser([(values[f"{base}.{n}.weight"], values[f"{base}.{n}.bias"]) for n in range(count)])


def _near_motion(features_Fhw: Float32Array) -> Float32Array:
    """(h, w) 1 around what moves, or has moved; 0 elsewhere, where the frame is the base's to the pixel."""
    motion_hw, pull_hw, left_hw = features_Fhw[:3]
    least = LEAST_MOTION * _MOTION_GAIN
    is_moving_hw = (np.where(pull_hw > _LEAST_PULL, motion_hw, 0) > least) | (left_hw > least)
    reached_hw: Float32Array = cv2.dilate(is_moving_hw.astype(np.float32), _REACH)
    return reached_hw


def _blur(values_hw: Float32Array, sigma_cells: float) -> Float32Array:
    blurred: Float32Array = cv2.GaussianBlur(values_hw, (0, 0), sigma_cells)
    return blurred
