"""The fixtures of ../shared/reference, and the motion transformer written the slow, plain way."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.sandbox import SHARED

MOTION = SHARED / "reference" / "motion"
needs_reference = pytest.mark.skipif(not MOTION.is_dir(), reason="../shared/reference is not on this machine")


def load_json(name):
    return json.loads((MOTION / name).read_text())


def load_arrays(name):
    with np.load(MOTION / name) as file:
        return {key: file[key] for key in file.files}


def authors_state():
    return torch.load(MOTION / "motion_state_dict.pt", weights_only=True)


def plain_forward(state, num_heads, source_BCT, source_mask_BT, pad_mask_BT, rate):
    """All frames through torch's own attention, masks pick the keys; no key sees itself. Weights: authors' names."""
    num_frames, width = source_BCT.shape[2], state["input_embed.weight"].shape[0]
    position = plain_positions(num_frames, width).to(source_BCT.dtype)[:, None]
    not_itself = torch.eye(num_frames, dtype=torch.bool)

    def linear(x, name):
        return functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x, name):
        return functional.layer_norm(x, (width,), state[f"{name}.weight"], state[f"{name}.bias"])

    def attend(query, key, value, name, hidden, attention_mask=None):
        module = nn.MultiheadAttention(width, num_heads, dtype=source_BCT.dtype)
        weights = {k: state[f"{name}.{k}"] for k in module.state_dict()}
        return torch.func.functional_call(
            module, weights, (query, key, value), {"key_padding_mask": hidden, "attn_mask": attention_mask}
        )[0]

    def feed_forward(x, layer):
        return linear(functional.leaky_relu(linear(x, f"{layer}.linear1")), f"{layer}.linear2")

    def num_layers(stack):
        return 1 + max(int(name.split(".")[2]) for name in state if name.startswith(f"{stack}.layers."))

    x = linear(source_BCT.permute(2, 0, 1), "input_embed")
    for i in range(num_layers("encoder")):
        layer = f"encoder.layers.{i}"
        value = norm(x, f"{layer}.norm1")
        x = x + attend(value + position, value + position, value, f"{layer}.self_attn", source_mask_BT, not_itself)
        x = x + feed_forward(norm(x, f"{layer}.norm2"), layer)
    memory = norm(x, "encoder.norm")
    reco = linear(memory, "joints_embed") + source_BCT.permute(2, 0, 1)
    keys = reco[::rate].permute(1, 2, 0)
    filled = functional.interpolate(keys, size=num_frames, mode="linear", align_corners=True)
    x = linear(filled.permute(2, 0, 1), "input_embed")
    for i in range(num_layers("decoder")):
        layer = f"decoder.layers.{i}"
        value = norm(x, f"{layer}.norm1")
        x = x + attend(value + position, value + position, value, f"{layer}.self_attn", pad_mask_BT)
        query = norm(x, f"{layer}.norm2") + position
        x = x + attend(query, memory + position, memory, f"{layer}.multihead_attn", source_mask_BT)
        x = x + feed_forward(norm(x, f"{layer}.norm3"), layer)
    pred = linear(norm(x, "decoder.norm"), "joints_embed").permute(1, 2, 0) + filled
    return pred, reco.permute(1, 2, 0)


def plain_positions(num_frames, width):
    code = torch.zeros(num_frames, width, dtype=torch.float64)
    for t in range(num_frames):
        for i in range(width // 2):
            phase = 2 * np.pi * t / (num_frames - 1 + 1e-6) * 10000 ** (-2 * (i // 2) / (width // 2))
            code[t, 2 * i], code[t, 2 * i + 1] = np.sin(phase), np.cos(phase)
    return code
