"""In-between frames by optical flow, and by plain mixing: the two methods that know nothing of the person.

Axes: H, W the picture, C its three channels, K the two keys, P the pixels in one row after the other, D
(x, y) in px.
Pictures are BGR uint8 HWC.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

ImageArray = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]

# DIS cuts the picture into one stripe a thread and its result depends on where the cuts are, so that two
# machines would make different bytes. One thread it is; work is spread over processes, a group of items each.
cv2.setNumThreads(1)

_MIN_SIDE_PX = 64  # below this DIS runs out of pyramid levels; smaller pictures are padded at the right and bottom


class FlowResult(NamedTuple):
    """One in-between frame and the two pictures it was mixed from, each (H, W, 3) uint8.

    Where the two differ, the interpolator did not find the same thing in both keys.
    offsets_px_KHWD: (2, H, W, 2) from each pixel of the frame to its place in either key, the mean of what was mixed.
    """

    image: ImageArray
    warped_0: ImageArray
    warped_1: ImageArray
    offsets_px_KHWD: Float32Array

    def within(self, rows: slice, columns: slice) -> "FlowResult":
        """The part of it in some rows and columns."""
        where = (rows, columns)
        return FlowResult(
            self.image[where], self.warped_0[where], self.warped_1[where], self.offsets_px_KHWD[:, rows, columns]
        )


@dataclass(frozen=True)
class FlowSettings:
    """What was measured on the sample's half-way frames (benchmarks/render_methods.py) unless said otherwise."""

    finest_scale: int = 0  # full resolution: +.1 dB on the person over DIS's medium preset
    variational_iterations: int = 0  # they smear the flow over the outline: -.1 dB, and cost a third of the time
    median_px: int = 5  # side of the median on the flow: takes single wrong patches out
    photometric_levels: float = 10.0  # colour error (0..255) at which a pixel counts 1/e when two land on one place
    consistency_px: float = 4.0  # forward-backward error at which it counts 1/e: it is hidden in the other key
    choice_sigma_px: float = 7 / 3  # neighbourhood over which candidate motions are compared
    choice_levels: float = 8.0  # how much worse (0..255) a candidate may be and still have 1/e of the weight


def blend(image_0: ImageArray, image_1: ImageArray, t: float) -> ImageArray:
    """The two key frames mixed: 1 - t of the first, t of the second. Both (H, W, 3) uint8, t in 0..1."""
    mixed: ImageArray = cv2.addWeighted(image_0, 1.0 - t, image_1, t, 0.0)
    return mixed


class FlowPair:
    """Optical flow between two key frames, found once, and every in-between frame from it.

    DIS runs in both directions. For a time t both flows are carried forward to where their pixels are at t
    (pixels hidden in the other key give way to visible ones); with standing still they are three candidate
    motions for each pixel of the new frame, and each is trusted by how well the two keys then agree around
    the pixel. That is what decides at occlusions: a motion that leads behind something agrees badly.
    """

    def __init__(self, image_0: ImageArray, image_1: ImageArray, settings: FlowSettings | None = None) -> None:
        """Find the flows of (H, W, 3) uint8 `image_0` and `image_1`.

        Raises: ValueError if the pictures differ in shape or are not (H, W, 3) uint8.
        """
        for image in (image_0, image_1):
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                raise ValueError(f"a picture is (H, W, 3) uint8, this one is {image.shape} {image.dtype}")
        if image_0.shape != image_1.shape:
            raise ValueError(f"two key frames of different size: {image_0.shape} and {image_1.shape}")
        self._settings = settings or FlowSettings()
        self._images = (image_0, image_1)
        height, width = image_0.shape[:2]
        self._grid = _pixel_grid(height, width)
        flow_01, flow_10 = _flows_both_ways(image_0, image_1, self._settings)
        self._flow_01_HWD, self._flow_10_HWD = flow_01, flow_10
        self._weight_01_HW = self._weigh(image_0, image_1, flow_01, flow_10)
        self._weight_10_HW = self._weigh(image_1, image_0, flow_10, flow_01)

    @property
    def flows(self) -> tuple[Float32Array, Float32Array]:
        """Flow first to second key on the first key's pixels, and back on the second's, each (H, W, 2) px."""
        return self._flow_01_HWD, self._flow_10_HWD

    def at(self, t: float) -> FlowResult:
        """The frame at t, 0..1 from the first key to the second; the keys themselves at 0 and 1."""
        image_0, image_1 = self._images
        if t <= 0.0 or t >= 1.0:
            key = (image_0 if t <= 0.0 else image_1).copy()
            motion_HWD = self._flow_01_HWD if t <= 0.0 else -self._flow_10_HWD
            return FlowResult(key, key.copy(), key.copy(), np.stack([-t * motion_HWD, (1.0 - t) * motion_HWD]))
        candidates = (
            _carry_flow(self._flow_01_HWD, self._weight_01_HW, t),
            -_carry_flow(self._flow_10_HWD, self._weight_10_HW, 1.0 - t),
            np.zeros_like(self._flow_01_HWD),
        )
        pairs = []
        errors = []
        for motion_HWD in candidates:
            pair = (self._sample(image_0, -t * motion_HWD), self._sample(image_1, (1.0 - t) * motion_HWD))
            pairs.append(pair)
            difference_HW = cv2.transform(cv2.absdiff(*pair), np.full((1, 3), 1 / 3, np.float32))
            errors.append(_blur(difference_HW.astype(np.float32), self._settings.choice_sigma_px))
        error_NHW = np.stack(errors)
        weight_NHW = np.exp((error_NHW.min(axis=0) - error_NHW) / self._settings.choice_levels)
        weight_NHW /= weight_NHW.sum(axis=0)
        weights_NHWC = [cv2.merge([weight_HW] * 3) for weight_HW in weight_NHW]
        warped_0, warped_1 = (
            sum(weight_HWC * pair[key] for weight_HWC, pair in zip(weights_NHWC, pairs, strict=True)) for key in (0, 1)
        )
        image = _to_uint8((1.0 - t) * warped_0 + t * warped_1)
        motion_HWD = sum(
            weight_HW[..., None] * motion for weight_HW, motion in zip(weight_NHW, candidates, strict=True)
        )
        offsets_px_KHWD = np.stack([-t * motion_HWD, (1.0 - t) * motion_HWD]).astype(np.float32)
        return FlowResult(image, _to_uint8(warped_0), _to_uint8(warped_1), offsets_px_KHWD)

    def _sample(self, image: ImageArray, offset_HWD: Float32Array) -> ImageArray:
        grid_x_HW, grid_y_HW = self._grid
        maps = (grid_x_HW + offset_HWD[..., 0], grid_y_HW + offset_HWD[..., 1])
        sampled: ImageArray = cv2.remap(image, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return sampled

    def _weigh(
        self, source: ImageArray, target: ImageArray, flow_HWD: Float32Array, back_HWD: Float32Array
    ) -> Float32Array:
        """How much each source pixel counts where several land on one place: (H, W), above 0."""
        grid_x_HW, grid_y_HW = self._grid
        map_x_HW, map_y_HW = grid_x_HW + flow_HWD[..., 0], grid_y_HW + flow_HWD[..., 1]
        found = cv2.remap(target, map_x_HW, map_y_HW, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        returned_HWD = cv2.remap(back_HWD, map_x_HW, map_y_HW, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        colour_HW = cv2.absdiff(source, found).mean(axis=2, dtype=np.float32)
        round_trip_HW = np.hypot(flow_HWD[..., 0] + returned_HWD[..., 0], flow_HWD[..., 1] + returned_HWD[..., 1])
        settings = self._settings
        weight_HW: Float32Array = np.exp(
            -colour_HW / settings.photometric_levels - round_trip_HW / settings.consistency_px
        )
        return weight_HW + np.float32(1e-3)


def interpolate_flow(
    image_0: ImageArray, image_1: ImageArray, times: Sequence[float], settings: FlowSettings | None = None
) -> list[ImageArray]:
    """In-between frames by optical flow; the flows of the pair are found once.

    Args:
        image_0: (H, W, 3) uint8, the key frame at t = 0.
        image_1: (H, W, 3) uint8, the key frame at t = 1.
        times: each in 0..1.
        settings: the default is what was measured best.
    Returns: one (H, W, 3) uint8 a time, in their order; the key frame itself at 0 and 1.
    Raises: ValueError if the pictures differ in shape.
    """
    pair = FlowPair(image_0, image_1, settings)
    return [pair.at(t).image for t in times]


def _flows_both_ways(
    image_0: ImageArray, image_1: ImageArray, settings: FlowSettings
) -> tuple[Float32Array, Float32Array]:
    height, width = image_0.shape[:2]
    pad_y, pad_x = max(0, _MIN_SIDE_PX - height), max(0, _MIN_SIDE_PX - width)
    greys = []
    for image in (image_0, image_1):
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        greys.append(cv2.copyMakeBorder(grey, 0, pad_y, 0, pad_x, cv2.BORDER_REPLICATE))
    cv2.setNumThreads(1)  # again: a program may have set it otherwise since
    # A DIS object keeps its last flow as a start, so each direction gets a fresh one.
    flows = []
    for source, target in (greys, greys[::-1]):
        dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        dis.setFinestScale(settings.finest_scale)
        dis.setVariationalRefinementIterations(settings.variational_iterations)
        channels = cv2.split(dis.calc(source, target, None))
        smooth_HWD = cv2.merge([cv2.medianBlur(channel, settings.median_px) for channel in channels])
        flows.append(np.ascontiguousarray(smooth_HWD[:height, :width]))
    return flows[0], flows[1]


def _carry_flow(flow_HWD: Float32Array, weight_HW: Float32Array, share: float) -> Float32Array:
    """Flow vectors moved along `share` of themselves, on the pixels where they arrive: (H, W, 2) px.

    Several on one pixel are averaged by weight; pixels where none arrives take the mean of the nearest
    that have one, by boxes that grow.
    """
    height, width = weight_HW.shape
    grid_x_HW, grid_y_HW = _pixel_grid(height, width)
    # To the nearest pixel, then a 3 x 3 mean: as good as four bilinear shares, at a third of the time.
    column_HW = np.rint(grid_x_HW + np.float32(share) * flow_HWD[..., 0]).astype(np.int32)
    row_HW = np.rint(grid_y_HW + np.float32(share) * flow_HWD[..., 1]).astype(np.int32)
    is_inside_HW = (column_HW >= 0) & (column_HW < width) & (row_HW >= 0) & (row_HW < height)
    # What leaves the picture lands behind its last pixel.
    place_P = np.where(is_inside_HW, row_HW * width + column_HW, height * width).ravel()
    total_HWS = np.empty((height, width, 3), np.float32)
    for s, sums_HW in enumerate((weight_HW, weight_HW * flow_HWD[..., 0], weight_HW * flow_HWD[..., 1])):
        total_HWS[..., s] = np.bincount(place_P, sums_HW.ravel(), height * width + 1)[:-1].reshape(height, width)
    carried_HWD = np.zeros_like(flow_HWD)
    is_empty_HW = np.ones((height, width), np.bool_)
    side = 3
    while is_empty_HW.any() and side < 4 * max(height, width):
        mean_HWS = cv2.blur(total_HWS, (side, side), borderType=cv2.BORDER_CONSTANT)
        is_found_HW = is_empty_HW & (mean_HWS[..., 0] > 1e-7)
        for d in (0, 1):  # NumPy is slow where the last axis is two long
            np.divide(mean_HWS[..., 1 + d], mean_HWS[..., 0], out=carried_HWD[..., d], where=is_found_HW)
        is_empty_HW &= ~is_found_HW
        side *= 3
    return carried_HWD


def _pixel_grid(height: int, width: int) -> tuple[Float32Array, Float32Array]:
    x_HW, y_HW = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return x_HW, y_HW


def _blur(values_HW: Float32Array, sigma_px: float) -> Float32Array:
    blurred: Float32Array = cv2.GaussianBlur(values_HW, (0, 0), sigma_px)
    return blurred


def _to_uint8(values: npt.NDArray[np.floating]) -> ImageArray:
    rounded: ImageArray = np.clip(values + 0.5, 0, 255).astype(np.uint8)
    return rounded
