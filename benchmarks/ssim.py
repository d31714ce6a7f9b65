"""SSIM of two pictures: ours beside scikit-image's, whose numbers it has.

    OMP_NUM_THREADS=1 python benchmarks/ssim.py [--size 640 360]

Processor time a pair of one thread, best of five rounds, in turn.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from skimage.metrics import structural_similarity

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from models.measures import PEAK, ssim

PAIRS_A_ROUND = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs=2, type=int, default=[640, 360], metavar=("HEIGHT", "WIDTH"))
    height, width = parser.parse_args().size
    cv2.setNumThreads(1)
    random = np.random.default_rng(0)
    truth = cv2.GaussianBlur(random.integers(0, 256, (height, width, 3), np.uint8), (0, 0), 3)
    image = np.clip(truth + random.integers(-9, 10, truth.shape), 0, 255).astype(np.uint8)

    def ours() -> float:
        return ssim(image, truth)[0]

    def theirs() -> float:
        whole, _ = structural_similarity(image, truth, channel_axis=2, data_range=PEAK, full=True)
        return float(whole)

    best = {ours: np.inf, theirs: np.inf}
    for _ in range(5):
        for function in best:
            best[function] = min(best[function], _seconds(function))
    print(f"scikit-image {theirs():.7f} in {1e3 * best[theirs]:.1f} ms")
    print(f"ours         {ours():.7f} in {1e3 * best[ours]:.1f} ms: {best[theirs] / best[ours]:.1f} times as fast")


def _seconds(function: Callable[[], float]) -> float:
    start = time.process_time()
    for _ in range(PAIRS_A_ROUND):
        function()
    return (time.process_time() - start) / PAIRS_A_ROUND


if __name__ == "__main__":
    main()
