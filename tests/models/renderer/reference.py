"""The rendering fixtures of ../shared/reference."""

import json

import numpy as np
import pytest
import torch

from tests.sandbox import SHARED

RENDER = SHARED / "reference" / "render"
needs_reference = pytest.mark.skipif(not RENDER.is_dir(), reason="../shared/reference is not on this machine")


def load_json(name):
    return json.loads((RENDER / name).read_text())


def load_arrays(name):
    with np.load(RENDER / name) as file:
        return {key: file[key] for key in file.files}


def load_tensors(name):
    """The arrays of a file as tensors; pictures, stored as bytes, as the networks take them: (1, 3, H, W), -1..1."""
    tensors = {}
    for key, values in load_arrays(name).items():
        tensor = torch.from_numpy(values)
        tensors[key.removesuffix("_u8")] = (tensor.float() / 255 * 2 - 1)[None] if key.endswith("_u8") else tensor
    return tensors


def authors_state(network):
    return torch.load(RENDER / f"{network}_state_dict.pt", weights_only=True)
