"""Training of the motion network on the 2D shards of the training subsets, into a checkpoint folder."""

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from models.checkpoint import PROVENANCE, WEIGHTS, CheckpointError, build_network, load, network_name, save
from models.motion.paper_samples import PaperSampleConfig
from models.motion.recipes import PaperRecipe, Recipe, TangentRecipe
from models.motion.samples import Float32Array, SampleConfig
from models.motion.tangents import TangentNetwork
from models.motion.training import TrainConfig, train
from models.motion.transformer import MotionTransformer
from models.training import Log, TrainingError
from tasks.errors import ParamsError, SourceError, TableError
from tasks.items import hash_file
from tasks.view_shards import SequenceFacts, ViewShards, check_leaks, read_normalisation

Samples = SampleConfig | PaperSampleConfig

NO_MODEL = "no-model"  # the name of a folder that stands for no checkpoint


@dataclass(frozen=True)
class MotionTraining:
    """What is trained, on what, from where.

    train, test: data/views/SUBSET folders; the test ones are only held against the training ones.
    network, network_config: a name of models.checkpoint.NETWORKS, and its config's fields.
    start: a checkpoint folder to go on from; one that is called no-model = from nothing.
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
        start that is no checkpoint of this network, or a loss that is not finite.
    """
    torch.set_num_threads(training.threads)
    network, start = make_network(training), read_start(training.start)
    with closing(ViewShards(training.train)) as shards:
        index = shards.index()
        check_held_out(training, index, start)
        try:
            recipe = make_recipe(training, network)
            result = train(network, recipe, _Points(shards), training.config, training.state, log)
        except torch.OutOfMemoryError as error:
            name = "samples.num_key_tokens" if training.network == "tangents" else "paper_samples.batch_size"
            raise ParamsError(f"train_motion: the GPU's memory does not do; lower train_motion.{name}") from error
        except TrainingError as error:
            raise SourceError(f"train_motion: {error}") from error
        except ValueError as error:  # no sequence is long enough, more processes than clips
            raise ParamsError(f"train_motion: {error}") from error
    if out is None:
        return
    provenance = training.facts() | {
        "start": start and start.facts(),
        "sequences": [fact._asdict() for fact in index],
        "licences": sorted({fact.licence for fact in index} | set(start.licences if start else [])),
        "metrics": {f"loss_{name}": value for name, value in result.losses.items()},
    }
    save(out, result.network, result.network.config, provenance)  # type: ignore[arg-type]


def check_held_out(training: MotionTraining, index: Sequence[SequenceFacts], start: "Start | None") -> None:
    """Raises: TableError where what is to be tested is trained on, now or when the start was trained."""
    with closing(ViewShards(training.test)) as shards:
        held_out = shards.index()
    check_leaks(index, held_out)
    try:
        check_leaks(start.sequences if start else [], held_out)
    except TableError as error:
        what, _, _ = str(error).partition("; ")
        raise TableError(
            f"train_motion.start: {training.start} was trained on what is held out: {what}; name another checkpoint,"
            f" or data/raw/embedded/{NO_MODEL}"
        ) from error


def make_network(training: MotionTraining) -> nn.Module:
    """The network to train: from the start checkpoint, or new, with rows measured on the training subsets.

    Raises: SourceError where the start is no checkpoint, or holds another network or size; ParamsError where the
        config fits no network; TableError where the subsets' normalisation is damaged.
    """
    if training.start.name != NO_MODEL:
        try:
            network = load(training.start)
        except CheckpointError as error:
            raise SourceError(
                f"train_motion.start: {error}; or name data/raw/embedded/{NO_MODEL} to train from nothing"
            ) from error
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
    return PaperRecipe(training.samples, network.rows.get())


class Start(NamedTuple):
    """The checkpoint that a training goes on from.

    sha256: of its weights.  sequences: what it was trained on, and what its own start was, as its provenance tells.
    licences: of all that.
    """

    folder: Path
    sha256: str
    sequences: list[SequenceFacts]
    licences: list[str]

    def facts(self) -> dict[str, Any]:
        return {
            "folder": self.folder.as_posix(),
            "sha256": self.sha256,
            "sequences": [fact._asdict() for fact in self.sequences],
        }


def read_start(folder: Path) -> Start | None:
    """None = from nothing. Raises: SourceError where its provenance is missing or damaged."""
    if folder.name == NO_MODEL:
        return None
    path = folder / PROVENANCE
    try:
        provenance = json.loads(path.read_text())
        rows = [*provenance.get("sequences", []), *(provenance.get("start") or {}).get("sequences", [])]
        sequences = sorted({SequenceFacts(**row) for row in rows})
        imported = [provenance["licence"]] if "licence" in provenance else []
        licences = [*provenance.get("licences", []), *imported]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SourceError(
            f"train_motion.start: {path}: not a checkpoint's provenance ({error!r}); restore the folder"
        ) from error
    return Start(folder, hash_file(folder / WEIGHTS), sequences, licences)
