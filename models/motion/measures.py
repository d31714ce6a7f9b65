"""How far predicted motion lies from the truth, in projected units.

Axes: T frames, J joints (19), 2 = (x, y). Averages over many clips are taken by MotionScore.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.skeleton import FloatArray, Joint

BoolArray = npt.NDArray[np.bool_]


class MotionMeasures(NamedTuple):
    """mse, mae: over all numbers of all clips.  max: mean over clips of the largest absolute difference."""

    mse: float
    mae: float
    max: float


@dataclass
class MotionScore:
    """Running sums over clips; the order of the clips changes the last bits only."""

    square_sum: float = 0.0
    absolute_sum: float = 0.0
    max_sum: float = 0.0
    num_values: int = 0
    num_clips: int = 0

    def add(self, predicted_TJ2: FloatArray, truth_TJ2: FloatArray, is_counted_T: BoolArray | None = None) -> None:
        """Count one clip.

        Args:
            predicted_TJ2, truth_TJ2: (T, 19, 2), same units.
            is_counted_T: (T,) bool, True = the frame counts; None = all do. A clip without one is left out.

        Raises: ValueError if the shapes differ.
        """
        if predicted_TJ2.shape != truth_TJ2.shape:
            raise ValueError(f"predicted {predicted_TJ2.shape} and truth {truth_TJ2.shape} must have the same shape")
        difference_TJ2 = np.abs(predicted_TJ2.astype(np.float64) - truth_TJ2)
        if is_counted_T is not None:
            difference_TJ2 = difference_TJ2[is_counted_T]
        if difference_TJ2.size == 0:
            return
        self.square_sum += float(np.square(difference_TJ2).sum())
        self.absolute_sum += float(difference_TJ2.sum())
        self.max_sum += float(difference_TJ2.max())
        self.num_values += difference_TJ2.size
        self.num_clips += 1

    def result(self) -> MotionMeasures:
        """NaN in all where no clip was counted."""
        if not self.num_clips:
            return MotionMeasures(float("nan"), float("nan"), float("nan"))
        return MotionMeasures(
            self.square_sum / self.num_values, self.absolute_sum / self.num_values, self.max_sum / self.num_clips
        )


def place_at_origin(points_TJ2: FloatArray) -> FloatArray:
    """The clip moved so that the mid hip of its first frame lies at (0, 0), as the 2021 metrics do with each clip."""
    moved_TJ2: FloatArray = points_TJ2 - points_TJ2[:1, Joint.MID_HIP : Joint.MID_HIP + 1]
    return moved_TJ2


def is_between_keys(num_frames: int, rate: int) -> BoolArray:
    """(num_frames,) bool, True = not a key frame; the keys are frames 0, rate, 2 rate, ..."""
    is_between_T: BoolArray = np.arange(num_frames) % rate != 0
    return is_between_T


def jerk(points_TJ2: FloatArray) -> float:
    """Mean length of the third difference over time, in units a frame cubed; NaN for fewer than 4 frames.

    A method's jerk divided by the truth's says how much smoother (< 1) or rougher (> 1) its motion is.
    """
    if len(points_TJ2) < 4:
        return float("nan")
    return float(np.linalg.norm(np.diff(points_TJ2, n=3, axis=0), axis=-1).mean())
