"""What every training shares: the learning rate, batches drawn ahead, and the state that a killed run goes on from.

What a step does depends on the seed and its number alone, so a run that was killed and goes on from its last saved
state ends with the same weights, bit for bit on a CPU, as one that was not.
"""

import json
import math
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

NUM_AHEAD = 4  # batches drawn ahead of the step that takes them

Log = Callable[[int, Mapping[str, float]], None]


class TrainingError(ValueError):
    """Training that cannot go on; says at which step, why, and what is left."""


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """kind: "adamw", or "amsgrad" (Adam with AMSGrad, the paper's).

    The learning rate rises over warmup_steps, is halved every `halve_every` steps (None = never), and falls to 0 along
    a cosine over the last cosine_share of the steps. clip_norm: None = gradients are not cut. ema: of the weights that
    are kept; 0 = those of the last step.
    """

    kind: Literal["adamw", "amsgrad"]
    learning_rate: float
    betas: tuple[float, float]
    weight_decay: float
    clip_norm: float | None
    warmup_steps: int
    cosine_share: float
    halve_every: int | None
    ema: float

    def ema_share(self, step: int) -> float:
        """What the average keeps of itself at a step: less at first, when it knows little."""
        return min(self.ema, (1 + step) / (10 + step))


def learning_rate(config: OptimiserConfig, step: int, num_steps: int) -> float:
    """Of step 0, 1, ..., num_steps - 1."""
    rate = config.learning_rate * min(1.0, (step + 1) / max(config.warmup_steps, 1))
    if config.halve_every:
        rate *= 0.5 ** (step // config.halve_every)
    falling = config.cosine_share * num_steps
    left = num_steps - step
    if falling and left < falling:
        rate *= 0.5 * (1 - math.cos(math.pi * left / falling))
    return rate


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate


def make_optimiser(network: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    parameters = list(network.parameters())
    if config.kind == "adamw":
        return torch.optim.AdamW(
            parameters, config.learning_rate, config.betas, weight_decay=config.weight_decay, fused=True
        )
    return torch.optim.Adam(
        parameters, config.learning_rate, config.betas, weight_decay=config.weight_decay, amsgrad=True, fused=True
    )


def mixed_precision() -> str:
    """Accelerate's name of the precision to train in: bf16 on a GPU that has it; emulated, it is slower than none."""
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False) else "no"


def check_gpu(local_rank: int) -> None:
    """Raises: TrainingError where there are more processes than GPUs."""
    if torch.cuda.is_available() and local_rank >= torch.cuda.device_count():
        raise TrainingError(
            f"process {local_rank} finds {torch.cuda.device_count()} GPUs; use as many processes as there are GPUs"
        )


def check_finite(names: tuple[str, ...], found: Tensor, step: int, state: Path | None) -> None:
    """Raises: TrainingError where a loss is not a finite number."""
    if torch.isfinite(found).all():
        return
    values = ", ".join(f"{name} {value:g}" for name, value in zip(names, found.tolist(), strict=True))
    kept = f"the last good state is in {state}" if state and state.is_file() else "no state was saved before it"
    raise TrainingError(
        f"step {step}: the loss is not finite ({values}); {kept}; lower the learning rate, or look at the data"
    )


class BatchesAhead:
    """Batches of the given steps in their order, drawn by a thread while others are learnt from."""

    def __init__(self, draw: Callable[[int], NamedTuple], steps: range) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(NUM_AHEAD)
        self._is_over = threading.Event()
        self._num_steps = len(steps)
        self._thread = threading.Thread(target=self._draw_all, args=(draw, steps), daemon=True, name="draw-batches")

    def _draw_all(self, draw: Callable[[int], NamedTuple], steps: range) -> None:
        for step in steps:
            try:
                drawn: Any = draw(step)
            except Exception as error:  # noqa: BLE001 raised again where the batch is asked for
                drawn = error
            while not self._is_over.is_set():
                try:
                    self._queue.put(drawn, timeout=0.2)
                    break
                except queue.Full:
                    continue
            if self._is_over.is_set() or isinstance(drawn, Exception):
                return

    def __enter__(self) -> Iterator[Any]:
        self._thread.start()
        return self._take()

    def _take(self) -> Iterator[Any]:
        for _ in range(self._num_steps):
            drawn = self._queue.get()
            if isinstance(drawn, Exception):
                raise drawn
            yield drawn

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()


class RunState:
    """The file that a run's state is kept in: networks, optimisers and lists of tensors, each under its name.

    What is given is saved as it then is, and filled in place. Names hold no full stop.
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        optimisers: Mapping[str, torch.optim.Optimizer],
        lists: Mapping[str, list[Tensor]],
    ) -> None:
        self._networks, self._optimisers, self._lists = networks, optimisers, lists

    def save(self, path: Path, step: int, values: Mapping[str, Tensor]) -> None:
        """Write after `step` steps. values: what else the run needs, under names that hold no full stop."""
        tensors = {f"values.{name}": value for name, value in values.items()}
        for name, network in self._networks.items():
            tensors |= {f"{name}.{key}": value for key, value in network.state_dict().items()}
        for name, listed in self._lists.items():
            tensors |= {f"{name}.{index}": value for index, value in enumerate(listed)}
        for name, optimiser in self._optimisers.items():
            for index, fields in optimiser.state_dict()["state"].items():
                tensors |= {f"{name}.{index}.{field}": value for field, value in fields.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        copies = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        save_file(copies, str(temporary), metadata={"step": json.dumps(step)})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)

    def load(self, path: Path, device: torch.device) -> tuple[int, dict[str, Tensor]]:
        """Fill what this was made with. Returns: the step, and the values, on the device.

        Raises: TrainingError if the file is damaged or of another training.
        """
        try:
            with safe_open(str(path), framework="pt") as file:
                step = int(json.loads(file.metadata()["step"]))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 not a mapping
            for name, network in self._networks.items():
                network.load_state_dict(_under(name, tensors))
            with torch.no_grad():
                for name, listed in self._lists.items():
                    for index, value in enumerate(listed):
                        value.copy_(tensors[f"{name}.{index}"])
            for name, optimiser in self._optimisers.items():
                states: dict[int, dict[str, Tensor]] = {}
                for place, value in _under(name, tensors).items():
                    number, _, field = place.partition(".")
                    states.setdefault(int(number), {})[field] = value
                optimiser.load_state_dict({"state": states, "param_groups": optimiser.state_dict()["param_groups"]})
        except (SafetensorError, OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise TrainingError(f"{path}: not this training's state ({reason}); remove it to start anew") from error
        return step, {name: value.to(device) for name, value in _under("values", tensors).items()}


def _under(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.partition(".")[2]: value for key, value in tensors.items() if key.startswith(f"{name}.")}


class LossSums:
    """Losses added up between one log and the next, so that what is logged are means."""

    def __init__(self, log_every: int, sums: Mapping[str, Tensor] | None = None) -> None:
        self._log_every, self.sums = log_every, dict(sums or {})

    def add(self, names: tuple[str, ...], found: Tensor) -> None:
        for name, value in zip(names, found, strict=True):
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value

    def means(self, done: int) -> dict[str, float]:
        """After `done` steps."""
        since = (done - 1) % self._log_every + 1
        return {name: float(total) / since for name, total in self.sums.items()}
