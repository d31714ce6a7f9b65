"""Training of the generator against its discriminators, on a GPU in bf16 or on a CPU, in one process or several.

A step takes one batch of samples, and of each sample a few frames one after the other: what the generator made of a
frame is what it is given beside the next one. What a step does depends on the seed and its number alone
(models.training). Under torch's launcher the processes share each batch; a mean over the person's pixels, or over the
hands, is then that of each process's share.

Axes: B samples, S predicted frames, C channels, H, W. Pictures are RGB from -1 to 1.
"""

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn

from models.renderer.blocks import normalised
from models.renderer.discriminator import PARTS, Discriminator, Judgement, Judgements, Pair, cut_parts, find_boxes
from models.renderer.generator import GeneratedPicture, Generator
from models.renderer.losses import GeneratorLoss, LossWeights, PerceptualLoss, discriminator_loss, generator_loss
from models.renderer.samples import SampleBatch
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

LOSSES = ("discriminator", *GeneratorLoss._fields)
Passes = Literal["lean", "paper"]
Score = Callable[[Generator], dict[str, float]]


class SampleSource(Protocol):
    """Augmented samples to train on, by (step, rank) alone."""

    def draw(self, step: int, num_frames: int, rank: int, num_ranks: int) -> SampleBatch:
        """One process's share of a step's batch, with S = num_frames."""
        ...


@dataclass(frozen=True, kw_only=True)
class RendererTrainConfig:
    """num_steps, save_every, log_every, evaluate_every: steps.

    num_frames: predicted of each sample at first; one more every `grow_every` steps (None = never), up to max_frames.
    passes: "lean", or "paper": the discriminators see every part in either step, and the true picture anew in the
        generator's; only their spectral norm's vectors and the features that are matched differ by it.
    generator: of both networks' optimisers, but for the discriminator's rate.
    patience: evaluations without a better score after which training ends; None = never.
    """

    seed: int
    num_steps: int
    num_frames: int
    grow_every: int | None
    max_frames: int
    passes: Passes
    weights: LossWeights
    optimiser: OptimiserConfig
    discriminator_rate: float
    save_every: int
    log_every: int
    evaluate_every: int
    patience: int | None

    def frames_at(self, step: int) -> int:
        grown = step // self.grow_every if self.grow_every else 0
        return min(self.num_frames + grown, self.max_frames)


class TrainResult(NamedTuple):
    """generator: with the weights of the best score, in eval mode, on the CPU.
    first_step: 0, or where the run went on.  last_step: the steps that were done.  best_step: of those weights.
    losses: as they were logged last.
    """

    generator: Generator
    first_step: int
    last_step: int
    best_step: int
    losses: dict[str, float]


class _Frame(NamedTuple):
    """One predicted frame of a batch; see SampleBatch."""

    label_BCHW: Tensor
    real_BCHW: Tensor
    background_BCHW: Tensor
    is_person_B1HW: Tensor


def train(
    generator: Generator,
    discriminator: Discriminator,
    perceptual: PerceptualLoss | None,
    source: SampleSource,
    score: Score,
    config: RendererTrainConfig,
    state: Path | None,
    log: Log,
) -> TrainResult:
    """Train a generator, from where an earlier run of the same training was cut off.

    Args:
        generator, discriminator: trained in place.
        perceptual: see models.renderer.losses.load_perceptual_loss; None = the term is off.
        source: training samples.
        score: of the generator on what is held out, every evaluate_every steps and at the last, in eval mode; "score"
            is what is to grow, and by which the weights are chosen. All its values are logged.
        state: the file that the run's state is kept in; one that is there is gone on from. None = nothing is kept.
            Give each training (data, config, start) a file of its own.
        log: called by the first process every log_every steps, at each evaluation and at the last step, with the means
            of the losses since they were logged before.

    Raises: TrainingError if a loss is not finite, the state is of another training, or there are more processes than
        GPUs.
    Source: paper, section 3.2. Differs from the authors' code where config.passes is "lean": nothing is computed that
        counts 0, and the true picture's features are those of the discriminator's own step. Its samples grow.
    """
    check_gpu(int(os.environ.get("LOCAL_RANK", "0")))
    # Made once a process; a second call in a process (tests) takes the first one's settings over.
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=mixed_precision())
    rank, num_ranks = accelerator.process_index, accelerator.num_processes
    generator, discriminator = generator.to(accelerator.device).train(), discriminator.to(accelerator.device).train()
    # The mask's loss is a sum over a batch, of which each process has a share, and the processes' mean is taken.
    weights = replace(config.weights, mask=config.weights.mask * num_ranks)
    perceptual = perceptual and perceptual.to(accelerator.device)
    update = _Update(accelerator, generator, discriminator, perceptual, config, weights)
    average = copy.deepcopy(generator).eval()
    best = copy.deepcopy(average)
    run = RunState(
        {"generator": generator, "discriminator": discriminator, "average": average, "best": best},
        {"generator_optimiser": update.generator_optimiser, "discriminator_optimiser": update.discriminator_optimiser},
        {},
    )
    first_step, values = run.load(state, accelerator.device) if state and state.is_file() else (0, {})
    choice = _Choice(*(values.pop(name, None) for name in _Choice.NAMES))
    if not first_step:  # what is not trained competes too: a generator that paints a change paints its background
        choice.take(_share(accelerator, score(average)["score"] if accelerator.is_main_process else 0.0), 0)
    sums = LossSums(config.log_every, values)
    steps = range(first_step, first_step if choice.is_over(config.patience) else config.num_steps)
    done = first_step
    with BatchesAhead(lambda step: source.draw(step, config.frames_at(step), rank, num_ranks), steps) as batches:
        for step, batch in zip(steps, batches, strict=True):
            update.set_rates(step)
            found = accelerator.reduce(update(SampleBatch(*(x.to(accelerator.device) for x in batch))), "mean")
            check_finite(LOSSES, found, step, state)
            sums.add(LOSSES, found)
            _average(average, generator, 1 - config.optimiser.ema_share(step))
            done = step + 1
            is_last = done == config.num_steps
            logged: dict[str, float] = {}
            if done % config.evaluate_every == 0 or is_last:
                logged = score(average) if accelerator.is_main_process else {}
                if choice.take(_share(accelerator, logged.get("score", 0.0)), done):
                    best.load_state_dict(average.state_dict())
            is_last |= choice.is_over(config.patience)
            if done % config.log_every == 0 or is_last:
                logged = sums.means(done) | logged
            if logged and accelerator.is_main_process:
                log(done, logged)
            if done % config.log_every == 0 and not is_last:
                sums.sums.clear()
            if state and accelerator.is_main_process and (done % config.save_every == 0 or is_last):
                run.save(state, done, sums.sums | choice.tensors())
            if is_last:
                break
    return TrainResult(best.cpu().eval(), first_step, done, choice.best_step, sums.means(done))


class _Choice:
    """Which weights are the best so far, and for how many evaluations."""

    NAMES = ("best_score", "best_step", "num_worse")

    def __init__(self, best_score: Tensor | None, best_step: Tensor | None, num_worse: Tensor | None) -> None:
        self.best_score = float("-inf") if best_score is None else best_score.item()
        self.best_step = 0 if best_step is None else int(best_step)
        self.num_worse = 0 if num_worse is None else int(num_worse)

    def take(self, score: float, step: int) -> bool:
        """Whether these are the best."""
        if not score > self.best_score:
            self.num_worse += 1
            return False
        self.best_score, self.best_step, self.num_worse = score, step, 0
        return True

    def is_over(self, patience: int | None) -> bool:
        return patience is not None and self.num_worse >= patience

    def tensors(self) -> dict[str, Tensor]:
        values = (self.best_score, self.best_step, self.num_worse)
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in zip(self.NAMES, values, strict=True)}


class _Update:
    """What a step does to both networks; called with a batch, returns the means of LOSSES over its frames."""

    def __init__(
        self,
        accelerator: Accelerator,
        generator: Generator,
        discriminator: Discriminator,
        perceptual: PerceptualLoss | None,
        config: RendererTrainConfig,
        weights: LossWeights,
    ) -> None:
        self._accelerator, self._config, self._weights = accelerator, config, weights
        self._generator, self._discriminator, self._perceptual = generator, discriminator, perceptual
        self._rates = {
            "generator": config.optimiser,
            "discriminator": replace(config.optimiser, learning_rate=config.discriminator_rate),
        }
        self.generator_optimiser = make_optimiser(generator, self._rates["generator"])
        self.discriminator_optimiser = make_optimiser(discriminator, self._rates["discriminator"])
        judged = [part for part in PARTS if weights.adversarial(part)]
        if config.passes == "paper":
            self._judged, self._felt = list(PARTS), list(PARTS)
        else:
            self._judged, self._felt = judged, list(PARTS) if weights.features else judged

    def set_rates(self, step: int) -> None:
        for name, optimiser in (
            ("generator", self.generator_optimiser),
            ("discriminator", self.discriminator_optimiser),
        ):
            set_learning_rate(optimiser, learning_rate(self._rates[name], step, self._config.num_steps))

    def __call__(self, batch: SampleBatch) -> Tensor:
        previous_BCHW, found = batch.previous_BCHW, []
        num_frames = batch.pictures_BSCHW.shape[1]
        for s in range(num_frames):
            frame = _Frame(
                batch.labels_BSCHW[:, s],
                batch.pictures_BSCHW[:, s],
                batch.backgrounds_BSCHW[:, s],
                batch.person_BS1HW[:, s],
            )
            fused_BCHW, losses = self._learn(frame, previous_BCHW)
            previous_BCHW = fused_BCHW
            found.append(losses)
        return torch.stack(found).mean(dim=0)

    def _learn(self, frame: _Frame, previous_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """One update of the discriminator, then one of the generator. Returns: the fused picture, detached; LOSSES."""
        with normalised(self._generator), self._accelerator.autocast():
            made = self._generator.generate(frame.label_BCHW, frame.background_BCHW, previous_BCHW)
        made = GeneratedPicture(*(x_BCHW.float() for x_BCHW in made))
        real, fake = self._cut(frame, made)
        real_judged, d_loss = self._teach_discriminator(real, fake)
        g_losses = self._teach_generator(frame, made, real, fake, real_judged)
        losses = torch.stack([d_loss, *g_losses]).detach().float()
        return made.fused_BCHW.detach(), losses

    def _cut(self, frame: _Frame, made: GeneratedPicture) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        if not self._felt:
            return {}, {}
        boxes = find_boxes(frame.label_BCHW)
        real_BCHW, is_person_B1HW = frame.real_BCHW, frame.is_person_B1HW
        return (
            cut_parts(self._felt, frame.label_BCHW, real_BCHW, real_BCHW, is_person_B1HW, boxes),
            cut_parts(self._felt, frame.label_BCHW, made.fused_BCHW, made.raw_BCHW, is_person_B1HW, boxes),
        )

    def _teach_discriminator(
        self, real: dict[str, Tensor], fake: dict[str, Tensor]
    ) -> tuple[dict[str, list[Judgement]], Tensor]:
        """Returns: what it said of the true picture's parts, without gradients; its loss."""
        parts = [part for part in self._judged if part in real]
        if not parts:
            return {}, next(self._discriminator.parameters()).new_zeros(())
        with normalised(*self._networks(parts)), self._accelerator.autocast():
            pairs = {
                part: self._discriminator.network_of(part).judge_pair(real[part], fake[part].detach()) for part in parts
            }
            loss = discriminator_loss(_in_float32(pairs), self._weights)
        self.discriminator_optimiser.zero_grad(set_to_none=True)
        self._accelerator.backward(loss)
        self._step(self._discriminator, self.discriminator_optimiser)
        return {part: _detach(pair.real) for part, pair in pairs.items()}, loss

    def _teach_generator(
        self,
        frame: _Frame,
        made: GeneratedPicture,
        real: dict[str, Tensor],
        fake: dict[str, Tensor],
        real_judged: dict[str, list[Judgement]],
    ) -> GeneratorLoss:
        is_paper = self._config.passes == "paper"
        self._discriminator.requires_grad_(requires_grad=False).train(is_paper)
        with normalised(*self._networks(list(fake))), self._accelerator.autocast():
            pairs = {}
            for part, part_BCHW in fake.items():
                network = self._discriminator.network_of(part)
                with torch.no_grad():
                    truth = real_judged[part] if part in real_judged and not is_paper else network(real[part])
                pairs[part] = Pair(truth, network(part_BCHW))
            loss = generator_loss(
                _in_float32(pairs), made, frame.real_BCHW, frame.is_person_B1HW, self._perceptual, self._weights
            )
        self.generator_optimiser.zero_grad(set_to_none=True)
        self._accelerator.backward(loss.total)
        self._step(self._generator, self.generator_optimiser)
        self._discriminator.requires_grad_(requires_grad=True).train()
        return loss

    def _networks(self, parts: Sequence[str]) -> list[nn.Module]:
        """Those that judge these parts, each once."""
        return list({id(network): network for network in map(self._discriminator.network_of, parts)}.values())

    def _step(self, network: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        if self._accelerator.num_processes > 1:
            _share_gradients(self._accelerator, network)
        if self._config.optimiser.clip_norm is not None:
            nn.utils.clip_grad_norm_(network.parameters(), self._config.optimiser.clip_norm)
        optimiser.step()


def _detach(judgements: list[Judgement]) -> list[Judgement]:
    return [Judgement(j.score_BCHW.detach(), [feature.detach() for feature in j.features]) for j in judgements]


def _in_float32(pairs: dict[str, Pair]) -> Judgements:
    """Losses are means over many numbers, which bf16 cannot add up."""

    def convert(judgements: list[Judgement]) -> list[Judgement]:
        return [Judgement(j.score_BCHW.float(), [feature.float() for feature in j.features]) for j in judgements]

    return Judgements(
        *(Pair(convert(pairs[part].real), convert(pairs[part].fake)) if part in pairs else None for part in PARTS)
    )


@torch.no_grad()
def _share_gradients(accelerator: Accelerator, network: nn.Module) -> None:
    """Make every process's gradients their mean, and its spectral norm's vectors the first one's.

    Not torch's DistributedDataParallel: a process whose samples show no hand has no gradients, and takes no power step,
    for the network that judges hands.
    """
    parameters = list(network.parameters())
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
    flat = accelerator.reduce(flat, "mean")
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter).clone()
    buffers = list(network.buffers())
    shared = broadcast(torch.cat([buffer.flatten() for buffer in buffers]), 0)
    for buffer, part in zip(buffers, shared.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(part.view_as(buffer))


def _share(accelerator: Accelerator, value: float) -> float:
    """The first process's value, in all."""
    if accelerator.num_processes == 1:
        return value
    own = value if accelerator.is_main_process else 0.0
    return float(accelerator.reduce(torch.tensor(own, device=accelerator.device), "sum"))


@torch.no_grad()
def _average(average: nn.Module, network: nn.Module, share: float) -> None:
    """Move the averaged weights by a share towards the network's; spectral norm's vectors are the network's."""
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), share)
    for mean, buffer in zip(average.buffers(), network.buffers(), strict=True):
        mean.copy_(buffer)


@torch.inference_mode()
def predict(generator: Generator, batch: SampleBatch) -> Tensor:
    """The fused pictures of each sample's frames, (B, S, 3, H, W), each with the one before as its previous picture."""
    previous_BCHW, found = batch.previous_BCHW, []
    for s in range(batch.labels_BSCHW.shape[1]):
        previous_BCHW = generator(batch.labels_BSCHW[:, s], batch.backgrounds_BSCHW[:, s], previous_BCHW)[0]
        found.append(previous_BCHW)
    return torch.stack(found, dim=1)
