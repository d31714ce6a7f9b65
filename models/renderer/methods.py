"""Rendering methods: frames between two key frames.

A method is one function of the key pair, the times wanted, the joints predicted at those times and the
backgrounds at those times; what it does not use may be None. Another method is one more entry of RENDER_METHODS.
"""

from collections.abc import Callable, Sequence

from models.renderer.flow import blend, interpolate_flow
from models.renderer.keys import FloatArray, ImageArray, KeyPair
from models.renderer.warp import WarpPair

__all__ = ["RENDER_METHODS", "KeyPair", "RenderMethod", "render_between"]

Joints = Sequence[FloatArray] | None
Images = Sequence[ImageArray] | None
RenderMethod = Callable[[KeyPair, Sequence[float], Joints, Images], list[ImageArray]]


def _render_blend(keys: KeyPair, times: Sequence[float], _joints: Joints, _backgrounds: Images) -> list[ImageArray]:
    return [blend(keys.image_0, keys.image_1, t) for t in times]


def _render_flow(keys: KeyPair, times: Sequence[float], _joints: Joints, _backgrounds: Images) -> list[ImageArray]:
    return interpolate_flow(keys.image_0, keys.image_1, times)


def _render_rife(keys: KeyPair, times: Sequence[float], _joints: Joints, _backgrounds: Images) -> list[ImageArray]:
    from models.renderer.rife import RifePair, load_rife  # here: torch takes seconds to import

    pair = RifePair(keys.image_0, keys.image_1, load_rife())
    return [pair.at(t).image for t in times]


def _render_warp(keys: KeyPair, times: Sequence[float], joints: Joints, backgrounds: Images) -> list[ImageArray]:
    if joints is None:
        raise ValueError("warp needs the joints predicted at the times wanted")
    pair = WarpPair(keys)
    pictures: Sequence[ImageArray | None] = [None] * len(times) if backgrounds is None else backgrounds
    return [pair.at(t, joints_JD, picture) for t, joints_JD, picture in zip(times, joints, pictures, strict=True)]


RENDER_METHODS: dict[str, RenderMethod] = {
    "blend": _render_blend,  # the key frames mixed: the floor
    "flow": _render_flow,  # optical flow, both ways
    "rife": _render_rife,  # a network that finds the flows
    "warp": _render_warp,  # every bone carried to the predicted pose, over flow
}


def render_between(
    method: str,
    keys: KeyPair,
    times: Sequence[float],
    joints_px: Sequence[FloatArray] | None = None,
    backgrounds: Sequence[ImageArray] | None = None,
) -> list[ImageArray]:
    """The frames at `times` between two key frames.

    Args:
        method: a name of RENDER_METHODS.
        keys: the two key frames and what was observed in them.
        times: each 0..1 from the first key to the second.
        joints_px: for each time the predicted (19, 3) joints; needed by warp.
        backgrounds: for each time an interpolated picture (H, W, 3) uint8 to paint over; None = the method's own.
    Returns: one (H, W, 3) uint8 BGR a time.
    Raises: ValueError on an unknown method, on joints or backgrounds that are missing or not one a time; for rife,
        WeightsError where its weights are missing or damaged.
    """
    if method not in RENDER_METHODS:
        raise ValueError(f"no rendering method {method!r}; there are {', '.join(RENDER_METHODS)}")
    return RENDER_METHODS[method](keys, times, joints_px, backgrounds)
