"""Training of the motion networks: one loop for both, on a GPU or a CPU, in one process or several.

What a step does depends on the seed and its number alone (models.training). Under torch's launcher (RANK, WORLD_SIZE
and so on in the environment) the processes share each batch, and their losses are the single process's.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from models.motion.recipes import Loss, Recipe, to_tensors
from models.motion.samples import Float32Array
from models.training import (
    BatchesAhead,
    Log,
    LossSums,
    OptimiserConfig,
    RunState,
    check_finite,
    check_gpu,
    learning_rate,
    make_optimiser,
    mixed_precision,
    set_learning_rate,
)


class SequenceSource(Protocol):
    """Sequences in groups that are read one at a time."""

    @property
    def group_bytes(self) -> list[int]: ...

    def read_group(self, index: int) -> list[Float32Array]:
        """Each (T, 19, 2) float32 projected units."""
        ...


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
    check_gpu(int(os.environ.get("LOCAL_RANK", "0")))
    # Made once a process; a second call in a process (tests) takes the first one's settings over.
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=mixed_precision())
    rank, num_ranks = accelerator.process_index, accelerator.num_processes
    network.train()
    teaching = _Teaching(network.to(accelerator.device), recipe, num_ranks)
    optimiser = make_optimiser(network, config.optimiser)
    average = [parameter.detach().clone() for parameter in network.parameters()]
    run = RunState({"network": network}, {"optimiser": optimiser}, {"average": average})
    first_step, values = run.load(state, accelerator.device) if state and state.is_file() else (0, {})
    sums = LossSums(config.log_every, values)
    prepared, optimiser = accelerator.prepare(teaching, optimiser)
    pool = SequencePool(source, config.pool_bytes, recipe.frames_per_step, config.seed)
    steps = range(first_step, config.num_steps)
    with BatchesAhead(lambda step: recipe.draw(pool.at(step), config.seed, step, rank, num_ranks), steps) as batches:
        for step, batch in zip(steps, batches, strict=True):
            torch.manual_seed(config.seed * 1_000_003 + step * 1_009 + rank)  # of dropout
            set_learning_rate(optimiser, learning_rate(config.optimiser, step, config.num_steps))
            optimiser.zero_grad(set_to_none=True)
            with accelerator.autocast():
                loss = prepared(to_tensors(batch, accelerator.device))
            found = accelerator.reduce(torch.stack([part.detach().float() for part in loss]), "mean")
            check_finite(loss._fields, found, step, state)
            accelerator.backward(loss[0])
            if config.optimiser.clip_norm is not None:
                accelerator.clip_grad_norm_(network.parameters(), config.optimiser.clip_norm)
            optimiser.step()
            with torch.no_grad():
                torch._foreach_lerp_(average, list(network.parameters()), 1 - config.optimiser.ema_share(step))
            sums.add(loss._fields, found)
            done = step + 1
            if done % config.log_every == 0 or done == config.num_steps:
                if accelerator.is_main_process:
                    log(done, sums.means(done))
                if done < config.num_steps:
                    sums.sums.clear()
            if state and accelerator.is_main_process and (done % config.save_every == 0 or done == config.num_steps):
                run.save(state, done, sums.sums)
    with torch.no_grad():
        for parameter, mean in zip(network.parameters(), average, strict=True):
            parameter.copy_(mean)
    return TrainResult(network.cpu().eval(), first_step, sums.means(config.num_steps))
