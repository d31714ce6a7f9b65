"""How good a generator is on key frames that it was not trained on, and how good the background it paints over.

Axes: B samples, S predicted frames, C channels, H, W. Pictures are RGB from -1 to 1, or BGR uint8 HWC.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models.lpips import LpipsTruth
from models.measures import BoolArray, Image, compare_frames
from models.renderer.generator import Generator
from models.renderer.samples import SampleBatch
from models.renderer.training import predict

MEASURES = ("person_psnr", "person_ssim", "full_psnr", "full_ssim")


class HeldOut:
    """Samples that are not trained on; what does not change from one evaluation to the next is measured once."""

    def __init__(self, batches: Sequence[SampleBatch], people: Sequence[BoolArray], *, has_lpips: bool) -> None:
        """Prepare them.

        Args:
            batches: without augmentation.
            people: of every frame, sample by sample, (H, W) bool, True = person.
            has_lpips: its weights are installed.

        Raises: ValueError where there is no sample, or nobody in any; WeightsError as models.lpips.load_lpips.
        """
        if not batches:
            raise ValueError(
                "no key is held out; hold out a larger share of them, or take a clip of three keys or more"
            )
        if not any(is_person_HW.any() for is_person_HW in people):
            raise ValueError("no person is seen in any key that is held out; hold out a larger share of them")
        self._batches, self._people = batches, people
        self.truths = [to_image(x_CHW) for batch in batches for x_CHW in batch.pictures_BSCHW.flatten(0, 1)]
        self.backgrounds = [to_image(x_CHW) for batch in batches for x_CHW in batch.backgrounds_BSCHW.flatten(0, 1)]
        self._lpips = [LpipsTruth(image) for image in self.truths] if has_lpips else None
        self._background_measures = self.measure(self.backgrounds)

    def pictures(self, generator: Generator) -> list[Image]:
        """What it makes of every held-out frame, sample by sample."""
        device = next(generator.parameters()).device
        made = [predict(generator, SampleBatch(*(x.to(device) for x in batch))) for batch in self._batches]
        return [to_image(x_CHW) for x_BSCHW in made for x_CHW in x_BSCHW.flatten(0, 1).cpu()]

    def score(self, generator: Generator) -> dict[str, float]:
        """Means over the frames: each measure of the result, of its background as background_NAME, and `score`.

        The score is the person's PSNR, dB, and ten times its SSIM: PSNR alone would take a blur for the better picture.
        It is the same whether LPIPS is there or not.
        """
        found = self.measure(self.pictures(generator))
        background = {f"background_{name}": value for name, value in self._background_measures.items()}
        return {"score": found["person_psnr"] + 10 * found["person_ssim"]} | found | background

    def compare(self, images: Sequence[Image]) -> dict[str, float]:
        """Means of MEASURES."""
        rows = [compare_frames(*row) for row in zip(images, self.truths, self._people, strict=True)]
        return {name: float(np.nanmean([getattr(row, name) for row in rows])) for name in MEASURES}

    def measure(self, images: Sequence[Image]) -> dict[str, float]:
        """As compare, with LPIPS where it is there."""
        found = self.compare(images)
        if self._lpips is not None:
            pairs = [t.compare(i, p) for t, i, p in zip(self._lpips, images, self._people, strict=True)]
            found["full_lpips"], found["person_lpips"] = np.nanmean(np.array(pairs), axis=0).tolist()
        return found


def to_image(picture_CHW: Tensor) -> Image:
    """(H, W, 3) uint8 BGR of (3, H, W) RGB, -1..1."""
    levels_HWC = ((picture_CHW.float() + 1) * 127.5).round().clamp(0, 255).permute(1, 2, 0)
    image: Image = levels_HWC.to(torch.uint8).numpy()[..., ::-1].copy()
    return image
