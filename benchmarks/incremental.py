"""One clip of N changed: the time of each stage, beside the time of the full stage.

    python benchmarks/incremental.py [--clips 50]

Works in a temporary copy of the project, on spans of ../shared/footage (or --video FILE of at least 100 frames).
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.sandbox import FOOTAGE, Sandbox, copy_project, set_batches, write_batch

STAGES = (("download", "batch"), ("split", "batch"), ("background", "batch-8"), ("render", "batch-flow-8"))


def time_stages(sandbox: Sandbox) -> dict[str, float]:
    seconds = {}
    for name, item in STAGES:
        start = time.perf_counter()
        sandbox.run("inbetween", "stage", name, item, timeout=3600)
        seconds[name] = time.perf_counter() - start
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=50)
    parser.add_argument("--size", default="360,640", help="WIDTH,HEIGHT of the clips")
    args = parser.parse_args()
    if not FOOTAGE.is_dir():
        sys.exit(f"{FOOTAGE} is not here; this benchmark needs real footage")
    names = ["kick_front", "kick_back"]
    clips = [(f"c{i:04d}", names[i % 2], i % 60, i % 60 + 32) for i in range(args.clips)]
    with tempfile.TemporaryDirectory() as folder:
        sandbox = copy_project(Path(folder) / "project")
        set_batches(sandbox, ["batch"])
        write_batch(sandbox, "batch", clips, args.size)
        full = time_stages(sandbox)
        clips[7] = ("c0007", names[1], 61, 61 + 32)
        write_batch(sandbox, "batch", clips, args.size)
        changed = time_stages(sandbox)
    print(f"{args.clips} clips of 33 frames at {args.size.replace(',', 'x')}, one of them changed")
    print(f"{'stage':<12}{'full s':>9}{'changed s':>11}{'share':>8}")
    for name, _ in STAGES[1:]:
        print(f"{name:<12}{full[name]:>9.2f}{changed[name]:>11.2f}{changed[name] / full[name]:>8.3f}")


if __name__ == "__main__":
    main()
