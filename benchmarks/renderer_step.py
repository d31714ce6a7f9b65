"""Seconds a training step of the renderer takes, beside the same networks and losses called the plain way.

    OMP_NUM_THREADS=1 python benchmarks/renderer_step.py [--height 256] [--width 192] [--shrink 8] [--repeat 5]

Both begin with the same weights and take turns on the same samples (random pictures, a standing pose): batch 2, two
predicted frames, the paper's losses without VGG. --shrink divides the paper's widths. Medians of processor time; the
ratio is that of the medians. The 2021 code, at its own widths and 480 x 320, took 31.7 CPU-s a sample of four frames,
of which two are predicted (with VGG): not the same work, beside the others for its size alone.
"""

import argparse
import copy
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.plain_renderer import take_step
from models.renderer.discriminator import PAPER_DISCRIMINATOR, Discriminator, DiscriminatorConfig
from models.renderer.generator import PAPER_GENERATOR, Generator, GeneratorConfig
from models.renderer.labels import draw_human_masks, draw_labels
from models.renderer.losses import PAPER_WEIGHTS
from models.renderer.samples import SampleBatch
from models.renderer.training import RendererTrainConfig, train
from models.training import OptimiserConfig, make_optimiser

BATCH, NUM_FRAMES = 2, 2
Config = TypeVar("Config", GeneratorConfig, DiscriminatorConfig)
OPTIMISER = OptimiserConfig(
    kind="amsgrad", learning_rate=1e-4, betas=(0.0, 0.999), weight_decay=0.0, clip_norm=None, warmup_steps=0,
    cosine_share=0.0, halve_every=None, ema=0.0,
)  # fmt: skip
# Of the picture's width and height: a standing figure, joint by joint.
POSE = [
    (0.50, 0.12), (0.50, 0.25), (0.42, 0.25), (0.38, 0.38), (0.35, 0.50), (0.58, 0.25), (0.62, 0.38), (0.65, 0.50),
    (0.50, 0.52), (0.46, 0.52), (0.45, 0.70), (0.44, 0.88), (0.54, 0.52), (0.55, 0.70), (0.56, 0.88), (0.58, 0.92),
    (0.42, 0.92), (0.66, 0.54), (0.34, 0.54),
]  # fmt: skip


class Samples:
    """Random pictures; labels are drawn when a batch is."""

    def __init__(self, height: int, width: int) -> None:
        rng = np.random.default_rng(0)
        pose_JD = np.column_stack([np.array(POSE) * [width, height], np.ones(len(POSE))])
        self.joints_px_BSJD = np.tile(pose_JD, (BATCH, NUM_FRAMES, 1, 1))
        self.joints_px_BSJD[..., :2] += rng.normal(0, 3, self.joints_px_BSJD[..., :2].shape)
        self._height, self._width = height, width
        shape = (BATCH, NUM_FRAMES, 3, height, width)
        self._pictures, self._backgrounds = (torch.from_numpy(rng.uniform(-1, 1, shape)).float() for _ in range(2))

    def draw(self, step: int, num_frames: int, rank: int, num_ranks: int) -> SampleBatch:
        poses = self.joints_px_BSJD.reshape(-1, len(POSE), 3)
        labels = torch.from_numpy(draw_labels(poses, self._height, self._width)).unflatten(0, (BATCH, NUM_FRAMES))
        return self.without_labels()._replace(labels_BSCHW=labels)

    def without_labels(self) -> SampleBatch:
        poses = self.joints_px_BSJD.reshape(-1, len(POSE), 3)
        person = torch.from_numpy(draw_human_masks(poses, self._height, self._width)).float()
        person = person.reshape(BATCH, NUM_FRAMES, 1, self._height, self._width)
        return SampleBatch(self._pictures[:, 0], torch.empty(0), self._pictures, self._backgrounds, person)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--shrink", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)

    def shrink(config: Config) -> Config:
        widths = {name: value // options.shrink for name, value in vars(config).items() if name.endswith("filters")}
        return replace(config, **widths)

    generator, discriminator = Generator(shrink(PAPER_GENERATOR)), Discriminator(shrink(PAPER_DISCRIMINATOR))
    plain = copy.deepcopy((generator, discriminator))
    optimisers = tuple(make_optimiser(network, OPTIMISER) for network in plain)
    samples = Samples(options.height, options.width)
    config = RendererTrainConfig(
        seed=0, num_steps=1, num_frames=NUM_FRAMES, grow_every=None, max_frames=NUM_FRAMES, passes="lean",
        weights=PAPER_WEIGHTS, optimiser=OPTIMISER, discriminator_rate=4e-4, save_every=1, log_every=1,
        evaluate_every=1, patience=None,
    )  # fmt: skip
    taken: dict[str, list[float]] = {"ours": [], "plain": []}
    first: dict[str, float] = {}
    for turn in range(options.repeat + 1):
        start = time.process_time()
        result = train(generator, discriminator, None, samples, lambda _: {"score": 0.0}, config, None, lambda *_: None)
        middle = time.process_time()
        losses = take_step(*plain, optimisers, None, PAPER_WEIGHTS, samples.without_labels(), samples.joints_px_BSJD)
        if turn == 0:  # not counted: the first step of either prepares what the others find
            first = {"ours": result.losses["total"], "plain": torch.stack(losses).mean().item()}
            continue
        taken["ours"].append(middle - start)
        taken["plain"].append(time.process_time() - middle)
    ours, other = (statistics.median(taken[name]) for name in ("ours", "plain"))
    size = f"{options.height} x {options.width} px, widths / {options.shrink}"
    print(f"{size}, batch {BATCH}, {NUM_FRAMES} frames, 1 thread")
    print(f"the generator's first loss: ours {first['ours']:.3f}, plain {first['plain']:.3f}")
    print(f"processor time a step: ours {ours:.2f} s, plain {other:.2f} s, {other / ours:.2f} times")


if __name__ == "__main__":
    main()
