"""Stage joints: its speed beside the full mesh route's, its error of resampling, its memory, its time per file.

    OMP_NUM_THREADS=1 python benchmarks/joints.py [mesh] [resampling] [memory] [files]

mesh: on a stand-in body of 6,890 vertices; ten runs of ours, then one of the mesh route.
resampling: an analytic motion, known at any time, captured at several rates and taken to 60 frames a second.
memory: `inbetween stage joints` on one recording; the largest sum of the proportional memory (PSS) of its whole process
    tree, sampled every 0.1 s, and each worker's processor time.
files: the same on 10, 100 and 1,000 files of 600 frames at 120 frames a second.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import torch
from human_body_prior.body_model.body_model import BodyModel
from scipy.interpolate import CubicSpline, interp1d
from scipy.spatial.transform import Rotation, Slerp
from smplx.lbs import lbs

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from models.body import SMPL_H_PARENTS, Body, compute_joints, load_body, write_stand_in_body
from models.resampling import plan_grid, resample
from tests.sandbox import Sandbox, copy_project

RATES = (59.94, 100.0, 120.00004577636719, 250.0)


def compare_with_mesh(frames: int) -> None:
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


class Analytic:
    """A motion of every joint, known at any time: waves of up to 3 Hz, hands of up to some 4 m/s."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self.rates_hz = generator.uniform(0.3, 3.0, (3, 159))
        self.phases = generator.uniform(0, 2 * np.pi, (3, 159))
        self.sizes = generator.uniform(-0.1, 0.1, (3, 159)) * (1 / self.rates_hz)

    def at(self, times_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        waves = np.sin(2 * np.pi * self.rates_hz * times_s[:, None, None] + self.phases) * self.sizes
        numbers = waves.sum(axis=1)
        return numbers[:, :156], numbers[:, 156:]


def joints_of(body: Body, poses: np.ndarray, trans: np.ndarray) -> np.ndarray:
    return compute_joints(body, poses, trans, np.zeros(1)).astype(np.float64)


def turn_between(
    body: Body, poses: np.ndarray, trans: np.ndarray, source_s: np.ndarray, at_s: np.ndarray
) -> np.ndarray:
    """Rotations at constant speed from frame to frame, then the kinematics."""
    turned = np.empty((len(at_s), 156))
    for joint in range(52):
        span = slice(3 * joint, 3 * joint + 3)
        turned[:, span] = Slerp(source_s, Rotation.from_rotvec(poses[:, span]))(at_s).as_rotvec()
    return joints_of(body, turned, interp1d(source_s, trans, axis=0)(at_s))


def compare_resampling(seconds: float = 20.0) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_stand_in_body(Path(folder, "model.npz"), 1)
        body = load_body(Path(folder, "model.npz"), dtype=torch.float64)
    motion = Analytic()
    speeds = np.linalg.norm(np.diff(joints_of(body, *motion.at(np.arange(0, seconds, 1 / 600))), axis=0), axis=-1) * 600
    print(f"largest speed of a joint {speeds.max():.1f} m/s; errors in mm, root of the mean square and largest")
    print(f"{'captured at':>12}{'nearest':>16}{'linear':>16}{'slerp first':>16}{'cubic spline':>16}{'six frames':>16}"
          f"{'bones':>8}")  # fmt: skip
    for fps in RATES:
        source_s = np.arange(int(seconds * fps)) / fps
        poses, trans = motion.at(source_s)
        joints = joints_of(body, poses, trans)
        grid = plan_grid(len(source_s), fps, 60)
        at_s = np.arange(grid.num_frames) / 60
        truth = joints_of(body, *motion.at(at_s))
        first, last = grid.source_span(0, grid.num_frames)
        ours = resample(joints.reshape(len(joints), -1)[first:last], grid, 0, grid.num_frames).reshape(truth.shape)
        at_s = np.minimum(at_s, source_s[-1])
        results = [
            joints[np.rint(at_s * fps).astype(int).clip(0, len(joints) - 1)],
            interp1d(source_s, joints, axis=0)(at_s),
            turn_between(body, poses, trans, source_s, at_s),
            CubicSpline(source_s, joints)(at_s),
            ours,
        ]
        cells = []
        for result in results:
            error_mm = 1000 * np.linalg.norm(result - truth, axis=-1)
            cells.append(f"{np.sqrt((error_mm**2).mean()):.4f} {error_mm.max():.4f}")
        parents = list(SMPL_H_PARENTS[1:])
        lengths = [1000 * np.linalg.norm(a[:, 1:] - a[:, parents], axis=-1) for a in (ours, truth)]
        bones = np.abs(lengths[0] - lengths[1]).max()
        print(f"{fps:>12.5f}" + "".join(f"{cell:>16}" for cell in cells) + f"{bones:>8.4f}")


class Cost(NamedTuple):
    """peak_mb: of the process tree.  workers_s: processor time of each process that had some, largest first."""

    peak_mb: float
    wall_s: float
    workers_s: list[float]


def run_stage(sandbox: Sandbox) -> Cost:
    start = time.perf_counter()
    log = sandbox.root / ".joints.log"
    peak, spent_s = 0.0, {}
    with log.open("w") as sink:
        process = subprocess.Popen(
            ["inbetween", "stage", "joints", "mine"], cwd=sandbox.root, env=sandbox.environment(), stdout=sink,
            stderr=sink,
        )  # fmt: skip
        root = psutil.Process(process.pid)
        while process.poll() is None:
            total = 0.0
            try:
                for one in [root, *root.children(recursive=True)]:
                    try:
                        total += one.memory_full_info().pss
                        times = one.cpu_times()
                        spent_s[one.pid] = times.user + times.system
                    except psutil.Error:
                        continue
            except psutil.Error:
                break
            peak = max(peak, total / 2**20)
            time.sleep(0.1)
    if process.wait():
        sys.exit(log.read_text())
    return Cost(peak, time.perf_counter() - start, sorted((s for s in spent_s.values() if s > 0.2), reverse=True))


def write_motions(folder: Path, num_files: int, num_frames: int) -> None:
    """Files of as many subjects as ten go into, each of its own bytes."""
    generator = np.random.default_rng(0)
    times = np.arange(num_frames)[:, None] / 120
    poses = 0.3 * np.sin(generator.uniform(0.5, 5, 156) * times + generator.uniform(0, 6, 156))
    for number in range(num_files):
        path = folder / f"{number // 10:03d}/{number:04d}_poses.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            path, poses=poses + number * 1e-4, trans=np.repeat(times, 3, axis=1), betas=np.zeros(16),
            gender=np.array("male"), mocap_framerate=np.array(120.0),
        )  # fmt: skip


def measure_stage(cases: list[tuple[int, int]]) -> None:
    print(f"{'files x frames':>20}{'peak MB':>10}{'wall s':>9}{'files/s':>9}  processor s of each process")
    for num_files, num_frames in cases:
        with tempfile.TemporaryDirectory() as folder:
            sandbox = copy_project(Path(folder) / "project")
            sandbox.run("inbetween", "data")
            subset = "{kind: amass, folder: mocap, split: train, licence: CC0, only: [], without: []}"
            text = (sandbox.root / "params.yaml").read_text()
            sandbox.write("params.yaml", text.replace("\nmocap:", f"\nmocap:\n  mine: {subset}", 1))
            write_motions(sandbox.root / "mocap", num_files, num_frames)
            cost = run_stage(sandbox)
        case, rate = f"{num_files} x {num_frames}", num_files / cost.wall_s
        workers = " ".join(f"{s:.1f}" for s in cost.workers_s)
        print(f"{case:>20}{cost.peak_mb:>10.0f}{cost.wall_s:>9.1f}{rate:>9.1f}  {workers}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="mesh, resampling, memory, files; all where none is named")
    parser.add_argument("--frames", type=int, default=256, help="of the mesh route")
    args = parser.parse_args()
    parts = args.parts or ["mesh", "resampling", "memory", "files"]
    if "mesh" in parts:
        compare_with_mesh(args.frames)
    if "resampling" in parts:
        compare_resampling()
    if "memory" in parts:
        measure_stage([(1, 1_000), (1, 10_000), (1, 100_000)])
    if "files" in parts:
        measure_stage([(10, 600), (100, 600), (1_000, 600)])


if __name__ == "__main__":
    main()
