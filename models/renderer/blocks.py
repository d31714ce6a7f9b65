"""What the generator and the discriminator are built of: convolutions under spectral norm, and norms.

Axes: B batch, C channels, H, W.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

LEAKY_SLOPE = 0.2
Network = TypeVar("Network", bound=nn.Module)


def convolve(num_in: int, num_out: int, kernel: int = 3, stride: int = 1, padding: int | None = None) -> nn.Conv2d:
    """A convolution; without `padding`, as much as keeps the size at stride 1."""
    return nn.Conv2d(num_in, num_out, kernel, stride, kernel // 2 if padding is None else padding)


def convolve_spectral(
    num_in: int, num_out: int, kernel: int = 3, stride: int = 1, padding: int | None = None
) -> nn.Conv2d:
    """The same under spectral norm: one power step a training forward; in eval mode the stored vectors alone."""
    convolution = convolve(num_in, num_out, kernel, stride, padding)
    spectral_norm(convolution)
    return convolution


def fold_spectral_norm(network: Network) -> Network:
    """Put plain weights, divided by their norms, in the place of spectral norm: for inference alone.

    Args: network: changed in place. It can no longer be saved as, or loaded from, a checkpoint of its kind.
    Returns: the same network, in eval mode; its outputs are those of eval mode to 1e-6.
    """
    network.eval()  # in training mode a look at the weight moves its vectors
    for module in network.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    return network


@contextmanager
def normalised(*networks: nn.Module) -> Iterator[None]:
    """Inside, spectral norm's weights are those at the beginning, computed once for all passes, in float32 though
    autocast be on: only outside may an optimiser change them, and a look at the same networks not be nested in it.
    """
    with parametrize.cached():
        for network in networks:
            device = next(network.parameters()).device.type
            with torch.autocast(device, enabled=False):
                for module in network.modules():
                    if parametrize.is_parametrized(module, "weight"):
                        _ = module.weight
        yield


def activate(x_BCHW: Tensor) -> Tensor:
    return functional.leaky_relu(x_BCHW, LEAKY_SLOPE)


class ConvNormActivate(nn.Module):
    """Convolution under spectral norm, instance norm with weights, and, by default, a leaky ReLU."""

    def __init__(
        self,
        num_in: int,
        num_out: int,
        kernel: int = 3,
        stride: int = 1,
        padding: int | None = None,
        *,
        is_active: bool = True,
    ) -> None:
        super().__init__()
        self.is_active = is_active
        self.conv = convolve_spectral(num_in, num_out, kernel, stride, padding)
        self.norm = nn.InstanceNorm2d(num_out, affine=True)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out_BCHW: Tensor = self.norm(self.conv(x_BCHW))
        return activate(out_BCHW) if self.is_active else out_BCHW


def resize_nearest(x_BCHW: Tensor, size: torch.Size) -> Tensor:
    """x at (height, width) `size`; itself if it has that."""
    return x_BCHW if x_BCHW.shape[2:] == size else functional.interpolate(x_BCHW, size=tuple(size), mode="nearest")


def double(x_BCHW: Tensor) -> Tensor:
    return functional.interpolate(x_BCHW, scale_factor=2.0, mode="nearest")
