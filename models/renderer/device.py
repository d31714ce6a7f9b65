"""The processor that a network makes its pictures on: the CPU, whose pictures are the same everywhere, or a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # it takes seconds to import, and not every method needs it
    import torch

Device = Literal["cpu", "cuda"]

_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/kfd"))  # NVIDIA's, Windows' for its Linux, AMD's


class DeviceError(ValueError):
    """There is no such processor, or its memory does not do; says what to do instead."""


def open_device(name: str) -> "torch.device":
    """The processor of that name, set to compute in whole float32: pictures differ from the CPU's by rounding alone.

    Raises: DeviceError where there is no GPU that torch can use, or the name is none.
    """
    import torch

    if name not in ("cpu", "cuda"):
        raise DeviceError(f"no device {name!r}; there are cpu, cuda")
    if name == "cuda":
        if not torch.cuda.is_available():
            raise DeviceError("device cuda: torch finds no GPU here; use cpu")
        torch.backends.cudnn.allow_tf32 = False  # convolutions have 10 bits' precision otherwise
    return torch.device(name)


def best_device() -> Device:
    """A GPU where there is one that torch can use."""
    if not any(path.exists() for path in _DRIVERS):
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def saying_what_lacks() -> Iterator[None]:
    """Raises: DeviceError in the place of torch's error when a GPU's memory is full."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceError("device cuda: its memory does not do; use fewer run.workers, or cpu") from error
