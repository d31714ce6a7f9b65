"""The 2021 authors' checkpoint files to checkpoint folders of ours, and the motion network's back.

Their file is what torch.save makes of a mapping from parameter names to tensors, plain or inside another mapping beside
other things (such as "network"). Mean and deviation of the rows are files of their own: (19, 2) .npy.
"""

import hashlib
import io
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models import checkpoint
from models.checkpoint import CheckpointError
from models.motion.transformer import (
    ENCODER_MASKS,
    MotionTransformer,
    from_authors_state,
    to_authors_state,
)
from models.motion.views import Normalisation
from models.renderer.authors import (
    DISCRIMINATOR_MARK,
    GENERATOR_MARK,
    discriminator_from_authors_state,
    find_weights,
    generator_from_authors_state,
)
from models.renderer.discriminator import Discriminator
from models.renderer.generator import Generator
from tasks.errors import SourceError

LICENCE = "unknown: the authors gave none"


def import_authors_checkpoint(
    file: Path, folder: Path, *, encoder_mask: str, num_heads: int, mean: Path | None, std: Path | None
) -> str:
    """Write the authors' motion network, generator or discriminator in `file` as a checkpoint folder.

    Which it is shows in the parameters' names. The options are the motion network's alone.

    Args:
        encoder_mask: "plus-one" or "exclude", see models.motion.transformer.TransformerConfig.
        num_heads: the file does not tell it.
        mean, std: what the network's rows were measured by; without them, rows are points.

    Returns: a line that says what was imported.
    Raises: SourceError naming the file that is missing, damaged or no network's, or a folder not to be replaced.
    """
    if encoder_mask not in ENCODER_MASKS:
        raise SourceError(f"--encoder-mask {encoder_mask}: must be one of {', '.join(ENCODER_MASKS)}")
    if (mean is None) != (std is None):
        raise SourceError(f"--{'mean' if std is None else 'std'}: give mean and std together, or neither")
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / checkpoint.CONFIG).is_file()):
        raise SourceError(f"{folder}: is there, and no checkpoint; name a new folder")
    normalisation = None if mean is None or std is None else _read_normalisation(mean, std)
    state = _read_state(file, _read_bytes(file))
    renderer = _read_renderer(file, state)
    if renderer is not None:
        if normalisation is not None:
            raise SourceError(f"{file}: holds a rendering network, which --mean and --std do not go with")
        _save(folder, renderer, _provenance({"checkpoint": file}, {}))
        return f"{folder}: {_describe_renderer(renderer)}"
    try:
        network = from_authors_state(state, num_heads=num_heads, encoder_mask=encoder_mask, normalisation=normalisation)
    except ValueError as error:
        raise SourceError(f"{file}: {error}") from error
    sources = {"checkpoint": file} | ({} if mean is None or std is None else {"mean": mean, "std": std})
    _save(folder, network, _provenance(sources, {"encoder_mask": encoder_mask, "num_heads": num_heads}))
    config = network.config
    measured = "" if normalisation else "; no --mean and --std: its rows are taken for points"
    return (
        f"{folder}: a transformer of width {config.width}, {config.num_encoder_layers} + {config.num_decoder_layers}"
        f" layers, {num_heads} heads, encoder mask {encoder_mask}{measured}"
    )


def _read_renderer(file: Path, state: Mapping[str, object]) -> Generator | Discriminator | None:
    """The rendering network of a file; None if it holds none."""
    try:
        if find_weights(state, GENERATOR_MARK) is not None:
            return generator_from_authors_state(state)
        if find_weights(state, DISCRIMINATOR_MARK) is not None:
            return discriminator_from_authors_state(state)
    except ValueError as error:
        raise SourceError(f"{file}: {error}") from error
    return None


def _describe_renderer(network: Generator | Discriminator) -> str:
    config = network.config
    if isinstance(network, Generator):
        return (
            f"a generator of widths {config.num_filters} to {config.max_filters}, {network.config.num_downsamples}"
            " halvings; parameters that nothing reads are left out"
        )
    return f"a discriminator of widths {config.num_filters} to {config.max_filters}, {network.config.num_scales} scales"


def _save(folder: Path, network: MotionTransformer | Generator | Discriminator, provenance: dict[str, Any]) -> None:
    try:
        checkpoint.save(folder, network, network.config, provenance)
    except OSError as error:
        raise SourceError(f"{folder}: cannot be written ({error.strerror or error})") from error


def _provenance(sources: Mapping[str, Path], options: Mapping[str, object]) -> dict[str, Any]:
    return {
        "imported_from": {name: _describe(path) for name, path in sources.items()},
        "licence": LICENCE,
        "options": dict(options),
    }


def export_authors_checkpoint(folder: Path, file: Path, *, mean: Path | None = None, std: Path | None = None) -> str:
    """Write the transformer of a checkpoint folder as a file of the authors' layout; the same network, the same bytes.

    Args: mean, std: .npy files to write with what its rows are measured by; None = not written.
    Returns: a line that says what was exported.
    Raises: SourceError if the folder holds no transformer.
    """
    try:
        network = checkpoint.load(folder)
    except CheckpointError as error:
        raise SourceError(str(error)) from error
    if not isinstance(network, MotionTransformer):
        name = checkpoint.network_name(network)
        raise SourceError(f"{folder}: holds {name}; the authors' layout has a place for the transformer alone")
    state, rows = to_authors_state(network), network.rows.get()
    buffer = io.BytesIO()  # a file's own name would be part of its bytes
    torch.save(state, buffer)
    _write_whole(file, buffer.getvalue())
    for path, values_E2 in ((mean, rows.mean_E2), (std, rows.std_E2)):
        if path is not None:
            buffer = io.BytesIO()
            np.save(buffer, values_E2)
            _write_whole(path, buffer.getvalue())
    return f"{file}: {len(state)} tensors with the authors' names"


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or error}") from error


def _read_state(file: Path, content: bytes) -> Mapping[str, object]:
    try:
        with warnings.catch_warnings(action="ignore"):  # of the pickle's version; what cannot be read, fails
            state: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, IndexError) as error:
        # Torch's own words are a page that ends in advice to read the file unsafely.
        raise SourceError(
            f"{file}: not a file of tensors alone that torch can read; it is damaged, or holds objects that could run"
            " code, which are never read"
        ) from error
    if not isinstance(state, Mapping):
        raise SourceError(f"{file}: holds a {type(state).__name__}: not a network of the authors'")
    return state


def _read_normalisation(mean: Path, std: Path) -> Normalisation:
    arrays = []
    for path in (mean, std):
        try:
            arrays.append(np.asarray(np.load(io.BytesIO(_read_bytes(path)), allow_pickle=False), np.float64))
        except (ValueError, EOFError, TypeError) as error:
            raise SourceError(f"{path}: not a .npy file of numbers") from error
        if not np.isfinite(arrays[-1]).all():
            raise SourceError(f"{path}: has a value that is not finite")
    try:
        return Normalisation(*arrays)
    except ValueError as error:
        raise SourceError(f"{mean}, {std}: {error}") from error


def _describe(path: Path) -> dict[str, str]:
    return {"file": path.name, "sha256": hashlib.sha256(_read_bytes(path)).hexdigest()}


def _write_whole(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise SourceError(f"{path}: cannot be written ({error.strerror or error})") from error
