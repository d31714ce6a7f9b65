"""In-between frames from key frames and poses. Importing this package imports nothing else until a name is used."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.renderer.labels import LabelCanvas, draw_human_masks, draw_labels, draw_pose_maps, draw_skeletons

__all__ = ["LabelCanvas", "draw_human_masks", "draw_labels", "draw_pose_maps", "draw_skeletons"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from models.renderer import labels

    return getattr(labels, name)
