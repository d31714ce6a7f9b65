"""SMPL-H bodies: the 52 joints of a motion, without the mesh.

A body's joints at rest are linear in its shape (betas) and soft-tissue (DMPL) coefficients, so the directions of the
6,890 vertices are reduced to those of the 52 joints once, and a motion costs its kinematics alone: about 70 times
the mesh route's speed, and the same joints.
Axes: V vertices, J joints (52), B betas, S soft-tissue (DMPL) coefficients, T frames, P pose numbers (156 = 52 x 3
axis-angle), D = 3 (x, y, z) m.
This is the one module that imports smplx and human_body_prior (2 s): import it only where bodies are needed.
"""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from human_body_prior.body_model.body_model import BodyModel
from smplx.lbs import batch_rigid_transform, batch_rodrigues
from torch import Tensor

from models.skeleton import FloatArray

Float32Array = npt.NDArray[np.float32]

NUM_SMPL_H_JOINTS = 52
NUM_POSE_NUMBERS = NUM_SMPL_H_JOINTS * 3
MAX_BETAS = 16
MAX_DMPLS = 8
CHUNK_FRAMES = 1024  # 4x4 matrices of 52 joints, several copies: some 30 MB

# What each array of a body's npz must look like; V is free.
_SHAPES: dict[str, tuple[int | None, ...]] = {
    "v_template": (None, 3),
    "shapedirs": (None, 3, None),
    "J_regressor": (NUM_SMPL_H_JOINTS, None),
    "kintree_table": (2, NUM_SMPL_H_JOINTS),
    "weights": (None, NUM_SMPL_H_JOINTS),
    "posedirs": (None, 3, (NUM_SMPL_H_JOINTS - 1) * 9),
    "f": (None, 3),
}
_DMPL_KEY = "eigvec"  # (V, 3, S) in AMASS's dmpls/GENDER/model.npz


@dataclass(frozen=True)
class Body:
    """The joints of one gender's body at rest, and how coefficients move them.

    rest_JD: m, all coefficients 0.  shape_JDB, soft_JDS: m for a coefficient of 1; S = 0 without DMPL directions.
    parents_J: each joint's parent; the root's own entry is not read.
    """

    rest_JD: Tensor
    shape_JDB: Tensor
    soft_JDS: Tensor
    parents_J: Tensor

    @property
    def num_betas(self) -> int:
        return self.shape_JDB.shape[2]

    @property
    def num_dmpls(self) -> int:
        return self.soft_JDS.shape[2]


def check_body_file(path: Path) -> None:
    """Look at the shapes in an SMPL-H npz; no array's values are read.

    Raises: ValueError if a key is missing or has another shape, with the file, the key and both shapes; OSError or
        zipfile.BadZipFile if it cannot be read.
    """
    found = _read_shapes(path)
    missing = [key for key in _SHAPES if key not in found]
    if missing:
        raise ValueError(f"{path}: lacks {', '.join(missing)}; an SMPL-H model.npz has {', '.join(_SHAPES)}")
    for key, expected in _SHAPES.items():
        shape = found[key]
        if len(shape) != len(expected) or any(e not in (None, s) for e, s in zip(expected, shape, strict=True)):
            wanted = ", ".join("any" if size is None else str(size) for size in expected)
            raise ValueError(f"{path}: {key} has shape {shape}; SMPL-H has ({wanted})")
    num_vertices = found["v_template"][0]
    for key, shape in (("shapedirs", found["shapedirs"][:1]), ("J_regressor", found["J_regressor"][1:])):
        if shape != (num_vertices,):
            raise ValueError(f"{path}: {key} is for {shape[0]} vertices, v_template for {num_vertices}")


def check_dmpl_file(path: Path, body_path: Path) -> None:
    """Look at the shape of a DMPL npz and hold it against its body's; no array's values are read.

    Raises: ValueError if it lacks the directions or has another body's, with both shapes; OSError or
        zipfile.BadZipFile if it cannot be read.
    """
    shape, num_vertices = _read_shapes(path).get(_DMPL_KEY), _read_shapes(body_path)["v_template"][0]
    if shape is None or len(shape) != 3 or shape[:2] != (num_vertices, 3) or shape[2] < MAX_DMPLS:
        raise ValueError(f"{path}: {_DMPL_KEY} is {shape or 'missing'}; ({num_vertices}, 3, {MAX_DMPLS}) is needed")


def _read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each array of an npz."""
    shapes = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as member:
                version = np.lib.format.read_magic(member)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shapes[name.removesuffix(".npy")] = read(member)[0]
    return shapes


def load_body(path: Path, dmpl_path: Path | None = None, dtype: torch.dtype = torch.float32) -> Body:
    """Read one gender's SMPL-H model through human_body_prior's BodyModel, and reduce it to its joints.

    Args:
        path: SMPL-H npz (model.npz, with 16 betas).
        dmpl_path: DMPL npz of the same gender (`eigvec`, (V, 3, 8)); None = no soft-tissue directions.

    Raises: ValueError if a file is not what it should be, or the two have different vertices.
    Source: human_body_prior 0.8.5.0 loads, but its own forward pass does not work with smplx 0.1.28, and it reads no
        DMPL file: the kinematics are smplx's (iterate_joints).
    """
    check_body_file(path)
    # The joints do not depend on the pose directions: not loading them saves three quarters of the memory.
    model = BodyModel(str(path), model_type="smplh", num_betas=MAX_BETAS, batch_size=1, use_posedirs=False, dtype=dtype)
    regressor_JV = model.J_regressor
    soft_VDS = torch.zeros(regressor_JV.shape[1], 3, 0, dtype=dtype)
    if dmpl_path is not None:
        soft_VDS = torch.as_tensor(_read_dmpls(dmpl_path, regressor_JV.shape[1]), dtype=dtype)
    return Body(
        rest_JD=regressor_JV @ model.v_template[0],
        shape_JDB=torch.einsum("jv,vdb->jdb", regressor_JV, model.shapedirs),
        soft_JDS=torch.einsum("jv,vds->jds", regressor_JV, soft_VDS),
        parents_J=model.kintree_table[0].long(),
    )


def _read_dmpls(path: Path, num_vertices: int) -> npt.NDArray[np.floating]:
    with np.load(path) as file:
        if _DMPL_KEY not in file.files:
            raise ValueError(f"{path}: lacks {_DMPL_KEY}; a DMPL model.npz has it, ({num_vertices}, 3, 8)")
        directions: npt.NDArray[np.floating] = file[_DMPL_KEY]
    if directions.ndim != 3 or directions.shape[:2] != (num_vertices, 3):
        raise ValueError(f"{path}: {_DMPL_KEY} has shape {directions.shape}; ({num_vertices}, 3, any) is needed")
    return directions


def compute_joints(
    body: Body,
    poses_TP: FloatArray,
    trans_TD: FloatArray,
    betas_B: FloatArray,
    dmpls_TS: FloatArray | None = None,
    chunk_frames: int = CHUNK_FRAMES,
) -> Float32Array:
    """The 52 joints of every frame.

    Args:
        body: of the person's gender.
        poses_TP: (T, 156) axis-angle, rad, SMPL-H's order.
        trans_TD: (T, 3) m, added to all joints.
        betas_B: (B,), at most as many as the body has; the missing ones are 0.
        dmpls_TS: (T, S); None = soft tissue at rest, as on a body without DMPL directions.
        chunk_frames: frames computed at once; memory beyond input and output grows with this alone.

    Returns: (T, 52, 3) float32 m, in the frame of reference of trans (AMASS: z up).
    Raises: ValueError on shapes that do not fit one another or the body.
    """
    joints_TJD = np.empty((len(poses_TP), NUM_SMPL_H_JOINTS, 3), np.float32)
    done = 0
    for chunk in iterate_joints(body, poses_TP, trans_TD, betas_B, dmpls_TS, chunk_frames):
        joints_TJD[done : done + len(chunk)] = chunk
        done += len(chunk)
    return joints_TJD


def iterate_joints(
    body: Body,
    poses_TP: FloatArray,
    trans_TD: FloatArray,
    betas_B: FloatArray,
    dmpls_TS: FloatArray | None = None,
    chunk_frames: int = CHUNK_FRAMES,
) -> Iterator[Float32Array]:
    """compute_joints in chunks of at most chunk_frames, in order."""
    _check_motion(body, poses_TP, trans_TD, betas_B, dmpls_TS)
    dtype = body.rest_JD.dtype
    betas = torch.as_tensor(np.asarray(betas_B), dtype=dtype)
    rest_JD = body.rest_JD + body.shape_JDB[..., : len(betas)] @ betas
    for start in range(0, len(poses_TP), chunk_frames):
        stop = min(start + chunk_frames, len(poses_TP))
        rest_TJD = rest_JD.expand(stop - start, -1, -1)
        if dmpls_TS is not None:
            soft_TS = torch.as_tensor(dmpls_TS[start:stop], dtype=dtype)
            rest_TJD = rest_TJD + torch.einsum("jds,ts->tjd", body.soft_JDS[..., : soft_TS.shape[1]], soft_TS)
        poses_TP3 = torch.as_tensor(poses_TP[start:stop], dtype=dtype).reshape(-1, 3)
        with torch.inference_mode():
            rotations_TJ33 = batch_rodrigues(poses_TP3).view(stop - start, NUM_SMPL_H_JOINTS, 3, 3)
            posed_TJD, _ = batch_rigid_transform(rotations_TJ33, rest_TJD, body.parents_J, dtype=dtype)
        # Added in the input's own precision: far from the origin float32 would lose the joints' last digits twice.
        placed_TJD = posed_TJD.numpy() + trans_TD[start:stop, None]
        yield placed_TJD.astype(np.float32)


def _check_motion(
    body: Body, poses_TP: FloatArray, trans_TD: FloatArray, betas_B: FloatArray, dmpls_TS: FloatArray | None
) -> None:
    num_frames = len(poses_TP)
    if poses_TP.shape != (num_frames, NUM_POSE_NUMBERS):
        raise ValueError(f"poses have shape {poses_TP.shape}; SMPL-H has (frames, {NUM_POSE_NUMBERS})")
    if trans_TD.shape != (num_frames, 3):
        raise ValueError(f"trans has shape {trans_TD.shape}; poses ask for ({num_frames}, 3)")
    if betas_B.ndim != 1 or len(betas_B) > body.num_betas:
        raise ValueError(f"betas have shape {betas_B.shape}; the body has {body.num_betas}")
    if dmpls_TS is None:
        return
    if body.num_dmpls == 0:
        raise ValueError("dmpls are given, and the body was loaded without DMPL directions")
    if dmpls_TS.ndim != 2 or len(dmpls_TS) != num_frames or dmpls_TS.shape[1] > body.num_dmpls:
        raise ValueError(f"dmpls have shape {dmpls_TS.shape}; ({num_frames}, at most {body.num_dmpls}) is needed")


# SMPL-H's joint tree: 22 of the body, then three for each finger, left hand first.
_BODY_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19)
SMPL_H_PARENTS: tuple[int, ...] = (
    *_BODY_PARENTS,
    *(wrist if k == 0 else first + k - 1 for wrist, base in ((20, 22), (21, 37)) for first in range(base, base + 15, 3)
      for k in range(3)),
)  # fmt: skip
# Where the stand-in's joints are at rest: m, arms out, y up, z ahead, x to its left; the left half and the middle.
_STAND_IN_REST = {
    0: (0.0, 0.0, 0.0), 1: (0.09, -0.08, 0.0), 3: (0.0, 0.11, -0.02), 4: (0.1, -0.48, 0.01), 6: (0.0, 0.25, 0.0),
    7: (0.09, -0.9, -0.02), 9: (0.0, 0.31, 0.02), 10: (0.1, -0.96, 0.11), 12: (0.0, 0.52, -0.02),
    13: (0.08, 0.43, -0.01), 15: (0.0, 0.6, 0.03), 16: (0.18, 0.44, -0.01), 18: (0.44, 0.43, -0.02),
    20: (0.69, 0.44, -0.02),
}  # fmt: skip
_RIGHT_OF = {1: 2, 4: 5, 7: 8, 10: 11, 13: 14, 16: 17, 18: 19, 20: 21}
_KNUCKLES_M = ((0.1, 0.03), (0.1, 0.005), (0.08, -0.04), (0.09, -0.02), (0.03, 0.04))  # from the wrist: (out, ahead)
_FINGER_M = 0.03  # from one joint of a finger to the next


def stand_in_rest() -> npt.NDArray[np.float64]:
    """(52, 3) m: the stand-in body's joints at rest, a person of 1.7 m with the arms out, y up."""
    rest_JD = np.zeros((NUM_SMPL_H_JOINTS, 3))
    for joint, place in _STAND_IN_REST.items():
        rest_JD[joint] = place
        if joint in _RIGHT_OF:
            rest_JD[_RIGHT_OF[joint]] = np.multiply(place, (-1, 1, 1))
    for wrist, base, side in ((20, 22, 1), (21, 37, -1)):
        for finger, (out, ahead) in enumerate(_KNUCKLES_M):
            for knuckle in range(3):
                offset = (side * (out + knuckle * _FINGER_M), 0.0, ahead)
                rest_JD[base + 3 * finger + knuckle] = rest_JD[wrist] + offset
    return rest_JD


def write_stand_in_body(
    path: Path,
    seed: int,
    *,
    num_vertices: int = 4 * NUM_SMPL_H_JOINTS,
    scale: float = 1.0,
    pose_directions: float = 0.0,
) -> None:
    """Write a body of ours in the form of SMPL-H's model.npz: the same keys and axes, a cloud instead of a mesh.

    It stands in where the licensed body is not at hand. Its bones are a person's, its first beta is stature, the
    rest move its joints by some millimetres each.

    Args:
        path: the npz to write; the same arguments always give the same bytes.
        seed: of the vertices and directions; give each gender its own.
        num_vertices: at least 104; SMPL-H has 6,890.
        scale: stature, 1 = 1.7 m.
        pose_directions: size of the pose-dependent offsets in m; the joints do not depend on them.
    """
    generator = np.random.default_rng(seed)
    rest_JD = stand_in_rest() * scale
    owner_V = np.arange(num_vertices) % NUM_SMPL_H_JOINTS
    template_VD = rest_JD[owner_V] + generator.normal(0, 0.03, (num_vertices, 3))
    regressor_JV = np.where(
        owner_V == np.arange(NUM_SMPL_H_JOINTS)[:, None], generator.uniform(0.2, 1, num_vertices), 0
    )
    regressor_JV /= regressor_JV.sum(axis=1, keepdims=True)
    # The mean of a joint's vertices, as the regressor weighs them, is the joint.
    template_VD += (rest_JD - regressor_JV @ template_VD)[owner_V]
    shape_VDB = generator.normal(0, 0.004, (num_vertices, 3, MAX_BETAS))
    shape_VDB[..., 0] = 0.04 * template_VD
    weights_VJ = 0.9 * np.eye(NUM_SMPL_H_JOINTS)[owner_V]
    weights_VJ[np.arange(num_vertices), np.maximum(np.array(SMPL_H_PARENTS), 0)[owner_V]] += 0.1
    pose_shape = (num_vertices, 3, (NUM_SMPL_H_JOINTS - 1) * 9)
    pose_VDF = np.zeros(pose_shape, np.float32)
    if pose_directions:
        pose_VDF = (generator.standard_normal(pose_shape, np.float32) * np.float32(pose_directions)).astype(np.float32)
    parents = np.array(SMPL_H_PARENTS, np.int64)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez_compressed(
            file,
            v_template=template_VD.astype(np.float32),
            shapedirs=shape_VDB.astype(np.float32),
            posedirs=pose_VDF,
            J_regressor=regressor_JV.astype(np.float32),
            # As SMPL-H has it: the root's parent is -1 in 32 unsigned bits.
            kintree_table=np.stack([parents, np.arange(NUM_SMPL_H_JOINTS)]).astype(np.uint32),
            weights=weights_VJ.astype(np.float32),
            f=np.arange(num_vertices - num_vertices % 3, dtype=np.uint32).reshape(-1, 3),
        )


def write_stand_in_dmpls(
    path: Path, seed: int, *, num_vertices: int = 4 * NUM_SMPL_H_JOINTS, num_dmpls: int = 8
) -> None:
    """Write soft-tissue directions of ours in the form of AMASS's dmpls/GENDER/model.npz, some millimetres each."""
    directions_VDS = np.random.default_rng(seed).normal(0, 0.003, (num_vertices, 3, num_dmpls))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez_compressed(file, eigvec=directions_VDS.astype(np.float32))
