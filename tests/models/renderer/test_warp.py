"""The pose-guided warp on painted people whose true in-between frame is known."""

import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from models.renderer.flow import FlowPair, FlowResult
from models.renderer.methods import KeyPair, render_between
from models.renderer.warp import Box, WarpPair, WarpSettings, carry_pose, draw_matte
from models.skeleton import Joint
from tests.models.renderer.scenes import TORSO_PX, person, pose, psnr, texture

J = Joint
HEIGHT, WIDTH = 270, 240
ARM = (J.LEFT_ELBOW, J.LEFT_WRIST, J.LEFT_HAND)


def ground(shift_px=0):
    """A wide painted wall, seen `shift_px` farther to the right."""
    return np.ascontiguousarray(texture(HEIGHT, WIDTH + 60, 9, 120, 240)[:, 30 + shift_px : 30 + shift_px + WIDTH])


def keys_of(angles, with_mattes=True, grounds=(None, None), centres=((120, 90), (120, 90))):
    poses = [pose(angle, centre) for angle, centre in zip(angles, centres, strict=True)]
    painted = [person(joints, ground() if wall is None else wall) for joints, wall in zip(poses, grounds, strict=True)]
    mattes = tuple(matte if with_mattes else None for _, matte in painted)
    return KeyPair(painted[0][0], painted[1][0], mattes, *poses, TORSO_PX)


def render_warp(keys, joints, t, base=FlowPair, settings=None):
    return WarpPair(keys, base, settings=settings).at(t, joints).image


def around_arm(joints, radius_px=14):
    """True within `radius_px` of the left arm."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    start, end = joints[J.LEFT_SHOULDER, :2], joints[J.LEFT_HAND, :2]
    length = np.linalg.norm(end - start)
    axis = (end - start) / length
    along = (x - start[0]) * axis[0] + (y - start[1]) * axis[1]
    across = (y - start[1]) * axis[0] - (x - start[0]) * axis[1]
    return np.hypot(along - np.clip(along, 0, length), across) < radius_px


@pytest.mark.parametrize("t", [0.25, 0.5])
def test_the_arm_is_where_the_pose_says(t):
    keys = keys_of((40, 80))
    joints = pose(40 + 40 * t)
    truth, _ = person(joints, ground())
    arm = around_arm(joints)
    warped, flow, blend = (render_between(name, keys, [t], [joints])[0].image for name in ("warp", "flow", "blend"))
    assert psnr(warped, truth, arm) > 22
    assert psnr(warped, truth, arm) > psnr(flow, truth, arm) + 3
    assert psnr(warped, truth, arm) > psnr(blend, truth, arm) + 3
    assert psnr(warped, truth) > psnr(flow, truth)


def test_what_hung_beside_the_trunk_does_not_stay_on_it():
    """The arm leaves the trunk's side: the trunk, which reaches that far, must not carry the arm's pixels."""
    keys, joints = keys_of((0, 90)), pose(60)
    truth, _ = person(joints, ground())
    settings = (None, WarpSettings(astray_low=1e5, astray_high=2e5))
    posed, loose = (WarpPair(keys, settings=setting).compose(0.5, joints) for setting in settings)
    beside = np.zeros((HEIGHT, WIDTH), bool)
    beside[115:150, 142:156] = True
    where = posed.box.rows_columns
    tight, free = (psnr(each.joined.image, truth[where], beside[where]) for each in (posed, loose))
    assert tight > free + 2


def test_the_arm_has_left_where_it_was_in_the_keys():
    """The base leaves a fading arm where it was in either key."""
    keys, joints = keys_of((40, 80)), pose(60)
    truth, _ = person(joints, ground())
    image = render_warp(keys, joints, 0.5)
    flow = render_between("flow", keys, [0.5])[0].image
    for angle in (40, 80):
        old = around_arm(pose(angle), 6) & ~around_arm(joints, 20)
        old[:, : int(joints[J.LEFT_SHOULDER, 0]) + 12] = False
        assert psnr(image, truth, old) > max(26, psnr(flow, truth, old) + 5)


def test_without_a_matte_it_is_drawn_from_the_skeleton():
    keys, joints = keys_of((20, 100), with_mattes=False), pose(60)
    truth, _ = person(joints, ground())
    arm = around_arm(joints)
    flow = render_between("flow", keys, [0.5])[0].image
    assert psnr(render_warp(keys, joints, 0.5), truth, arm) > psnr(flow, truth, arm) + 2


def test_drawn_matte_covers_the_bones_and_little_else():
    joints = pose(90)
    matte = draw_matte(joints, TORSO_PX, HEIGHT, WIDTH, WarpSettings())
    _, truth = person(joints, ground())
    assert matte.shape == (HEIGHT, WIDTH)
    assert 0 <= matte.min() < matte.max() <= 1
    is_drawn, is_person = matte > 0.5, truth > 127
    assert (is_drawn & is_person).sum() / (is_drawn | is_person).sum() > 0.6
    assert matte[150, 220] == 0
    assert not draw_matte(np.zeros_like(joints), TORSO_PX, HEIGHT, WIDTH, WarpSettings()).any()


def test_nothing_moves_and_the_result_is_the_base():
    keys = keys_of((30, 30))
    base = FlowPair(keys.image_0, keys.image_1).at(0.5).image
    assert np.array_equal(render_warp(keys, pose(30), 0.5), base)


def test_a_joint_that_moves_less_than_the_gate_opens_for_costs_nothing():
    keys = keys_of((30, 31))
    calls = []

    def base(image_0, image_1):
        calls.append(1)
        return FlowPair(image_0, image_1)

    WarpPair(keys, base).at(0.5, pose(30.5))
    assert len(calls) == 1


def test_keys_come_out_as_they_are():
    keys = keys_of((20, 100))
    first, last = render_between("warp", keys, [0.0, 1.0], [pose(20), pose(100)])
    assert np.array_equal(first.image, keys.image_0)
    assert np.array_equal(last.image, keys.image_1)
    assert first.posed_share == last.posed_share == 0


@pytest.mark.parametrize("lacking", ["key", "target", "everywhere"])
def test_a_limb_not_seen_is_left_to_the_base(lacking):
    keys, joints = keys_of((20, 100)), pose(60)
    if lacking != "target":
        hidden = keys.joints_1_px_JD.copy()
        hidden[list(ARM) if lacking == "key" else slice(None)] = 0
        keys = replace(keys, joints_1_px_JD=hidden)
    if lacking != "key":
        joints = joints.copy()
        joints[list(ARM) if lacking == "target" else slice(None)] = 0
    base = FlowPair(keys.image_0, keys.image_1).at(0.5).image
    assert np.array_equal(render_warp(keys, joints, 0.5), base)


def test_without_a_torso_length_the_result_is_the_base():
    keys = replace(keys_of((20, 100)), torso_px=float("nan"))
    base = FlowPair(keys.image_0, keys.image_1).at(0.5).image
    assert np.array_equal(render_warp(keys, pose(60), 0.5), base)


@pytest.mark.parametrize(("pan_px", "with_mattes"), [(2, True), (4, True), (12, True), (12, False)])
def test_a_moving_camera_is_no_worse_than_flow(pan_px, with_mattes):
    """The camera pans; the person stays in the middle of the picture and lifts an arm."""
    keys = keys_of((20, 80), with_mattes, grounds=(ground(-pan_px // 2), ground(pan_px // 2)))
    joints = pose(50)
    truth, matte = person(joints, ground(0))
    warped, flow = (render_between(name, keys, [0.5], [joints])[0].image for name in ("warp", "flow"))
    assert psnr(warped, truth) >= psnr(flow, truth)
    assert psnr(warped, truth, matte > 127) > psnr(flow, truth, matte > 127)


@pytest.mark.parametrize(("height", "width"), [(271, 239), (135, 121)])
def test_odd_sizes_and_a_person_partly_outside(height, width):
    keys = keys_of((20, 100))
    cut = np.s_[:height, :width]
    images = [
        np.ascontiguousarray(np.pad(each, ((0, 1), (0, 0), (0, 0)))[cut]) for each in (keys.image_0, keys.image_1)
    ]
    mattes = tuple(np.ascontiguousarray(np.pad(matte, ((0, 1), (0, 0)))[cut]) for matte in keys.mattes)
    image = render_warp(KeyPair(*images, mattes, keys.joints_0_px_JD, keys.joints_1_px_JD, TORSO_PX), pose(60), 0.5)
    assert image.shape == (height, width, 3)


def test_a_person_wholly_outside_is_left_to_the_base():
    keys = keys_of((20, 100))
    poses = [pose(angle, (1000, 90)) for angle in (20, 100)]
    keys = replace(keys, joints_0_px_JD=poses[0], joints_1_px_JD=poses[1])
    base = FlowPair(keys.image_0, keys.image_1).at(0.5).image
    assert np.array_equal(render_warp(keys, pose(60, (1000, 90)), 0.5), base)


def test_another_base_interpolator_is_used_for_both_joins():
    seen = []

    class Mean:
        def __init__(self, image_0, image_1):
            seen.append(image_0.shape)
            self.images = (image_0, image_1)

        def at(self, t):
            mean = (self.images[0] * (1 - t) + self.images[1] * t).astype(np.uint8)
            return FlowResult(mean, *self.images, np.zeros((2, *mean.shape[:2], 2), np.float32))

    keys = keys_of((20, 100))
    images = (keys.image_0, keys.image_1)
    image = render_warp(keys, pose(60), 0.5, base=Mean)
    assert len(seen) == 2
    assert seen[0] == (HEIGHT, WIDTH, 3)
    truth, _ = person(pose(60), ground())
    arm = around_arm(pose(60))
    assert psnr(image, truth, arm) > psnr(Mean(*images).at(0.5).image, truth, arm) + 3


def test_pose_flow_leads_each_point_of_a_bone_to_its_place_in_the_keys():
    target, keys = pose(60), np.stack([pose(20), pose(100)])
    box = Box(10, 20, 230, 260)
    flow = carry_pose(target, keys, TORSO_PX, box, WarpSettings())
    assert flow.offsets_px_KHWD.shape == (2, 240, 220, 2)
    for share in (0.3, 0.5, 0.7):
        elbow, wrist = (target[joint, :2] for joint in (J.LEFT_ELBOW, J.LEFT_WRIST))
        x, y = np.rint(elbow + share * (wrist - elbow)).astype(int)
        for key in (0, 1):
            source = keys[key][J.LEFT_ELBOW, :2] + share * (keys[key][J.LEFT_WRIST, :2] - keys[key][J.LEFT_ELBOW, :2])
            found = np.array([x, y]) + flow.offsets_px_KHWD[key, y - box.top, x - box.left]
            assert found == pytest.approx(source, abs=2.0)
    assert flow.pull_HW[0, 0] == 0


def test_pose_flow_follows_a_shift_of_the_whole_person():
    target = pose(60)
    moved = target + np.array([9, -4, 0])
    flow = carry_pose(target, np.stack([target, moved]), TORSO_PX, Box(0, 0, WIDTH, HEIGHT), WarpSettings())
    is_pulled = flow.pull_HW > 0.01
    assert np.abs(flow.offsets_px_KHWD[0][is_pulled]).max() < 0.01
    assert flow.offsets_px_KHWD[1][is_pulled] == pytest.approx(np.tile([9, -4], (is_pulled.sum(), 1)), abs=0.01)


def test_pose_flow_survives_bones_without_length():
    target = pose(60)
    target[J.LEFT_HAND] = target[J.LEFT_WRIST]
    target[J.LEFT_HIP] = target[J.RIGHT_HIP] = target[J.LEFT_SHOULDER] = target[J.RIGHT_SHOULDER]
    flow = carry_pose(target, np.stack([pose(20), pose(100)]), TORSO_PX, Box(0, 0, WIDTH, HEIGHT), WarpSettings())
    assert np.isfinite(flow.offsets_px_KHWD).all()


def test_wrong_input_is_refused():
    keys = keys_of((20, 100))
    with pytest.raises(ValueError, match="needs the joints observed"):
        WarpPair(KeyPair(keys.image_0, keys.image_1))
    with pytest.raises(ValueError, match="needs the joints predicted"):
        render_between("warp", keys, [0.5])
    with pytest.raises(ValueError, match="matte"):
        WarpPair(replace(keys, mattes=(keys.mattes[0][:50], keys.mattes[1])))


SCRIPT = """
import hashlib
from tests.models.renderer.scenes import pose
from tests.models.renderer.test_warp import keys_of, render_warp
print(hashlib.sha256(render_warp(keys_of((20, 100)), pose(60), 0.5)).hexdigest())
"""


def test_same_bytes_again_and_in_another_process():
    images = [render_warp(keys_of((20, 100)), pose(60), 0.5) for _ in range(2)]
    assert np.array_equal(*images)
    there = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == hashlib.sha256(images[0]).hexdigest()
