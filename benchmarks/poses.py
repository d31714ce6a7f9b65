"""How far the poses of key frames alone lie from those of a pass over every frame: as found, and repaired.

    OMP_NUM_THREADS=1 python benchmarks/poses.py ../shared/footage/kick_back.mp4 [--step 8]

The figure is the mean distance over the joints that both passes see, in px of the clip, at the shipped settings.
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
from models.skeleton import is_seen
from tasks.pose import MediapipeSettings, PoseSequence, estimate_mediapipe

FloatArray = npt.NDArray[np.floating]


def mean_distance_px(a_TJD: FloatArray, b_TJD: FloatArray) -> float:
    both = is_seen(a_TJD) & is_seen(b_TJD)
    return float(np.linalg.norm(a_TJD[..., :2] - b_TJD[..., :2], axis=-1)[both].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path, metavar="CLIP.mp4")
    parser.add_argument("--step", type=int, default=8, help="every so many-th frame is a key (default: 8)")
    args = parser.parse_args()
    with av.open(str(args.clip)) as video:
        images = [np.ascontiguousarray(frame.to_ndarray(format="bgr24")) for frame in video.decode(video=0)]
    params = load_params(ROOT / "params.yaml").pose
    settings = MediapipeSettings(params.upscale, params.model_complexity, params.timeout_s)
    passes = [PoseSequence("truth", range(len(images)), images)]
    passes += [PoseSequence("keys", range(0, len(images), args.step), images[:: args.step])]
    with tempfile.TemporaryDirectory() as folder:
        truth, keys = estimate_mediapipe(passes, Path(folder), settings)
    truth_TJD = truth.repaired()[:: args.step]
    print(f"{args.clip.stem}, step {args.step}, {len(truth_TJD)} key frames")
    print(f"as found  {mean_distance_px(keys.tracked_TJD, truth_TJD):.2f} px")
    print(f"repaired  {mean_distance_px(keys.repaired(), truth_TJD):.2f} px")


if __name__ == "__main__":
    main()
