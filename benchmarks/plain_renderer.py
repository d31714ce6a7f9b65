"""A training step of the renderer the plain way, for benchmarks/renderer_step.py.

The same networks and losses as models/renderer/training.py, called without a thought for the work: for every predicted
frame the labels of all the sample's frames are drawn anew, the discriminators judge every part of the true and of the
generated picture in both steps, and collect gradients in the generator's step that are thrown away.
Axes: B samples, S predicted frames, J joints, D (x px, y px, score), C channels, H, W.
"""

import numpy as np
import torch
from torch import Tensor

from models.renderer.discriminator import Discriminator
from models.renderer.generator import GeneratedPicture, Generator
from models.renderer.labels import draw_labels
from models.renderer.losses import LossWeights, PerceptualLoss, discriminator_loss, generator_loss
from models.renderer.samples import SampleBatch


def take_step(
    generator: Generator,
    discriminator: Discriminator,
    optimisers: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
    perceptual: PerceptualLoss | None,
    weights: LossWeights,
    batch: SampleBatch,
    joints_px_BSJD: np.ndarray,
) -> list[Tensor]:
    """Returns: the generator's loss of each frame."""
    for_generator, for_discriminator = optimisers
    previous_BCHW, losses = batch.previous_BCHW, []
    height, width = previous_BCHW.shape[2:]
    for s in range(joints_px_BSJD.shape[1]):
        labels = [torch.from_numpy(draw_labels(joints_SJD, height, width)) for joints_SJD in joints_px_BSJD]
        label_BCHW = torch.stack(labels)[:, s]
        real_BCHW, is_person_B1HW = batch.pictures_BSCHW[:, s], batch.person_BS1HW[:, s]
        made = generator.generate(label_BCHW, batch.backgrounds_BSCHW[:, s], previous_BCHW)
        judged = discriminator(label_BCHW, real_BCHW, made.fused_BCHW.detach(), made.raw_BCHW.detach(), is_person_B1HW)
        for_discriminator.zero_grad(set_to_none=True)
        discriminator_loss(judged, weights).backward()
        for_discriminator.step()
        judged = discriminator(label_BCHW, real_BCHW, made.fused_BCHW, made.raw_BCHW, is_person_B1HW)
        loss = generator_loss(judged, GeneratedPicture(*made), real_BCHW, is_person_B1HW, perceptual, weights)
        for_generator.zero_grad(set_to_none=True)
        loss.total.backward()
        for_generator.step()
        previous_BCHW = made.fused_BCHW.detach()
        losses.append(loss.total.detach())
    return losses
