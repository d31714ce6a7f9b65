"""The paper's discriminators: patch networks that judge the whole picture, the face and the hands.

Axes: B batch, N crops, C channels, H, W. Pictures are RGB from -1 to 1. A box is [top, bottom, left, right), px.
Source: Render In-between (BMVC 2021), section 3.2.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.renderer.blocks import ConvNormActivate, convolve_spectral
from models.renderer.generator import NUM_LABEL_CHANNELS, NUM_PICTURE_CHANNELS, level_widths
from models.skeleton import NUM_JOINTS, Joint

MIN_FACE_PX = 32
FACE_WIDTHS = 2.5  # a face box's side, in widths of the nose's spot
_MAPS = NUM_LABEL_CHANNELS - NUM_JOINTS  # the first pose map's channel
_HANDS = (Joint.LEFT_HAND, Joint.RIGHT_HAND)


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """The networks' sizes. The paper's: 32 to 512, 4 further layers, 2 scales; crops 32 to 512, 3 further layers."""

    num_filters: int
    max_filters: int
    num_layers: int  # after the first
    num_scales: int
    num_crop_filters: int
    max_crop_filters: int
    num_crop_layers: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} {value}: must be 1 or more")


PAPER_DISCRIMINATOR = DiscriminatorConfig(
    num_filters=32,
    max_filters=512,
    num_layers=4,
    num_scales=2,
    num_crop_filters=32,
    max_crop_filters=512,
    num_crop_layers=3,
)


class Judgement(NamedTuple):
    """One scale's. score_BCHW: (B, 1, h, w), high = taken for real. features: every output before it, in order."""

    score_BCHW: Tensor
    features: list[Tensor]


class Pair(NamedTuple):
    """The same part of the real and of the generated picture, each with a Judgement a scale."""

    real: list[Judgement]
    fake: list[Judgement]


class Judgements(NamedTuple):
    """fused: whole pictures. raw: before fusing, both cut out by the person's mask. None = not judged: no hand seen."""

    fused: Pair | None
    raw: Pair | None
    face: Pair | None
    hand: Pair | None


PARTS = Judgements._fields


class Box(NamedTuple):
    """Pixels top..bottom and left..right of a picture, the ends excluded."""

    top: int
    bottom: int
    left: int
    right: int


class PatchNetwork(nn.Module):
    """4x4 convolutions, all but the last of stride 2, and a score for each patch."""

    def __init__(self, num_in: int, num_filters: int, max_filters: int, num_layers: int) -> None:
        super().__init__()
        widths = level_widths(num_filters, max_filters, num_layers + 1)
        self.layers = nn.ModuleList(
            ConvNormActivate(before, width, kernel=4, stride=1 if layer == num_layers else 2, padding=1)
            for layer, (before, width) in enumerate(zip([num_in, *widths[:-1]], widths, strict=True))
        )
        self.leave = convolve_spectral(widths[-1], 1)

    def forward(self, x_BCHW: Tensor) -> Judgement:
        features = []
        for layer in self.layers:
            x_BCHW = layer(x_BCHW)
            features.append(x_BCHW)
        return Judgement(self.leave(x_BCHW), features)


class ScaledPatchNetwork(nn.Module):
    """A patch network a scale: each sees the picture at half the size of the one before."""

    def __init__(self, num_in: int, num_filters: int, max_filters: int, num_layers: int, num_scales: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            PatchNetwork(num_in, num_filters, max_filters, num_layers) for _ in range(num_scales)
        )

    def forward(self, x_BCHW: Tensor) -> list[Judgement]:
        judgements = []
        for i, network in enumerate(self.scales):
            if i > 0:
                x_BCHW = functional.interpolate(x_BCHW, scale_factor=0.5, mode="bilinear", align_corners=True)
            judgements.append(network(x_BCHW))
        return judgements

    def judge_pair(self, real_BCHW: Tensor, fake_BCHW: Tensor) -> Pair:
        """Both in one pass, which the instance norm does not mix; in training mode one power step for both."""
        both = self(torch.cat([real_BCHW, fake_BCHW]))
        count = len(real_BCHW)
        return Pair(
            [Judgement(j.score_BCHW[:count], [f[:count] for f in j.features]) for j in both],
            [Judgement(j.score_BCHW[count:], [f[count:] for f in j.features]) for j in both],
        )


class Discriminator(nn.Module):
    """Build from a DiscriminatorConfig."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        whole = NUM_LABEL_CHANNELS + NUM_PICTURE_CHANNELS
        self.picture = ScaledPatchNetwork(
            whole, config.num_filters, config.max_filters, config.num_layers, config.num_scales
        )
        crop = (NUM_PICTURE_CHANNELS, config.num_crop_filters, config.max_crop_filters, config.num_crop_layers, 1)
        self.face = ScaledPatchNetwork(*crop)
        self.hand = ScaledPatchNetwork(*crop)

    def forward(
        self, label_BCHW: Tensor, real_BCHW: Tensor, fused_BCHW: Tensor, raw_BCHW: Tensor, is_person_B1HW: Tensor
    ) -> Judgements:
        """Judge the real and the generated picture, whole and in parts.

        Args:
            label_BCHW: (B, 22, H, W), see models.renderer.draw_labels; the face and the hands are cut out by it.
            real_BCHW, fused_BCHW, raw_BCHW: (B, 3, H, W) RGB, -1..1: the true picture, the generator's, fused and not.
            is_person_B1HW: (B, 1, H, W), 1 or True = the person, see models.renderer.draw_human_masks.

        Returns: Judgements. The crops are of the real and the raw picture.
        Raises: ValueError on shapes that do not fit one another.
        Source: paper, section 3.2. Real and fake pass together, so that in training mode a network's spectral norm
            takes one power step for both; the authors' takes two.
        """
        batch, _, height, width = label_BCHW.shape
        for name, x_BCHW, channels in (
            ("label", label_BCHW, NUM_LABEL_CHANNELS),
            ("real", real_BCHW, NUM_PICTURE_CHANNELS),
            ("fused", fused_BCHW, NUM_PICTURE_CHANNELS),
            ("raw", raw_BCHW, NUM_PICTURE_CHANNELS),
            ("is_person", is_person_B1HW, 1),
        ):
            expected = (batch, channels, height, width)
            if x_BCHW.shape != expected:
                raise ValueError(f"{name} has shape {tuple(x_BCHW.shape)}; {expected} is needed")
        boxes = find_boxes(label_BCHW)
        real = cut_parts(PARTS, label_BCHW, real_BCHW, real_BCHW, is_person_B1HW, boxes)
        fake = cut_parts(PARTS, label_BCHW, fused_BCHW, raw_BCHW, is_person_B1HW, boxes)
        pairs = {part: self.network_of(part).judge_pair(real[part], fake[part]) for part in real}
        return Judgements(*map(pairs.get, PARTS))

    def network_of(self, part: str) -> ScaledPatchNetwork:
        """Which judges a part of PARTS."""
        return {"face": self.face, "hand": self.hand}.get(part, self.picture)


class Boxes(NamedTuple):
    """faces: one a picture. hands: (picture, box) for each hand that is seen, left before right within a picture."""

    faces: list[Box]
    hands: list[tuple[int, Box]]


def cut_parts(
    parts: Iterable[str],
    label_BCHW: Tensor,
    whole_BCHW: Tensor,
    raw_BCHW: Tensor,
    is_person_B1HW: Tensor,
    boxes: Boxes,
) -> dict[str, Tensor]:
    """What the networks of these parts are given of a picture, without hands if none is seen.

    Args: whole_BCHW, raw_BCHW: (B, 3, H, W), -1..1, a generated picture fused and not; twice the same for a true one.
    """
    found: dict[str, Tensor] = {}
    for part in parts:
        if part == "fused":
            found[part] = torch.cat([label_BCHW, whole_BCHW], dim=1)
        elif part == "raw":
            found[part] = torch.cat([label_BCHW, raw_BCHW * is_person_B1HW.to(raw_BCHW.dtype)], dim=1)
        elif part == "face":
            found[part] = cut_faces(raw_BCHW, boxes.faces, _face_size(label_BCHW.shape[2]))
        elif boxes.hands:
            found[part] = cut_hands(raw_BCHW, boxes.hands)
    return found


def find_boxes(label_BCHW: Tensor) -> Boxes:
    """Where the faces and the hands of a batch are, from the extents of the spots in their pose maps.

    Args: label_BCHW: (B, 22, H, W), see models.renderer.draw_labels.
    Returns: Boxes, all inside the picture. A face's side is 2.5 spots, from 32 px to the picture's size; without a nose
        it is around the middle of the upper half. A hand's is H // 64 x 8.
    Source: "Discriminator" of the authors' rendering network. Differs where a face would be higher than the picture.
    """
    height, width = label_BCHW.shape[2:]
    channels = [_MAPS + joint for joint in (Joint.NOSE, *_HANDS)]
    is_spot_BCHW = label_BCHW[:, channels] != 0
    # One transfer for the batch, not one a box.
    lines_BCL = torch.cat([is_spot_BCHW.any(dim=3), is_spot_BCHW.any(dim=2)], dim=2).cpu()
    faces: list[Box] = []
    hands: list[tuple[int, Box]] = []
    for picture, (nose_L, *hands_L) in enumerate(lines_BCL):
        faces.append(_face_box(_extent(nose_L[:height]), _extent(nose_L[height:]), height, width))
        for hand_L in hands_L:
            rows, columns = _extent(hand_L[:height]), _extent(hand_L[height:])
            if rows is not None and columns is not None:
                size = height // 64 * 8
                hands.append((picture, _square(sum(rows) // 2, sum(columns) // 2, size, height, width)))
    return Boxes(faces, hands)


def _extent(is_spot_L: Tensor) -> tuple[int, int] | None:
    """First and last place that is True."""
    places = is_spot_L.nonzero()[:, 0].tolist()
    return (places[0], places[-1]) if places else None


def _face_size(height: int) -> int:
    return height // 32 * 8


def _face_box(rows: tuple[int, int] | None, columns: tuple[int, int] | None, height: int, width: int) -> Box:
    if rows is None or columns is None:
        return _square(height // 4, width // 2, _face_size(height), height, width)
    side = int((columns[1] - columns[0]) * FACE_WIDTHS)
    side = min(max(side, MIN_FACE_PX), width)
    return _square((3 * rows[0] + 2 * rows[1]) // 5, sum(columns) // 2, side, height, width)


def _square(y: int, x: int, side: int, height: int, width: int) -> Box:
    """Around (y, x), moved inside the picture."""
    half = max(min(side, height, width) // 2, 1)
    y, x = min(max(y, half), max(height - half, half)), min(max(x, half), max(width - half, half))
    return Box(y - half, y + half, x - half, x + half)


def cut_faces(x_BCHW: Tensor, boxes: list[Box], size: int) -> Tensor:
    """(B, C, size, size): each picture's face, resized bilinearly with corners aligned."""
    return torch.cat(
        [
            functional.interpolate(
                x_BCHW[i : i + 1, :, box.top : box.bottom, box.left : box.right],
                size=(size, size),
                mode="bilinear",
                align_corners=True,
            )
            for i, box in enumerate(boxes)
        ]
    )


def cut_hands(x_BCHW: Tensor, hands: list[tuple[int, Box]]) -> Tensor:
    """(N, C, size, size): all hands of a batch, of which there is at least one, not resized."""
    return torch.stack([x_BCHW[i, :, box.top : box.bottom, box.left : box.right] for i, box in hands])
