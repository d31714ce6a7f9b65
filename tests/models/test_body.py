import tracemalloc

import numpy as np
import pytest
import torch
from human_body_prior.body_model.body_model import BodyModel
from smplx.lbs import lbs

from models.body import (
    NUM_SMPL_H_JOINTS,
    SMPL_H_PARENTS,
    check_body_file,
    compute_joints,
    load_body,
    stand_in_rest,
    write_stand_in_body,
    write_stand_in_dmpls,
)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A body with as many vertices as SMPL-H and soft-tissue directions."""
    folder = tmp_path_factory.mktemp("body")
    generator = np.random.default_rng(0)
    write_stand_in_body(folder / "small.npz", 1, num_vertices=6890)
    with np.load(folder / "small.npz") as file:
        arrays = dict(file)
    arrays["posedirs"] = generator.standard_normal(arrays["posedirs"].shape, np.float32) * np.float32(1e-3)
    np.savez(folder / "model.npz", **arrays)
    write_stand_in_dmpls(folder / "dmpls.npz", 2, num_vertices=6890)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "model.npz"
    write_stand_in_body(path, 3)
    return path


def motion(num_frames, seed=0, num_betas=16):
    generator = np.random.default_rng(seed)
    poses = generator.normal(0, 0.6, (num_frames, 156))
    poses[0] = 0  # the rest pose: an axis without direction
    return poses, generator.normal(0, 3, (num_frames, 3)), generator.normal(0, 1.5, num_betas)


def mesh_joints(path, poses, trans, betas, dmpls=None, dmpl_path=None):
    """The whole smplx route over the vertices, in float64."""
    model = BodyModel(str(path), model_type="smplh", num_betas=16, batch_size=1, dtype=torch.float64)
    coefficients, directions = np.zeros((len(poses), 16)), model.shapedirs
    coefficients[:, : len(betas)] = betas
    if dmpls is not None:
        soft = torch.as_tensor(np.load(dmpl_path)["eigvec"][:, :, : dmpls.shape[1]], dtype=torch.float64)
        coefficients = np.concatenate([coefficients, dmpls], axis=1)
        directions = torch.cat([directions, soft], dim=2)
    _, joints = lbs(
        torch.as_tensor(coefficients), torch.as_tensor(poses), model.v_template, directions, model.posedirs,
        model.J_regressor, model.kintree_table[0].long(), model.weights,
    )  # fmt: skip
    return joints.numpy() + trans[:, None]


@pytest.mark.parametrize("with_dmpls", [False, True])
@pytest.mark.parametrize("num_betas", [10, 16])
def test_joints_are_the_mesh_routes(large, with_dmpls, num_betas):
    poses, trans, betas = motion(6, num_betas=num_betas)
    dmpl_path = large / "dmpls.npz" if with_dmpls else None
    dmpls = np.random.default_rng(5).normal(0, 2, (6, 8)) if with_dmpls else None
    body = load_body(large / "model.npz", dmpl_path)
    ours = compute_joints(body, poses, trans, betas, dmpls)
    mesh = mesh_joints(large / "model.npz", poses, trans, betas, dmpls, dmpl_path)
    assert ours.shape == (6, 52, 3)
    np.testing.assert_allclose(ours, mesh, atol=2e-6, rtol=0)
    if with_dmpls:
        still = compute_joints(body, poses, trans, betas)
        assert np.abs(still - ours).max() > 1e-4


def test_chunks_change_nothing_and_bound_the_memory(small):
    body = load_body(small)
    poses, trans, betas = motion(9000)
    whole = compute_joints(body, poses[:40], trans[:40], betas)
    np.testing.assert_allclose(
        compute_joints(body, poses[:40], trans[:40], betas, chunk_frames=7), whole, atol=1e-6, rtol=0
    )
    tracemalloc.start()  # NumPy's share; torch's is bounded by the chunk alone
    compute_joints(body, poses, trans, betas, chunk_frames=500)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * 9000 * 52 * 3 * 4


def test_the_rest_pose_is_the_stand_ins_and_trans_moves_it(small):
    joints = compute_joints(load_body(small), np.zeros((1, 156)), np.array([[1.0, 2, 3]]), np.zeros(10))
    np.testing.assert_allclose(joints[0], stand_in_rest() + np.array([1, 2, 3]), atol=1e-6)


def test_a_quarter_turn_of_the_left_shoulder_by_hand(small):
    poses = np.zeros((1, 156))
    poses[0, 16 * 3 + 2] = np.pi / 2  # about z: the left arm, along +x at rest, points up
    joints = compute_joints(load_body(small), poses, np.zeros((1, 3)), np.zeros(0))[0]
    rest = stand_in_rest()
    out, _, ahead = rest[20] - rest[16]
    np.testing.assert_allclose(joints[20] - joints[16], [0, out, ahead], atol=1e-6)
    np.testing.assert_allclose(joints[21], rest[21], atol=1e-6)


def test_the_first_beta_is_stature(small):
    body = load_body(small)
    joints = compute_joints(body, np.zeros((1, 156)), np.zeros((1, 3)), np.array([1.0]))[0]
    height, rest = np.ptp(joints[:, 1]), np.ptp(stand_in_rest()[:, 1])
    assert height == pytest.approx(1.04 * rest, rel=1e-5)


def test_the_stand_in_is_a_person(small):
    rest = stand_in_rest()
    assert np.ptp(rest[:, 1]) == pytest.approx(1.56, abs=0.02)  # head joint to toe joint
    assert len(SMPL_H_PARENTS) == NUM_SMPL_H_JOINTS
    bones = np.linalg.norm(rest[1:] - rest[list(SMPL_H_PARENTS[1:])], axis=1)
    assert ((bones > 0.02) & (bones < 0.45)).all()
    np.testing.assert_allclose(rest[[2, 5, 17, 21]] * [-1, 1, 1], rest[[1, 4, 16, 20]])
    check_body_file(small)


def test_a_stand_in_is_the_same_bytes_each_time(small, tmp_path):
    write_stand_in_body(tmp_path / "again.npz", 3)
    assert (tmp_path / "again.npz").read_bytes() == small.read_bytes()
    assert small.stat().st_size < 100_000


def test_a_file_that_is_no_body_is_refused_by_name(small, tmp_path):
    with np.load(small) as file:
        arrays = dict(file)
    np.savez(tmp_path / "smpl.npz", **arrays | {"J_regressor": arrays["J_regressor"][:24]})
    with pytest.raises(ValueError, match=r"smpl\.npz: J_regressor has shape \(24, 208\); SMPL-H has \(52, any\)"):
        load_body(tmp_path / "smpl.npz")
    del arrays["weights"]
    np.savez(tmp_path / "part.npz", **arrays)
    with pytest.raises(ValueError, match=r"part\.npz: lacks weights"):
        load_body(tmp_path / "part.npz")
    write_stand_in_dmpls(tmp_path / "dmpls.npz", 0, num_vertices=300)
    with pytest.raises(ValueError, match=r"eigvec has shape \(300, 3, 8\); \(208, 3, any\)"):
        load_body(small, tmp_path / "dmpls.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"poses_TP": np.zeros((4, 72))}, r"poses have shape \(4, 72\)"),
        ({"trans_TD": np.zeros((3, 3))}, r"trans has shape \(3, 3\)"),
        ({"betas_B": np.zeros(300)}, r"betas have shape \(300,\); the body has 16"),
        ({"dmpls_TS": np.zeros((4, 8))}, "without DMPL directions"),
    ],
)
def test_a_motion_that_does_not_fit_is_refused(small, change, message):
    given = {"poses_TP": np.zeros((4, 156)), "trans_TD": np.zeros((4, 3)), "betas_B": np.zeros(10)} | change
    with pytest.raises(ValueError, match=message):
        compute_joints(load_body(small), **given)
