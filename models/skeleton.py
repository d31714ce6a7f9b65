"""The 19 joints that every pose in the project has, and how each estimator's points become them.

Joints are named here and nowhere numbered elsewhere: `joints[..., Joint.LEFT_WRIST, :]`.
Axes: T frames, J joints (19), D coordinates. A joint is (x px, y px, score 0..1); (0, 0, 0) means not seen.
"""

from enum import IntEnum

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]


class Joint(IntEnum):
    """Order of the 19 joints: OpenPose BODY_25 0-14, the big toes, and one point a hand."""

    NOSE = 0
    NECK = 1
    RIGHT_SHOULDER = 2
    RIGHT_ELBOW = 3
    RIGHT_WRIST = 4
    LEFT_SHOULDER = 5
    LEFT_ELBOW = 6
    LEFT_WRIST = 7
    MID_HIP = 8
    RIGHT_HIP = 9
    RIGHT_KNEE = 10
    RIGHT_ANKLE = 11
    LEFT_HIP = 12
    LEFT_KNEE = 13
    LEFT_ANKLE = 14
    LEFT_BIG_TOE = 15
    RIGHT_BIG_TOE = 16
    LEFT_HAND = 17
    RIGHT_HAND = 18


J = Joint
NUM_JOINTS = len(Joint)

BONES: tuple[tuple[Joint, Joint], ...] = (
    (J.NOSE, J.NECK),
    (J.NECK, J.RIGHT_SHOULDER),
    (J.RIGHT_SHOULDER, J.RIGHT_ELBOW),
    (J.RIGHT_ELBOW, J.RIGHT_WRIST),
    (J.RIGHT_WRIST, J.RIGHT_HAND),
    (J.NECK, J.LEFT_SHOULDER),
    (J.LEFT_SHOULDER, J.LEFT_ELBOW),
    (J.LEFT_ELBOW, J.LEFT_WRIST),
    (J.LEFT_WRIST, J.LEFT_HAND),
    (J.NECK, J.MID_HIP),
    (J.MID_HIP, J.RIGHT_HIP),
    (J.RIGHT_HIP, J.RIGHT_KNEE),
    (J.RIGHT_KNEE, J.RIGHT_ANKLE),
    (J.RIGHT_ANKLE, J.RIGHT_BIG_TOE),
    (J.MID_HIP, J.LEFT_HIP),
    (J.LEFT_HIP, J.LEFT_KNEE),
    (J.LEFT_KNEE, J.LEFT_ANKLE),
    (J.LEFT_ANKLE, J.LEFT_BIG_TOE),
)

# The joint on the other side of the body; the middle ones are their own.
MIRRORED: tuple[Joint, ...] = (
    J.NOSE, J.NECK,
    J.LEFT_SHOULDER, J.LEFT_ELBOW, J.LEFT_WRIST,
    J.RIGHT_SHOULDER, J.RIGHT_ELBOW, J.RIGHT_WRIST,
    J.MID_HIP,
    J.LEFT_HIP, J.LEFT_KNEE, J.LEFT_ANKLE,
    J.RIGHT_HIP, J.RIGHT_KNEE, J.RIGHT_ANKLE,
    J.RIGHT_BIG_TOE, J.LEFT_BIG_TOE,
    J.RIGHT_HAND, J.LEFT_HAND,
)  # fmt: skip
ARM_JOINTS = (
    J.RIGHT_SHOULDER, J.RIGHT_ELBOW, J.RIGHT_WRIST, J.RIGHT_HAND,
    J.LEFT_SHOULDER, J.LEFT_ELBOW, J.LEFT_WRIST, J.LEFT_HAND,
)  # fmt: skip
LEG_JOINTS = (
    J.RIGHT_HIP, J.RIGHT_KNEE, J.RIGHT_ANKLE, J.RIGHT_BIG_TOE,
    J.LEFT_HIP, J.LEFT_KNEE, J.LEFT_ANKLE, J.LEFT_BIG_TOE,
)  # fmt: skip

NUM_HAND_POINTS = 21
MIN_HAND_POINTS = 6  # "more than 5 of 21"

# Points in the estimator's own order; a pair stands for the mean of two.
_BODY_25 = (*range(15), 19, 22)
_HALPE_136 = (0, 18, 6, 8, 10, 5, 7, 9, 19, 12, 14, 16, 11, 13, 15, 20, 21)
_HALPE_136_HANDS = (range(94, 115), range(115, 136))
_MEDIAPIPE = (0, (11, 12), 12, 14, 16, 11, 13, 15, (23, 24), 24, 26, 28, 23, 25, 27, 31, 32)
_SMPL_H = (15, 12, 17, 19, 21, 16, 18, 20, 0, 2, 5, 8, 1, 4, 7, 10, 11)
_SMPL_H_HANDS = (range(22, 37), range(37, 52))


def summarise_hand(points_px_TPD: FloatArray) -> FloatArray:
    """One point a hand: the mean (x, y, score) of its valid points, where more than 5 of 21 are.

    Args:   points_px_TPD: (T, 21, 3) x px, y px, score; a point with score 0 is not valid.
    Returns: (T, 3); (0, 0, 0) where too few points are valid.
    Source: ../docs/formats.md, "The 19 joints"; as the 2021 code.
    """
    is_valid_TP = points_px_TPD[..., 2] > 0
    count_T = is_valid_TP.sum(axis=1)
    mean_TD = (points_px_TPD * is_valid_TP[..., None]).sum(axis=1) / np.maximum(count_T, 1)[:, None]
    return np.where((count_T >= MIN_HAND_POINTS)[:, None], mean_TD, 0.0)


def _gather(points_TPD: FloatArray, table: tuple[int | tuple[int, int], ...]) -> FloatArray:
    """Pick or average points; a mean of two with one not seen (score 0) is not seen."""
    columns = []
    for entry in table:
        if isinstance(entry, int):
            columns.append(points_TPD[:, entry])
            continue
        pair = points_TPD[:, list(entry)]
        mean = pair.mean(axis=1)
        mean[:, 2] = pair[..., 2].min(axis=1)
        columns.append(mean)
    joints_TJD = np.stack(columns, axis=1)
    joints_TJD[joints_TJD[..., 2] <= 0] = 0.0
    return joints_TJD


def _with_hands(body_TJD: FloatArray, left_TPD: FloatArray, right_TPD: FloatArray) -> FloatArray:
    hands = (summarise_hand(left_TPD), summarise_hand(right_TPD))
    return np.concatenate([body_TJD, *(hand[:, None] for hand in hands)], axis=1)


def joints_from_body_25(body_T25D: FloatArray, left_T21D: FloatArray, right_T21D: FloatArray) -> FloatArray:
    """OpenPose BODY_25 and hands (x, y, score; score 0 = not found) as (T, 19, 3)."""
    return _with_hands(_gather(body_T25D, _BODY_25), left_T21D, right_T21D)


def joints_from_halpe_136(points_T136D: FloatArray) -> FloatArray:
    """AlphaPose Halpe-136 whole-body points (x, y, score) as (T, 19, 3)."""
    left, right = (points_T136D[:, list(hand)] for hand in _HALPE_136_HANDS)
    return _with_hands(_gather(points_T136D, _HALPE_136), left, right)


def joints_from_mediapipe(body_T33D: FloatArray, left_T21D: FloatArray, right_T21D: FloatArray) -> FloatArray:
    """MediaPipe holistic's 33 body and 2 x 21 hand points (x, y, visibility) as (T, 19, 3)."""
    return _with_hands(_gather(body_T33D, _MEDIAPIPE), left_T21D, right_T21D)


def joints_from_smpl_h(joints_m_T52D: FloatArray) -> FloatArray:
    """SMPL-H's 52 joints (metres) as (T, 19, 3) positions; a hand is the mean of its 15 joints."""
    body = joints_m_T52D[:, list(_SMPL_H)]
    hands = [joints_m_T52D[:, list(hand)].mean(axis=1, keepdims=True) for hand in _SMPL_H_HANDS]
    return np.concatenate([body, *hands], axis=1)


def is_seen(joints_px_TJD: FloatArray) -> npt.NDArray[np.bool_]:
    """(..., J) bool, True where a joint was seen (score above 0)."""
    seen: npt.NDArray[np.bool_] = joints_px_TJD[..., 2] > 0
    return seen


def mirror_joints(joints_TJD: FloatArray) -> FloatArray:
    """The same points with left and right names exchanged (the picture is not flipped)."""
    return joints_TJD[..., list(MIRRORED), :]


def torso_length(joints_px_TJD: FloatArray) -> float:
    """Median distance in px from neck to mid hip over the frames that show both; NaN where none does.

    Every threshold in pixels of the project is a share of this, so that it holds at any picture size.
    """
    ends_TED = joints_px_TJD[:, [J.NECK, J.MID_HIP]]
    is_usable_T = (ends_TED[..., 2] > 0).all(axis=1)
    if not is_usable_T.any():
        return float("nan")
    return float(np.median(np.linalg.norm(ends_TED[is_usable_T, 0, :2] - ends_TED[is_usable_T, 1, :2], axis=-1)))
