"""Motions on an even grid of times: any capture rate to the project's 60 frames a second.

Axes: N source frames, T frames of the grid, C numbers a frame.
Positions are resampled, after the kinematics, by the polynomial through the six nearest source frames. It needs those
six frames alone, so a chunk of a motion gives the bytes that the whole gives, and the error falls with the sixth power
of the capture rate, where turning the joints at constant speed between frames (slerp, before the kinematics) gains
with the square: docs/benchmarks.md has the measured errors of both. No low-pass filter: people hardly move above 30 Hz.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.skeleton import FloatArray

NUM_NODES = 6
_BLOCK_FRAMES = 256  # what stays in a core's cache


@dataclass(frozen=True)
class Grid:
    """Where the frames of an even grid lie among the source frames: frame t at source frame first + t * step."""

    first: int
    step: float
    num_frames: int
    num_source: int

    def source_span(self, start: int, stop: int) -> tuple[int, int]:
        """The source frames [a, b) that frames start..stop-1 of the grid are made from."""
        nodes_T, _ = self.nodes(start, stop)
        return int(nodes_T[0]), int(nodes_T[-1]) + min(NUM_NODES, self.num_source)

    def nodes(self, start: int, stop: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """The first source frame of each frame's polynomial, and the frame's place behind it."""
        place_T = self.first + np.arange(start, stop) * self.step
        first_T = np.floor(place_T).astype(np.int64) - (NUM_NODES // 2 - 1)
        first_T = np.clip(first_T, 0, max(0, self.num_source - NUM_NODES))
        return first_T, place_T - first_T


def plan_grid(num_source: int, source_fps: float, fps: float, trim_share: float = 0.0) -> Grid:
    """The frames at `fps` of a motion that was captured at `source_fps`.

    The grid begins on a source frame and never passes the last one that is kept; frame t lies t / fps seconds after
    its beginning, whatever the capture rate, so that nothing drifts.

    Args:
        source_fps: measured, such as 120.00004577636719.
        trim_share: of the source frames, left out at each end, 0 <= share < 0.5.
    """
    trimmed = int(trim_share * num_source)
    step = source_fps / fps
    span = num_source - 1 - 2 * trimmed
    num_frames = int(span / step + 1e-9) + 1 if span >= 0 else 0
    return Grid(trimmed, step, num_frames, num_source)


def resample(values_NC: FloatArray, grid: Grid, start: int, stop: int) -> npt.NDArray[np.float64]:
    """Frames start..stop-1 of the grid.

    Args:   values_NC: (b - a, C), the source frames [a, b) = grid.source_span(start, stop).
    Returns: (stop - start, C) float64; exactly the source frame where the grid lies on one.
    """
    first_T, place_T = grid.nodes(start, stop)
    offset_T = first_T - first_T[0]
    num_nodes = min(NUM_NODES, grid.num_source)
    weights_TK = _lagrange(place_T, num_nodes)
    result_TC = np.empty((stop - start, values_NC.shape[1]))
    for begin in range(0, len(result_TC), _BLOCK_FRAMES):
        block = slice(begin, begin + _BLOCK_FRAMES)
        nodes_TKC = values_NC[offset_T[block, None] + np.arange(num_nodes)]
        result_TC[block] = np.einsum("tk,tkc->tc", weights_TK[block], nodes_TKC)
    return result_TC


def _lagrange(place_T: npt.NDArray[np.float64], num_nodes: int) -> npt.NDArray[np.float64]:
    """(T, num_nodes): weights of values at 0, 1, .. in the polynomial through them, taken at each place."""
    weights_TK = np.ones((len(place_T), num_nodes))
    for node in range(num_nodes):
        for other in range(num_nodes):
            if other != node:
                weights_TK[:, node] *= (place_T - other) / (node - other)
    return weights_TK
