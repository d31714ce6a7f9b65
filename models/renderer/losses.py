"""What the paper's rendering networks are trained on.

Axes: B batch, C channels, H, W. Pictures are RGB from -1 to 1; a person's mask is 1 or True on the person.
Source: Render In-between (BMVC 2021), section 3.2, with the authors' weights.
"""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from models.renderer.discriminator import Judgements, Pair
from models.renderer.generator import GeneratedPicture

PERSON_L1_WEIGHT = 9.0
RAW_L1_SHARE = 10.0  # what (9 m + mean) is divided by


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """What each term counts; 0 = it is not computed.

    fused, raw, face, hand: the adversarial terms, by the part that is judged. features: of feature matching, over all
    parts. l2: of squared differences, which are not the paper's: few examples teach more by where the background is far
    off than by its many pixels that are nearly right. mask: of mask_loss, the sum over the pictures of a batch.
    """

    fused: float
    raw: float
    face: float
    hand: float
    features: float
    perceptual: float
    l1: float
    l2: float
    mask: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0:
                raise ValueError(f"{name} {value}: must be 0 or more")

    def adversarial(self, part: str) -> float:
        return float(getattr(self, part))


PAPER_WEIGHTS = LossWeights(
    fused=0.0, raw=1.0, face=0.1, hand=0.1, features=1.0, perceptual=10.0, l1=30.0, l2=0.0, mask=5.0
)

# VGG-19's convolutions, by their places in torchvision's `features`, up to the last that is read; "pool" halves.
_VGG_LAYERS: tuple[tuple[int, int, int] | str, ...] = (
    (0, 3, 64), (2, 64, 64), "pool",
    (5, 64, 128), (7, 128, 128), "pool",
    (10, 128, 256), (12, 256, 256), (14, 256, 256), (16, 256, 256), "pool",
    (19, 256, 512), (21, 512, 512), (23, 512, 512), (25, 512, 512), "pool",
    (28, 512, 512),
)  # fmt: skip
_VGG_WEIGHTS = {0: 1 / 32, 5: 1 / 16, 10: 1 / 8, 19: 1 / 4, 28: 1.0}  # of relu 1_1, 2_1, 3_1, 4_1, 5_1
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class GeneratorLoss(NamedTuple):
    """Scalars, each with its weight in it but `total`, their sum. perceptual is 0 without VGG weights."""

    total: Tensor
    adversarial: Tensor
    features: Tensor
    perceptual: Tensor
    l1: Tensor
    l2: Tensor
    mask: Tensor


class PerceptualLoss(nn.Module):
    """L1 between VGG-19's features of two pictures. Its weights are fixed; load them with load_perceptual_loss."""

    mean_C11: Tensor
    std_C11: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleDict(
            {
                str(layer[0]): nn.Conv2d(layer[1], layer[2], 3, padding=1)
                for layer in _VGG_LAYERS
                if not isinstance(layer, str)
            }
        )
        self.register_buffer("mean_C11", torch.tensor(_IMAGENET_MEAN)[:, None, None])
        self.register_buffer("std_C11", torch.tensor(_IMAGENET_STD)[:, None, None])
        self.requires_grad_(False)

    def forward(self, picture_BCHW: Tensor, truth_BCHW: Tensor) -> Tensor:
        """A scalar. Args: (B, 3, H, W) RGB, -1..1, at least 16 x 16 px; no gradient reaches the truth."""
        total = picture_BCHW.new_zeros(())
        with torch.no_grad():
            features = self._features(truth_BCHW)
        for place, found_BCHW in self._features(picture_BCHW).items():
            total = total + _VGG_WEIGHTS[place] * functional.l1_loss(found_BCHW, features[place])
        return total

    def _features(self, x_BCHW: Tensor) -> dict[int, Tensor]:
        x_BCHW = ((x_BCHW + 1) / 2 - self.mean_C11) / self.std_C11
        found: dict[int, Tensor] = {}
        for layer in _VGG_LAYERS:
            if isinstance(layer, str):
                x_BCHW = functional.max_pool2d(x_BCHW, 2)
                continue
            x_BCHW = functional.relu(self.convolutions[str(layer[0])](x_BCHW))
            if layer[0] in _VGG_WEIGHTS:
                found[layer[0]] = x_BCHW
        return found


def load_perceptual_loss(file: Path | None) -> PerceptualLoss | None:
    """The perceptual loss with the user's VGG-19 weights; None without a file: the term is off.

    Args: file: .safetensors, or .pth of tensors alone, of a VGG-19 trained on ImageNet, with torchvision's names
        features.N.weight and features.N.bias; others in it are not read.
    Raises: ValueError naming the file that is missing or damaged, or the weight that it lacks or has in another shape.
    """
    if file is None:
        return None
    weights = _read_weights(file)
    loss = PerceptualLoss()
    own = {name: value for name, value in loss.state_dict().items() if name.startswith("convolutions.")}
    for name, value in own.items():
        theirs = name.replace("convolutions.", "features.")
        if theirs not in weights:
            raise ValueError(f"{file}: lacks {theirs}: not the weights of a VGG-19 with torchvision's names")
        if weights[theirs].shape != value.shape:
            raise ValueError(
                f"{file}: {theirs} has shape {tuple(weights[theirs].shape)}; a VGG-19 has {tuple(value.shape)}"
            )
        own[name] = weights[theirs]
    loss.load_state_dict(own, strict=False)
    return loss.eval()


def _read_weights(file: Path) -> Mapping[str, Tensor]:
    if not file.is_file():
        raise ValueError(f"{file}: there is no such file; VGG-19 weights with torchvision's names are needed")
    try:
        weights = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise ValueError(f"{file}: not a readable file of tensors alone") from error
    if not isinstance(weights, Mapping):
        raise ValueError(f"{file}: holds a {type(weights).__name__}; a mapping from names to tensors is needed")
    return {str(name): value for name, value in weights.items() if isinstance(value, Tensor)}


def discriminator_loss(judgements: Judgements, weights: LossWeights = PAPER_WEIGHTS) -> Tensor:
    """The judged parts' hinge losses, weighted. The generator's pictures should come detached."""
    pairs = _pairs(judgements)
    return _total([weights.adversarial(part) * hinge_discriminator(pair) for part, pair in pairs.items()])


def generator_loss(
    judgements: Judgements,
    made: GeneratedPicture,
    real_BCHW: Tensor,
    is_person_B1HW: Tensor,
    perceptual: PerceptualLoss | None,
    weights: LossWeights = PAPER_WEIGHTS,
) -> GeneratorLoss:
    """All that the generator is trained on.

    Args:
        judgements: of these pictures, by the discriminator; its weights should not be updated by this loss.
        made: what the generator made.
        real_BCHW: (B, 3, H, W) RGB, -1..1, the true picture.
        is_person_B1HW: (B, 1, H, W), 1 or True = the person.
        perceptual: see load_perceptual_loss; None = the term is off.
        weights: a term that counts nothing is not computed.

    Source: paper, section 3.2, with the authors' weights by default. Differs where no pixel is a person's: the share of
        the L1 over the person is 0, not a division by 0.
    """
    pairs, zero = _pairs(judgements), real_BCHW.new_zeros(())
    is_person_B1HW = is_person_B1HW.to(real_BCHW.dtype)
    counted = {part: weight for part in pairs if (weight := weights.adversarial(part))}
    adversarial = _total([weight * hinge_generator(pairs[part]) for part, weight in counted.items()], zero)
    features = perceived = l1 = l2 = mask = zero
    if weights.features:
        features = weights.features * _total([match_features(pair) for pair in pairs.values()], zero)
    if weights.perceptual and perceptual is not None:
        perceived = perceptual(made.fused_BCHW, real_BCHW)
        perceived = perceived + perceptual(made.raw_BCHW * is_person_B1HW, real_BCHW * is_person_B1HW)
        perceived = weights.perceptual * perceived
    if weights.l1:
        raw_l1 = PERSON_L1_WEIGHT * person_l1(made.raw_BCHW, real_BCHW, is_person_B1HW)
        raw_l1 = (raw_l1 + functional.l1_loss(made.raw_BCHW, real_BCHW)) / RAW_L1_SHARE
        l1 = weights.l1 * (functional.l1_loss(made.fused_BCHW, real_BCHW) + raw_l1)
    if weights.l2:
        person_BCHW = is_person_B1HW.expand_as(real_BCHW)
        raw_l2 = ((made.raw_BCHW - real_BCHW).square() * person_BCHW).sum() / person_BCHW.sum().clamp(min=1)
        l2 = weights.l2 * (functional.mse_loss(made.fused_BCHW, real_BCHW) + raw_l2)
    if weights.mask:
        mask = weights.mask * mask_loss(made.mask_B1HW)
    total = adversarial + features + perceived + l1 + l2 + mask
    return GeneratorLoss(total, adversarial, features, perceived, l1, l2, mask)


def hinge_discriminator(pair: Pair) -> Tensor:
    """mean max(0, 1 - real) + mean max(0, 1 + fake), averaged over scales."""
    losses = [
        functional.relu(1 - real.score_BCHW).mean() + functional.relu(1 + fake.score_BCHW).mean()
        for real, fake in zip(pair.real, pair.fake, strict=True)
    ]
    return torch.stack(losses).mean()


def hinge_generator(pair: Pair) -> Tensor:
    """-mean fake, averaged over scales."""
    return -torch.stack([fake.score_BCHW.mean() for fake in pair.fake]).mean()


def match_features(pair: Pair) -> Tensor:
    """Mean absolute differences, summed over layers, averaged over scales; no gradient reaches the real picture's."""
    losses = [
        functional.l1_loss(found_BCHW, truth_BCHW.detach())
        for real, fake in zip(pair.real, pair.fake, strict=True)
        for found_BCHW, truth_BCHW in zip(fake.features, real.features, strict=True)
    ]
    return torch.stack(losses).sum() / len(pair.real)


def person_l1(picture_BCHW: Tensor, truth_BCHW: Tensor, is_person_B1HW: Tensor) -> Tensor:
    """Mean absolute difference over the person's pixels and all channels; 0 where nobody is."""
    is_person_BCHW = is_person_B1HW.to(picture_BCHW.dtype).expand_as(picture_BCHW)
    return ((picture_BCHW - truth_BCHW).abs() * is_person_BCHW).sum() / is_person_BCHW.sum().clamp(min=1)


def mask_loss(mask_B1HW: Tensor) -> Tensor:
    """Keeps the mask small and smooth: 3 (sum |dx| + sum |dy| + sum) / (4 H W), summed over the batch."""
    height, width = mask_B1HW.shape[2:]
    total = mask_B1HW.diff(dim=3).abs().sum() + mask_B1HW.diff(dim=2).abs().sum() + mask_B1HW.sum()
    return 3 * total / (4 * height * width)


def _pairs(judgements: Judgements) -> dict[str, Pair]:
    """By part, without those that are not judged."""
    return {part: pair for part, pair in judgements._asdict().items() if pair is not None}


def _total(losses: Sequence[Tensor], nothing: Tensor | None = None) -> Tensor:
    return torch.stack(list(losses)).sum() if losses or nothing is None else nothing
