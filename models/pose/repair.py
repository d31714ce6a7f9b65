"""Put left and right right in detected poses, and average two detections that agree.

Axes: T frames, S states (the four readings of a group of joints), G joints of the group, J joints (19), D (x px,
y px, score). Score 0 = not seen, as (0, 0, 0). Lengths are in torsos (clip median), so they hold at any size.
"""

import numpy as np
import numpy.typing as npt

from models.skeleton import ARM_JOINTS, LEG_JOINTS, MIRRORED, FloatArray, Joint, is_seen, torso_length

# The joints without a side: no swap touches them.
MIDDLE_JOINTS = (Joint.NOSE, Joint.NECK, Joint.MID_HIP)

MAX_STEP = 1.2  # a displacement counts up to this: beyond it, one wrong joint would outvote the others
APPEARS = 0.5  # what a joint costs that is seen in only one of two frames
UNSEEN = 0.5  # what a joint costs that this detection lacks
# What a joint costs that is taken from the static detection. Among consecutive frames the tracked one is smoother, and
# preferred a little; among key frames far apart the tracker searches where the limb was, and is wrong more often.
# (Step 8 against tracked joints of all frames, three views, mean px: 1.8, 2.4, 2.7 at +0.05; 1.7, 2.3, 2.1 at -0.05.)
STATIC_DENSE, STATIC_SPARSE = 0.05, -0.05
# What it costs a joint to go against the estimator's left and right. Next to nothing where the two detections differ
# in it. Where they say the same, or there is only one, it grows with the square of the clip's usual step: when a
# walker's ankles pass each other, taking left for right is the shorter way by up to a step, and the saving is spread
# over the frames until they pass again, whose number falls with the step. At 60 frames a second, in turn, a limb on
# the other side is a mistake, and may stay one for 20 frames.
SWAP_DISPUTED = 0.01
SWAP_AGREED = 4.0
SWAP_AGREED_RANGE = (0.003, 0.3)
BLOCK_FRAMES = 1024  # steps looked at together: 3 KB a frame
MAX_AVERAGED = 0.12  # detections of a joint that lie closer than this are averaged
MAX_BORROWED = 0.3  # a joint is taken from the other detection only if the rest of its group lies this close


def repair_poses(tracked_TJD: FloatArray, static_TJD: FloatArray | None = None, *, is_dense: bool = True) -> FloatArray:
    """Choose for arms and legs apart, in each frame, the reading that moves least, then average what agrees.

    The readings are: tracked, tracked with left and right exchanged, static, static exchanged. The chain of least
    cost (displacement to the frame before, summed over joints, plus the costs above) is found by Viterbi.
    Without a static detection the first two remain.

    Args:   tracked_TJD, static_TJD: (T, 19, 3) x px, y px, score; the same person in all frames; (0, 0, 0) = not
                seen. Either may lack whole frames.
            is_dense: True = the frames are consecutive ones of a video; False = key frames far apart.
    Returns: (T, 19, 3), as the dtype of tracked: a joint that either detection saw may be seen.
    Source: WARP recipe, step 2. Differs from it in the costs of not-seen joints, of exchanging, and of static
        detections far apart.
    """
    torso_px = _common_torso(tracked_TJD, static_TJD)
    other_TJD = np.zeros_like(tracked_TJD) if static_TJD is None else static_TJD.astype(tracked_TJD.dtype)
    if not torso_px > 0:  # no frame shows neck and hip: nothing to measure by
        return np.where(is_seen(tracked_TJD)[..., None], tracked_TJD, other_TJD)
    out_TJD = np.zeros_like(tracked_TJD)
    middle = list(MIDDLE_JOINTS)
    out_TJD[:, middle] = _average(tracked_TJD[:, middle], other_TJD[:, middle], torso_px)
    for joints in (ARM_JOINTS, LEG_JOINTS):
        static_cost = STATIC_DENSE if is_dense else STATIC_SPARSE
        out_TJD[:, list(joints)] = _repair_group(tracked_TJD, other_TJD, joints, torso_px, static_cost)
    return out_TJD


def _common_torso(tracked_TJD: FloatArray, static_TJD: FloatArray | None) -> float:
    length_px = torso_length(tracked_TJD)
    if np.isnan(length_px) and static_TJD is not None:
        return torso_length(static_TJD)
    return length_px


def _repair_group(
    tracked_TJD: FloatArray, static_TJD: FloatArray, joints: tuple[Joint, ...], torso_px: float, static_cost: float
) -> FloatArray:
    own = list(joints)
    opposite = [MIRRORED[joint] for joint in joints]
    readings_STGD: FloatArray = np.stack(
        [tracked_TJD[:, own], tracked_TJD[:, opposite], static_TJD[:, own], static_TJD[:, opposite]]
    )
    # Frames without any detection are left out: the chain goes on behind them.
    found = np.flatnonzero(is_seen(readings_STGD).any(axis=(0, 2)))
    readings_STGD = readings_STGD[:, found]
    steps_TSS = _step_costs(readings_STGD, torso_px)
    states = find_cheapest_chain(_state_costs(readings_STGD, steps_TSS, torso_px, static_cost), steps_TSS)
    frames = np.arange(len(found))
    chosen_TGD = readings_STGD[states, frames]
    # The other detection, in whichever of its two readings lies nearer.
    other_STGD = readings_STGD[np.where(states < 2, [[2], [3]], [[0], [1]]), frames]
    nearer = _mean_distance(other_STGD, chosen_TGD, torso_px).argmin(axis=0)
    out_TGD = np.zeros((len(tracked_TJD), *chosen_TGD.shape[1:]), chosen_TGD.dtype)
    out_TGD[found] = _average(chosen_TGD, other_STGD[nearer, frames], torso_px)
    return out_TGD


def _state_costs(readings_STGD: FloatArray, steps_TSS: FloatArray, torso_px: float, static_cost: float) -> FloatArray:
    """(S, T) cost of each reading by itself, in torsos summed over joints."""
    num_joints = readings_STGD.shape[2]
    usual_step = np.median(steps_TSS[:, 0, 0]) / num_joints if len(steps_TSS) else 0.0
    swap_agreed = np.clip(SWAP_AGREED * usual_step**2, *SWAP_AGREED_RANGE)
    tracked, static, static_swapped = readings_STGD[0], readings_STGD[2], readings_STGD[3]
    same_T = _mean_distance(static, tracked, torso_px)
    swapped_T = _mean_distance(static_swapped, tracked, torso_px)
    swap_T = np.where(swapped_T < same_T, SWAP_DISPUTED, swap_agreed) * num_joints
    costs_ST: FloatArray = UNSEEN * (~is_seen(readings_STGD)).sum(axis=2).astype(float)
    costs_ST[2:] += static_cost * num_joints
    costs_ST[1::2] += swap_T
    return costs_ST


def _step_costs(readings_STGD: FloatArray, torso_px: float) -> FloatArray:
    """(T - 1, S before, S after) displacement in torsos, summed over joints; in blocks, for a pass may be long."""
    num_frames = readings_STGD.shape[1]
    blocks = [
        _block_costs(readings_STGD[:, start : start + BLOCK_FRAMES + 1], torso_px)
        for start in range(0, max(num_frames - 1, 1), BLOCK_FRAMES)
    ]
    return np.concatenate(blocks)


def _block_costs(readings_STGD: FloatArray, torso_px: float) -> FloatArray:
    before, after = readings_STGD[:, None, :-1], readings_STGD[None, :, 1:]
    seen_before, seen_after = is_seen(before), is_seen(after)
    step = np.linalg.norm(after[..., :2] - before[..., :2], axis=-1) / torso_px
    cost = np.where(seen_before & seen_after, np.minimum(step, MAX_STEP), APPEARS * (seen_before ^ seen_after))
    steps_TSS: FloatArray = np.moveaxis(cost.sum(axis=-1), 2, 0)
    return steps_TSS


def find_cheapest_chain(unary_ST: FloatArray, pairwise_TSS: FloatArray) -> npt.NDArray[np.intp]:
    """Viterbi: the state in each frame for which the sum of unary and pairwise costs is least; ties to the first.

    Args:   unary_ST: (S, T).  pairwise_TSS: (T - 1, S before, S after).
    Returns: (T,) state numbers.
    """
    num_frames = unary_ST.shape[1]
    states = np.zeros(num_frames, np.intp)
    if num_frames == 0:
        return states
    best_S = unary_ST[:, 0]
    origins_TS = np.zeros((num_frames, unary_ST.shape[0]), np.intp)
    for frame in range(1, num_frames):
        through_SS = best_S[:, None] + pairwise_TSS[frame - 1]
        origins_TS[frame] = through_SS.argmin(axis=0)
        best_S = through_SS.min(axis=0) + unary_ST[:, frame]
    states[-1] = best_S.argmin()
    for frame in range(num_frames - 1, 0, -1):
        states[frame - 1] = origins_TS[frame, states[frame]]
    return states


def _mean_distance(a_GD: FloatArray, b_GD: FloatArray, torso_px: float) -> FloatArray:
    """Mean distance in torsos over the joints that both see, axes before them kept; infinite where there is none."""
    both = is_seen(a_GD) & is_seen(b_GD)
    distance = np.linalg.norm(a_GD[..., :2] - b_GD[..., :2], axis=-1) / torso_px
    count = both.sum(axis=-1)
    mean: FloatArray = np.where(count > 0, (distance * both).sum(axis=-1) / np.maximum(count, 1), np.inf)
    return mean


def _average(chosen_TGD: FloatArray, other_TGD: FloatArray, torso_px: float) -> FloatArray:
    """Mean of both where they lie close; the other's joint where only it saw one and the group agrees."""
    sees_chosen, sees_other = is_seen(chosen_TGD), is_seen(other_TGD)
    distance = np.linalg.norm(chosen_TGD[..., :2] - other_TGD[..., :2], axis=-1) / torso_px
    is_close = sees_chosen & sees_other & (distance <= MAX_AVERAGED)
    agrees_T = _mean_distance(chosen_TGD, other_TGD, torso_px) <= MAX_BORROWED
    is_borrowed = ~sees_chosen & sees_other & (agrees_T | ~sees_chosen.any(axis=-1))[:, None]
    averaged = np.where(is_close[..., None], (chosen_TGD + other_TGD) / 2, chosen_TGD)
    out_TGD: FloatArray = np.where(is_borrowed[..., None], other_TGD, averaged)
    return out_TGD
