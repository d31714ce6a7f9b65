"""Peak memory of each stage: for a few clips, for 10 times as many, and for a clip 10 times as long.

    python benchmarks/memory.py [--stages split,pose,background,render,evaluate]

The figure is the largest sum of the proportional memory (PSS) of the stage's whole process tree, sampled every 50 ms.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.incremental import repeat_video
from tests.sandbox import FOOTAGE, Sandbox, copy_project, set_batches, write_batch

ITEMS = {
    "download": "batch",
    "split": "batch",
    "pose": "batch",
    "background": "batch-8",
    "render": "batch-flow-8",
    "evaluate": "batch-flow-8",
}
NEEDS = {  # of these stages and this render
    "download": (),
    "split": ("download",),
    "pose": ("split",),
    "background": ("split",),
    "render": ("background",),
    "evaluate": ("render", "pose"),
}


def tree_mb(root: psutil.Process) -> float:
    total = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total / 2**20


def run_stage(sandbox: Sandbox, name: str) -> tuple[float, float]:
    """Peak MB of the process tree, and seconds."""
    start = time.perf_counter()
    log = sandbox.root / f".{name}.log"
    with log.open("w") as sink:
        process = subprocess.Popen(
            ["inbetween", "stage", name, ITEMS[name]],
            cwd=sandbox.root,
            env=sandbox.environment(),
            stdout=sink,
            stderr=sink,
        )
        peak, root = 0.0, psutil.Process(process.pid)
        while process.poll() is None:
            try:
                peak = max(peak, tree_mb(root))
            except psutil.Error:
                break
            time.sleep(0.05)
    if process.wait():
        sys.exit(log.read_text())
    return peak, time.perf_counter() - start


def run_with_needs(sandbox: Sandbox, name: str, done: dict[str, tuple[float, float]]) -> None:
    """Run a stage after those that it needs; each once. done: stage -> what run_stage gave."""
    if name not in done:
        for other in NEEDS[name]:
            run_with_needs(sandbox, other, done)
        done[name] = run_stage(sandbox, name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", default="split,pose,background,render,evaluate")
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--frames", type=int, default=100, help="of a short clip, at most 100 (default: 100)")
    parser.add_argument("--size", default="360,640")
    args = parser.parse_args()
    if not FOOTAGE.is_dir():
        sys.exit(f"{FOOTAGE} is not here; this benchmark needs real footage")
    last = args.frames - 1
    cases = {
        f"{args.clips} clips of {args.frames} frames": (args.clips, "kick_front", last),
        f"{args.clips * 10} clips of {args.frames} frames": (args.clips * 10, "kick_front", last),
        f"{args.clips} clips of {args.frames * 10} frames": (args.clips, "long", args.frames * 10 - 1),
    }
    stages = args.stages.split(",")
    print(f"{'case':<28}" + "".join(f"{name + ' MB':>16}{'s':>8}" for name in stages), flush=True)
    for title, (num_clips, video, last) in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            sandbox = copy_project(Path(folder) / "project")
            set_batches(sandbox, ["batch"])
            write_batch(sandbox, "batch", [(f"c{i:03d}", video, 0, last) for i in range(num_clips)], args.size)
            if video == "long":
                repeat_video(FOOTAGE / "kick_front.mp4", sandbox.root / "long.mp4", 10)
                path = sandbox.root / "catalog/batch/videos.csv"
                path.write_text("video,source,licence\nlong,file:long.mp4,BSD-3-Clause\n")
            done: dict[str, tuple[float, float]] = {}
            for name in stages:
                run_with_needs(sandbox, name, done)
        cells = "".join(f"{mb:>16.0f}{seconds:>8.1f}" for mb, seconds in (done[name] for name in stages))
        print(f"{title:<28}{cells}", flush=True)


if __name__ == "__main__":
    main()
