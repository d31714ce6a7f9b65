"""Rendering methods side by side: quality against the true frames, and time per frame.

    .venv/bin/python benchmarks/render_methods.py CLIP.mp4 [CLIP.mp4 ...] [--steps 4 8 16]
        [--methods blend flow rife warp/flow warp/rife] [--motion robust | learned] [--frames all] [--move] [--poses]

For every key step, each clip is rendered from its key frames alone: poses and mattes come from MediaPipe run over the
keys. The truth's person mask is the matte of a run over all frames joined with the dilated skeleton. "worst" is the
mean of the worst tenth of the frames by the person's PSNR, "lost" the largest loss against the base (warp) or flow.
Times are processor time of one thread, over the frames compared, the key pair's own work included; poses are not.
--move shows the clips through a window that pans and zooms, as a moving camera would; the truth is seen through it too.
--poses finds the person again in the rendered half-way frames: share of the joints within a fifth of the torso.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, get_args

import av
import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from models.lpips import LpipsTruth
from models.measures import compare_frames, person_mask
from models.renderer.keys import WeightsError
from models.renderer.methods import BASES, RENDER_METHODS, KeyPair, render_between
from models.skeleton import is_seen, torso_length
from tasks.pose import MediapipeSettings, PoseResult, PoseSequence, estimate_mediapipe
from tasks.render import Motion, RenderSettings, predict_joints

POSE = MediapipeSettings(upscale=2, model_complexity=1, timeout_s=300)
MASK_MARGIN_TORSO_SHARE = 0.1
FPS = 60.0
PCK_TORSO_SHARE = 0.2
METHODS = [name for name in RENDER_METHODS if name != "warp"] + [f"warp/{base}" for base in BASES]
WINDOW_SHARE = 0.8  # of the picture's sides, what --move shows at the start; it zooms in to ZOOM of that
ZOOM = 0.9
MOTIONS = get_args(Motion)
MOTION_MODEL = "data/raw/embedded/motion/tangents"  # of --motion learned


class FrameScore(NamedTuple):
    """psnr_dB, ssim, lpips of the whole picture, then of the person."""

    full_psnr: float
    full_ssim: float
    person_psnr: float
    person_ssim: float
    full_lpips: float
    person_lpips: float


class Clip(NamedTuple):
    """scores: of the frames asked for, by (row); images: the rendered half-way frames, for their poses."""

    scores: dict[int, FrameScore]
    images: dict[int, np.ndarray]
    seconds: float


def main() -> None:
    arguments = _parse_arguments()
    cv2.setNumThreads(1)
    clips = {path.stem: _read_clip(path) for path in arguments.clips}
    if arguments.move:
        clips = {name: _move(images) for name, images in clips.items()}
    poses = _estimate_poses(clips, arguments.steps)
    print(
        f"{'step':>4}  {'clip':<14}{'method':<10}{'person PSNR':>12}{'SSIM':>7}{'LPIPS':>7}{'worst':>7}{'lost':>7}"
        f"{'full PSNR':>11}{'SSIM':>7}{'LPIPS':>7}{'PCK':>6}{'s/frame':>9}"
    )
    for step in arguments.steps:
        means: dict[str, list[list[float]]] = {method: [] for method in arguments.methods}
        for name, images in clips.items():
            observed, truth = poses[f"{name} {step}"], poses[f"{name} 1"]
            done: dict[str, Clip] = {}
            for method in arguments.methods:
                done[method] = _score(method, arguments, images, observed, truth, step)
                base = done.get(method.partition("/")[2] or "flow")
                pck = _pck(done[method].images, truth) if arguments.poses else float("nan")
                row = _summarise(done[method], base, pck)
                means[method].append(row)
                _print_row(step, name, method, row)
        for method, rows in means.items():
            _print_row(step, "mean", method, np.mean(rows, axis=0).tolist())


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path, metavar="CLIP.mp4")
    parser.add_argument("--steps", nargs="+", type=int, default=[4, 8], help="key steps, even (default: 4 8)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument(
        "--motion", choices=MOTIONS, default="robust", help="default: robust; learned = the embedded network"
    )
    parser.add_argument("--frames", choices=("halfway", "all"), default="halfway", help="compared; default: halfway")
    parser.add_argument("--move", action="store_true", help="through a window that pans and zooms")
    parser.add_argument("--poses", action="store_true", help="find the person again in the half-way frames")
    arguments = parser.parse_args()
    if any(step < 2 or step % 2 for step in arguments.steps):
        parser.error("a key step must be even, to have a half-way frame")
    return arguments


def _move(images: list[np.ndarray]) -> list[np.ndarray]:
    """Each frame through a window that crosses the picture and narrows, at three quarters of the clip's size."""
    height, width = images[0].shape[:2]
    size = (round(0.75 * width), round(0.75 * height))
    moved = []
    for number, image in enumerate(images):
        share = number / max(1, len(images) - 1)
        part = WINDOW_SHARE * (1 + share * (ZOOM - 1))
        left, top = share * (1 - part) * width, (0.5 - 0.5 * np.cos(2 * np.pi * share)) * (1 - part) * height
        scale = size[0] / (part * width)
        window = np.array([[scale, 0, -scale * left], [0, scale, -scale * top]])
        moved.append(cv2.warpAffine(image, window, size, flags=cv2.INTER_AREA))
    return moved


def _read_clip(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as video:
        return [np.ascontiguousarray(frame.to_ndarray(format="bgr24")) for frame in video.decode(video=0)]


def _estimate_poses(clips: dict[str, list[np.ndarray]], steps: Sequence[int]) -> dict[str, PoseResult]:
    """By "CLIP STEP"; step 1 is the truth."""
    sequences = [
        PoseSequence(f"{name} {step}", range(0, len(images), step), images[::step])
        for name, images in clips.items()
        for step in (1, *steps)
    ]
    with tempfile.TemporaryDirectory() as folder:
        return {result.name: result for result in estimate_mediapipe(sequences, Path(folder), POSE)}


def _matte(poses: PoseResult, number: int) -> np.ndarray | None:
    data = poses.mattes[number]
    return None if data is None else cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)


def _score(
    method: str,
    arguments: argparse.Namespace,
    images: list[np.ndarray],
    observed: PoseResult,
    truth: PoseResult,
    step: int,
) -> Clip:
    """Render a clip from its keys, and compare it with the frames between."""
    settings = RenderSettings(step, arguments.motion, "warp", MOTION_MODEL, "flow", "", "base")
    key_rows = np.arange(0, len(images), step)
    rows = np.arange(key_rows[-1] + 1)
    keys_TJD, truth_TJD = observed.repaired(), truth.repaired()
    joints_TJD = predict_joints(key_rows / FPS, keys_TJD.astype(np.float64), rows / FPS, settings)
    torso_px, truth_torso_px = torso_length(keys_TJD), torso_length(truth_TJD)
    name, _, base = method.partition("/")
    clip = Clip({}, {}, 0.0)
    seconds, num_frames = 0.0, 0
    for number, start in enumerate(key_rows[:-1].tolist()):
        keys = KeyPair(
            images[start],
            images[start + step],
            (_matte(observed, number), _matte(observed, number + 1)),
            keys_TJD[number],
            keys_TJD[number + 1],
            torso_px,
        )
        offsets = range(1, step)
        if arguments.frames == "halfway":
            offsets = range(step // 2, step // 2 + 1)
        joints = [joints_TJD[start + k] for k in offsets]
        before = time.process_time()
        try:
            frames = render_between(name, keys, [k / step for k in offsets], joints, base or "flow")
        except WeightsError as error:
            sys.exit(f"{method}: {error}")
        seconds += time.process_time() - before
        num_frames += len(frames)
        for offset, frame in zip(offsets, frames, strict=True):
            row = start + offset
            height, width = images[row].shape[:2]
            matte = _matte(truth, row)
            is_person_HW = person_mask(matte, truth_TJD[row], height, width, MASK_MARGIN_TORSO_SHARE, truth_torso_px)
            clip.scores[row] = FrameScore(
                *compare_frames(frame.image, images[row], is_person_HW),
                *LpipsTruth(images[row]).compare(frame.image, is_person_HW),
            )
            if 2 * offset == step:
                clip.images[row] = frame.image
    return clip._replace(seconds=seconds / num_frames)


def _summarise(clip: Clip, base: Clip | None, pck: float) -> list[float]:
    scores = np.array(list(clip.scores.values()))
    person_psnr = scores[:, FrameScore._fields.index("person_psnr")]
    worst = np.sort(person_psnr)[: max(1, round(len(person_psnr) / 10))].mean()
    lost = (
        float("nan")
        if base is None
        else min(clip.scores[r].person_psnr - base.scores[r].person_psnr for r in base.scores)
    )
    full_psnr, full_ssim, psnr, ssim, full_lpips, lpips = np.nanmean(scores, axis=0).tolist()
    return [psnr, ssim, lpips, float(worst), lost, full_psnr, full_ssim, full_lpips, pck, clip.seconds]


def _pck(images: dict[int, np.ndarray], truth: PoseResult) -> float:
    """Share of the truth's seen joints that are found in the rendered frames, one by one, within a fifth of a torso."""
    sequences = [PoseSequence(str(row), range(row, row + 1), [image]) for row, image in images.items()]
    with tempfile.TemporaryDirectory() as folder:
        found = {result.name: result.repaired()[0] for result in estimate_mediapipe(sequences, Path(folder), POSE)}
    truth_TJD = truth.repaired()
    torso_px = torso_length(truth_TJD)
    shares = []
    for row in images:
        is_there_J = is_seen(truth_TJD[row])
        distance_px_J = np.linalg.norm((found[str(row)] - truth_TJD[row])[:, :2], axis=-1)
        is_right_J = (distance_px_J < PCK_TORSO_SHARE * torso_px) & is_seen(found[str(row)])
        shares.append(is_right_J[is_there_J].mean())
    return float(np.mean(shares))


def _print_row(step: int, clip: str, method: str, row: list[float]) -> None:
    psnr, ssim, lpips, worst, lost, full_psnr, full_ssim, full_lpips, pck, seconds = row
    print(
        f"{step:>4}  {clip:<14}{method:<10}{psnr:>12.2f}{ssim:>7.3f}{lpips:>7.4f}{worst:>7.2f}{lost:>7.2f}"
        f"{full_psnr:>11.2f}{full_ssim:>7.3f}{full_lpips:>7.4f}{pck:>6.2f}{seconds:>9.3f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
