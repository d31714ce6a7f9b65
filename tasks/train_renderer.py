"""Training of a renderer's generator on its clips' key frames, into a checkpoint folder."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from models.checkpoint import CheckpointError, build_network, save
from models.measures import Image, person_mask
from models.renderer.discriminator import Discriminator
from models.renderer.generator import Generator
from models.renderer.held_out import HeldOut
from models.renderer.keys import WeightsError
from models.renderer.losses import PerceptualLoss, load_perceptual_loss
from models.renderer.samples import RendererSamples, SampleBatch, SampleSettings
from models.renderer.training import RendererTrainConfig, train
from models.skeleton import torso_length
from models.training import Log, TrainingError
from tasks.errors import ParamsError, SourceError, ToolError
from tasks.items import hash_file
from tasks.sample_tables import TrainingSet, read_training_set
from tasks.tables import decode_png, encode_png

NO_MODEL = "no-model"  # the name of a folder that stands for no weights
MAX_SHEET_ROWS = 8
_PERSON_MARGIN_TORSO_SHARE = 0.06  # as evaluate.matte_margin_torso_share


@dataclass(frozen=True)
class RendererTraining:
    """What is trained, on what.

    samples: the renderer's folder of data/samples.  num_frames of config is the samples' own.
    licences: of each video.  generator, discriminator: their configs' fields.
    vgg: the file with VGG-19's weights; one that is called no-model = the perceptual term is off.
    state: the file in which a run that is cut off is kept.
    has_lpips: its weights are installed; they shape what is logged, and no weight.
    """

    samples: Path
    licences: Mapping[str, str]
    settings: SampleSettings
    batch_size: int
    generator: Mapping[str, Any]
    discriminator: Mapping[str, Any]
    config: RendererTrainConfig
    vgg: Path
    state: Path
    threads: int
    has_lpips: bool

    def facts(self) -> dict[str, Any]:
        """The settings that shape the weights, as plain values."""
        return {
            "generator": dict(self.generator),
            "discriminator": dict(self.discriminator),
            "samples": asdict(self.settings) | {"batch_size": self.batch_size},
            "training": asdict(self.config),
            "threads": self.threads,
        }


class _Batches:
    """Samples as the training loop draws them."""

    def __init__(self, samples: RendererSamples, seed: int, batch_size: int) -> None:
        self._samples, self._seed, self._batch_size = samples, seed, batch_size

    def draw(self, step: int, num_frames: int, rank: int, num_ranks: int) -> SampleBatch:
        rows = range(rank, self._batch_size, num_ranks)
        batch = self._samples.draw(self._seed, step, self._batch_size, num_frames, rows)
        # They are drawn ahead, and lie in memory that the next draw writes over.
        return batch._replace(labels_BSCHW=batch.labels_BSCHW.clone())


def train_renderer(training: RendererTraining, out: Path | None, sheet: Path | None, log: Log) -> None:
    """Train, write the checkpoint folder with its provenance, and a contact sheet of what was held out.

    Args:
        out, sheet: the folder and the PNG to write; None in processes but the first of several.
        log: see models.renderer.training.train.

    Raises: TableError on samples that do not fit; ParamsError on settings that do not fit; SourceError on a VGG file
        that is none, a state of another training, or a loss that is not finite; ToolError on damaged LPIPS weights.
    """
    torch.set_num_threads(training.threads)
    found = read_training_set(training.samples)
    samples = RendererSamples(found.clips, training.settings, found.height, found.width)
    generator, discriminator = make_networks(training, found)
    perceptual = read_perceptual(training)
    held_out = hold_out(samples, found, training)
    source = _Batches(samples, training.config.seed, training.batch_size)
    try:
        result = train(
            generator, discriminator, perceptual, source, held_out.score, training.config, training.state, log
        )
    except torch.OutOfMemoryError as error:
        raise ParamsError(
            "train_renderer: the GPU's memory does not do; lower train_renderer.batch_size or max_frames"
        ) from error
    except TrainingError as error:
        raise SourceError(f"train_renderer: {error}") from error
    except ValueError as error:  # no clip is long enough
        raise ParamsError(f"train_renderer: {error}") from error
    if out is None or sheet is None:
        return
    pictures = held_out.pictures(result.generator)
    write_sheet(sheet, held_out.backgrounds, pictures, held_out.truths)
    provenance = training.facts() | {
        "size": {"height": found.height, "width": found.width},
        "vgg_sha256": hash_file(training.vgg) if perceptual else None,
        "clips": [
            facts | {"licence": training.licences[facts["video"]], "num_keys": len(clip.pictures)}
            for facts, clip in zip(found.facts, found.clips, strict=True)
        ],
        "licences": sorted({training.licences[facts["video"]] for facts in found.facts}),
        "steps": {"last": result.last_step, "best": result.best_step},
        "metrics": {f"loss_{name}": value for name, value in result.losses.items()}
        | {"held_out": held_out.compare(pictures), "held_out_background": held_out.compare(held_out.backgrounds)},
    }
    save(out, result.generator, result.generator.config, provenance)


def make_networks(training: RendererTraining, found: TrainingSet) -> tuple[Generator, Discriminator]:
    """New networks. Raises: ParamsError where a config fits no network, or the network not the pictures' size."""
    torch.manual_seed(training.config.seed)
    networks = []
    for name, config in (("generator", training.generator), ("discriminator", training.discriminator)):
        try:
            networks.append(build_network(name, config))
        except CheckpointError as error:
            raise ParamsError(f"train_renderer.{name}: {error}") from error
    generator, discriminator = networks
    assert isinstance(generator, Generator)
    assert isinstance(discriminator, Discriminator)
    multiple = generator.config.size_multiple
    if found.height % multiple or found.width % multiple:
        raise ParamsError(
            f"train_renderer.generator: takes multiples of {multiple} px; the samples are {found.height} x"
            f" {found.width}; take fewer halvings, or another size in renderers"
        )
    return generator, discriminator


def read_perceptual(training: RendererTraining) -> PerceptualLoss | None:
    if training.vgg.name == NO_MODEL:
        return None
    try:
        return load_perceptual_loss(training.vgg)
    except ValueError as error:
        raise SourceError(f"train_renderer.vgg: {error}; or name data/raw/embedded/{NO_MODEL}") from error


def hold_out(samples: RendererSamples, found: TrainingSet, training: RendererTraining) -> HeldOut:
    """What is held out, with the person's area as the evaluation of renders has it: the matte and the skeleton."""
    batches, people = [], []
    for place, batch in samples.held_out(training.config.num_frames):
        joints_px_KJD = found.clips[place.clip].joints_px_KJD
        torso_px = torso_length(joints_px_KJD)
        for key in range(place.first + 1, place.first + 1 + batch.labels_BSCHW.shape[1]):
            cell = found.mattes[place.clip][key]
            matte = decode_png(cell, grey=True) if cell else None
            size = (found.height, found.width)
            people.append(person_mask(matte, joints_px_KJD[key], *size, _PERSON_MARGIN_TORSO_SHARE, torso_px))
        batches.append(batch)
    try:
        return HeldOut(batches, people, has_lpips=training.has_lpips)
    except WeightsError as error:
        raise ToolError(str(error)) from error
    except ValueError as error:
        raise ParamsError(f"train_renderer: {training.samples}: {error}") from error


def write_sheet(path: Path, backgrounds: Sequence[Image], pictures: Sequence[Image], truths: Sequence[Image]) -> None:
    """A PNG with a row a frame: background, result, truth; of many frames some, evenly spread."""
    rows = np.linspace(0, len(truths) - 1, min(len(truths), MAX_SHEET_ROWS)).round().astype(int)
    sheet = cv2.vconcat([cv2.hconcat([backgrounds[row], pictures[row], truths[row]]) for row in rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(encode_png(np.asarray(sheet, np.uint8)))
    temporary.replace(path)
