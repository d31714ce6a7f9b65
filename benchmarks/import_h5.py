"""`inbetween import h5` beside a plain copy of the file, in one run: MB/s and memory.

    python benchmarks/import_h5.py [--mb 1000] [--folder /tmp]

Files in the layouts of the 2021 authors' two sets are made first: pictures of 768x512 that PNG hardly shrinks, motions
of 3,000 frames. copy: read and written in blocks of 1 MB; import: with the sha256 of the source, in a process of its
own, whose largest resident memory above its start is given. Each three times, the fastest counts; processor time beside
the wall's, because it does not depend on who else is at work.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.tasks.h5_files import motion, write_pictures

BLOCK = 2**20
IMPORT = """
import resource, sys, time
from pathlib import Path
import h5py
from tasks.import_h5 import Options, find_layout, import_h5
from tasks.import_record import Import
path, folder = Path(sys.argv[1]), Path(sys.argv[2])
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
worked = time.process_time()
layout = find_layout(path)
import_h5(path, layout, Import(path, folder / "s", folder / "t", layout, {}), Options({}, {}, ""), lambda _: None)
wall, cpu = time.perf_counter() - start, time.process_time() - worked
print(wall, cpu, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def write_sets(folder: Path, size_mb: int) -> list[Path]:
    generator = np.random.default_rng(0)
    pictures = []
    for _ in range(16):
        noise = cv2.GaussianBlur(generator.integers(0, 256, (512, 768, 3)).astype(np.uint8), (0, 0), 1.5)
        pictures.append(cv2.imencode(".png", noise)[1].tobytes())
    num_pictures = size_mb * 2**20 // (sum(map(len, pictures)) // len(pictures))
    slomo, amass = folder / "HumanSlomo.h5", folder / "AMASS_3D_joints.h5"
    with h5py.File(slomo, "w") as file:
        for clip in range(8):
            rows = [pictures[n % 16] for n in range(num_pictures // 8)]
            write_pictures(file.create_group(f"test_{clip:03d}"), "gt_images", rows)
    with h5py.File(amass, "w") as file:
        group = file.create_group("CMU")
        for n in range(size_mb * 2**20 // (3000 * 52 * 3 * 8)):
            group.create_group(f"{n % 40:02d}_{n:04d}_poses.npz").create_dataset("joints", data=motion(3000, n))
    return [slomo, amass]


def copy(source: Path, target: Path) -> tuple[float, float]:
    start, worked = time.perf_counter(), time.process_time()
    with source.open("rb") as reader, target.open("wb") as writer:
        while block := reader.read(BLOCK):
            writer.write(block)
    return time.perf_counter() - start, time.process_time() - worked


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mb", type=int, default=1000)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    print("| file | MB | copy, MB/s (MB/CPU-s) | import, MB/s (MB/CPU-s) | memory above start, MB |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        folder = Path(temporary)
        for path in write_sets(folder, arguments.mb):
            size_mb = path.stat().st_size / 2**20
            copies, imports, memory_mb = [], [], []
            for turn in range(3):
                os.sync()
                copies.append(copy(path, folder / "copy"))
                words = [sys.executable, "-c", IMPORT, str(path), str(folder / f"{path.stem}-{turn}")]
                done = subprocess.run(words, capture_output=True, text=True, check=True)
                *seconds, memory = map(float, done.stdout.split())
                imports.append(seconds)
                memory_mb.append(memory)
            rates = [
                f"{size_mb / min(wall):.0f} ({size_mb / min(cpu):.0f})" for wall, cpu in map(turned, (copies, imports))
            ]
            print(f"| {path.name} | {size_mb:.0f} | {rates[0]} | {rates[1]} | {max(memory_mb):.0f} |")


def turned(pairs: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Wall times and processor times of several runs."""
    return [wall for wall, _ in pairs], [cpu for _, cpu in pairs]


if __name__ == "__main__":
    main()
