"""Stage train_renderer: one renderer's generator on its training set, into data/models/renderer/R."""

import json
from functools import partial
from pathlib import Path

from flows.live import LiveLog, forget_run, log_nothing
from flows.mapping import run_ranks
from flows.params import TrainRendererParams
from flows.progress import say
from flows.project import ROOT, STATE
from flows.stage import Stage
from models.checkpoint import PROVENANCE
from models.renderer.losses import LossWeights
from models.renderer.samples import SampleSettings
from models.renderer.training import RendererTrainConfig
from models.training import OptimiserConfig
from tasks.catalog import read_catalog
from tasks.items import hash_file
from tasks.tables import list_tables
from tasks.train_renderer import NO_MODEL, RendererTraining, train_renderer

TOOLS = ("lpips", "numpy", "opencv", "pyarrow", "torch")


def run(stage: Stage) -> None:
    params, samples = stage.params.train_renderer, stage.params.samples
    wanted = stage.params.renderers[stage.item]
    folder, vgg = stage.data("samples", stage.item), Path(params.vgg)
    hashes = [hash_file(path) for path in list_tables(folder)] + ([hash_file(vgg)] if vgg.is_file() else [])
    key = stage.key(params, samples.model_dump(), hashes)
    state = STATE / "training" / f"{key}.safetensors"
    if stage.store.is_fresh:
        forget_run(state)
    training = RendererTraining(
        samples=folder,
        licences={name: video.licence for name, video in read_catalog(ROOT, wanted.batch).videos.items()},
        settings=SampleSettings(**samples.model_dump(exclude={"num_frames"}) | {"sigmas_px": tuple(samples.sigmas_px)}),
        batch_size=params.batch_size,
        generator=params.generator.model_dump(),
        discriminator=params.discriminator.model_dump(),
        config=_config(params, samples.num_frames),
        vgg=vgg,
        state=state,
        threads=params.threads,
        has_lpips="lpips" in stage.tools,
    )
    say(f"{stage.label}: {params.num_steps} steps of {params.batch_size} samples, {wanted.height} x {wanted.width} px")
    if params.weights.perceptual and vgg.name == NO_MODEL:
        say(f"{stage.label}: no VGG-19 weights (train_renderer.vgg): the perceptual term is off")
    if not training.has_lpips:
        say(f"{stage.label}: LPIPS's weights are not installed: its measure is left out")
    metrics = Path("metrics/train_renderer", stage.item)
    out = stage.data("models", "renderer", stage.item)
    with LiveLog(stage.label, metrics, state.with_suffix(".jsonl"), params.num_steps) as log:
        run_ranks(
            partial(train_renderer, training, out, metrics / "held_out.png", log),
            partial(train_renderer, training, None, None, log_nothing),
            params.processes,
        )
    forget_run(state)
    if not json.loads((out / PROVENANCE).read_text())["steps"]["best"]:
        say(f"{stage.label}: no step was better than the start on the keys held out: the start is kept")


def _config(params: TrainRendererParams, num_frames: int) -> RendererTrainConfig:
    return RendererTrainConfig(
        seed=params.seed,
        num_steps=params.num_steps,
        num_frames=num_frames,
        grow_every=params.grow_every,
        max_frames=max(num_frames, params.max_frames),
        passes=params.passes,
        weights=LossWeights(**params.weights.model_dump()),
        optimiser=OptimiserConfig(**params.optimiser.model_dump()),
        discriminator_rate=params.discriminator_rate,
        save_every=params.save_every,
        log_every=params.log_every,
        evaluate_every=params.evaluate_every,
        patience=params.patience,
    )
