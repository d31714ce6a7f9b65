"""The paper's generator: paints the body from its label, seen beside a background and the picture before.

Axes: B batch, C channels, H, W. Pictures are RGB from -1 to 1.
Source: Render In-between (BMVC 2021), section 3.2. Differs from the authors' network in having no parameters that
nothing reads (their label embedding and second mask convolution, 11 % of theirs).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.renderer.blocks import ConvNormActivate, activate, convolve, convolve_spectral, double, resize_nearest
from models.skeleton import NUM_JOINTS

NUM_LABEL_CHANNELS = 3 + NUM_JOINTS
NUM_PICTURE_CHANNELS = 3


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """The network's size. A width doubles from level to level, from `..._filters` up to `max_..._filters`.

    The paper's: 16 to 512, conditions 64 to 512, 4 halvings, 2 middle blocks; mask 32 to 256, 3 halvings, 4 blocks.
    paints_change: what is painted is the background with a change, which is nothing at first, so that training begins
    with a picture as good as the background. The paper's False: a picture from nothing, which takes a network of few
    examples longer to paint as well as that than there is to learn from them.
    """

    num_filters: int
    max_filters: int
    num_condition_filters: int
    max_condition_filters: int
    num_downsamples: int
    num_middle_blocks: int
    num_mask_filters: int
    max_mask_filters: int
    num_mask_downsamples: int
    num_mask_blocks: int
    paints_change: bool

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.startswith(("num", "max")) and value < 1:
                raise ValueError(f"{name} {value}: must be 1 or more")

    @property
    def size_multiple(self) -> int:
        """Height and width of pictures are multiples of this, px."""
        return 1 << max(self.num_downsamples, self.num_mask_downsamples)


PAPER_GENERATOR = GeneratorConfig(
    num_filters=16,
    max_filters=512,
    num_condition_filters=64,
    max_condition_filters=512,
    num_downsamples=4,
    num_middle_blocks=2,
    num_mask_filters=32,
    max_mask_filters=256,
    num_mask_downsamples=3,
    num_mask_blocks=4,
    paints_change=False,
)


class GeneratedPicture(NamedTuple):
    """fused_BCHW = raw x mask + background x (1 - mask).  raw_BCHW: as painted, -1..1.  mask_B1HW: 0..1."""

    fused_BCHW: Tensor
    raw_BCHW: Tensor
    mask_B1HW: Tensor


def level_widths(num_filters: int, max_filters: int, num_levels: int) -> list[int]:
    """Channels at each level, doubling up to a bound."""
    return [min(num_filters * 2**level, max_filters) for level in range(num_levels)]


class Generator(nn.Module):
    """Build from a GeneratorConfig."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        num_levels = config.num_downsamples + 1
        conditions = level_widths(config.num_condition_filters, config.max_condition_filters, num_levels)
        widths = level_widths(config.num_filters, config.max_filters, num_levels + 1)
        before = [2 * NUM_PICTURE_CHANNELS, *conditions[:-1]]
        self.conditions = nn.ModuleList(
            convolve_spectral(num_in, num_out, stride=1 if level == 0 else 2)
            for level, (num_in, num_out) in enumerate(zip(before, conditions, strict=True))
        )
        self.enter = convolve(NUM_LABEL_CHANNELS, widths[0])
        levels = list(zip(widths[:-1], widths[1:], conditions, strict=True))
        self.down = nn.ModuleList(AdaptiveBlock(fine, coarse, condition) for fine, coarse, condition in levels)
        self.middle = nn.ModuleList(
            AdaptiveBlock(widths[-1], widths[-1], conditions[-1]) for _ in range(config.num_middle_blocks)
        )
        self.up = nn.ModuleList(AdaptiveBlock(coarse, fine, condition) for fine, coarse, condition in levels)
        self.leave = convolve(widths[0], NUM_PICTURE_CHANNELS)
        self.mask = MaskNetwork(config)
        if config.paints_change:
            nn.init.zeros_(self.leave.weight)
            nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, label_BCHW: Tensor, background_BCHW: Tensor, previous_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """The next picture, and where it is painted.

        Args:
            label_BCHW: (B, 22, H, W) float, see models.renderer.draw_labels.
            background_BCHW, previous_BCHW: (B, 3, H, W) RGB, -1..1: the interpolated background of this frame, and
                the fused picture of the frame before.

        Returns: the picture fused with the background, (B, 3, H, W) RGB, -1..1; the mask, (B, 1, H, W), 0..1, where 1
            takes what was painted and 0 the background.
        Raises: ValueError on shapes that do not fit one another, or a size that is no multiple of
            config.size_multiple (16 px in the paper's network).
        """
        made = self.generate(label_BCHW, background_BCHW, previous_BCHW)
        return made.fused_BCHW, made.mask_B1HW

    def generate(self, label_BCHW: Tensor, background_BCHW: Tensor, previous_BCHW: Tensor) -> GeneratedPicture:
        """As forward, with the picture before it is fused, which the losses of training need."""
        self._check(label_BCHW, background_BCHW, previous_BCHW)
        conditions = self._condition(torch.cat([background_BCHW, previous_BCHW], dim=1))
        x_BCHW = self.enter(label_BCHW)
        last = self.config.num_downsamples
        for level, block in enumerate(self.down):
            x_BCHW = block(x_BCHW, conditions[level])
            if level < last:
                x_BCHW = functional.avg_pool2d(x_BCHW, kernel_size=3, stride=2, padding=1)
        for block in self.middle:
            x_BCHW = block(x_BCHW, conditions[-1])
        for level in range(last, -1, -1):
            x_BCHW = self.up[level](x_BCHW, conditions[level])
            if level > 0:
                x_BCHW = double(x_BCHW)
        raw_BCHW = self.leave(activate(x_BCHW)).tanh()
        if self.config.paints_change:
            raw_BCHW = (background_BCHW + 2 * raw_BCHW).clamp(-1, 1)
        mask_B1HW = self.mask(label_BCHW, torch.cat([previous_BCHW, background_BCHW, raw_BCHW], dim=1))
        fused_BCHW = raw_BCHW * mask_B1HW + background_BCHW * (1 - mask_B1HW)
        return GeneratedPicture(fused_BCHW, raw_BCHW, mask_B1HW)

    def _condition(self, x_BCHW: Tensor) -> list[Tensor]:
        conditions = []
        for conv in self.conditions:
            x_BCHW = activate(conv(x_BCHW))
            conditions.append(x_BCHW)
        return conditions

    def _check(self, label_BCHW: Tensor, background_BCHW: Tensor, previous_BCHW: Tensor) -> None:
        if label_BCHW.dim() != 4:
            raise ValueError(
                f"label has shape {tuple(label_BCHW.shape)}; (batch, {NUM_LABEL_CHANNELS}, H, W) is needed"
            )
        batch, _, height, width = label_BCHW.shape
        for name, x_BCHW, channels in (
            ("label", label_BCHW, NUM_LABEL_CHANNELS),
            ("background", background_BCHW, NUM_PICTURE_CHANNELS),
            ("previous", previous_BCHW, NUM_PICTURE_CHANNELS),
        ):
            if x_BCHW.shape != (batch, channels, height, width):
                raise ValueError(
                    f"{name} has shape {tuple(x_BCHW.shape)}; {(batch, channels, height, width)} is needed"
                )
        multiple = self.config.size_multiple
        if height % multiple or width % multiple or not height or not width:
            raise ValueError(f"pictures of {height} x {width} px (height x width); multiples of {multiple} are needed")


class AdaptiveNorm(nn.Module):
    """Scale and shift of a normalised picture, told by a condition: x (1 + gamma) + beta."""

    def __init__(self, num_channels: int, num_condition: int) -> None:
        super().__init__()
        self.tell = convolve(num_condition, 2 * num_channels, kernel=1)

    def forward(self, normal_BCHW: Tensor, condition_BCHW: Tensor) -> Tensor:
        # A 1x1 convolution and nearest resizing may change places: the smaller of the two is convolved.
        told_BCHW = resize_nearest(self.tell(condition_BCHW), normal_BCHW.shape[2:])
        gamma_BCHW, beta_BCHW = told_BCHW.chunk(2, dim=1)
        return normal_BCHW * (1 + gamma_BCHW) + beta_BCHW


class AdaptiveBlock(nn.Module):
    """A residual block of adaptive norms: norm, activation, convolution, twice; the shortcut has no activation."""

    def __init__(self, num_in: int, num_out: int, num_condition: int) -> None:
        super().__init__()
        num_between = min(num_in, num_out)
        self.norm_0 = AdaptiveNorm(num_in, num_condition)
        self.conv_0 = convolve_spectral(num_in, num_between)
        self.norm_1 = AdaptiveNorm(num_between, num_condition)
        self.conv_1 = convolve_spectral(num_between, num_out)
        self.has_shortcut = num_in != num_out
        if self.has_shortcut:
            self.norm_s = AdaptiveNorm(num_in, num_condition)
            self.conv_s = convolve_spectral(num_in, num_out, kernel=1)

    def forward(self, x_BCHW: Tensor, condition_BCHW: Tensor) -> Tensor:
        normal_BCHW = functional.instance_norm(x_BCHW)
        inner_BCHW = self.conv_0(activate(self.norm_0(normal_BCHW, condition_BCHW)))
        inner_BCHW = functional.instance_norm(inner_BCHW)
        inner_BCHW = self.conv_1(activate(self.norm_1(inner_BCHW, condition_BCHW)))
        if self.has_shortcut:
            x_BCHW = self.conv_s(self.norm_s(normal_BCHW, condition_BCHW))
        out_BCHW: Tensor = x_BCHW + inner_BCHW
        return out_BCHW


class MaskNetwork(nn.Module):
    """Where the painted picture goes over the background: from the label, and from the three pictures."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        widths = level_widths(config.num_mask_filters, config.max_mask_filters, config.num_mask_downsamples + 1)
        self.label = _encode(NUM_LABEL_CHANNELS, widths)
        self.pictures = _encode(3 * NUM_PICTURE_CHANNELS, widths)
        self.blocks = nn.ModuleList(
            MaskBlock(2 * widths[-1] if i == 0 else widths[-1], widths[-1]) for i in range(config.num_mask_blocks)
        )
        self.up = nn.ModuleList(ConvNormActivate(coarse, fine) for coarse, fine in pairwise(reversed(widths)))
        self.leave = convolve(widths[0], 1)

    def forward(self, label_BCHW: Tensor, pictures_BCHW: Tensor) -> Tensor:
        x_BCHW = torch.cat([self.label(label_BCHW), self.pictures(pictures_BCHW)], dim=1)
        for block in self.blocks:
            x_BCHW = block(x_BCHW)
        for conv in self.up:
            x_BCHW = conv(double(x_BCHW))
        mask_B1HW: Tensor = self.leave(x_BCHW).sigmoid()
        return mask_B1HW


class MaskBlock(nn.Module):
    """A residual block: convolution, norm, activation, convolution, norm; the shortcut is convolved and normalised."""

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__()
        self.part_0 = ConvNormActivate(num_in, num_out)
        self.part_1 = ConvNormActivate(num_out, num_out, is_active=False)
        self.has_shortcut = num_in != num_out
        if self.has_shortcut:
            self.part_s = ConvNormActivate(num_in, num_out, kernel=1, is_active=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        shortcut_BCHW = self.part_s(x_BCHW) if self.has_shortcut else x_BCHW
        out_BCHW: Tensor = shortcut_BCHW + self.part_1(self.part_0(x_BCHW))
        return out_BCHW


def _encode(num_in: int, widths: list[int]) -> nn.Sequential:
    before = [num_in, *widths[:-1]]
    return nn.Sequential(
        *(
            ConvNormActivate(num_before, width, stride=1 if level == 0 else 2)
            for level, (num_before, width) in enumerate(zip(before, widths, strict=True))
        )
    )
