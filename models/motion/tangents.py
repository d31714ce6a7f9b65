"""Learned tangents: a small network that sees the key frames alone and answers at any rate.

It finds bad points of the keys (a point far off, legs exchanged), fills them from their neighbours, corrects what it
filled, and bends the cubic spline through the keys by a learned slope at each key. Good keys pass bit for bit.
Axes: B batch, K keys, T frames, J joints (19), C channels, D width, H heads, 2 = (x, y) projected units.
Source: ours; docs/benchmarks.md has what it reaches.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.motion.filling import fill_points
from models.motion.rows import RowScale
from models.motion.samples import Batch
from models.motion.splines import frame_matrices, hermite_matrix, pchip_slopes, slope_matrix, spline_matrix
from models.motion.transformer import MotionPrediction, check_layout, spread_keys
from models.skeleton import BONES, LEG_JOINTS, MIRRORED, NUM_JOINTS, FloatArray, Joint

# What makes the features about 1 in size: a pose's spread, a joint's way from key to key.
POSE_UNIT = 0.3
STEP_UNIT = 0.1
OWN_SHARE = 0.7  # of a point's own motion in the scale of its residual slope; the rest is the whole body's
CORRECTION_UNIT = 0.1
USUAL_RATE = 16  # the rate that counts as 1; halving it makes clean errors about a third
DROPPED_AT = 1e-5  # rows round: a joint this near to (0, 0) was one that is not seen
# Exchanging legs matters by how far it moves them: from this on, in full.
SWAP_MATTERS = 0.1
RARE_LOGIT = -4.0  # what the detector starts from: some 2 % of points are bad
POINT_WIDTH = 32
BAD_FROM = -0.5  # logit: a point wrongly kept is farther off than one wrongly filled
SHORTEST = 0.02  # what bones are lengthened by before they are compared: one seen from its end says nothing

LEGS_SWAPPED = tuple(MIRRORED[joint] if joint in LEG_JOINTS else joint for joint in Joint)
_NUM_VALUES = 2 * NUM_JOINTS
_PARENTS = {child: parent for parent, child in BONES if child is not Joint.NECK} | {
    Joint.NOSE: Joint.NECK,
    Joint.NECK: Joint.MID_HIP,
    Joint.MID_HIP: Joint.NECK,
}


@dataclass(frozen=True, kw_only=True)
class TangentConfig:
    """The network's size. The recipe's: width 128, 4 heads, 3 + 4 blocks, reach 40 (1.0 M parameters)."""

    width: int
    num_heads: int
    num_detector_blocks: int
    num_tangent_blocks: int
    reach: int  # keys; attention tells no distances beyond it apart

    def __post_init__(self) -> None:
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not a multiple of num_heads {self.num_heads}")


class TangentPrediction(NamedTuple):
    """keys_BKJ2: cleaned keys.  slopes_BKJ2: added to the spline's slope at each key, per key step.
    is_bad_BKJ: the point was filled (after legs were put right).  is_swapped_BK: the key's legs were exchanged.
    bad_logits_BKJ, swap_logits_BK: the detector's, in the order of the input.  first_logits_BKJ: what it thought of the
    points at its first look.
    """

    keys_BKJ2: Tensor
    slopes_BKJ2: Tensor
    is_bad_BKJ: Tensor
    is_swapped_BK: Tensor
    bad_logits_BKJ: Tensor
    swap_logits_BK: Tensor
    first_logits_BKJ: Tensor


class ConvBlock(nn.Module):
    """Pre-norm; each key with its two neighbours."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Conv1d(width, 2 * width, 3, padding=1)
        self.contract = nn.Conv1d(2 * width, width, 1)

    def forward(self, x_BKD: Tensor) -> Tensor:
        y_BDK = self.contract(functional.gelu(self.expand(self.norm(x_BKD).transpose(1, 2))))
        out_BKD: Tensor = x_BKD + y_BDK.transpose(1, 2)
        return out_BKD


class AttentionBlock(nn.Module):
    """Pre-norm; all keys, with a learned preference for each distance that starts as ALiBi's, then a feed-forward."""

    def __init__(self, width: int, num_heads: int, reach: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.reach = reach
        self.norm = nn.LayerNorm(width)
        self.project_in = nn.Linear(width, 3 * width)
        self.project_out = nn.Linear(width, width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 2 * width)
        self.contract = nn.Linear(2 * width, width)
        slope_H = 2.0 ** (-8 / num_heads * torch.arange(1, num_heads + 1))
        distance = torch.arange(-reach, reach + 1).abs()
        self.bias = nn.Parameter(-slope_H[:, None] * distance)

    def forward(self, x_BKD: Tensor) -> Tensor:
        num_keys = x_BKD.shape[1]
        index_K = torch.arange(num_keys, device=x_BKD.device)
        apart_KK = (index_K[None] - index_K[:, None]).clamp(-self.reach, self.reach) + self.reach
        heads = self.project_in(self.norm(x_BKD)).reshape(len(x_BKD), num_keys, 3, self.num_heads, -1)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        # Kept in the logits' own type: under autocast the parameter stays float32.
        bias_HKK = self.bias[:, apart_KK].to(query.dtype)
        mixed_BHKE = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias_HKK)
        x_BKD = x_BKD + self.project_out(mixed_BHKE.transpose(1, 2).flatten(2))
        out_BKD: Tensor = x_BKD + self.contract(functional.gelu(self.expand(self.feedforward_norm(x_BKD))))
        return out_BKD


class Stack(nn.Module):
    """Features to outputs, through blocks that take turns: convolution, attention, ... Its outputs start at 0."""

    def __init__(self, num_features: int, num_outputs: int, num_blocks: int, config: TangentConfig) -> None:
        super().__init__()
        self.embed = nn.Linear(num_features, config.width)
        self.blocks = nn.ModuleList(
            AttentionBlock(config.width, config.num_heads, config.reach) if i % 2 else ConvBlock(config.width)
            for i in range(num_blocks)
        )
        self.norm = nn.LayerNorm(config.width)
        self.unembed = nn.Linear(config.width, num_outputs)
        nn.init.zeros_(self.unembed.weight)
        nn.init.zeros_(self.unembed.bias)

    def forward(self, features_BKC: Tensor) -> Tensor:
        x_BKD = self.embed(features_BKC)
        for block in self.blocks:
            x_BKD = block(x_BKD)
        out_BKC: Tensor = self.unembed(self.norm(x_BKD))
        return out_BKC


class PointDetector(nn.Module):
    """How bad each point looks by its own way over five keys, with one set of weights for all joints.

    Without it the recipe's detector, which must learn each joint and direction apart, finds 1 % of moved points after
    100 steps and 29 % after 400; with it 34 % and 51 % (same data, rate 1e-3).
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.expand = nn.Conv1d(num_features, POINT_WIDTH, 3, padding=1)
        self.mix = nn.Conv1d(POINT_WIDTH, POINT_WIDTH, 3, padding=1)
        self.contract = nn.Conv1d(POINT_WIDTH, 1, 1)
        nn.init.zeros_(self.contract.weight)
        assert self.contract.bias is not None
        # Few points are bad. From 0, a bias would need some 4,000 steps to get there.
        nn.init.constant_(self.contract.bias, RARE_LOGIT)

    def forward(self, features_BKJC: Tensor) -> Tensor:
        num_clips, num_keys, num_joints, _ = features_BKJC.shape
        x_NCK = features_BKJC.permute(0, 2, 3, 1).flatten(0, 1)
        x_NCK = functional.gelu(self.mix(functional.gelu(self.expand(x_NCK))))
        logits_BJK: Tensor = self.contract(x_NCK).reshape(num_clips, num_joints, num_keys)
        return logits_BJK.transpose(1, 2)


class TangentNetwork(nn.Module):
    """Key frames in, cleaned keys and slopes out; `decode` makes frames of them at any rate or times."""

    legs_swapped: Tensor
    parents: Tensor

    def __init__(self, config: TangentConfig) -> None:
        super().__init__()
        self.config = config
        num_flags = 3  # first key, last key, rate
        num_inputs = 4 * _NUM_VALUES + 7 * NUM_JOINTS + num_flags
        self.detector = Stack(num_inputs, 1 + NUM_JOINTS, config.num_detector_blocks, config)
        self.points = PointDetector(num_features=15)
        self.second_detector = Stack(num_inputs + NUM_JOINTS, NUM_JOINTS, config.num_detector_blocks, config)
        self.second_points = PointDetector(num_features=16)
        self.tangents = Stack(
            5 * _NUM_VALUES + 2 * NUM_JOINTS + num_flags, 2 * _NUM_VALUES, config.num_tangent_blocks, config
        )
        self.rows = RowScale()
        self.register_buffer("legs_swapped", torch.tensor(LEGS_SWAPPED), persistent=False)
        self.register_buffer("parents", torch.tensor([_PARENTS[joint] for joint in Joint]), persistent=False)

    def forward(
        self, source_BCT: Tensor, source_mask_BT: Tensor, pad_mask_BT: Tensor | None, rate: int
    ) -> MotionPrediction:
        """The paper's interface: rows in, rows out (models.motion.transformer.MotionTransformer.forward).

        A joint at (0, 0) in projected units counts as not seen, and so does all of a key hidden among others. Each
        clip is answered by its own keys alone, so padding changes nothing, not even the last bit; padded columns are 0.
        """
        check_layout(source_BCT, source_mask_BT, pad_mask_BT, rate)
        pred_BCT, reco_BCT = torch.zeros_like(source_BCT), torch.zeros_like(source_BCT)
        is_key_BK = ~source_mask_BT[:, ::rate]
        place_K = torch.arange(1, is_key_BK.shape[1] + 1, device=is_key_BK.device)
        num_keys_B = (is_key_BK * place_K).amax(dim=1)  # up to the last that is not hidden
        for num_keys in sorted(set(num_keys_B.tolist()) - {0}):
            clips = (num_keys_B == num_keys).nonzero()[:, 0]
            num_frames = (num_keys - 1) * rate + 1
            points_BKJ2 = self.rows.to_points(source_BCT[clips, :, :num_frames:rate])
            is_seen_BKJ = (points_BKJ2.abs() > DROPPED_AT).any(dim=3) & is_key_BK[clips, :num_keys, None]
            found = self.predict(points_BKJ2, is_seen_BKJ, rate)
            frames_BTJ2 = self.decode(found.keys_BKJ2, found.slopes_BKJ2, rate)
            pred_BCT[clips, :, :num_frames] = self.rows.to_rows(frames_BTJ2)
            reco_BCT[clips, :, :num_frames] = spread_keys(self.rows.to_rows(found.keys_BKJ2), rate)
        return MotionPrediction(pred_BCT, reco_BCT)

    def predict(
        self,
        points_BKJ2: Tensor,
        is_seen_BKJ: Tensor,
        rate: float,
        *,
        trust_seen: bool = False,
        taught: "Labels | None" = None,
    ) -> TangentPrediction:
        """Clean the keys, and find the slopes.

        Args:
            points_BKJ2: (B, K, 19, 2) projected units; what is not seen is not read.
            is_seen_BKJ: (B, K, 19) bool, True = the point is there; whole keys may be missing.
            rate: frames from key to key at 60 frames a second: how far apart the keys are in time; any number > 0.
            trust_seen: True = every seen point passes exactly: nothing is taken for bad but what is not seen.
            taught: true labels that take the detector's place in some clips (training alone).
        """
        filled_BKJ2, _ = fill_points(points_BKJ2, is_seen_BKJ, self.rows.usual_pose())
        swap_logits_BK, first_logits_BKJ, bad_logits_BKJ = self._look_twice(filled_BKJ2, is_seen_BKJ, rate, taught)
        is_swapped_BK = (swap_logits_BK > 0) & (not trust_seen)
        is_bad_BKJ = (bad_logits_BKJ > BAD_FROM) & (not trust_seen)
        if taught is not None:
            is_swapped_BK = torch.where(taught.is_taught_B[:, None], taught.is_swapped_BK, is_swapped_BK)
            is_bad_BKJ = torch.where(taught.is_taught_B[:, None, None], taught.is_bad_BKJ, is_bad_BKJ)
        points_BKJ2 = self.undo_swaps(points_BKJ2, is_swapped_BK)
        is_good_BKJ = self.undo_swaps(is_seen_BKJ & ~is_bad_BKJ, is_swapped_BK)
        filled_BKJ2, distance_BKJ = fill_points(points_BKJ2, is_good_BKJ, self.rows.usual_pose())
        keys_BKJ2, slopes_BKJ2 = self.find_slopes(filled_BKJ2, is_good_BKJ, distance_BKJ, rate)
        return TangentPrediction(
            keys_BKJ2, slopes_BKJ2, ~is_good_BKJ, is_swapped_BK, bad_logits_BKJ, swap_logits_BK, first_logits_BKJ
        )

    @staticmethod
    def decode(keys_BKJ2: Tensor, slopes_BKJ2: Tensor, rate: int) -> Tensor:
        """(B, (K - 1) * rate + 1, 19, 2) all frames, `rate` to a key step; the keys come back bit for bit."""
        spline_TK, hermite_TK = frame_matrices(keys_BKJ2.shape[1], rate, keys_BKJ2.device, keys_BKJ2.dtype)
        return _mix(spline_TK, keys_BKJ2) + _mix(hermite_TK, slopes_BKJ2)

    @staticmethod
    def decode_at(keys_BKJ2: Tensor, slopes_BKJ2: Tensor, times_T: FloatArray) -> Tensor:
        """(B, T, 19, 2) at any times, counted in keys, within 0..K - 1."""
        num_keys = keys_BKJ2.shape[1]
        spline_TK, hermite_TK = (
            torch.as_tensor(make(num_keys, times_T.astype(np.float64)), device=keys_BKJ2.device, dtype=keys_BKJ2.dtype)
            for make in (spline_matrix, hermite_matrix)
        )
        return _mix(spline_TK, keys_BKJ2) + _mix(hermite_TK, slopes_BKJ2)

    def undo_swaps(self, values_BKJx: Tensor, is_swapped_BK: Tensor) -> Tensor:
        """(B, K, 19, ...) the same values, the legs' exchanged in the keys that are True in (B, K)."""
        is_swapped = is_swapped_BK.reshape(*is_swapped_BK.shape, *[1] * (values_BKJx.dim() - 2))
        return torch.where(is_swapped, values_BKJx[:, :, self.legs_swapped], values_BKJx)

    def detect(self, filled_BKJ2: Tensor, is_seen_BKJ: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        """Which keys have their legs exchanged, (B, K), and which points are bad, (B, K, 19): logits.

        Args: filled_BKJ2, is_seen_BKJ: as predict's, what is not seen filled.  rate: as predict's.
        """
        swap_logits_BK, _, bad_logits_BKJ = self._look_twice(filled_BKJ2, is_seen_BKJ, rate, None)
        return swap_logits_BK, bad_logits_BKJ

    def _look_twice(
        self, filled_BKJ2: Tensor, is_seen_BKJ: Tensor, rate: float, taught: "Labels | None"
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The logits of exchanged legs, of bad points at the first look, and at the second.

        The second look, at legs put right, holds every point against its neighbours without those that the first took
        for bad. On few keys with many faults most of what is bad is found there: an exchanged leg hides a moved knee.
        """
        flat, of_points = self._describe(filled_BKJ2, filled_BKJ2, is_seen_BKJ, rate)
        swap_BK1, first_BKJ = self.detector(flat).to(filled_BKJ2.dtype).split([1, NUM_JOINTS], dim=2)
        first_BKJ = first_BKJ + self.points(of_points).to(filled_BKJ2.dtype)
        swap_BK = swap_BK1[:, :, 0]
        is_swapped_BK = swap_BK > 0
        if taught is not None:
            is_swapped_BK = torch.where(taught.is_taught_B[:, None], taught.is_swapped_BK, is_swapped_BK)
        points_BKJ2, is_seen_BKJ, logits_BKJ = (
            self.undo_swaps(values, is_swapped_BK) for values in (filled_BKJ2, is_seen_BKJ, first_BKJ.detach())
        )
        others_BKJ2, _ = fill_points(points_BKJ2, is_seen_BKJ & (logits_BKJ <= BAD_FROM), self.rows.usual_pose())
        points_BKJ2 = torch.where(is_seen_BKJ[..., None], points_BKJ2, others_BKJ2)
        flat, of_points = self._describe(points_BKJ2, others_BKJ2, is_seen_BKJ, rate)
        known_BKJ = torch.tanh(logits_BKJ / 4)
        second_BKJ = self.second_detector(torch.cat([flat, known_BKJ], dim=2)).to(filled_BKJ2.dtype)
        of_points = torch.cat([of_points, known_BKJ[..., None]], dim=3)
        second_BKJ = second_BKJ + self.second_points(of_points).to(filled_BKJ2.dtype)
        return swap_BK, first_BKJ, self.undo_swaps(second_BKJ, is_swapped_BK)

    def _describe(
        self, points_BKJ2: Tensor, others_BKJ2: Tensor, is_seen_BKJ: Tensor, rate: float
    ) -> tuple[Tensor, Tensor]:
        """How each point stands to others in time and in the body: (B, K, features), (B, K, 19, features).

        Args: others_BKJ2: what points are held against: the same, or without those already taken for bad.
        """
        hip_BK12 = others_BKJ2[:, :, Joint.MID_HIP, None]
        pose_BKJ2 = _relative_pose(points_BKJ2, hip_BK12)
        none = torch.zeros_like(points_BKJ2[:, :1])
        before = torch.cat([none, points_BKJ2[:, 1:] - others_BKJ2[:, :-1]], dim=1)
        after = torch.cat([others_BKJ2[:, 1:] - points_BKJ2[:, :-1], none], dim=1)
        deviation = pose_BKJ2 - _median_around(_relative_pose(others_BKJ2, hip_BK12))
        features = [pose_BKJ2 / POSE_UNIT, *(x / STEP_UNIT for x in (before, after, deviation))]
        # How far a point is off in any direction: given, a large one is found at once.
        sizes = [torch.log1p(x.norm(dim=3) / STEP_UNIT) for x in (deviation, before, after, before - after)]
        plain = [*sizes, *self._compare_bones(points_BKJ2, others_BKJ2), is_seen_BKJ.to(pose_BKJ2.dtype)]
        flat = torch.cat([*(f.flatten(2) for f in features), *plain, _flags(points_BKJ2, rate)], dim=2)
        return flat, torch.cat([*features, torch.stack(plain, dim=3)], dim=3)

    def _compare_bones(self, points_BKJ2: Tensor, others_BKJ2: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, 19) twice: the log of a joint's bone to its parent, and of the longest to its children, over what is
        usual in the clip (the median over keys, of the longer side). A moved point stretches its bones at any key step.
        """
        own = others_BKJ2 - others_BKJ2[:, :, self.parents]
        usual_B1J = own.norm(dim=3).median(dim=1, keepdim=True).values
        usual_B1J = torch.maximum(usual_B1J, usual_B1J[:, :, list(MIRRORED)])
        unit = torch.log(usual_B1J + SHORTEST)
        to_parent = torch.log((points_BKJ2 - others_BKJ2[:, :, self.parents]).norm(dim=3) + SHORTEST) - unit
        # The same bones with the parent's own point at their end, brought to the parent.
        to_child = torch.log((others_BKJ2 - points_BKJ2[:, :, self.parents]).norm(dim=3) + SHORTEST) - unit
        longest = torch.full_like(to_child, -1.0).scatter_reduce(
            2, self.parents.expand_as(to_child), to_child, "amax", include_self=True
        )
        return to_parent, longest

    def find_slopes(
        self, filled_BKJ2: Tensor, is_good_BKJ: Tensor, distance_BKJ: Tensor, rate: float
    ) -> tuple[Tensor, Tensor]:
        """The keys, what was filled corrected, and the slopes to add at them: both (B, K, 19, 2).

        Args:
            filled_BKJ2, distance_BKJ: of fill_points, over these keys or over a longer clip that they are part of.
            is_good_BKJ: (B, K, 19) bool, True = passes bit for bit.
            rate: as predict's.
        """
        before, after = _steps(filled_BKJ2)
        cubic_KK = slope_matrix(filled_BKJ2.shape[1], filled_BKJ2.device, filled_BKJ2.dtype)
        cubic = _mix(cubic_KK, filled_BKJ2)
        pchip = pchip_slopes(filled_BKJ2.flatten(2)).view_as(filled_BKJ2)
        pose_BKJ2 = _relative_pose(filled_BKJ2, filled_BKJ2[:, :, Joint.MID_HIP, None])
        features = [pose_BKJ2 / POSE_UNIT, *(s / STEP_UNIT for s in (before, after, cubic, pchip))]
        flat = torch.cat(
            [
                *(f.flatten(2) for f in features),
                (~is_good_BKJ).to(filled_BKJ2.dtype),
                torch.log1p(distance_BKJ.to(filled_BKJ2.dtype)),
                _flags(filled_BKJ2, rate),
            ],
            dim=2,
        )
        out_BKC: Tensor = self.tangents(flat).to(filled_BKJ2.dtype)  # under autocast it is of half precision
        correction, residual = (half.reshape(filled_BKJ2.shape) for half in out_BKC.chunk(2, dim=2))
        keys_BKJ2 = torch.where(is_good_BKJ[..., None], filled_BKJ2, filled_BKJ2 + CORRECTION_UNIT * correction)
        own_BKJ1 = (before.abs() + after.abs()).mean(dim=3, keepdim=True) / 2
        motion_BKJ1 = OWN_SHARE * own_BKJ1 + (1 - OWN_SHARE) * own_BKJ1.mean(dim=2, keepdim=True)
        return keys_BKJ2, residual * motion_BKJ1


def _mix(matrix_TK: Tensor, values_BKJ2: Tensor) -> Tensor:
    with torch.autocast(values_BKJ2.device.type, enabled=False):  # keys are to come back bit for bit
        mixed_BTC = matrix_TK @ values_BKJ2.flatten(2)
    mixed_BTJ2: Tensor = mixed_BTC.reshape(len(values_BKJ2), -1, *values_BKJ2.shape[2:])
    return mixed_BTJ2


def _relative_pose(points_BKJ2: Tensor, hip_BK12: Tensor) -> Tensor:
    """Joints relative to a mid hip, the mid hip to its mean over the keys: where the person stands is no matter."""
    pose_BKJ2 = points_BKJ2 - hip_BK12
    own_BK12 = points_BKJ2[:, :, Joint.MID_HIP, None]
    centred_BK12 = own_BK12 - hip_BK12.mean(dim=1, keepdim=True)
    return torch.cat([pose_BKJ2[:, :, : Joint.MID_HIP], centred_BK12, pose_BKJ2[:, :, Joint.MID_HIP + 1 :]], dim=2)


def _steps(points_BKJ2: Tensor) -> tuple[Tensor, Tensor]:
    """The ways from the key before and to the key after; 0 at the ends."""
    step = points_BKJ2.diff(dim=1)
    none = torch.zeros_like(points_BKJ2[:, :1])
    return torch.cat([none, step], dim=1), torch.cat([step, none], dim=1)


def _median_around(pose_BKJ2: Tensor) -> Tensor:
    """The median of the four neighbours over time; an end stands in for those beyond it."""
    index_K = torch.arange(pose_BKJ2.shape[1], device=pose_BKJ2.device)
    around = torch.stack([pose_BKJ2[:, (index_K + d).clamp(0, len(index_K) - 1)] for d in (-2, -1, 1, 2)])
    return (around.sum(dim=0) - around.amax(dim=0) - around.amin(dim=0)) / 2


def _flags(points_BKJ2: Tensor, rate: float) -> Tensor:
    flags_BK3 = points_BKJ2.new_zeros(*points_BKJ2.shape[:2], 3)
    flags_BK3[:, 0, 0] = 1
    flags_BK3[:, -1, 1] = 1
    flags_BK3[:, :, 2] = math.log2(rate / USUAL_RATE)
    return flags_BK3


class Labels(NamedTuple):
    """is_taught_B: True = the labels take the detector's place.  The others as in models.motion.samples.Batch."""

    is_taught_B: Tensor
    is_swapped_BK: Tensor
    is_bad_BKJ: Tensor


class TangentLoss(NamedTuple):
    """Scalars. total: what is minimised.  frames: mean absolute error, projected units.  detector: BCE.

    Each is a mean over the batch's clips; with num_ranks processes, the mean of theirs is the batch's.
    """

    total: Tensor
    frames: Tensor
    detector: Tensor


STEP_WEIGHT = 0.5  # of the differences from frame to frame: smooth motion
DETECTOR_WEIGHT = 0.3


def tangent_loss(network: TangentNetwork, batch: Batch[Tensor], num_ranks: int = 1) -> TangentLoss:
    """L1 of all frames and of their differences, heavier at small rates, and what the detector gets wrong."""
    labels = Labels(batch.is_taught_B, batch.is_swapped_BK, batch.is_bad_BKJ)
    found = network.predict(batch.points_BKJ2, batch.is_seen_BKJ, batch.rate, taught=labels)
    difference_BTJ2 = network.decode(found.keys_BKJ2, found.slopes_BKJ2, batch.rate) - batch.truth_BTJ2
    frames = difference_BTJ2.abs().mean()
    motion = frames + STEP_WEIGHT * difference_BTJ2.diff(dim=1).abs().mean()
    detector = _detector_loss(network, found, batch)
    # Clean errors fall to a third when the rate halves: each rate is to count the same.
    rate_weight = (USUAL_RATE / batch.rate) ** 1.585
    weight = batch.share * num_ranks  # processes whose share is larger than others'
    total = rate_weight * motion + DETECTOR_WEIGHT * detector
    return TangentLoss(weight * total, weight * frames, weight * detector)


def _detector_loss(network: TangentNetwork, found: TangentPrediction, batch: Batch[Tensor]) -> Tensor:
    truth_BKJ2 = batch.truth_BTJ2[:, :: batch.rate]
    legs = list(LEG_JOINTS)
    moved_BK = (truth_BKJ2 - truth_BKJ2[:, :, network.legs_swapped])[:, :, legs].norm(dim=3).mean(dim=2)
    swap_weight_BK = (moved_BK / SWAP_MATTERS).clamp(max=1)
    swap = functional.binary_cross_entropy_with_logits(
        found.swap_logits_BK, batch.is_swapped_BK.float(), swap_weight_BK, reduction="sum"
    )
    # A point that is not seen is known to be bad.
    first, bad = (
        functional.binary_cross_entropy_with_logits(
            logits_BKJ, batch.is_bad_BKJ.float(), batch.is_seen_BKJ.float(), reduction="sum"
        )
        for logits_BKJ in (found.first_logits_BKJ, found.bad_logits_BKJ)
    )
    return (swap + first + bad) / (found.bad_logits_BKJ.numel() + found.swap_logits_BK.numel())
