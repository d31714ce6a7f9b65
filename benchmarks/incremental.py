"""One clip of N changed: the time of each stage, beside the time of the full stage.

    python benchmarks/incremental.py --clips 50 --method warp

Works in a temporary copy of the project, on the footage of ../shared/footage.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import imageio_ffmpeg

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.sandbox import FOOTAGE, Sandbox, copy_project, set_batches, write_batch


def repeat_video(source: Path, target: Path, times: int) -> None:
    """The same video several times over, without encoding it anew."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-stream_loop", str(times - 1), "-i", str(source)]
    subprocess.run([*command, "-c", "copy", str(target)], check=True)


def write_clips(sandbox: Sandbox, names: list[str], clips: list[tuple[str, str, int, int]], size: str) -> None:
    write_batch(sandbox, "batch", clips, size)
    rows = "".join(f"{name},file:{name}.mp4,BSD-3-Clause\n" for name in names)
    sandbox.write("catalog/batch/videos.csv", "video,source,licence\n" + rows)


def time_stages(sandbox: Sandbox, method: str) -> dict[str, float]:
    seconds = {}
    stages = {"download": "batch", "split": "batch", "pose": "batch", "background": "batch-8"}
    if method != "warp":
        del stages["pose"]
    for name, item in (stages | {"render": f"batch-{method}-8"}).items():
        start = time.perf_counter()
        sandbox.run("inbetween", "stage", name, item, timeout=3600)
        seconds[name] = time.perf_counter() - start
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=50)
    parser.add_argument("--frames", type=int, default=100, help="of each clip")
    parser.add_argument("--method", default="flow", help="of the render: blend, flow or warp (with its poses)")
    parser.add_argument("--size", default="360,640", help="WIDTH,HEIGHT of the clips")
    args = parser.parse_args()
    if not FOOTAGE.is_dir():
        sys.exit(f"{FOOTAGE} is not here; this benchmark needs real footage")
    # No frame is in two clips: two videos of many repetitions, cut end to end.
    names = ["kick_front", "kick_back"]
    gap = args.frames + 1
    clips = [(f"c{i:04d}", names[i % 2], i // 2 * gap, i // 2 * gap + args.frames - 1) for i in range(args.clips)]
    with tempfile.TemporaryDirectory() as folder:
        sandbox = copy_project(Path(folder) / "project")
        set_batches(sandbox, ["batch"], methods=(args.method,))
        repeats = args.clips // 2 * gap // 100 + 2
        for name in names:
            repeat_video(FOOTAGE / f"{name}.mp4", sandbox.root / f"{name}.mp4", repeats)
        write_clips(sandbox, names, clips, args.size)
        full = time_stages(sandbox, args.method)
        name, video, first, last = clips[7]
        clips[7] = (name, video, first + 1, last + 1)
        write_clips(sandbox, names, clips, args.size)
        changed = time_stages(sandbox, args.method)
    print(f"{args.clips} clips of {args.frames} frames at {args.size.replace(',', 'x')}, one of them changed")
    print(f"{'stage':<12}{'full s':>9}{'changed s':>11}{'share':>8}")
    for name in list(full)[1:]:
        print(f"{name:<12}{full[name]:>9.2f}{changed[name]:>11.2f}{changed[name] / full[name]:>8.3f}")


if __name__ == "__main__":
    main()
