"""Small networks, and samples of a coloured disc that goes where its joint is, for the tests of the renderer's
training."""

import numpy as np
import torch

from models.renderer.discriminator import DiscriminatorConfig
from models.renderer.generator import GeneratorConfig
from models.renderer.labels import draw_labels
from models.renderer.samples import SampleBatch
from models.skeleton import NUM_JOINTS, Joint

SIZE_PX, RADIUS_PX = 64, 9
GENERATOR = GeneratorConfig(
    num_filters=4, max_filters=8, num_condition_filters=4, max_condition_filters=8, num_downsamples=2,
    num_middle_blocks=1, num_mask_filters=4, max_mask_filters=8, num_mask_downsamples=2, num_mask_blocks=1,
    paints_change=False,
)  # fmt: skip
DISCRIMINATOR = DiscriminatorConfig(
    num_filters=4, max_filters=8, num_layers=1, num_scales=2, num_crop_filters=4, max_crop_filters=8, num_crop_layers=1
)


class Discs:
    """A dark picture with a bright disc on the nose, and a hand beside it; the background does not know of the disc."""

    def __init__(self, seed: int = 0, batch_size: int = 2, has_hand: bool = True) -> None:
        self.seed, self.batch_size, self.has_hand = seed, batch_size, has_hand

    def draw(self, step: int, num_frames: int, rank: int, num_ranks: int) -> SampleBatch:
        share = self.batch_size // num_ranks
        rows = [self.sample([self.seed, step, rank * share + row], num_frames) for row in range(share)]
        return SampleBatch(*(torch.cat(values) for values in zip(*rows, strict=True)))

    def sample(self, seed: list[int], num_frames: int) -> SampleBatch:
        rng = np.random.default_rng(seed)
        places_FD = rng.integers(16, SIZE_PX - 16, (num_frames + 1, 2))
        y_HW, x_HW = np.mgrid[:SIZE_PX, :SIZE_PX]
        is_disc_FHW = np.stack([(x_HW - x) ** 2 + (y_HW - y) ** 2 <= RADIUS_PX**2 for x, y in places_FD])
        background_CHW = np.broadcast_to(np.linspace(-0.9, -0.5, SIZE_PX), (3, SIZE_PX, SIZE_PX))
        colour_C11 = np.array([0.9, 0.3, -0.2])[:, None, None]
        pictures_FCHW = np.where(is_disc_FHW[:, None], colour_C11, background_CHW).astype(np.float32)
        joints_TJD = np.zeros((num_frames, NUM_JOINTS, 3))
        joints_TJD[:, Joint.NOSE] = np.insert(places_FD[1:] + 0.5, 2, 1.0, axis=1)
        if self.has_hand:
            joints_TJD[:, Joint.LEFT_HAND] = joints_TJD[:, Joint.NOSE] + [8, 4, 0]
        backgrounds_SCHW = np.broadcast_to(background_CHW, (num_frames, 3, SIZE_PX, SIZE_PX)).astype(np.float32)
        return SampleBatch(
            torch.from_numpy(pictures_FCHW[:1]),
            torch.from_numpy(draw_labels(joints_TJD, SIZE_PX, SIZE_PX))[None],
            torch.from_numpy(pictures_FCHW[1:])[None],
            torch.from_numpy(backgrounds_SCHW)[None],
            torch.from_numpy(is_disc_FHW[1:, None].astype(np.float32))[None],
        )
