"""The paper's motion transformer: an encoder cleans the key frames, a decoder fills the frames between them.

Axes: B batch, T frames, K key frames, C channels of the network's rows (38), D width, H heads, E width of a head.
Frames are n * rate + 1; the keys are frames 0, rate, 2 rate, ...  A mask's True means hidden.
Source: Render In-between (BMVC 2021), section 3.1. Differs from the 2021 code, which runs the encoder and the
cross-attention on all frames and masks all but the keys: only keys are ever attended to or read, so they alone are
computed here, with the same result.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.motion.rows import RowScale
from models.motion.views import NUM_ROWS, Normalisation

LEAKY_SLOPE = 0.01
EncoderMask = Literal["exclude", "plus-one"]
ENCODER_MASKS: tuple[EncoderMask, ...] = ("exclude", "plus-one")


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The network's size. The paper's: width 128, 8 heads, feed-forward 256, 6 + 6 layers, dropout 0.1."""

    width: int
    num_heads: int
    feedforward: int
    num_encoder_layers: int
    num_decoder_layers: int
    dropout: float
    # How a boolean identity matrix, given as the encoder's attention mask, is read. "exclude": no key sees itself
    # (torch >= 1.5). "plus-one": each key's own logit is one larger (torch 1.4, which the authors trained with).
    encoder_mask: EncoderMask

    def __post_init__(self) -> None:
        if self.width % (2 * self.num_heads):
            raise ValueError(f"width {self.width} is not a multiple of 2 x num_heads {self.num_heads}")
        if self.encoder_mask not in ENCODER_MASKS:
            raise ValueError(f"encoder_mask {self.encoder_mask!r}: must be one of {', '.join(ENCODER_MASKS)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout {self.dropout}: must lie in 0..1, 1 excluded")


class MotionPrediction(NamedTuple):
    """pred_BCT: all frames.  reco_BCT: the cleaned keys in the key columns, 0 elsewhere. Rows as the source's."""

    pred_BCT: Tensor
    reco_BCT: Tensor


@lru_cache(maxsize=16)
def frame_positions(num_frames: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The sinusoidal code of each frame's place in its clip: it depends on the clip's length.

    Returns: (num_frames, width); channels 2i and 2i + 1 are sin and cos of 2 pi t / (T - 1 + 1e-6) times
        10000^(-2 floor(i / 2) / (width / 2)), so every frequency comes twice.
    """
    with torch.inference_mode(mode=False):  # kept by the cache: training may meet it after inference
        half = width // 2
        angle_T = torch.arange(num_frames, dtype=torch.float64) * (2 * torch.pi / (num_frames - 1 + 1e-6))
        exponent_F = torch.div(torch.arange(half), 2, rounding_mode="floor").double() * (-2 / half)
        phase_TF = angle_T[:, None] * 10000.0**exponent_F
        code_TD = torch.stack([phase_TF.sin(), phase_TF.cos()], dim=2).flatten(1)
        return code_TD.to(device=device, dtype=dtype)


class Attention(nn.Module):
    """Multi-head attention whose queries and keys carry a position and whose values do not."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.dropout = config.dropout
        self.project_in = nn.Linear(config.width, 3 * config.width)
        self.project_out = nn.Linear(config.width, config.width)
        nn.init.zeros_(self.project_in.bias)
        nn.init.zeros_(self.project_out.bias)

    def forward(self, query_BTD: Tensor, key_BKD: Tensor, value_BKD: Tensor, bias: Tensor | None) -> Tensor:
        """bias: added to the logits, or bool with True = may be attended to; broadcast to (B, H, T, K)."""
        width = query_BTD.shape[-1]
        weight, offset = self.project_in.weight, self.project_in.bias
        if query_BTD is key_BKD:  # self-attention: one product for both
            query_BTD, key_BKD = functional.linear(query_BTD, weight[: 2 * width], offset[: 2 * width]).chunk(2, dim=-1)
        else:
            query_BTD = functional.linear(query_BTD, weight[:width], offset[:width])
            key_BKD = functional.linear(key_BKD, weight[width : 2 * width], offset[width : 2 * width])
        value_BKD = functional.linear(value_BKD, weight[2 * width :], offset[2 * width :])
        query_BHTE, key_BHKE, value_BHKE = self._split(query_BTD), self._split(key_BKD), self._split(value_BKD)
        if bias is not None and bias.dtype != torch.bool:
            bias = bias.to(query_BHTE.dtype)  # which autocast may have made half precision
        dropout = self.dropout if self.training else 0.0
        if dropout and query_BHTE.device.type == "cpu":
            mixed_BHTE = attend_with_dropout(query_BHTE, key_BHKE, value_BHKE, bias, dropout)
        else:
            mixed_BHTE = functional.scaled_dot_product_attention(
                query_BHTE, key_BHKE, value_BHKE, attn_mask=bias, dropout_p=dropout
            )
        mixed_BTD: Tensor = self.project_out(mixed_BHTE.transpose(1, 2).flatten(2))
        return mixed_BTD

    def _split(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.reshape(*x_BTD.shape[:2], self.num_heads, -1).transpose(1, 2)


def attend_with_dropout(
    query_BHTE: Tensor, key_BHKE: Tensor, value_BHKE: Tensor, bias: Tensor | None, dropout: float
) -> Tensor:
    """What scaled_dot_product_attention computes, for a CPU, where torch has no fused dropout.

    A training step of 8 x 321 frames takes 0.81 s with this and 1.07 s with torch's: 16 random bits a weight, drawn
    64 at a time, stand for one call of the generator each (so the share is true to 1 in 65,536).
    """
    logits_BHTK = (query_BHTE * query_BHTE.shape[-1] ** -0.5) @ key_BHKE.transpose(2, 3)
    if bias is not None and bias.dtype == torch.bool:
        # Not -inf, which makes NaN of a query that may attend to nothing.
        never = torch.finfo(logits_BHTK.dtype).min / 2
        bias = torch.zeros_like(bias, dtype=logits_BHTK.dtype).masked_fill(~bias, never)
    if bias is not None:
        logits_BHTK = logits_BHTK + bias
    weights_BHTK = logits_BHTK.softmax(dim=-1)
    bits = torch.empty(-(-weights_BHTK.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    is_kept = bits.view(torch.int16)[: weights_BHTK.numel()].view_as(weights_BHTK) >= round(dropout * 2**16) - 2**15
    mixed_BHTE: Tensor = (weights_BHTK * is_kept) @ (value_BHKE / (1 - dropout))
    return mixed_BHTE


class FeedForward(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.expand = nn.Linear(config.width, config.feedforward)
        self.contract = nn.Linear(config.feedforward, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        out_BTD: Tensor = self.contract(self.dropout(functional.leaky_relu(self.expand(x_BTD), LEAKY_SLOPE)))
        return out_BTD


class EncoderLayer(nn.Module):
    """Pre-norm: norm, sub-layer, add."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.feedforward = FeedForward(config)
        self.attention_norm = nn.LayerNorm(config.width)
        self.feedforward_norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BKD: Tensor, position_KD: Tensor, bias: Tensor) -> Tensor:
        value_BKD = self.attention_norm(x_BKD)
        placed_BKD = value_BKD + position_KD
        x_BKD = x_BKD + self.dropout(self.attention(placed_BKD, placed_BKD, value_BKD, bias))
        out_BKD: Tensor = x_BKD + self.dropout(self.feedforward(self.feedforward_norm(x_BKD)))
        return out_BKD


class DecoderLayer(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.cross_attention = Attention(config)
        self.feedforward = FeedForward(config)
        self.attention_norm = nn.LayerNorm(config.width)
        self.cross_norm = nn.LayerNorm(config.width)
        self.feedforward_norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x_BTD: Tensor,
        position_TD: Tensor,
        memory_BKD: Tensor,
        placed_memory_BKD: Tensor,
        is_usable_frame: Tensor | None,
        is_usable_key: Tensor,
    ) -> Tensor:
        value_BTD = self.attention_norm(x_BTD)
        placed_BTD = value_BTD + position_TD
        x_BTD = x_BTD + self.dropout(self.attention(placed_BTD, placed_BTD, value_BTD, is_usable_frame))
        query_BTD = self.cross_norm(x_BTD) + position_TD
        x_BTD = x_BTD + self.dropout(self.cross_attention(query_BTD, placed_memory_BKD, memory_BKD, is_usable_key))
        out_BTD: Tensor = x_BTD + self.dropout(self.feedforward(self.feedforward_norm(x_BTD)))
        return out_BTD


class MotionTransformer(nn.Module):
    """Key frames in, every frame out. Build from a TransformerConfig; weights start as the paper's do."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Linear(NUM_ROWS, config.width)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_encoder_layers))
        self.encoder_norm = nn.LayerNorm(config.width)
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_decoder_layers))
        self.decoder_norm = nn.LayerNorm(config.width)
        self.unembed = nn.Linear(config.width, NUM_ROWS)
        self.rows = RowScale()  # what its rows were measured by; forward does not read it
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self, source_BCT: Tensor, source_mask_BT: Tensor, pad_mask_BT: Tensor | None, rate: int
    ) -> MotionPrediction:
        """Fill the frames between keys.

        Args:
            source_BCT: (B, 38, T) float, network rows (models.motion.views); only key columns are read.
            source_mask_BT: (B, T) bool, True = hidden: not a key, or padding. Each clip's first frame is not hidden.
            pad_mask_BT: (B, T) bool, True = padding at the end of a short clip; None = no padding.
            rate: frames from a key to the next; T is a multiple of it plus 1.

        Returns: MotionPrediction. Padded columns of it mean nothing. In training mode, dropout applies.
        Raises: ValueError on shapes that do not fit one another.
        """
        check_layout(source_BCT, source_mask_BT, pad_mask_BT, rate)
        position_TD = frame_positions(source_BCT.shape[2], self.config.width, source_BCT.device, source_BCT.dtype)
        position_KD = position_TD[::rate]
        keys_BCK = source_BCT[:, :, ::rate]
        is_usable_key_BK = ~source_mask_BT[:, ::rate]
        memory_BKD = self._encode(keys_BCK, position_KD, is_usable_key_BK)
        reco_BCK = self.unembed(memory_BKD).transpose(1, 2) + keys_BCK
        filled_BCT = interpolate_keys(reco_BCK, rate)
        x_BTD = self.embed(filled_BCT.transpose(1, 2))
        placed_memory_BKD = memory_BKD + position_KD
        is_usable_key = is_usable_key_BK[:, None, None]
        is_usable_frame = None if pad_mask_BT is None else ~pad_mask_BT[:, None, None]
        for layer in self.decoder:
            x_BTD = layer(x_BTD, position_TD, memory_BKD, placed_memory_BKD, is_usable_frame, is_usable_key)
        pred_BCT = self.unembed(self.decoder_norm(x_BTD)).transpose(1, 2) + filled_BCT
        return MotionPrediction(pred_BCT, spread_keys(reco_BCK, rate))

    def _encode(self, keys_BCK: Tensor, position_KD: Tensor, is_usable_BK: Tensor) -> Tensor:
        x_BKD = self.embed(keys_BCK.transpose(1, 2))
        identity_KK = torch.eye(keys_BCK.shape[2], dtype=torch.bool, device=x_BKD.device)
        if self.config.encoder_mask == "exclude":
            bias = is_usable_BK[:, None, None] & ~identity_KK
        else:
            bias = identity_KK.to(x_BKD.dtype).masked_fill(~is_usable_BK[:, None, None], -torch.inf)
        for layer in self.encoder:
            x_BKD = layer(x_BKD, position_KD, bias)
        memory_BKD: Tensor = self.encoder_norm(x_BKD)
        return memory_BKD


def check_layout(source_BCT: Tensor, source_mask_BT: Tensor, pad_mask_BT: Tensor | None, rate: int) -> None:
    """Raises: ValueError unless the rows, the masks and the rate fit one another."""
    if source_BCT.dim() != 3 or source_BCT.shape[1] != NUM_ROWS:
        raise ValueError(f"source has shape {tuple(source_BCT.shape)}; (batch, {NUM_ROWS}, frames) is needed")
    expected = (source_BCT.shape[0], source_BCT.shape[2])
    for name, mask_BT in (("source_mask", source_mask_BT), ("pad_mask", pad_mask_BT)):
        if mask_BT is not None and (mask_BT.shape != expected or mask_BT.dtype != torch.bool):
            raise ValueError(f"{name} is {mask_BT.dtype} {tuple(mask_BT.shape)}; torch.bool {expected} is needed")
    if rate < 1 or (expected[1] - 1) % rate:
        raise ValueError(f"{expected[1]} frames are not a multiple of the rate {rate} plus 1")


def interpolate_keys(keys_BCK: Tensor, rate: int) -> Tensor:
    """(B, C, K) to (B, C, (K - 1) * rate + 1): straight lines between neighbouring keys, keys exact."""
    share_R = torch.arange(rate, device=keys_BCK.device, dtype=keys_BCK.dtype) / rate
    start_BCK1, step_BCK1 = keys_BCK[:, :, :-1, None], keys_BCK.diff(dim=2)[..., None]
    return torch.cat([(start_BCK1 + step_BCK1 * share_R).flatten(2), keys_BCK[:, :, -1:]], dim=2)


def spread_keys(keys_BCK: Tensor, rate: int) -> Tensor:
    """(B, C, K) to (B, C, (K - 1) * rate + 1): keys in their columns, 0 elsewhere."""
    return functional.pad(keys_BCK[..., None], (0, rate - 1)).flatten(2)[:, :, : (keys_BCK.shape[2] - 1) * rate + 1]


_OURS_ALONE = "rows."  # the authors keep the rows' mean and deviation in files of their own
# Our names of the parameters -> the authors'. Each is tried in turn on the start or the inside of a name.
_LAYER = r"^(encoder|decoder)\.(\d+)\."
_AUTHORS_NAMES: tuple[tuple[str, str], ...] = (
    (r"^embed\.", "input_embed."),
    (r"^unembed\.", "joints_embed."),
    (r"^(encoder|decoder)_norm\.", r"\1.norm."),
    (r"attention\.project_in\.", "attention.in_proj_"),
    (r"attention\.project_out\.", "attention.out_proj."),
    (r"feedforward\.expand\.", "linear1."),
    (r"feedforward\.contract\.", "linear2."),
    (r"\.attention_norm\.", ".norm1."),
    (r"\.cross_norm\.", ".norm2."),
    (r"^(encoder.*)\.feedforward_norm\.", r"\1.norm2."),
    (r"^(decoder.*)\.feedforward_norm\.", r"\1.norm3."),
    (r"\.cross_attention\.", ".multihead_attn."),
    (r"\.attention\.", ".self_attn."),
    (_LAYER, r"\1.layers.\2."),
)


def authors_name(name: str) -> str:
    """What the authors' checkpoints call a parameter of MotionTransformer."""
    for pattern, replacement in _AUTHORS_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def to_authors_state(network: MotionTransformer) -> dict[str, Tensor]:
    """The network's weights under the authors' names. The rows' mean and deviation are not among them."""
    return {
        authors_name(name): value.detach().clone()
        for name, value in network.state_dict().items()
        if not name.startswith(_OURS_ALONE)
    }


def from_authors_state(
    state: Mapping[str, object],
    *,
    num_heads: int,
    encoder_mask: EncoderMask,
    normalisation: Normalisation | None = None,
) -> MotionTransformer:
    """The network that a checkpoint of the authors holds; its size is found from the shapes.

    Args:
        state: name -> tensor, or a mapping that holds such a mapping; names may start with "module.".
        num_heads: the shapes do not tell it; the paper's networks have 8.
        encoder_mask: "plus-one" for weights that the authors published.
        normalisation: what the rows were measured by; None = rows are points (mean 0, deviation 1).

    Returns: the network, in eval mode.
    Raises: ValueError if names or shapes are not a motion network's, with the first that differ.
    """
    found = _find_weights(state)
    if found is None:
        raise ValueError("holds no input_embed.weight: not a motion network of the authors'")
    config = TransformerConfig(
        width=_rows_of(found, "input_embed.weight"),
        num_heads=num_heads,
        feedforward=_rows_of(found, "encoder.layers.0.linear1.weight"),
        num_encoder_layers=_count_layers(found, "encoder"),
        num_decoder_layers=_count_layers(found, "decoder"),
        dropout=0.1,  # not in a checkpoint; only training reads it
        encoder_mask=encoder_mask,
    )
    network = MotionTransformer(config)
    own = network.state_dict()
    names = {authors_name(name): name for name in own if not name.startswith(_OURS_ALONE)}
    if names.keys() != found.keys():
        raise ValueError(f"not a motion network of the authors': differs in {min(names.keys() ^ found.keys())}")
    for theirs, ours in names.items():
        if found[theirs].shape != own[ours].shape:
            raise ValueError(
                f"{theirs} has shape {tuple(found[theirs].shape)}; a network of width {config.width} has"
                f" {tuple(own[ours].shape)}"
            )
    network.load_state_dict(own | {ours: found[theirs] for theirs, ours in names.items()})
    if normalisation is not None:
        network.rows.set(normalisation)
    return network.eval()


def _find_weights(state: Mapping[str, object]) -> dict[str, Tensor] | None:
    """The innermost name -> tensor mapping of a motion network, without a leading "module."."""
    plain = {str(name).removeprefix("module."): value for name, value in state.items() if isinstance(value, Tensor)}
    if "input_embed.weight" in plain:
        return plain
    for value in state.values():
        if isinstance(value, Mapping):
            found = _find_weights(cast("Mapping[str, object]", value))
            if found is not None:
                return found
    return None


def _rows_of(state: Mapping[str, Tensor], name: str) -> int:
    if name not in state:
        raise ValueError(f"not a motion network of the authors': lacks {name}")
    if state[name].dim() != 2:
        raise ValueError(f"not a motion network of the authors': {name} has shape {tuple(state[name].shape)}")
    return state[name].shape[0]


def _count_layers(state: Mapping[str, Tensor], stack: str) -> int:
    return len({name.split(".")[2] for name in state if name.startswith(f"{stack}.layers.")})
