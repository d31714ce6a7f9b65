"""The paper's motion transformer the plain way, for benchmarks/transformer.py.

All frames pass through everything, masks pick the keys, torch's own attention modules as they come. Parameters have the
names of the authors' checkpoints.
Axes: T frames, B batch, D width, C rows (38). A mask's True means hidden.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def build(config: dict[str, Any]) -> nn.Module:
    return PlainTransformer(config)


def build_fused(config: dict[str, Any]) -> nn.Module:
    """The same without the attention weights that nobody reads, so that torch may fuse the attention."""
    return PlainTransformer(config, need_weights=False)


class Layer(nn.Module):
    """An encoder layer, or, with `is_decoder`, a decoder layer."""

    def __init__(self, config: dict[str, Any], is_decoder: bool, need_weights: bool) -> None:
        super().__init__()
        self.need_weights = need_weights
        width, dropout = config["width"], config["dropout"]
        self.self_attn = nn.MultiheadAttention(width, config["num_heads"], dropout)
        if is_decoder:
            self.multihead_attn = nn.MultiheadAttention(width, config["num_heads"], dropout)
            self.norm3 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, config["feedforward"])
        self.linear2 = nn.Linear(config["feedforward"], width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def attend(self, x: Tensor, position: Tensor, hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
        value = self.norm1(x)
        placed = value + position
        mixed, _ = self.self_attn(placed, placed, value, hidden, self.need_weights, attention_mask)
        return x + self.dropout(mixed)

    def attend_to(self, memory: Tensor, placed_memory: Tensor, x: Tensor, position: Tensor, hidden: Tensor) -> Tensor:
        query = self.norm2(x) + position
        mixed, _ = self.multihead_attn(query, placed_memory, memory, hidden, self.need_weights)
        return x + self.dropout(mixed)

    def feed_forward(self, x: Tensor, norm: nn.Module) -> Tensor:
        return x + self.dropout(self.linear2(self.dropout(functional.leaky_relu(self.linear1(norm(x))))))


class Stack(nn.Module):
    def __init__(self, config: dict[str, Any], num_layers: int, is_decoder: bool, need_weights: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config, is_decoder, need_weights) for _ in range(num_layers))
        self.norm = nn.LayerNorm(config["width"])


class PlainTransformer(nn.Module):
    def __init__(self, config: dict[str, Any], need_weights: bool = True) -> None:
        super().__init__()
        self.plus_one = config["encoder_mask"] == "plus-one"
        self.input_embed = nn.Linear(38, config["width"])
        self.encoder = Stack(config, config["num_encoder_layers"], False, need_weights)
        self.decoder = Stack(config, config["num_decoder_layers"], True, need_weights)
        self.joints_embed = nn.Linear(config["width"], 38)

    def forward(
        self, source: Tensor, target: Tensor, source_mask: Tensor, pad_mask: Tensor, rate: int
    ) -> tuple[Tensor, Tensor]:
        del target  # the two-stage network ignores it
        source_TBC = source.permute(2, 0, 1)
        num_frames = len(source_TBC)
        position = frame_positions(num_frames, self.input_embed.out_features).to(source)[:, None]
        identity, hidden = torch.eye(num_frames, dtype=torch.bool, device=source.device), source_mask
        if self.plus_one:  # added to the logits; then torch wants the other mask added, too
            identity = identity.to(source.dtype)
            hidden = torch.zeros_like(source[:, 0]).masked_fill(source_mask, -torch.inf)
        x = self.input_embed(source_TBC)
        for layer in self.encoder.layers:
            x = layer.attend(x, position, hidden, identity)
            x = layer.feed_forward(x, layer.norm2)
        memory = self.encoder.norm(x)
        reco = self.joints_embed(memory) + source_TBC
        keys = reco[::rate].permute(1, 2, 0)
        filled = functional.interpolate(keys, size=num_frames, mode="linear", align_corners=True).permute(2, 0, 1)
        x = self.input_embed(filled)
        for layer in self.decoder.layers:
            x = layer.attend(x, position, pad_mask, None)
            x = layer.attend_to(memory, memory + position, x, position, source_mask)
            x = layer.feed_forward(x, layer.norm3)
        pred = self.joints_embed(self.decoder.norm(x)) + filled
        return pred.permute(1, 2, 0), reco.permute(1, 2, 0)


def frame_positions(num_frames: int, width: int) -> Tensor:
    phase = torch.arange(num_frames, dtype=torch.float64) * (2 * math.pi / (num_frames - 1 + 1e-6))
    code = torch.empty(num_frames, width, dtype=torch.float64)
    for i in range(width // 2):
        angle = phase * 10000 ** (-2 * (i // 2) / (width // 2))
        code[:, 2 * i], code[:, 2 * i + 1] = angle.sin(), angle.cos()
    return code
