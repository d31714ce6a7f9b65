"""The generator's labels against another implementation of them: equal results, then frames/s, in turns on one thread.

    OMP_NUM_THREADS=1 python benchmarks/labels.py [--module FILE] [--frames 1] [--repeat 5]

FILE is a Python file with draw_pose_maps(joints, height, width), draw_skeletons and draw_human_masks or some of them:
joints (T, 19, 3) x px, y px, score -> (T, 19, H, W) float, (T, H, W, 3) uint8 RGB, (T, H, W) bool.
Without it: benchmarks/plain_labels.py. A walking figure at 480 x 320 (width x height); medians, and the ratio of them.
Ours draws into the same memory every time (LabelCanvas), as training does; "fresh" is the function that gives new
memory with each call, which the system must clear first.
"""

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from models.renderer import labels

PLAIN = Path(__file__).resolve().parent / "plain_labels.py"
HEIGHT, WIDTH = 320, 480
TOLERANCE = {"draw_pose_maps": 1e-6, "draw_skeletons": 0, "draw_human_masks": 0}
CPU_MS_2021 = {"draw_pose_maps": 74, "draw_skeletons": 107}  # a frame of this size, of the 2021 code
# Of one standing figure, in parts of its height from the top, to the left of the picture's middle negative.
FIGURE_J2 = (
    (0.0, 0.06), (0.0, 0.16), (-0.09, 0.19), (-0.12, 0.34), (-0.15, 0.46), (0.09, 0.19), (0.12, 0.34), (0.15, 0.46),
    (0.0, 0.48), (-0.05, 0.5), (-0.07, 0.72), (-0.06, 0.93), (0.05, 0.5), (0.07, 0.72), (0.06, 0.93), (0.09, 0.97),
    (-0.09, 0.97), (0.16, 0.5), (-0.16, 0.5),
)  # fmt: skip


def load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None or not file.is_file():
        sys.exit(f"{file}: no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def walking_figure(num_frames: int) -> npt.NDArray[np.float64]:
    """(T, 19, 3): the figure, 280 px high, with joints that swing; its feet leave the picture in the last frames."""
    rng = np.random.default_rng(0)
    swing_T = np.sin(np.arange(num_frames) / 3)[:, None, None]
    joints_px_TJD = np.ones((num_frames, 19, 3))
    joints_px_TJD[..., :2] = np.array(FIGURE_J2) * 280 + (200, 12) + swing_T * rng.uniform(-15, 15, (19, 2))
    joints_px_TJD[num_frames * 3 // 4 :, :, 1] += 45
    return joints_px_TJD


class Cost(NamedTuple):
    """Medians. processor_s leaves out what other work on the machine takes."""

    wall_s: float
    processor_s: float


def take_turns(runs: list[Callable[[], object]], repeat: int) -> list[Cost]:
    """Of each, run in turns, after one run that is not counted."""
    costs: list[list[Cost]] = [[] for _ in runs]
    for turn in range(repeat + 1):
        for run, own in zip(runs, costs, strict=True):
            wall, processor = time.perf_counter(), time.process_time()
            run()
            if turn:
                own.append(Cost(time.perf_counter() - wall, time.process_time() - processor))
    return [Cost(*(statistics.median(values) for values in zip(*own, strict=True))) for own in costs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", type=Path, default=PLAIN, metavar="FILE")
    parser.add_argument("--frames", type=int, default=1, help="poses a call")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    other = load(options.module)
    joints = walking_figure(options.frames)
    canvas = labels.LabelCanvas(options.frames, HEIGHT, WIDTH)
    for name, tolerance in TOLERANCE.items():
        if not hasattr(other, name):
            print(f"{name}: not in {options.module.name}")
            continue
        runs = {
            "ours": lambda n=name: (
                canvas.draw_pose_maps(joints) if n == "draw_pose_maps" else getattr(labels, n)(joints, HEIGHT, WIDTH)
            ),
            options.module.name: lambda n=name: getattr(other, n)(joints, HEIGHT, WIDTH),
        }
        if name == "draw_pose_maps":
            runs["ours, fresh"] = lambda: labels.draw_pose_maps(joints, HEIGHT, WIDTH)
        results = [np.asarray(run(), np.float64) for run in runs.values()]
        off = max(np.abs(result - results[1]).max() for result in results)
        del results
        if not off <= tolerance:
            sys.exit(f"{name}: results differ by {off:.1e}, more than {tolerance:g}")
        costs = dict(zip(runs, take_turns(list(runs.values()), options.repeat), strict=True))
        theirs = costs.pop(options.module.name)
        for which, ours in costs.items():
            print(
                f"{name}: {which} {1e3 * ours.processor_s / options.frames:.2f} processor ms a frame,"
                f" {options.module.name} {1e3 * theirs.processor_s / options.frames:.1f},"
                f" {theirs.processor_s / ours.processor_s:.1f} times ({theirs.wall_s / ours.wall_s:.1f} in wall time);"
                f" results differ by at most {off:.1e}"
                + (f"; the 2021 code: {CPU_MS_2021[name]} ms" if name in CPU_MS_2021 else "")
            )


if __name__ == "__main__":
    main()
