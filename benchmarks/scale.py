"""A batch of 10, 100, 1,000 synthetic clips: what a clip costs, what nothing to do costs, and one clip changed.

    .venv/bin/python benchmarks/scale.py --clips 10,100,1000 [--frames 9] [--size 64x36]

Clips are of a moving test picture, ten a video. `dvc repro` of download, split, background
and a blended render, in a temporary copy of the project; no poses (nobody is in the picture). Wall time, and CPU time
of the command and all that it started: the latter is the steadier one where other work shares the machine.
Linux alone: processes whose parent is gone are counted by being adopted.
"""

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import imageio_ffmpeg

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.render_only import make_project
from tests.sandbox import Sandbox

CLIPS_A_VIDEO = 10
REPEATS = 3
PR_SET_CHILD_SUBREAPER = 36


class Shape(NamedTuple):
    """Of a clip; width and height in px."""

    frames: int
    width: int
    height: int


class Cost(NamedTuple):
    wall_s: float
    cpu_s: float


def measure(sandbox: Sandbox, *command: str) -> Cost:
    before, start = os.times(), time.monotonic()
    sandbox.run(*command, timeout=7200)
    wall_s = time.monotonic() - start
    with suppress(ChildProcessError):  # no one is left
        while True:
            os.wait()  # a stage's worker processes outlive it for a moment
    after = os.times()
    return Cost(wall_s, after.children_user + after.children_system - before.children_user - before.children_system)


def make_videos(folder: Path, number: int, shape: Shape) -> None:
    """Videos v0000.mp4 ... of a test picture, each another stretch of it, with a spare frame at the end."""
    folder.mkdir()
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    length = shape.frames * CLIPS_A_VIDEO + 1
    for index in range(number):
        size = f"{shape.width}x{shape.height}"
        source = f"testsrc2=size={size}:rate=30,trim=start_frame={index * length}:end_frame={(index + 1) * length}"
        command = [ffmpeg, "-loglevel", "error", "-f", "lavfi", "-i", f"{source},setpts=PTS-STARTPTS"]
        subprocess.run([*command, "-crf", "10", str(folder / f"v{index:04d}.mp4")], check=True)


def write_catalog(sandbox: Sandbox, num_clips: int, shape: Shape, moved: int | None = None) -> None:
    """catalog/batch. moved: the clip that begins and ends a frame later."""
    videos = [f"v{index:04d}" for index in range(-(-num_clips // CLIPS_A_VIDEO))]
    rows = [f"{video},file:made/{video}.mp4,CC0" for video in videos]
    sandbox.write("catalog/batch/videos.csv", "\n".join(["video,source,licence", *rows]) + "\n")
    rows = []
    for clip in range(num_clips):
        first = clip % CLIPS_A_VIDEO * shape.frames + (clip == moved)
        span = f"{first},{first + shape.frames - 1}"
        rows.append(f"c{clip:05d},{videos[clip // CLIPS_A_VIDEO]},test,nobody,{span},{shape.width},{shape.height}")
    head = "clip,video,split,subject,first,last,width,height"
    sandbox.write("catalog/batch/clips.csv", "\n".join([head, *rows]) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", default="10,100,1000")
    parser.add_argument("--frames", type=int, default=9, help="of a clip")
    parser.add_argument("--size", default="64x36", help="WIDTHxHEIGHT, px")
    args = parser.parse_args()
    shape = Shape(args.frames, *map(int, args.size.split("x")))
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    print(f"{'clips':>6}  {'':<17}{'wall s':>8}{'cpu s':>8}{'cpu s a clip':>14}{'share of full':>15}", flush=True)
    for num_clips in map(int, args.clips.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            clips = {"batch": [("c", "kick_front", 0, 8)]}
            sandbox = make_project(Path(folder) / "project", ["batch"], clips=clips)
            make_videos(sandbox.root / "made", -(-num_clips // CLIPS_A_VIDEO), shape)
            write_catalog(sandbox, num_clips, shape)
            full = measure(sandbox, "dvc", "repro")
            # Other work on the machine only ever adds: the least of a few.
            nothing = min(measure(sandbox, "dvc", "repro") for _ in range(REPEATS))
            # The last clip of its video: the spare frame is there, and no other clip has one of its frames.
            write_catalog(sandbox, num_clips, shape, moved=CLIPS_A_VIDEO - 1)
            changed = measure(sandbox, "dvc", "repro")
        for what, cost in (("from nothing", full), ("nothing to do", nothing), ("one clip changed", changed)):
            a_clip = f"{cost.cpu_s / num_clips:.4f}" if cost is full else ""
            share = "" if cost is full else f"{cost.wall_s / full.wall_s:.1%}"
            print(f"{num_clips:>6}  {what:<17}{cost.wall_s:>8.1f}{cost.cpu_s:>8.1f}{a_clip:>14}{share:>15}", flush=True)
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
