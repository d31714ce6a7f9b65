"""Networks and plain functions of poses and pictures. Importing this package imports no torch."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["load"]


def load(folder: str | Path) -> "nn.Module":
    """The network of a checkpoint folder, in eval mode, on the CPU.

    Args: folder: with model.safetensors and config.json, as models.checkpoint.save writes it.
    Raises: models.checkpoint.CheckpointError with the file and the reason if it is not a checkpoint of ours.
    """
    from models.checkpoint import load as load_checkpoint  # torch is imported by those who load a network alone

    return load_checkpoint(Path(folder))
