"""Repair of left and right, and following one person, on figures whose right answer is known."""

import numpy as np
import pytest

from models.pose.follow import Anchor, appearance, crop_around_track, find_tracks, follow_person, link_tracks
from models.pose.repair import find_cheapest_chain, repair_poses
from models.skeleton import ARM_JOINTS, LEG_JOINTS, Joint, mirror_joints

J = Joint
TORSO_PX = 100.0


def walk(fps=7.5, num_frames=20, torso_px=TORSO_PX):
    """(T, 19, 3): someone walking to the right, seen from the side: the hardest view for left and right."""
    time_s = np.arange(num_frames) / fps
    phase = 2 * np.pi * 0.9 * time_s
    joints = np.ones((num_frames, 19, 3))

    def put(joint, x, y):
        joints[:, joint, 0] = 200 + torso_px * (1.5 * time_s + x)
        joints[:, joint, 1] = 100 + torso_px * (y + 0 * time_s)

    put(J.NOSE, 0.1, -0.4)
    put(J.NECK, 0, 0)
    put(J.MID_HIP, 0, 1)
    sides = ((1, "RIGHT"), (-1, "LEFT"))
    for sign, side in sides:
        thigh = 0.45 * np.sin(phase) * sign
        shank = thigh - 0.15 * (1 + np.cos(phase) * sign)
        knee = 0.02 * sign + 0.9 * np.sin(thigh), 1 + 0.9 * np.cos(thigh)
        ankle = knee[0] + 0.9 * np.sin(shank), knee[1] + 0.9 * np.cos(shank)
        upper = -0.5 * np.sin(phase) * sign
        elbow = 0.03 * sign + 0.6 * np.sin(upper), 0.05 + 0.6 * np.cos(upper)
        put(J[f"{side}_HIP"], 0.02 * sign, 1)
        put(J[f"{side}_KNEE"], *knee)
        put(J[f"{side}_ANKLE"], *ankle)
        put(J[f"{side}_BIG_TOE"], ankle[0] + 0.25, ankle[1] + 0.05)
        put(J[f"{side}_SHOULDER"], 0.03 * sign, 0.05)
        put(J[f"{side}_ELBOW"], *elbow)
        put(J[f"{side}_WRIST"], elbow[0] + 0.5 * np.sin(upper + 0.3), elbow[1] + 0.5 * np.cos(upper + 0.3))
        put(J[f"{side}_HAND"], elbow[0] + 0.65 * np.sin(upper + 0.3), elbow[1] + 0.65 * np.cos(upper + 0.3))
    return joints


def stand(num_frames=12, torso_px=TORSO_PX):
    """(T, 19, 3): someone facing the camera with arms and legs apart, swaying by 5 px a frame."""
    joints = np.ones((num_frames, 19, 3))
    place = {J.NOSE: (0, -0.4), J.NECK: (0, 0), J.MID_HIP: (0, 1)}
    for sign, side in ((-1, "RIGHT"), (1, "LEFT")):
        limb = [("SHOULDER", 0.3, 0), ("ELBOW", 0.6, 0.3), ("WRIST", 0.8, 0.6), ("HAND", 0.85, 0.7)]
        limb += [("HIP", 0.2, 1), ("KNEE", 0.35, 1.8), ("ANKLE", 0.45, 2.6), ("BIG_TOE", 0.5, 2.7)]
        place |= {J[f"{side}_{part}"]: (sign * x, y) for part, x, y in limb}
    for joint, (x, y) in place.items():
        joints[:, joint, 0] = 300 + torso_px * x + 5 * np.arange(num_frames)
        joints[:, joint, 1] = 200 + torso_px * y
    return joints


def swap(joints, frames, group):
    out = joints.copy()
    for frame in frames:
        out[frame, list(group)] = mirror_joints(joints[frame])[list(group)]
    return out


@pytest.mark.parametrize("scale", [0.2, 1.0, 4.0])
@pytest.mark.parametrize("group", [ARM_JOINTS, LEG_JOINTS, ARM_JOINTS + LEG_JOINTS])
def test_swaps_are_undone_without_a_second_detection(group, scale):
    truth = stand(torso_px=TORSO_PX)
    truth[..., :2] *= scale
    np.testing.assert_allclose(repair_poses(swap(truth, [3, 4, 8], group)), truth)


def test_swap_of_both_detections_is_undone():
    truth = stand()
    tracked = swap(truth, [5, 6], ARM_JOINTS)
    static = swap(truth, [5], ARM_JOINTS)
    np.testing.assert_allclose(repair_poses(tracked, static), truth)


def test_swap_lasting_20_frames_at_full_rate_is_undone():
    truth = stand(num_frames=60)
    wrong = swap(truth, range(20, 40), LEG_JOINTS)
    np.testing.assert_allclose(repair_poses(wrong, wrong), truth)


@pytest.mark.parametrize("fps", [5, 7.5, 15, 30, 60])
def test_walkers_legs_that_pass_each_other_are_left_alone(fps):
    truth = walk(fps, num_frames=int(3 * fps))
    for repaired in (repair_poses(truth, truth), repair_poses(truth)):
        # Where left and right lie in one place, their names cannot be told, and do not matter.
        np.testing.assert_allclose(repaired, truth, atol=0.1 * TORSO_PX)


def test_tracked_swaps_of_a_walker_are_undone_where_static_is_right():
    truth = walk(fps=15, num_frames=40)
    repaired = repair_poses(swap(truth, range(14, 24), LEG_JOINTS), truth)
    np.testing.assert_allclose(repaired, truth, atol=0.1 * TORSO_PX)


def test_close_detections_are_averaged_and_far_ones_are_not():
    tracked = stand()
    static = tracked.copy()
    static[:, J.LEFT_KNEE, 0] += 10  # 0.10 torso
    static[:, J.RIGHT_KNEE, 0] += 14  # 0.14 torso
    static[:, J.NOSE, 1] += 8
    static[:, J.LEFT_KNEE, 2] = 0.5
    repaired = repair_poses(tracked, static)
    np.testing.assert_allclose(repaired[:, J.LEFT_KNEE, 0], tracked[:, J.LEFT_KNEE, 0] + 5)
    np.testing.assert_allclose(repaired[:, J.LEFT_KNEE, 2], 0.75)
    np.testing.assert_allclose(repaired[:, J.RIGHT_KNEE], tracked[:, J.RIGHT_KNEE])
    np.testing.assert_allclose(repaired[:, J.NOSE, 1], tracked[:, J.NOSE, 1] + 4)


def test_unseen_joints_come_from_the_other_detection_or_stay_unseen():
    truth = stand()
    tracked, static = truth.copy(), truth.copy()
    tracked[3:5, J.LEFT_WRIST] = 0
    static[4, J.LEFT_WRIST] = 0
    tracked[7] = 0
    tracked[9] = static[9] = 0
    repaired = repair_poses(tracked, static)
    np.testing.assert_allclose(repaired[3], truth[3])
    np.testing.assert_array_equal(repaired[4, J.LEFT_WRIST], 0)
    np.testing.assert_allclose(repaired[7], truth[7])
    np.testing.assert_array_equal(repaired[9], 0)
    np.testing.assert_allclose(repaired[10:], truth[10:])


def test_swap_behind_a_frame_without_anybody_is_undone():
    truth = stand()
    wrong = swap(truth, [6], ARM_JOINTS)
    wrong[5] = 0
    np.testing.assert_allclose(np.delete(repair_poses(wrong), 5, axis=0), np.delete(truth, 5, axis=0))


@pytest.mark.parametrize("joints", [np.zeros((4, 19, 3)), np.zeros((0, 19, 3)), np.ones((1, 19, 3))])
def test_degenerate_poses_pass_through(joints):
    np.testing.assert_array_equal(repair_poses(joints, joints), joints)
    np.testing.assert_array_equal(repair_poses(joints), joints)


def test_repair_keeps_dtype_and_input():
    tracked = swap(stand(), [4], LEG_JOINTS).astype(np.float32)
    before = tracked.copy()
    assert repair_poses(tracked, tracked).dtype == np.float32
    np.testing.assert_array_equal(tracked, before)


def test_cheapest_chain_is_that_of_trying_all():
    rng = np.random.default_rng(0)
    unary, pairwise = rng.random((3, 5)), rng.random((4, 3, 3))
    chains = np.stack(np.meshgrid(*[range(3)] * 5, indexing="ij"), axis=-1).reshape(-1, 5)
    costs = [
        unary[chain, range(5)].sum() + sum(pairwise[t, chain[t], chain[t + 1]] for t in range(4)) for chain in chains
    ]
    np.testing.assert_array_equal(find_cheapest_chain(unary, pairwise), chains[np.argmin(costs)])


RED, BLUE, UNKNOWN = np.eye(256, dtype=np.float32)[3], np.eye(256, dtype=np.float32)[90], np.zeros(256, np.float32)


def beside(joints, torsos):
    moved = joints.copy()
    moved[..., 0] += torsos * TORSO_PX
    return moved


def test_same_person_is_followed_whatever_the_order_of_candidates():
    rng = np.random.default_rng(1)
    person, other = stand(20), beside(stand(20), 1.2)
    other[..., :2] = other[..., :2] * 0.9  # a little smaller: the person is the larger one
    order = rng.permuted(np.tile([0, 1], (20, 1)), axis=1)
    both = [[(person[t], RED), (other[t], BLUE)] for t in range(20)]
    chosen = follow_person([[both[t][k] for k in order[t]] for t in range(20)])
    np.testing.assert_array_equal(chosen, np.argmin(order, axis=1))


def test_person_is_followed_by_place_where_colours_are_unknown():
    person, other = stand(20), beside(stand(20), 2.5)
    other[..., 2] = 0.6
    chosen = follow_person([[(other[t], UNKNOWN), (person[t], UNKNOWN)] for t in range(20)])
    np.testing.assert_array_equal(chosen, 1)


@pytest.mark.parametrize("visit", [range(7, 8), range(5, 12), range(12, 20)])
def test_jump_of_a_one_person_estimator_is_left_out(visit):
    person, other = stand(20), beside(stand(20), 1.0)
    shown = [(other[t], BLUE) if t in visit else (person[t], RED) for t in range(20)]
    chosen = follow_person([[each] for each in shown])
    np.testing.assert_array_equal(chosen < 0, [t in visit for t in range(20)])


def test_fast_mover_at_key_rate_is_no_jump():
    person = stand(12)
    person[..., 0] += (0.8 * TORSO_PX * np.arange(12))[:, None]
    np.testing.assert_array_equal(follow_person([[(joints, RED)] for joints in person]), 0)


def test_swapped_left_and_right_is_no_jump():
    person = swap(stand(12), [4, 5], ARM_JOINTS + LEG_JOINTS)
    np.testing.assert_array_equal(follow_person([[(joints, RED)] for joints in person]), 0)


def test_frames_with_nobody_are_left_out():
    person = stand(6)
    candidates = [[(joints, RED)] for joints in person]
    candidates[2] = []
    candidates[3] = [(np.zeros((19, 3)), UNKNOWN)]
    np.testing.assert_array_equal(follow_person(candidates), [0, 0, -1, -1, 0, 0])
    np.testing.assert_array_equal(follow_person([[], []]), [-1, -1])


def test_anchor_says_who_is_followed():
    """The other is there for longer; a known place of the person before, between or after decides."""
    person, other = stand(20), beside(stand(20), 1.0)
    shown = [[(other[t], BLUE) if t >= 6 else (person[t], RED)] for t in range(20)]
    np.testing.assert_array_equal(follow_person(shown) >= 0, [t >= 6 for t in range(20)])
    for anchor in (Anchor(-3, person[0], RED), Anchor(30, person[6], RED)):
        np.testing.assert_array_equal(follow_person(shown, [anchor]) >= 0, [t < 6 for t in range(20)])
    np.testing.assert_array_equal(follow_person(shown[6:], [Anchor(-1, person[5], RED)]), -1)


def test_tracks_of_all_who_are_seen_are_found():
    person, other = stand(20), beside(stand(20), 2.5)
    other[..., 2] = 0.6
    twice = person + np.array([2, 0, 0])  # a second detection of the same
    candidates = [[(other[t], BLUE), (person[t], RED), (twice[t], RED)] for t in range(20)]
    for t in (0, 19):
        candidates[t] = [(person[t], RED)]
    tracks = find_tracks(candidates, num_lead=4)
    assert [(t.first.position, t.last.position, t.is_followed) for t in tracks] == [(0, 15, True), (0, 14, False)]
    np.testing.assert_array_equal(tracks[1].first.joints_px_JD, other[4])
    np.testing.assert_allclose(tracks[1].last.look, BLUE, atol=1e-6)
    assert tracks[0].worth > tracks[1].worth
    assert find_tracks([[], []]) == []
    assert find_tracks([[(person[0], RED)], []], num_lead=1) == []


def tracks_of(frames, shown):
    """The tracks of a chunk of some frames, counted from the clip's first. shown: frame -> candidates."""
    found = find_tracks([shown(t) for t in frames])
    start = frames[0]
    return [
        track._replace(
            first=track.first._replace(position=track.first.position + start),
            last=track.last._replace(position=track.last.position + start),
        )
        for track in found
    ]


def test_clips_person_is_linked_across_chunks_without_them():
    person, other = stand(80), beside(stand(80), 1.0)

    def shown(t):
        return [(other[t], BLUE)] if 18 <= t < 44 else [(person[t], RED)]

    chunks = [tracks_of(range(start, start + 20), shown) for start in range(0, 80, 20)]
    # Chunks 0 and 3 are the person's. In 1 there is the other alone; in 2 the person in the longer part.
    assert link_tracks(chunks) == [0, -1, 0, 0]
    assert [track.is_followed for track in chunks[2]] == [True, False]
    assert link_tracks([[], []]) == [-1, -1]


def test_appearance_is_that_of_the_torso():
    person = stand(1)[0]
    image = np.full((600, 600, 3), 128, np.uint8)
    image[190:310, 260:340] = (40, 40, 200)
    red = appearance(image, person)
    assert red.shape == (256,)
    assert red.sum() == pytest.approx(1, abs=1e-5)
    image[:, :200] = (200, 40, 40)  # far from the torso
    np.testing.assert_array_equal(appearance(image, person), red)
    image[190:310, 260:340] = (200, 40, 40)
    assert np.sqrt(red * appearance(image, person)).sum() < 0.1


def test_appearance_is_unknown_without_a_torso():
    image = np.full((600, 600, 3), 128, np.uint8)
    hidden, outside, side_view = stand(1)[0], stand(1)[0], stand(1)[0]
    hidden[J.LEFT_HIP] = 0
    outside[:, 0] += 5000
    side_view[:, 0] = 300  # all in one line: thin, but a torso
    assert not appearance(image, hidden).any()
    assert not appearance(image, outside).any()
    assert appearance(image, side_view).any()


def test_crops_run_between_and_past_tracked_frames():
    person = stand(7)  # x 215..385, y 160..470, then 5 px to the right a frame
    is_tracked = np.array([False, True, False, False, False, True, False])
    boxes = crop_around_track(person, is_tracked, (600, 540), margin=0.25)
    assert boxes.shape == (7, 4)
    grow = 0.25 * 310
    np.testing.assert_allclose(boxes[3], [230 - grow, 160 - grow, 400 + grow, 540], atol=1.01)
    np.testing.assert_array_equal(boxes[0], boxes[1])
    np.testing.assert_array_equal(boxes[6], boxes[5])
    assert (boxes[:, 3] <= 540).all()
    # Half-way to where the person is seven frames after the last of these.
    nowhere = np.zeros(7, bool)
    is_tracked[5] = False
    ahead = crop_around_track(person, is_tracked, (600, 540), anchors=[Anchor(7, person[1] + [60, 0, 0], RED)])
    np.testing.assert_array_equal(ahead[4] - ahead[1], [30, 0, 30, 0])
    only = crop_around_track(person, nowhere, (600, 540), anchors=[Anchor(7, person[1], RED)])
    np.testing.assert_array_equal(only, ahead[[1] * 7])
