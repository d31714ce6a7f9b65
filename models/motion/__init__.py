"""Motion between key poses. Importing this package imports no torch: its names are looked up when they are used."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.motion.inference import Motion, inbetween, inbetween_clips, predict_motions

__all__ = ["Motion", "inbetween", "inbetween_clips", "predict_motions"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from models.motion import inference

    return getattr(inference, name)
