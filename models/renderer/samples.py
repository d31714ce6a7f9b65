"""What the renderer is trained on: runs of neighbouring key frames, augmented alike in picture, joints and background.

Axes: B samples, S predicted frames, C channels, H, W. Pictures are RGB from -1 to 1.
"""

from typing import NamedTuple

from torch import Tensor


class SampleBatch(NamedTuple):
    """Runs of S + 2 key frames: the first gives the previous picture, the S after it are predicted one after the other,
    and the last is only what the background of the one before it was made from.

    previous_BCHW: (B, 3, H, W) the first frame.
    labels_BSCHW: (B, S, 22, H, W) as draw_labels.
    pictures_BSCHW, backgrounds_BSCHW: (B, S, 3, H, W) the truth, and what is painted over.
    person_BS1HW: (B, S, 1, H, W) 1 on the person, 0 elsewhere.
    """

    previous_BCHW: Tensor
    labels_BSCHW: Tensor
    pictures_BSCHW: Tensor
    backgrounds_BSCHW: Tensor
    person_BS1HW: Tensor
