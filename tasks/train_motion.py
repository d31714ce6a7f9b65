"""Training of the motion network on the 2D shards of the training subsets, into a checkpoint folder."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.checkpoint import WEIGHTS, CheckpointError, build_network, load, network_name, save
from models.motion.paper_samples import PaperSampleConfig
from models.motion.recipes import PaperRecipe, Recipe, TangentRecipe
from models.motion.samples import Float32Array, SampleConfig
from models.motion.tangents import TangentNetwork
from models.motion.training import Log, TrainConfig, TrainingError, train
from models.motion.transformer import MotionTransformer
from tasks.errors import ParamsError, SourceError
from tasks.items import hash_file
from tasks.view_shards import ViewShards, check_leaks, read_normalisation

Samples = SampleConfig | PaperSampleConfig


@dataclass(frozen=True)
class MotionTraining:
    """What is trained, on what, from where.

    train, test: data/views/SUBSET folders; the test ones are only held against the training ones.
    network, network_config: a name of models.checkpoint.NETWORKS, and its config's fields.
    start: a checkpoint folder to go on from; one without weights in it = from nothing.
    state: the file in which a run that is cut off is kept.
    """

    train: Sequence[Path]
    test: Sequence[Path]
    network: str
    network_config: Mapping[str, Any]
    samples: Samples
    config: TrainConfig
    start: Path
    state: Path
    threads: int

    def facts(self) -> dict[str, Any]:
        """The settings that shape the weights, as plain values."""
        return {
            "network": self.network,
            "network_config": dict(self.network_config),
            "samples": asdict(self.samples),
            "training": asdict(self.config),
            "threads": self.threads,
        }


class _Points:
    """Shards as the training loop reads them."""

    def __init__(self, shards: ViewShards) -> None:
        self._shards = shards
        self.group_bytes = [size.num_bytes for size in shards.sizes]

    def read_group(self, index: int) -> list[Float32Array]:
        return [sequence.points_TJ2 for sequence in self._shards.read_group(index)]


def train_motion(training: MotionTraining, out: Path | None, log: Log) -> None:
    """Train, and write the checkpoint folder with its provenance.

    Args:
        out: the folder to write; None in processes but the first of several.
        log: see models.motion.training.train.

    Raises: TableError on shards that do not fit or a leak; ParamsError on settings that do not fit; SourceError on a
        start that is no checkpoint of this network; TrainingError where the loss is not finite.
    """
    torch.set_num_threads(training.threads)
    shards, held_out = ViewShards(training.train), ViewShards(training.test)
    index = shards.index()
    check_leaks(index, held_out.index())
    network = make_network(training)
    recipe = make_recipe(training, network)
    try:
        result = train(network, recipe, _Points(shards), training.config, training.state, log)
    except TrainingError as error:
        raise SourceError(f"train_motion: {error}") from error
    except ValueError as error:  # no sequence is long enough, more processes than clips
        raise ParamsError(f"train_motion: {error}") from error
    if out is None:
        return
    provenance = training.facts() | {
        "start": describe_start(training.start),
        "sequences": [fact._asdict() for fact in index],
        "licences": sorted({fact.licence for fact in index}),
    }
    save(out, result.network, result.network.config, provenance)  # type: ignore[arg-type]


def make_network(training: MotionTraining) -> nn.Module:
    """The network to train: from the start checkpoint, or new, with rows measured on the training subsets.

    Raises: SourceError where the start holds another network or size.
    """
    if (training.start / WEIGHTS).is_file():
        try:
            network = load(training.start)
        except CheckpointError as error:
            raise SourceError(f"train_motion.start: {error}") from error
        found = (network_name(network), asdict(network.config))  # type: ignore[call-overload]
        wanted = (training.network, dict(training.network_config))
        if found != wanted:
            raise SourceError(
                f"train_motion.start: {training.start} holds {found[0]} {found[1]}, where {wanted[0]}"
                f" {wanted[1]} is to be trained; name a checkpoint of that size, or data/raw/embedded/no-model"
            )
        return network
    torch.manual_seed(training.config.seed)
    try:
        network = build_network(training.network, training.network_config)
    except CheckpointError as error:
        raise ParamsError(f"train_motion: {error}") from error
    assert isinstance(network, TangentNetwork | MotionTransformer)
    network.rows.set(read_normalisation(training.train))
    return network


def make_recipe(training: MotionTraining, network: nn.Module) -> Recipe:
    if isinstance(network, TangentNetwork):
        assert isinstance(training.samples, SampleConfig)
        return TangentRecipe(training.samples)
    assert isinstance(network, MotionTransformer)
    assert isinstance(training.samples, PaperSampleConfig)
    return PaperRecipe(training.samples, network)


def describe_start(folder: Path) -> dict[str, str] | None:
    """Where the weights came from before training; None = from nothing."""
    path = folder / WEIGHTS
    return {"folder": folder.as_posix(), "sha256": hash_file(path)} if path.is_file() else None
