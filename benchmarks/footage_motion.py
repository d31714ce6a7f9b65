"""How far in-between joints lie from those of a pose pass over every frame, by motion method, on real footage.

    cd ../shared/footage; OMP_NUM_THREADS=1 python PROJECT/benchmarks/footage_motion.py kick_front.mp4 kick_back.mp4

For each key step the keys come once from a pass over the key frames alone (what rendering has) and once from the
pass over every frame (what the motion method itself does). Mean distance in px of the clip, over the in-between frames
and the joints that the pass over every frame sees; and the share within 0.1 torso.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from flows.params import load_params
from flows.project import ROOT
from models.skeleton import is_seen, torso_length
from tasks.pose import MediapipeSettings, PoseSequence, estimate_mediapipe
from tasks.render import Motion, RenderSettings, predict_joints

FloatArray = npt.NDArray[np.float64]
METHODS: tuple[Motion, ...] = ("linear", "cubic", "robust", "learned")
NEAR_TORSO_SHARE = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+", metavar="CLIP.mp4")
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument(
        "--model", default=str(ROOT / "data/raw/embedded/motion/tangents"), help="the learned motion's checkpoint"
    )
    args = parser.parse_args()
    params = load_params(ROOT / "params.yaml").pose
    settings = MediapipeSettings(params.upscale, params.model_complexity, params.timeout_s)
    print("| clip | step | keys of | " + " | ".join(METHODS) + " |")
    print("| --- | --- | --- |" + " --- |" * len(METHODS))
    for path in args.clips:
        images, times = read_frames(path)
        passes = [PoseSequence("truth", range(len(images)), images)]
        passes += [PoseSequence(f"keys {s}", range(0, len(images), s), images[::s]) for s in args.steps]
        with tempfile.TemporaryDirectory() as folder:
            truth, *keys = [found.repaired() for found in estimate_mediapipe(passes, Path(folder), settings)]
        for step, key_joints in zip(args.steps, keys, strict=True):
            for called, joints_KJD in (("key frames", key_joints), ("every frame", truth[::step])):
                cells = [score(times, joints_KJD, truth, step, method, args.model) for method in METHODS]
                print(f"| {path.stem} | {step} | {called} | " + " | ".join(cells) + " |", flush=True)


def read_frames(path: Path) -> tuple[list[npt.NDArray[np.uint8]], FloatArray]:
    with av.open(str(path)) as video:
        frames = list(video.decode(video=0))
    return [np.ascontiguousarray(f.to_ndarray(format="bgr24")) for f in frames], np.array([f.time for f in frames])


def score(
    times_T: FloatArray, key_joints_KJD: FloatArray, truth_TJD: FloatArray, step: int, method: Motion, model: str
) -> str:
    last = (len(key_joints_KJD) - 1) * step
    found = predict_joints(
        times_T[: last + 1 : step],
        key_joints_KJD.astype(np.float64),
        times_T[: last + 1],
        RenderSettings(step, method, "warp", model, "flow", "data/raw/embedded/no-model", "warp"),
    )
    is_between_T = np.arange(last + 1) % step != 0
    both = is_seen(found) & is_seen(truth_TJD[: last + 1]) & is_between_T[:, None]
    distance_px = np.linalg.norm(found[..., :2] - truth_TJD[: last + 1, :, :2], axis=-1)[both]
    return f"{distance_px.mean():.2f} px, {np.mean(distance_px < NEAR_TORSO_SHARE * torso_length(truth_TJD)):.3f}"


if __name__ == "__main__":
    main()
