import concurrent.futures
import json

import numpy as np
import pytest

from models.motion.views import (
    ENTRIES,
    Normalisation,
    View,
    entries_from_points,
    evaluation_view,
    facing_rotation,
    hidden_frames,
    measure_moments,
    measure_normalisation,
    merge_moments,
    pixels_from_units,
    points_from_entries,
    project_points,
    random_view,
    spread_rows,
    units_from_pixels,
    view_joints,
    view_joints_often,
    view_rotation,
)
from models.skeleton import NUM_JOINTS, Joint, joints_from_body_25
from tests.models.motion.reference import MOTION, load_arrays, needs_reference

QUARTER = np.pi / 2


def reference_normalisation():
    return Normalisation(np.load(MOTION / "mean_pose.npy"), np.load(MOTION / "std_pose.npy"))


def sequence(seed=0, num_frames=12):
    """A standing figure that faces -y (its left at +x), moved about at random."""
    generator = np.random.default_rng(seed)
    joints = generator.normal(0, 0.05, (num_frames, 52, 3)) + generator.normal(0, 1, (num_frames, 1, 3))
    joints[:, [16, 1], 0] += 0.3
    joints[:, [17, 2], 0] -= 0.3
    return joints


@needs_reference
def test_mocap_path_is_the_fixture():
    path = load_arrays("amass_path.npz")
    view = View(tuple(path["view"].tolist()))
    points = view_joints(path["joints"], view)
    np.testing.assert_allclose(points.transpose(1, 2, 0), path["gt"], atol=1e-12, rtol=0)
    centred = path["joints"] - path["joints"][:, :1].mean(axis=0)
    turned = centred @ view_rotation(facing_rotation(centred), view.angles_rad).T
    shown = turned[:, [0, 15, 20, 30, 51]].transpose(1, 2, 0)
    np.testing.assert_allclose(shown, path["rotated"], atol=1e-12, rtol=0)
    rows = reference_normalisation().to_rows(points)
    is_hidden = hidden_frames(len(points), 16)
    assert (is_hidden == path["encoder_mask"]).all()
    # The fixture's rows are float32; in float64 the same rows are the formula's.
    assert (spread_rows(rows[:, ::16], 16).astype(np.float32) == path["input"]).mean() > 0.99
    np.testing.assert_allclose(spread_rows(rows[:, ::16], 16), path["input"], atol=3e-7, rtol=0)


@needs_reference
@pytest.mark.parametrize(("rows", "points"), [("noisy", "pred"), ("interp", "linear")])
def test_rows_go_back_to_image_units_as_in_the_fixture(rows, points):
    path = load_arrays("amass_path.npz")
    found = reference_normalisation().to_points(path[rows]).transpose(1, 2, 0)
    np.testing.assert_allclose(found, path[points], atol=1e-9, rtol=0)


def openpose_joints(frames_json):
    """(T, 19, 3) px as the 2021 inference reads them: the largest person, the frame before where there is none."""
    poses = []
    for frame in json.loads(frames_json):
        people = [
            joints_from_body_25(*(np.reshape(p[key], (1, -1, 3)) for key in KEYPOINTS))[0] for p in frame["people"]
        ]
        people.sort(key=lambda joints_JD: box_area(joints_JD[:15]), reverse=True)
        poses.append(people[0] if people else poses[-1])
    return np.stack(poses)


KEYPOINTS = ("pose_keypoints_2d", "hand_left_keypoints_2d", "hand_right_keypoints_2d")


def box_area(joints_JD):
    seen = joints_JD[joints_JD[:, 2] > 0.01, :2]
    return np.ptp(seen, axis=0).prod()


@needs_reference
def test_openpose_path_is_the_fixture():
    path = load_arrays("openpose_path.npz")
    joints = openpose_joints(str(path["frames_json"]))
    units = units_from_pixels(joints, float(path["scale"]), float(path["offset"]))
    rows = spread_rows(reference_normalisation().to_rows(units)[:, :], 8)
    np.testing.assert_allclose(rows, path["input"], atol=2e-6, rtol=1e-7)
    assert (rows.astype(np.float32) == path["input"]).mean() > 0.99
    assert (hidden_frames(rows.shape[1], 8) == path["encoder_mask"]).all()
    np.testing.assert_allclose(joints[:, :, 2].T, path["confidence"][:, 0, ::8], atol=1e-12, rtol=0)


def test_a_point_on_the_axis_and_beside_it():
    points = np.array([[0.0, 0.0, 0.0], [0.0, 2.0, 0.0], [1.0, 0.0, 2.0], [1.0, -10.0, -0.5], [9.0, -3.7, 0.0]])
    expected = [[0, 0], [0, 0], [1, -2], [10, 5], [10, 0]]
    assert project_points(points, 4.0, 4.0).tolist() == expected


def test_a_figure_that_faces_the_camera_has_its_right_on_the_left_of_the_picture():
    joints = np.zeros((1, 52, 3))
    joints[0, [17, 2]] = [[0, 1, 2.5], [0, 1, 1]]  # right shoulder and hip towards +y, left towards -y: it faces -x
    joints[0, [16, 1]] = [[0, -1, 2.5], [0, -1, 1]]
    np.testing.assert_allclose(facing_rotation(joints) @ [0, 1, 0], [-1, 0, 0], atol=1e-15)
    np.testing.assert_allclose(facing_rotation(joints) @ [0, 0, 1], [0, 0, 1], atol=1e-15)


def test_a_quarter_turn_by_hand():
    turn = view_rotation(np.eye(3), (0.0, 9.9, QUARTER))
    np.testing.assert_allclose(turn @ [1, 0, 0], [0, -1, 0], atol=1e-15)
    tilt = view_rotation(np.eye(3), (QUARTER, 0.0, 0.0))
    np.testing.assert_allclose(tilt @ [0, 0, 1], [0, 1, 0], atol=1e-15)


def test_where_the_figure_stands_and_looks_changes_nothing():
    joints = sequence()
    view = View((0.0, 0.0, 0.7))  # with a tilt it does: it is about the world's x
    angle = 1.1
    about_z = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    np.testing.assert_allclose(
        view_joints(joints @ about_z.T + [5, -3, 2], view), view_joints(joints, view), atol=1e-12
    )


def test_many_views_of_a_long_sequence_are_each_views_own():
    joints = sequence(num_frames=700)  # more than are worked on at once
    views = [random_view(3, "s", number) for number in range(9)]
    shown = view_joints_often(joints, views, np.float32)
    assert (shown.shape, shown.dtype) == ((9, 700, NUM_JOINTS, 2), np.float32)
    for view, points in zip(views, shown, strict=True):
        centred = joints - joints[:, :1].mean(axis=0)
        turned = centred @ view_rotation(facing_rotation(centred), view.angles_rad).T
        projected = project_points(turned, view.focal, view.depth)
        np.testing.assert_allclose(points[:, Joint.LEFT_ANKLE], projected[:, 7], atol=1e-6)
        np.testing.assert_allclose(points[:, Joint.RIGHT_HAND], projected[:, 37:].mean(axis=1), atol=1e-6)


def test_an_upright_line_of_shoulders_is_refused():
    with pytest.raises(ValueError, match="faces nowhere"):
        facing_rotation(np.zeros((3, 52, 3)))


def test_views_do_not_depend_on_order_or_on_who_draws():
    wanted = [(name, number) for name in ("a/1", "b/2") for number in range(3)]
    forwards = {w: random_view(7, *w) for w in wanted}
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        drawn = dict(zip(wanted[::-1], pool.map(lambda w: random_view(7, *w), wanted[::-1]), strict=True))
    assert drawn == forwards
    assert len(set(forwards.values())) == len(wanted)
    assert random_view(8, "a/1", 0) != forwards["a/1", 0]


def test_random_views_fill_their_ranges():
    views = [random_view(0, "s", number) for number in range(400)]
    angles = np.array([view.angles_rad for view in views])
    assert (np.abs(angles) <= [0.2 * np.pi, 0, np.pi]).all()
    assert (np.abs(angles).max(axis=0)[[0, 2]] > [0.19 * np.pi, 0.97 * np.pi]).all()
    for values in ([view.focal for view in views], [view.depth for view in views]):
        assert 3.6 <= min(values) < 3.65
        assert 4.35 < max(values) <= 4.4


def test_evaluation_views_start_again_after_the_last():
    angles = np.array([[0.1, 0, 1], [0.2, 0, 2]])
    assert evaluation_view(angles, 3) == evaluation_view(angles, 1) == View((0.2, 0.0, 2.0), 4.0, 4.0)


def test_entries_put_the_mid_hip_last_and_go_back():
    points = np.random.default_rng(0).normal(size=(3, NUM_JOINTS, 2))
    entries = entries_from_points(points)
    assert (entries[:, -1] == points[:, Joint.MID_HIP]).all()
    assert (entries[:, 8] == points[:, Joint.RIGHT_HIP] - points[:, Joint.MID_HIP]).all()
    assert sorted(ENTRIES) == list(Joint)
    np.testing.assert_allclose(points_from_entries(entries), points, atol=1e-15)


def test_normalisation_makes_mean_0_and_deviation_1_and_goes_back():
    clips = [np.random.default_rng(i).normal(i, 1 + i, (50 + i, NUM_JOINTS, 2)) for i in range(3)]
    normalisation = measure_normalisation(iter(clips))
    rows = np.concatenate([normalisation.to_rows(clip) for clip in clips], axis=1)
    np.testing.assert_allclose(rows.mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(rows.std(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(normalisation.to_points(normalisation.to_rows(clips[1])), clips[1], atol=1e-12)


def test_moments_of_parts_merge_to_those_of_the_whole():
    clip = np.random.default_rng(0).normal(3, 0.01, (90, NUM_JOINTS, 2))
    merged = merge_moments([measure_moments(clip[:20]), measure_moments(clip[20:21]), measure_moments(clip[21:])])
    entries = entries_from_points(clip)
    assert merged.num_frames == 90
    np.testing.assert_allclose(merged.mean_E2, entries.mean(axis=0), atol=1e-15)
    np.testing.assert_allclose(merged.std_E2, entries.std(axis=0), rtol=1e-13)


def test_normalisation_of_nothing_or_of_a_still_point_is_refused():
    with pytest.raises(ValueError, match="no frame"):
        measure_normalisation([])
    with pytest.raises(ValueError, match="never moved"):
        measure_normalisation([np.ones((4, NUM_JOINTS, 2))])
    with pytest.raises(ValueError, match=r"std has shape \(3, 2\)"):
        Normalisation(np.zeros((NUM_JOINTS, 2)), np.ones((3, 2)))


def test_pixels_to_units_and_back_and_what_is_not_seen():
    joints = np.zeros((1, NUM_JOINTS, 3))
    joints[0, Joint.NOSE] = [768, 0, 0.5]
    joints[0, Joint.NECK] = [100, 100, 0]
    units = units_from_pixels(joints, 512, 256)
    assert units[0, Joint.NOSE].tolist() == [1.0, -0.5]
    assert units[0, Joint.NECK].tolist() == [0.0, 0.0]
    assert pixels_from_units(units, 512, 256)[0, Joint.NOSE].tolist() == [768, 0]
