"""Training of the motion networks: one loop for both, on a GPU or a CPU, in one process or several.

What a step does depends on the seed and its number alone, so a run that was killed and goes on from its last saved
state ends with the same weights, bit for bit on a CPU, as one that was not. Under torch's launcher (RANK, WORLD_SIZE
and so on in the environment) the processes share each batch, and their losses are the single process's.
"""

import json
import math
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from models.motion.recipes import Loss, Recipe, to_tensors
from models.motion.samples import Float32Array

NUM_AHEAD = 4  # batches drawn ahead of the step that takes them

Log = Callable[[int, Mapping[str, float]], None]


class TrainingError(ValueError):
    """Training that cannot go on; says at which step, why, and what is left."""


class SequenceSource(Protocol):
    """Sequences in groups that are read one at a time."""

    @property
    def group_bytes(self) -> list[int]: ...

    def read_group(self, index: int) -> list[Float32Array]:
        """Each (T, 19, 2) float32 projected units."""
        ...


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """kind: "adamw", or "amsgrad" (Adam with AMSGrad, the paper's).

    The learning rate rises over warmup_steps, is halved every `halve_every` steps (None = never), and falls to 0 along
    a cosine over the last cosine_share of the steps. ema: of the weights that are kept; 0 = those of the last step.
    """

    kind: Literal["adamw", "amsgrad"]
    learning_rate: float
    betas: tuple[float, float]
    weight_decay: float
    clip_norm: float
    warmup_steps: int
    cosine_share: float
    halve_every: int | None
    ema: float


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """pool_bytes: of sequences held in memory at a time.  save_every, log_every: steps."""

    seed: int
    num_steps: int
    pool_bytes: int
    save_every: int
    log_every: int
    optimiser: OptimiserConfig


class TrainResult(NamedTuple):
    """network: with the averaged weights, in eval mode, on the CPU.  first_step: 0, or where the run went on.
    losses: as they were logged last.
    """

    network: nn.Module
    first_step: int
    losses: dict[str, float]


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


class SequencePool:
    """The sequences that a step draws from: all where they fit, else a window that moves through the groups.

    Which they are depends on the step and the seed alone. Each pass goes through the groups in another order; a new
    group comes in, and the oldest goes, when the steps have drawn about as many frames as a group has.
    """

    def __init__(self, source: SequenceSource, max_bytes: int, frames_per_step: int, seed: int) -> None:
        self._source = source
        self._seed = seed
        sizes = source.group_bytes
        self._num_groups = len(sizes)
        mean_bytes = sum(sizes) / max(len(sizes), 1)
        self._size = len(sizes) if sum(sizes) <= max_bytes else max(1, int(max_bytes / max(sizes)))
        frames = mean_bytes / (19 * 2 * 4)
        self._steps_per_group = max(1, round(frames / frames_per_step))
        self._groups: dict[int, list[Float32Array]] = {}
        self._cached: tuple[tuple[int, ...], list[Float32Array]] = ((), [])

    def at(self, step: int) -> list[Float32Array]:
        wanted = self._window(step)
        if wanted != self._cached[0]:
            self._groups = {group: self._groups[group] for group in wanted if group in self._groups}
            for group in wanted:
                if group not in self._groups:
                    self._groups[group] = self._source.read_group(group)
            self._cached = (wanted, [sequence for group in wanted for sequence in self._groups[group]])
        return self._cached[1]

    def _window(self, step: int) -> tuple[int, ...]:
        if self._size == self._num_groups:
            return tuple(range(self._num_groups))
        first = step // self._steps_per_group
        places = range(first, first + self._size)
        orders = {
            turn: np.random.default_rng([self._seed, turn]).permutation(self._num_groups)
            for turn in {place // self._num_groups for place in places}
        }
        return tuple(
            dict.fromkeys(int(orders[place // self._num_groups][place % self._num_groups]) for place in places)
        )


class _Teaching(nn.Module):
    """A network with its loss as forward: what data-parallel training wraps."""

    def __init__(self, network: nn.Module, recipe: Recipe, num_ranks: int) -> None:
        super().__init__()
        self.network = network
        self._recipe, self._num_ranks = recipe, num_ranks

    def forward(self, batch: NamedTuple) -> Loss:
        return self._recipe.loss(self.network, batch, self._num_ranks)


def train(
    network: nn.Module, recipe: Recipe, source: SequenceSource, config: TrainConfig, state: Path | None, log: Log
) -> TrainResult:
    """Train a network, from where an earlier run of the same training was cut off.

    Args:
        network: of models.motion; trained in place.
        recipe: of that network.
        source: training sequences.
        state: the file that the run's state is kept in; one that is there is gone on from. None = nothing is kept.
            Give each training (data, config, start) a file of its own.
        log: called by the first process every log_every steps, and at the last, with the means since the call before.

    Returns: the averaged network.
    Raises: TrainingError if the loss is not finite, the state is of another training, or there are more processes than
        GPUs.
    """
    _check_gpu(int(os.environ.get("LOCAL_RANK", "0")))
    # Made once a process; a second call in a process (tests) takes the first one's settings over.
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=_precision())
    rank, num_ranks = accelerator.process_index, accelerator.num_processes
    network.train()
    teaching = _Teaching(network.to(accelerator.device), recipe, num_ranks)
    optimiser = _make_optimiser(network, config.optimiser)
    average = [parameter.detach().clone() for parameter in network.parameters()]
    first_step, sums = _load_state(state, network, optimiser, average) if state and state.is_file() else (0, {})
    prepared, optimiser = accelerator.prepare(teaching, optimiser)
    pool = SequencePool(source, config.pool_bytes, recipe.frames_per_step, config.seed)
    steps = range(first_step, config.num_steps)
    with _Ahead(lambda step: recipe.draw(pool.at(step), config.seed, step, rank, num_ranks), steps) as batches:
        for step, batch in zip(steps, batches, strict=True):
            torch.manual_seed(config.seed * 1_000_003 + step * 1_009 + rank)  # of dropout
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(config.optimiser, step, config.num_steps)
            optimiser.zero_grad(set_to_none=True)
            with accelerator.autocast():
                loss = prepared(to_tensors(batch, accelerator.device))
            found = accelerator.reduce(torch.stack([part.detach().float() for part in loss]), "mean")
            if not torch.isfinite(found).all():
                raise TrainingError(_explain(loss, found, step, state))
            accelerator.backward(loss[0])
            accelerator.clip_grad_norm_(network.parameters(), config.optimiser.clip_norm)
            optimiser.step()
            decay = min(config.optimiser.ema, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(average, list(network.parameters()), 1 - decay)
            for name, value in zip(loss._fields, found, strict=True):
                sums[name] = sums.get(name, torch.zeros_like(value)) + value
            done = step + 1
            if done % config.log_every == 0 or done == config.num_steps:
                if accelerator.is_main_process:
                    log(done, _means(sums, done, config))
                sums = sums if done == config.num_steps else {}
            if state and accelerator.is_main_process and (done % config.save_every == 0 or done == config.num_steps):
                _save_state(state, network, optimiser, average, sums, done)
    with torch.no_grad():
        for parameter, mean in zip(network.parameters(), average, strict=True):
            parameter.copy_(mean)
    return TrainResult(network.cpu().eval(), first_step, _means(sums, config.num_steps, config))


def _means(sums: Mapping[str, Tensor], done: int, config: TrainConfig) -> dict[str, float]:
    """Of the losses since the log before, after `done` steps."""
    since = (done - 1) % config.log_every + 1
    return {name: float(total) / since for name, total in sums.items()}


def _precision() -> str:
    # Emulated, bf16 is slower than float32.
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False) else "no"


def _check_gpu(local_rank: int) -> None:
    if torch.cuda.is_available() and local_rank >= torch.cuda.device_count():
        raise TrainingError(
            f"process {local_rank} finds {torch.cuda.device_count()} GPUs; use as many processes as there are GPUs"
        )


def _explain(loss: Loss, found: Tensor, step: int, state: Path | None) -> str:
    values = ", ".join(f"{name} {value:g}" for name, value in zip(loss._fields, found.tolist(), strict=True))
    kept = f"the last good state is in {state}" if state and state.is_file() else "no state was saved before it"
    return f"step {step}: the loss is not finite ({values}); {kept}; lower the learning rate, or look at the data"


def _make_optimiser(network: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    parameters = list(network.parameters())
    if config.kind == "adamw":
        return torch.optim.AdamW(
            parameters, config.learning_rate, config.betas, weight_decay=config.weight_decay, fused=True
        )
    return torch.optim.Adam(
        parameters, config.learning_rate, config.betas, weight_decay=config.weight_decay, amsgrad=True, fused=True
    )


class _Ahead:
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


def _save_state(
    path: Path,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: list[Tensor],
    sums: Mapping[str, Tensor],
    step: int,
) -> None:
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"average.{index}": value for index, value in enumerate(average)}
    tensors |= {f"sums.{name}": value for name, value in sums.items()}
    for index, values in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": value for name, value in values.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    copies = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    save_file(copies, str(temporary), metadata={"step": json.dumps(step)})
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def _load_state(
    path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, average: list[Tensor]
) -> tuple[int, dict[str, Tensor]]:
    """Fill what _save_state was given; returns the step, and the sums of the losses since the last log."""
    try:
        with safe_open(str(path), framework="pt") as file:
            step = int(json.loads(file.metadata()["step"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 not a mapping
        network.load_state_dict({n.partition(".")[2]: v for n, v in tensors.items() if n.startswith("network.")})
        with torch.no_grad():
            for index, value in enumerate(average):
                value.copy_(tensors[f"average.{index}"])
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            part, _, rest = name.partition(".")
            if part == "optimiser":
                index, _, field = rest.partition(".")
                states.setdefault(int(index), {})[field] = value
        optimiser.load_state_dict({"state": states, "param_groups": optimiser.state_dict()["param_groups"]})
    except (SafetensorError, OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(f"{path}: not this training's state ({reason}); remove it to start anew") from error
    device = average[0].device
    return step, {n.partition(".")[2]: v.to(device) for n, v in tensors.items() if n.startswith("sums.")}
