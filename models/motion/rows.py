"""Network rows to points and back, inside a network: it carries what its rows were measured by.

Axes: B batch, C rows (38), T frames, J joints (19), E entries (19), 2 = (x, y). See models.motion.views.
"""

import torch
from torch import Tensor, nn

from models.motion.views import ENTRIES, NUM_ROWS, Normalisation
from models.skeleton import NUM_JOINTS, Joint


class RowScale(nn.Module):
    """Mean and standard deviation of the entries as buffers: saved with the weights. At first 0 and 1."""

    mean_E2: Tensor
    std_E2: Tensor
    entries: Tensor  # entry -> its joint
    places: Tensor  # joint -> its entry

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean_E2", torch.zeros(NUM_JOINTS, 2))
        self.register_buffer("std_E2", torch.ones(NUM_JOINTS, 2))
        entries = torch.tensor(ENTRIES)
        self.register_buffer("entries", entries, persistent=False)
        self.register_buffer("places", entries.argsort(), persistent=False)

    def set(self, normalisation: Normalisation) -> None:
        self.mean_E2.copy_(torch.from_numpy(normalisation.mean_E2))
        self.std_E2.copy_(torch.from_numpy(normalisation.std_E2))

    def get(self) -> Normalisation:
        return Normalisation(self.mean_E2.double().cpu().numpy(), self.std_E2.double().cpu().numpy())

    def usual_pose(self) -> Tensor:
        """(19, 2) the joints' mean places relative to the mid hip."""
        entries_E2 = self.mean_E2.clone()
        entries_E2[-1] = 0
        return entries_E2[self.places]

    def to_rows(self, points_BTJ2: Tensor) -> Tensor:
        """(B, T, 19, 2) points in projected units to (B, 38, T) rows."""
        hip_BT12 = points_BTJ2[:, :, Joint.MID_HIP : Joint.MID_HIP + 1]
        entries_BTE2 = torch.cat([(points_BTJ2 - hip_BT12)[:, :, self.entries[:-1]], hip_BT12], dim=2)
        return ((entries_BTE2 - self.mean_E2) / self.std_E2).flatten(2).transpose(1, 2)

    def to_points(self, rows_BCT: Tensor) -> Tensor:
        """(B, 38, T) rows to (B, T, 19, 2) points in projected units."""
        rows_BTE2 = rows_BCT.transpose(1, 2).reshape(rows_BCT.shape[0], -1, NUM_ROWS // 2, 2)
        entries_BTE2 = rows_BTE2 * self.std_E2 + self.mean_E2
        hip_BT12 = entries_BTE2[:, :, -1:]
        return torch.cat([entries_BTE2[:, :, :-1] + hip_BT12, hip_BT12], dim=2)[:, :, self.places]
