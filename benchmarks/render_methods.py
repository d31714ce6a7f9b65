"""Rendering methods side by side: quality of the half-way frames, and time per frame.

    .venv/bin/python benchmarks/render_methods.py CLIP.mp4 [CLIP.mp4 ...] [--steps 4 8] [--methods blend flow warp]
        [--motion robust]

For every key step, each clip is rendered from its key frames alone: poses and mattes come from MediaPipe run over the
keys. The truth's person mask is the matte of a run over all frames joined with the dilated skeleton. Times are
processor time of one thread, over all in-between frames, the key pair's own work included; poses are not.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np

from models.measures import FrameMeasures, compare_frames, person_mask
from models.motion.classical import MOTION_METHODS, MotionMethod, interpolate_joints
from models.renderer.methods import RENDER_METHODS, KeyPair, render_between
from models.skeleton import torso_length
from tasks.pose import MediapipeSettings, PoseResult, PoseSequence, estimate_mediapipe

POSE = MediapipeSettings(upscale=2, model_complexity=1, timeout_s=300)
MASK_MARGIN_TORSO_SHARE = 0.1


class Score(NamedTuple):
    """Means over the half-way frames of one clip, and seconds a frame over all in-between frames."""

    measures: FrameMeasures
    seconds: float


def main() -> None:
    arguments = _parse_arguments()
    cv2.setNumThreads(1)
    clips = {path.stem: _read_clip(path) for path in arguments.clips}
    poses = _estimate_poses(clips, arguments.steps)
    print(f"{'step':>4}  {'clip':<14}{'method':<8}{'PSNR':>7}{'SSIM':>8}{'person PSNR':>13}{'SSIM':>8}{'s/frame':>9}")
    for step in arguments.steps:
        scores: dict[str, list[Score]] = {method: [] for method in arguments.methods}
        for name, images in clips.items():
            for method in arguments.methods:
                score = _score(method, arguments.motion, images, poses[f"{name} {step}"], poses[f"{name} 1"], step)
                scores[method].append(score)
                _print_row(step, name, method, score)
        for method, of_clips in scores.items():
            measures = FrameMeasures(*np.mean([score.measures for score in of_clips], axis=0).tolist())
            _print_row(step, "mean", method, Score(measures, float(np.mean([score.seconds for score in of_clips]))))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path, metavar="CLIP.mp4")
    parser.add_argument("--steps", nargs="+", type=int, default=[4, 8], help="key steps, even (default: 4 8)")
    parser.add_argument("--methods", nargs="+", choices=list(RENDER_METHODS), default=list(RENDER_METHODS))
    parser.add_argument("--motion", choices=list(MOTION_METHODS), default="robust", help="default: robust")
    arguments = parser.parse_args()
    if any(step < 2 or step % 2 for step in arguments.steps):
        parser.error("a key step must be even, to have a half-way frame")
    return arguments


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
    method: str, motion: MotionMethod, images: list[np.ndarray], observed: PoseResult, truth: PoseResult, step: int
) -> Score:
    """Render a clip from its keys, and compare the half-way frames."""
    key_rows = np.arange(0, len(images), step)
    rows = np.arange(key_rows[-1] + 1)
    keys_TJD, truth_TJD = observed.repaired(), truth.repaired()
    joints_TJD = interpolate_joints(key_rows / 1.0, keys_TJD, rows / 1.0, motion)
    torso_px = torso_length(keys_TJD)
    truth_torso_px = torso_length(truth_TJD)
    found = []
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
        before = time.process_time()
        frames = render_between(method, keys, [k / step for k in offsets], [joints_TJD[start + k] for k in offsets])
        seconds += time.process_time() - before
        num_frames += len(frames)
        middle = start + step // 2
        joints_px_JD = truth_TJD[middle]
        height, width = images[middle].shape[:2]
        is_person_HW = person_mask(
            _matte(truth, middle), joints_px_JD, height, width, MASK_MARGIN_TORSO_SHARE, truth_torso_px
        )
        found.append(compare_frames(frames[step // 2 - 1], images[middle], is_person_HW))
    return Score(FrameMeasures(*np.nanmean(found, axis=0).tolist()), seconds / num_frames)


def _print_row(step: int, clip: str, method: str, score: Score) -> None:
    full_psnr, full_ssim, person_psnr, person_ssim = score.measures
    print(
        f"{step:>4}  {clip:<14}{method:<8}{full_psnr:>7.2f}{full_ssim:>8.4f}{person_psnr:>13.2f}{person_ssim:>8.4f}"
        f"{score.seconds:>9.3f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
