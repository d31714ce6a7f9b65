"""The rendering methods by name: one call, whichever method.

Each takes key frames, times, joints at those times, and the name of a base interpolator; joints that it does not use
may be None. Another method is one more entry of RENDER_METHODS.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from models.renderer.chooser import load_chooser
from models.renderer.flow import FlowPair, blend
from models.renderer.keys import FloatArray, ImageArray, KeyPair, RenderedFrame, WeightsError, find_rife_weights
from models.renderer.warp import BaseInterpolator, WarpPair

__all__ = [
    "BASES",
    "RENDER_METHODS",
    "Base",
    "KeyPair",
    "RenderMethod",
    "available_base",
    "load_base",
    "render_between",
    "render_neural",
]

Joints = Sequence[FloatArray] | None
# (keys, times, joints, base, device)
RenderMethod = Callable[[KeyPair, Sequence[float], Joints, str, str], list[RenderedFrame]]

Base = Literal["rife", "flow"]
BASES: tuple[Base, ...] = ("rife", "flow")  # the better first


def available_base(base: Base) -> Base:
    """The base itself, or `flow` in the place of `rife` where its weights are not installed. Imports no torch."""
    if base == "rife":
        try:
            find_rife_weights()
        except WeightsError:
            return "flow"
    return base


def load_base(base: str, device: str = "cpu") -> BaseInterpolator:
    """What makes a pair of two pictures. Raises: ValueError on an unknown name; for rife, as load_rife."""
    if base not in BASES:
        raise ValueError(f"no base interpolator {base!r}; there are {', '.join(BASES)}")
    if base == "flow":
        return FlowPair
    from models.renderer.rife import RifePair, load_rife  # here: torch takes seconds to import

    return partial(RifePair, network=load_rife(device=device))


def _render_blend(keys: KeyPair, times: Sequence[float], _joints: Joints, *_: str) -> list[RenderedFrame]:
    return [RenderedFrame(blend(keys.image_0, keys.image_1, t)) for t in times]


def _render_base(
    name: str, keys: KeyPair, times: Sequence[float], _joints: Joints, _base: str, device: str
) -> list[RenderedFrame]:
    pair = load_base(name, device)(keys.image_0, keys.image_1)
    return [RenderedFrame(pair.at(t).image) for t in times]


def _render_warp(keys: KeyPair, times: Sequence[float], joints: Joints, base: str, device: str) -> list[RenderedFrame]:
    if joints is None:
        raise ValueError("warp needs the joints predicted at the times wanted")
    pair = WarpPair(keys, load_base(base, device), load_chooser(base))
    return [pair.at(t, joints_JD) for t, joints_JD in zip(times, joints, strict=True)]


RENDER_METHODS: dict[str, RenderMethod] = {
    "blend": _render_blend,  # the key frames mixed: the floor
    "flow": partial(_render_base, "flow"),  # optical flow, both ways
    "rife": partial(_render_base, "rife"),  # a network that finds the flows
    "warp": _render_warp,  # every bone carried to the predicted pose, over a base
}


def render_between(
    method: str,
    keys: KeyPair,
    times: Sequence[float],
    joints_px: Sequence[FloatArray] | None = None,
    base: str = "flow",
    device: str = "cpu",
) -> list[RenderedFrame]:
    """The frames at `times` between two key frames.

    Args:
        method: a name of RENDER_METHODS.
        keys: the two key frames and what was observed in them.
        times: each 0..1 from the first key to the second.
        joints_px: for each time the predicted (19, 3) joints; needed by warp.
        base: a name of BASES, that warp works over.
        device: of RIFE: see models.renderer.device.open_device.
    Returns: one a time, in their order.
    Raises: ValueError on an unknown method or base, on joints that are missing or not one a time; WeightsError where
        weights are missing or damaged; DeviceError.
    """
    if method not in RENDER_METHODS:
        raise ValueError(f"no rendering method {method!r}; there are {', '.join(RENDER_METHODS)}")
    return RENDER_METHODS[method](keys, times, joints_px, base, device)


def render_neural(
    keys: KeyPair,
    joints_px: Sequence[FloatArray],
    behind: Sequence[ImageArray],
    renderer: Path,
    device: str = "cpu",
) -> list[RenderedFrame]:
    """The frames between two keys by a trained renderer, which sees of each frame what it made of the one before.

    Args:
        joints_px: (19, 3) predicted joints of each frame, in the order of time.
        behind: the picture of each frame that is painted over: an interpolated one, or warp's.
        renderer: its checkpoint folder.
        device: see models.renderer.device.open_device.

    Raises: WeightsError where the renderer cannot be read; DeviceError.
    """
    from models.renderer.neural import NeuralPair, load_renderer  # here: torch takes seconds to import

    pair = NeuralPair(keys.image_0, load_renderer(renderer, device))
    return [pair.next(joints_JD, image) for joints_JD, image in zip(joints_px, behind, strict=True)]
