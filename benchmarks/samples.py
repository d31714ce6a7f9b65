"""The renderer's training samples against another implementation of them: equal arrays, then items/s, in turns.

    OMP_NUM_THREADS=1 python benchmarks/samples.py [--module FILE] [--steps 8] [--repeat 5] [--video FILE]

FILE is a Python file with make_sample(pictures, backgrounds, joints_px, variation, height, width, blur_sigma_px); see
benchmarks/plain_samples.py, which is the default. Key frames of 480 x 320 (width x height), each sample 4 of them, two
predicted, all random variation on. Without a video the frames are noise in large patches under a walking figure.
Two figures of ours: decoded pictures kept, as in training, and every picture decoded anew.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.labels import HEIGHT, WIDTH, load, walking_figure
from models.renderer import samples
from tasks.tables import encode_png

PLAIN = Path(__file__).resolve().parent / "plain_samples.py"
NUM_KEYS, NUM_FRAMES, SEED = 24, 2, 1
ITEMS_PER_S_2021 = 0.94  # of one core, at this size
PAPER = {
    "rotation_deg": 10.0,
    "scale_share": 0.1,
    "shift_share": 0.0625,
    "joint_drop_share": 0.02,
    "limb_drop_share": 0.02,
    "sigmas_px": (4.0, 5.0),
    "blur_share": 0.06,
    "blur_sigma_px": 10.0,
    "held_out_share": 0.0,
}


def key_frames(video: Path | None) -> list[np.ndarray]:
    if video is not None:
        capture = cv2.VideoCapture(str(video))
        frames = [capture.read()[1] for _ in range(NUM_KEYS)]
        if any(frame is None for frame in frames):
            sys.exit(f"{video}: fewer than {NUM_KEYS} readable frames")
        return [cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) for frame in frames]
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 256, (NUM_KEYS, HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    return [cv2.resize(patch, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) for patch in patches]


def padded(variation: samples.Variation) -> samples.Variation:
    """The same for all frames of the run: its first and last, which are not used, as the ones beside them."""
    per_frame = (np.pad(values, ((1, 1), (0, 0)), mode="edge") for values in variation[1:])
    return samples.Variation(variation.place_23, *per_frame)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", type=Path, default=PLAIN, metavar="FILE")
    parser.add_argument("--steps", type=int, default=8, help="samples a turn")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--video", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    other = load(options.module)
    frames = key_frames(options.video)
    pictures = [encode_png(frame) for frame in frames]
    backgrounds = [encode_png(cv2.GaussianBlur(frame, (0, 0), 2)) for frame in frames]
    clip = samples.ClipKeys("bench", pictures, backgrounds, walking_figure(NUM_KEYS))
    ours = {
        f"ours, {what}": samples.RendererSamples(
            [clip], samples.SampleSettings(**PAPER, cache_mb=megabytes), HEIGHT, WIDTH
        )
        for what, megabytes in (("pictures kept", 512), ("all decoded", 0))
    }
    first, *_ = ours.values()

    def draw_plain(step: int) -> tuple[np.ndarray, ...]:
        ((place, variation),) = first.choose(SEED, step, 1, NUM_FRAMES)
        run = slice(place.first, place.first + NUM_FRAMES + 2)
        joints, blur_sigma_px = clip.joints_px_KJD[run], PAPER["blur_sigma_px"]
        return other.make_sample(
            pictures[run], backgrounds[run], joints, padded(variation), HEIGHT, WIDTH, blur_sigma_px
        )

    off = max(
        np.abs(one.numpy()[0] - np.asarray(two)).max()
        for step in range(3)
        for one, two in zip(first.draw(SEED, step, 1, NUM_FRAMES), draw_plain(step), strict=True)
    )
    if not off <= 1e-6:
        sys.exit(f"results differ by {off:.1e}")
    runs: dict[str, Callable[[int], object]] = {
        name: lambda step, s=source: s.draw(SEED, step, 1, NUM_FRAMES) for name, source in ours.items()
    }
    runs[options.module.name] = draw_plain
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for turn in range(options.repeat + 1):
        for name, run in runs.items():
            wall, processor = time.perf_counter(), time.process_time()
            for step in range(options.steps):
                run(step)
            if turn:
                costs[name].append((time.perf_counter() - wall, time.process_time() - processor))
    seconds = {name: [statistics.median(values) / options.steps for values in zip(*own, strict=True)]
               for name, own in costs.items()}  # fmt: skip
    wall_s, processor_s = seconds.pop(options.module.name)
    print(f"results differ by at most {off:.1e}; the 2021 code: {ITEMS_PER_S_2021} items/s a core")
    for name, own in seconds.items():
        print(
            f"{name}: {1 / own[1]:.1f} items/s of processor time, {options.module.name} {1 / processor_s:.2f},"
            f" {processor_s / own[1]:.1f} times ({wall_s / own[0]:.1f} in wall time)"
        )


if __name__ == "__main__":
    main()
