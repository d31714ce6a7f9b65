"""SMPL-H joints without the mesh against the full mesh route, frames a second, side by side.

    OMP_NUM_THREADS=1 python benchmarks/joints.py [--frames 256]

On a stand-in body of 6,890 vertices; ten runs of ours, then one of the mesh route.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from human_body_prior.body_model.body_model import BodyModel
from smplx.lbs import lbs

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from models.body import compute_joints, load_body, write_stand_in_body


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=256)
    frames = parser.parse_args().frames
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    poses, trans = generator.normal(0, 0.6, (frames, 156)), generator.normal(0, 3, (frames, 3))
    betas = generator.normal(0, 1.5, 16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.npz")
        write_stand_in_body(path, 1, num_vertices=6890)
        body = load_body(path)
        model = BodyModel(str(path), model_type="smplh", num_betas=16, batch_size=1)
    compute_joints(body, poses, trans, betas)
    start = time.perf_counter()
    for _ in range(10):
        compute_joints(body, poses, trans, betas)
    ours_s = (time.perf_counter() - start) / 10
    start = time.perf_counter()
    with torch.inference_mode():
        lbs(
            torch.as_tensor(np.tile(betas, (frames, 1)), dtype=torch.float32),
            torch.as_tensor(poses, dtype=torch.float32), model.v_template, model.shapedirs, model.posedirs,
            model.J_regressor, model.kintree_table[0].long(), model.weights,
        )  # fmt: skip
    mesh_s = time.perf_counter() - start
    ours, mesh = frames / ours_s, frames / mesh_s
    print(f"joints alone {ours:,.0f} frames/s, mesh {mesh:,.0f} frames/s: {ours / mesh:.0f} times")


if __name__ == "__main__":
    main()
