"""Checkpoint folders: a network's weights, what rebuilds it, and where it comes from.

    model.safetensors   the weights, and nothing that could run
    config.json         the network's name and its config; rebuilds it
    provenance.json     what it was trained on and how; written for people and for the lineage, never read back here

The same network, config and provenance give the same bytes. A folder is written under a temporary name and then takes
the old one's place, so that a process killed at any moment leaves the old checkpoint or the new one.
"""

import dataclasses
import importlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
PROVENANCE = "provenance.json"


class CheckpointError(ValueError):
    """A folder that is not a checkpoint of ours, or of another network or size; says which file and why."""


class NetworkKind(NamedTuple):
    """Where a network and its config are defined: imported only when one is loaded or saved."""

    module: str
    network: str
    config: str


# Name in config.json -> classes. A network is built as network(config) and keeps it as `.config`.
NETWORKS: dict[str, NetworkKind] = {
    "transformer": NetworkKind("models.motion.transformer", "MotionTransformer", "TransformerConfig"),
    "tangents": NetworkKind("models.motion.tangents", "TangentNetwork", "TangentConfig"),
    "generator": NetworkKind("models.renderer.generator", "Generator", "GeneratorConfig"),
    "discriminator": NetworkKind("models.renderer.discriminator", "Discriminator", "DiscriminatorConfig"),
}


def build_network(name: str, config: Mapping[str, Any]) -> nn.Module:
    """A new network by its name and the fields of its config.

    Raises: CheckpointError on an unknown name, an unknown or missing field, or a value the config refuses.
    """
    if name not in NETWORKS:
        raise CheckpointError(f"no network {name!r}; there are {', '.join(sorted(NETWORKS))}")
    kind = NETWORKS[name]
    module = importlib.import_module(kind.module)
    config_class = getattr(module, kind.config)
    known = {field.name for field in dataclasses.fields(config_class)}
    if config.keys() != known:
        raise CheckpointError(
            f"the config of {name} needs {', '.join(sorted(known))};"
            f" differs in {', '.join(sorted(config.keys() ^ known))}"
        )
    try:
        network: nn.Module = getattr(module, kind.network)(config_class(**config))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the config of {name}: {error}") from error
    return network


def network_name(network: nn.Module) -> str:
    """The name that a network is registered under. Raises: CheckpointError if it is not."""
    place = (type(network).__module__, type(network).__qualname__)
    for name, kind in NETWORKS.items():
        if place == (kind.module, kind.network):
            return name
    raise CheckpointError(f"{'.'.join(place)} is not in models.checkpoint.NETWORKS")


def save(folder: Path, network: nn.Module, config: "DataclassInstance", provenance: Mapping[str, Any]) -> None:
    """Write a checkpoint folder; one that is there is replaced whole.

    Args:
        folder: to write; its parents are made.
        network: of a registered class; its weights are written as they are, on whatever device.
        config: the dataclass that the network was built from.
        provenance: plain values for JSON; sequences or clips with hash and licence, params, seed, steps, metrics.

    Raises: CheckpointError if the network is not registered.
    """
    name = network_name(network)
    temporary, previous = _neighbours(folder)
    if not folder.exists() and previous.exists():
        previous.rename(folder)  # a save was killed between its two renames
    for leftover in (temporary, previous):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir(parents=True)
    weights = {key: value.detach().cpu().contiguous().clone() for key, value in network.state_dict().items()}
    save_file(weights, str(temporary / WEIGHTS))
    _write_json(temporary / CONFIG, {"network": name, "config": dataclasses.asdict(config)})
    _write_json(temporary / PROVENANCE, provenance)
    for path in temporary.iterdir():
        path.chmod((temporary / CONFIG).stat().st_mode)  # safetensors keeps its file from others
        _flush_to_disk(path)
    if folder.exists():
        folder.rename(previous)
    temporary.rename(folder)
    shutil.rmtree(previous, ignore_errors=True)


def load(folder: Path) -> nn.Module:
    """The network of a checkpoint folder, in eval mode, on the CPU.

    Raises: CheckpointError if a file is missing or damaged, the network is unknown, or weights and config differ.
    """
    previous = _neighbours(folder)[1]
    if not folder.is_dir() and previous.is_dir():
        folder = previous  # a save was killed between its two renames
    name, config = _read_config(folder / CONFIG)
    try:
        network = build_network(name, config)
    except CheckpointError as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}") from error
    _fill(network, _read_weights(folder / WEIGHTS), folder / WEIGHTS)
    return network.eval()


def _neighbours(folder: Path) -> tuple[Path, Path]:
    """Beside the folder: its temporary name, and what the old one is called while it is replaced."""
    folder = folder.absolute()
    return folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.previous")


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1, sort_keys=True, allow_nan=False) + "\n")


def _flush_to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _read_config(path: Path) -> tuple[str, dict[str, Any]]:
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file; a checkpoint folder has {CONFIG} and {WEIGHTS}")
    try:
        values = json.loads(path.read_text())
        return str(values["network"]), dict(values["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a checkpoint's config ({error!r}); restore the folder") from error


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file; a checkpoint folder has {CONFIG} and {WEIGHTS}")
    try:
        return load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error}); restore the folder") from error


def _fill(network: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    own = network.state_dict()
    if own.keys() != weights.keys():
        odd = min(own.keys() ^ weights.keys())
        raise CheckpointError(
            f"{path}: {'has' if odd in weights else 'lacks'} {odd}; {CONFIG} describes another network"
        )
    for name, value in own.items():
        if value.shape != weights[name].shape:
            raise CheckpointError(
                f"{path}: {name} has shape {tuple(weights[name].shape)}; {CONFIG} asks for {tuple(value.shape)}"
            )
    network.load_state_dict(dict(weights))
