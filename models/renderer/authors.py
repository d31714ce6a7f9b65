"""The names that the 2021 authors' rendering checkpoints have for our networks' parameters."""

import re
from collections.abc import Callable, Mapping
from typing import TypeVar, cast

from torch import Tensor, nn

from models.renderer.discriminator import Discriminator, DiscriminatorConfig
from models.renderer.generator import Generator, GeneratorConfig

Network = TypeVar("Network", bound=nn.Module)
Renames = tuple[tuple[str, str], ...]

GENERATOR_MARK = "down_first.layers.conv.weight"  # a name that only such a checkpoint has
DISCRIMINATOR_MARK = "net_D.discriminator_0.layer0.0.layers.conv.weight_orig"

_SPECTRAL: Renames = (
    (r"\.parametrizations\.weight\.original$", ".weight_orig"),
    (r"\.parametrizations\.weight\.0\._([uv])$", r".weight_\1"),
)
# Ours -> theirs; each is tried in turn.
_GENERATOR_NAMES: Renames = (
    *_SPECTRAL,
    (r"^conditions\.0\.", "ref_embedding.conv_first.layers.conv."),
    (r"^enter\.", "down_first.layers.conv."),
    (r"^leave\.", "conv_img.layers.conv."),
    (r"^middle\.(\d+)\.", r"res_\1."),
    (r"^(down|up)\.(\d+)\.", r"\1_\2."),
    (r"\.norm_([01s])\.tell\.", r".conv_block_\1.layers.norm.mlps.0.0.layers.conv."),
    (r"\.conv_([01s])\.", r".conv_block_\1.layers.conv."),
    (r"\.part_([01s])\.(conv|norm)\.", r".conv_block_\1.layers.\2."),
    (r"^mask\.leave\.", "flow_network_temp.conv_mask.0.layers.conv."),
    (r"^mask\.blocks\.", "flow_network_temp.res_flow."),
    (r"^mask\.label\.(\d+)\.", r"flow_network_temp.down_lbl.\1.layers."),
    (r"^mask\.pictures\.(\d+)\.", r"flow_network_temp.down_img.\1.layers."),
)
_DISCRIMINATOR_NAMES: Renames = (
    *_SPECTRAL,
    (r"^picture\.", "net_D."),
    (r"^(face|hand)\.", r"net_D_\1."),
    (r"\.scales\.(\d+)\.", r".discriminator_\1."),
    (r"\.layers\.(\d+)\.(conv|norm)\.", r".layer\1.0.layers.\2."),
)
_DEAD = re.compile(r"^(label_embedding|conv_mask)\.")  # in the authors' generator; nothing there reads them


def generator_name(name: str) -> str:
    """What the authors' checkpoints call a parameter or buffer of Generator."""
    name = re.sub(r"^conditions\.([1-9]\d*)\.", lambda m: f"ref_embedding.down_{int(m[1]) - 1}.layers.conv.", name)
    # Theirs counts the doublings between the convolutions.
    name = re.sub(r"^mask\.up\.(\d+)\.", lambda m: f"flow_network_temp.up_flow.{2 * int(m[1]) + 1}.layers.", name)
    return _rename(name, _GENERATOR_NAMES)


def discriminator_name(name: str, config: DiscriminatorConfig) -> str:
    """What the authors' checkpoints call a parameter or buffer of Discriminator."""
    last = config.num_layers if name.startswith("picture.") else config.num_crop_layers
    return _rename(name.replace(".leave.", f".layers.{last + 1}.conv."), _DISCRIMINATOR_NAMES)


def _rename(name: str, renames: Renames) -> str:
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def generator_from_authors_state(state: Mapping[str, object]) -> Generator:
    """The generator that a checkpoint of the authors holds; its size is found from the shapes.

    Args: state: name -> tensor, or a mapping that holds such a mapping; names may start with "module.".
    Returns: the network, in eval mode. Parameters that nothing in the authors' network reads are left out.
    Raises: ValueError if names or shapes are not a generator's, with the first that differ.
    """
    found = _find(state, GENERATOR_MARK, "a generator")
    found = {name: value for name, value in found.items() if not _DEAD.match(name)}
    width = _widths_of(found)
    downs, middles = _count(found, r"down_(\d+)\."), _count(found, r"res_(\d+)\.")
    mask_downs = _count(found, r"flow_network_temp\.down_lbl\.(\d+)\.") - 1
    config = GeneratorConfig(
        num_filters=width(GENERATOR_MARK),
        max_filters=width(f"down_{downs - 1}.conv_block_1.layers.conv.weight_orig"),
        num_condition_filters=width("ref_embedding.conv_first.layers.conv.weight_orig"),
        max_condition_filters=width(f"ref_embedding.down_{downs - 2}.layers.conv.weight_orig"),
        num_downsamples=downs - 1,
        num_middle_blocks=middles,
        num_mask_filters=width("flow_network_temp.down_lbl.0.layers.conv.weight_orig"),
        max_mask_filters=width(f"flow_network_temp.down_lbl.{mask_downs}.layers.conv.weight_orig"),
        num_mask_downsamples=mask_downs,
        num_mask_blocks=_count(found, r"flow_network_temp\.res_flow\.(\d+)\."),
        paints_change=False,
    )
    return _fill(Generator(config), found, generator_name)


def discriminator_from_authors_state(state: Mapping[str, object]) -> Discriminator:
    """The discriminator that a checkpoint of the authors holds: as generator_from_authors_state."""
    found = _find(state, DISCRIMINATOR_MARK, "a discriminator")
    width = _widths_of(found)
    layers, crop_layers = (
        _count(found, rf"{net}\.discriminator_0\.layer(\d+)\.") - 2 for net in ("net_D", "net_D_face")
    )

    def layer(net: str, number: int) -> str:
        return f"{net}.discriminator_0.layer{number}.0.layers.conv.weight_orig"

    config = DiscriminatorConfig(
        num_filters=width(layer("net_D", 0)),
        max_filters=width(layer("net_D", layers)),
        num_layers=layers,
        num_scales=_count(found, r"net_D\.discriminator_(\d+)\."),
        num_crop_filters=width(layer("net_D_face", 0)),
        max_crop_filters=width(layer("net_D_face", crop_layers)),
        num_crop_layers=crop_layers,
    )
    return _fill(Discriminator(config), found, lambda name: discriminator_name(name, config))


def find_weights(state: Mapping[str, object], mark: str) -> dict[str, Tensor] | None:
    """The innermost name -> tensor mapping that has `mark`, without a leading "module."; None if there is none."""
    plain = {str(name).removeprefix("module."): value for name, value in state.items() if isinstance(value, Tensor)}
    if mark in plain:
        return plain
    for value in state.values():
        if isinstance(value, Mapping):
            found = find_weights(cast("Mapping[str, object]", value), mark)
            if found is not None:
                return found
    return None


def _find(state: Mapping[str, object], mark: str, kind: str) -> dict[str, Tensor]:
    found = find_weights(state, mark)
    if found is None:
        raise ValueError(f"holds no {mark}: not {kind} of the authors'")
    return found


def _widths_of(found: Mapping[str, Tensor]) -> Callable[[str], int]:
    def width(name: str) -> int:
        if name not in found:
            raise ValueError(f"not a rendering network of the authors': lacks {name}")
        if found[name].dim() != 4:
            raise ValueError(f"not a rendering network of the authors': {name} has shape {tuple(found[name].shape)}")
        return found[name].shape[0]

    return width


def _count(found: Mapping[str, Tensor], pattern: str) -> int:
    return len({match[1] for name in found if (match := re.match(pattern, name))})


def _fill(network: Network, found: Mapping[str, Tensor], their_name: Callable[[str], str]) -> Network:
    own = network.state_dict()
    names = {their_name(name): name for name in own}
    if names.keys() != found.keys():
        raise ValueError(f"not a rendering network of the authors': differs in {min(names.keys() ^ found.keys())}")
    for theirs, ours in names.items():
        if found[theirs].shape != own[ours].shape:
            raise ValueError(
                f"{theirs} has shape {tuple(found[theirs].shape)}; its network has {tuple(own[ours].shape)}"
            )
    network.load_state_dict({ours: found[theirs] for theirs, ours in names.items()})
    return network.eval()
