"""In-between frames by a trained generator: the body painted from the predicted pose, over an interpolated picture.

Axes: J joints (19), D (x px, y px, score 0..1), H, W the clip's picture, h, w the network's, C channels. Pictures are
BGR uint8 HWC outside, RGB from -1 to 1 inside.
"""

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.checkpoint import PROVENANCE, CheckpointError, load
from models.renderer.blocks import fold_spectral_norm
from models.renderer.device import open_device, saying_what_lacks
from models.renderer.generator import Generator
from models.renderer.keys import FloatArray, ImageArray, RenderedFrame, WeightsError
from models.renderer.labels import draw_labels
from models.renderer.sizes import resize_picture, scale_joints

PAPER_SIZE = {"height": 320, "width": 480}


class Renderer(NamedTuple):
    """A generator, folded for inference, and the size of the pictures that it was trained on, px."""

    generator: Generator
    height: int
    width: int


@cache
def load_renderer(folder: Path, device: str = "cpu") -> Renderer:
    """The renderer of a checkpoint folder, on a device (models.renderer.device.open_device).

    Raises: WeightsError if the folder is no generator's checkpoint, or its network does not take its pictures' size;
        DeviceError.
    """
    place = open_device(device)
    try:
        network = load(folder)
    except CheckpointError as error:
        raise WeightsError(f"renderer: {error}") from error
    if not isinstance(network, Generator):
        raise WeightsError(f"renderer: {folder}: holds a {type(network).__name__}, where a Generator is needed")
    height, width = _read_size(folder / PROVENANCE)
    multiple = network.config.size_multiple
    if height % multiple or width % multiple:
        raise WeightsError(f"renderer: {folder}: takes multiples of {multiple} px, not {height} x {width}")
    return Renderer(fold_spectral_norm(network).to(place), height, width)


def _read_size(path: Path) -> tuple[int, int]:
    """Height and width of the pictures that it was trained on; the paper's where that is not told (imported ones)."""
    try:
        size = json.loads(path.read_text()).get("size", PAPER_SIZE)
        return int(size["height"]), int(size["width"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise WeightsError(
            f"renderer: {path}: not a checkpoint's provenance ({error!r}); restore the folder"
        ) from error


class NeuralPair:
    """The gap after a key frame, rendered frame by frame: what was made of one is seen beside the next.

    The network works at its own size. There it makes a picture and a mask of where that goes; both are brought to the
    clip's size and laid over the background there, which so keeps its own sharpness. Of a generator that paints a
    change of the background it is the change that is brought to the clip's size. Source: paper, section 3.2.
    """

    def __init__(self, key: ImageArray, renderer: Renderer) -> None:
        """key: (H, W, 3) uint8, the frame before the first that is asked for."""
        self._renderer = renderer
        self._size = key.shape[:2]
        self._device = next(renderer.generator.parameters()).device
        self._previous_BCHW = self._to_network(key)

    def next(self, joints_px_JD: FloatArray, background: ImageArray) -> RenderedFrame:
        """The frame after the one made last.

        Args:
            joints_px_JD: (19, 3) predicted at its time, px of the clip.
            background: (H, W, 3) uint8, an interpolated picture of its time.
        Returns: the picture, which is the background to the bit where the mask is 0; and the mask's mean.
        Raises: ValueError on a background of another size than the key's.
        """
        if background.shape[:2] != self._size:
            raise ValueError(f"a background of {background.shape[:2]} for pictures of {self._size}")
        generator, height, width = self._renderer
        joints_TJD = scale_joints(joints_px_JD[None], (self._size[0], self._size[1]), (height, width))
        label_BCHW = torch.from_numpy(draw_labels(joints_TJD, height, width)).to(self._device)
        with torch.inference_mode(), saying_what_lacks():
            behind_BCHW = self._to_network(background)
            made = generator.generate(label_BCHW, behind_BCHW, self._previous_BCHW)
        self._previous_BCHW = made.fused_BCHW
        mask_HW = self._to_clip(made.mask_B1HW[0])[..., None]
        if generator.config.paints_change:
            fused_HWC = background + self._to_clip((made.fused_BCHW - behind_BCHW)[0].flip(0) * 127.5)
        else:
            painted_HWC = self._to_clip((made.raw_BCHW[0].flip(0) + 1) * 127.5)
            fused_HWC = painted_HWC * mask_HW + background * (1 - mask_HW)
        image = np.asarray(np.clip(np.rint(fused_HWC), 0, 255), np.uint8)
        return RenderedFrame(image, float(mask_HW.mean(dtype=np.float64)))

    def _to_network(self, image: ImageArray) -> Tensor:
        small_HWC = resize_picture(image, self._renderer.height, self._renderer.width)
        levels_CHW = torch.from_numpy(small_HWC[..., ::-1].copy()).permute(2, 0, 1)
        return levels_CHW[None].to(self._device).float() / 127.5 - 1

    def _to_clip(self, values_CHW: Tensor) -> npt.NDArray[np.float32]:
        """(H, W) or (H, W, C), bilinear: bicubic would leave 0..1."""
        values_hwC = values_CHW.permute(1, 2, 0).contiguous().cpu().numpy()
        size = (self._size[1], self._size[0])
        return np.asarray(cv2.resize(values_hwC, size, interpolation=cv2.INTER_LINEAR), np.float32)
