"""`inbetween import h5` at the size of the 2021 authors' sets, beside `cp` and fsync of the same file.

    python benchmarks/import_h5.py [--pictures-mb 3000] [--motions-mb 17000] [--turns 3] [--folder /tmp]

Files in the layouts of the two sets are made first: HumanSlomo.h5 of the sample's own pictures (data/sample, where it
is made: PNG of some 340 kB; else blurred noise), AMASS_3D_joints.h5 of motions of 200 to 4,000 frames. Then, in turns:

cp: `cp --reflink=never` and fsync of the copy.  import: the command's work, whose tables are each fsynced as they are
finished, in a process of its own. Before each the page cache is emptied where that is permitted (it is said where not),
so that both read from the disk, and both end when what they wrote is on it. Also told: what raw writes and reads
(O_DIRECT, 3 GB at most) reach, the processor time, and the largest memory of the import's process. Last a row of the
table in docs/benchmarks.md: file, MB, MB written, MB/s, s and CPU s of the fastest cp, the same of the import, memory.
"""

import argparse
import mmap
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count, cycle, islice
from pathlib import Path
from typing import NamedTuple

import cv2
import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tasks.tables import Table, list_tables
from tests.tasks.h5_files import joints, write_pictures

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = [ROOT / "data/sample" / name for name in ("clips", "backgrounds-4", "backgrounds-8")]
MB = 10**6
BLOCK = 8 * 2**20
SETTLE_S = 8
DATASETS = ("ACCAD", "BMLmovi", "CMU", "EKUT", "KIT", "MPI_HDM05")
CLIP_FRAMES = 56  # the published set has 5,607 in 108 clips
IMPORT = """
import sys
from pathlib import Path
from tasks.import_h5 import Options, find_layout, import_h5
from tasks.import_record import Import
path, folder = Path(sys.argv[1]), Path(sys.argv[2])
layout = find_layout(path)
import_h5(path, layout, Import(path, folder / "s", folder / "t", layout, {}), Options({}, {}, ""), lambda _: None)
# Not the kernel's ru_maxrss, which begins with what the parent had in memory.
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""


class Cost(NamedTuple):
    """Of a process: seconds on the wall and of the processor (all threads), and what it printed."""

    wall_s: float
    cpu_s: float
    said: str = ""


def sample_pictures() -> tuple[list[bytes], str]:
    if all(folder.is_dir() for folder in SAMPLE):
        tables = [Table(kind, path) for kind, folder in zip(("clip", "background", "background"), SAMPLE, strict=True)
                  for path in list_tables(folder)]  # fmt: skip
        return [table.read_picture(row) for table in tables for row in range(table.num_rows)], "of the sample"
    generator = np.random.default_rng(0)
    blurred = [
        cv2.GaussianBlur(generator.integers(0, 256, (512, 768, 3)).astype(np.uint8), (0, 0), 1.5 + n % 8)
        for n in range(64)
    ]
    return [cv2.imencode(".png", image)[1].tobytes() for image in blurred], "of noise"


def write_slomo(path: Path, size_mb: int) -> str:
    pictures, what = sample_pictures()
    endless = cycle(pictures)
    with h5py.File(path, "w") as file:
        for clip in count():
            if path.stat().st_size >= size_mb * MB:
                return f"{sum(len(group['train_images']) for group in file.values())} frames in {clip} clips {what}"
            group = file.create_group(f"{clip % 20:02d}_Sport_{clip:03d}")
            write_pictures(group, "train_images", list(islice(endless, CLIP_FRAMES)))
            write_pictures(group, "train_dain", list(islice(endless, CLIP_FRAMES - 2)))
            group.create_dataset("train_poses", data=joints(CLIP_FRAMES, clip))
    raise AssertionError


def write_amass(path: Path, size_mb: int) -> str:
    """Walks of each joint: all digits of float64 in use and neighbours alike, as in motion capture."""
    generator = np.random.default_rng(0)
    steps_m_TJD = generator.normal(0, 0.005, (20_000, 52, 3))
    walk_m_TJD = np.cumsum(steps_m_TJD, axis=0) + generator.normal(0, 0.5, (52, 3))
    num_motions = num_frames = 0
    with h5py.File(path, "w") as file:
        for number, dataset in enumerate(DATASETS, 1):
            group = file.create_group(dataset)
            while path.stat().st_size < size_mb * MB * number / len(DATASETS):
                start, frames = int(generator.integers(0, 16_000)), int(generator.integers(200, 4000))
                name = f"{num_motions % 144:02d}_{num_motions:05d}_poses.npz"
                place_m_TJD = walk_m_TJD[start : start + frames] + generator.normal(0, 1, (1, 1, 3))
                group.create_group(name).create_dataset("joints", data=place_m_TJD)
                num_motions, num_frames = num_motions + 1, num_frames + frames
    return f"{num_motions} motions of {num_frames} frames"


def drop_caches() -> bool:
    """Empty the page cache, and pause.

    A virtual machine gives what is freed back to its host within seconds, and who comes later pays for getting it anew:
    after the pause all do.
    """
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError:
        return False
    time.sleep(SETTLE_S)
    return True


def run(words: list[str]) -> Cost:
    start = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        words, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, check=True
    )
    return Cost(time.perf_counter() - start, cpu_s(resource.RUSAGE_CHILDREN, before), done.stdout.decode().strip())


def copy(source: Path, target: Path) -> Cost:
    cost = run(["cp", "--reflink=never", str(source), str(target)])
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    return Cost(cost.wall_s + time.perf_counter() - start, cost.cpu_s + cpu_s(resource.RUSAGE_SELF, before))


def cpu_s(who: int, before: resource.struct_rusage) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime


def raw_seconds(path: Path, num_bytes: int) -> tuple[float, float]:
    """Of writing and of reading random bytes past the page cache, in blocks of 8 MB; (nan, nan) where it cannot be."""
    block = mmap.mmap(-1, BLOCK)  # O_DIRECT wants its memory at a page's start
    block.write(np.random.default_rng(0).bytes(BLOCK))

    def timed(flags: int, do: Callable[[int], int]) -> float:
        descriptor = os.open(path, flags | os.O_DIRECT)
        start = time.perf_counter()
        for number in range(num_bytes // BLOCK):
            block[:8] = number.to_bytes(8, "little")
            do(descriptor)
        os.fsync(descriptor)
        os.close(descriptor)
        return time.perf_counter() - start

    try:
        written = timed(os.O_CREAT | os.O_WRONLY, lambda descriptor: os.write(descriptor, block))
        return written, timed(os.O_RDONLY, lambda descriptor: os.readv(descriptor, [block]))
    except OSError:
        return float("nan"), float("nan")
    finally:
        path.unlink(missing_ok=True)


def remove(folder: Path) -> int:
    """Remove an import. Returns the bytes of its files."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    shutil.rmtree(folder)
    return size


def measure(path: Path, turns: int, folder: Path) -> Iterator[str]:
    size_mb = path.stat().st_size / MB
    raw = raw_seconds(folder / "raw", min(path.stat().st_size, 3000 * MB))
    yield f"raw write {min(size_mb, 3000) / raw[0]:.0f} MB/s, raw read {min(size_mb, 3000) / raw[1]:.0f} MB/s"
    costs: dict[str, list[Cost]] = {"cp": [], "import": []}
    written = 0
    for turn in range(turns):
        for name in ("cp", "import") if turn % 2 == 0 else ("import", "cp"):
            is_cold = drop_caches()
            if name == "cp":
                costs[name].append(copy(path, folder / "copy"))
                (folder / "copy").unlink()
            else:
                costs[name].append(run([sys.executable, "-c", IMPORT, str(path), str(folder / "import")]))
                written = remove(folder / "import")
            wall_s, cpu_s, _ = costs[name][-1]
            how = "" if is_cold else ", the page cache not emptied"
            yield f"{name}: {wall_s:.1f} s, of CPU {cpu_s:.1f} s, load {os.getloadavg()[0]:.1f}{how}"
    best = [min(each, key=lambda cost: cost.wall_s) for each in costs.values()]
    cells = [f"{size_mb / cost.wall_s:.0f} | {cost.wall_s:.1f} | {cost.cpu_s:.1f}" for cost in best]
    memory_mb = max(int(cost.said) for cost in costs["import"]) / 1024
    yield f"| {path.name} | {size_mb:.0f} | {written / MB:.0f} | {' | '.join(cells)} | {memory_mb:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures-mb", type=int, default=3000)
    parser.add_argument("--motions-mb", type=int, default=17000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        folder = Path(temporary)
        for name, size_mb, write in (
            ("HumanSlomo.h5", arguments.pictures_mb, write_slomo),
            ("AMASS_3D_joints.h5", arguments.motions_mb, write_amass),
        ):
            if size_mb:
                print(f"{name}: {write(folder / name, size_mb)}", flush=True)
                for line in measure(folder / name, arguments.turns, folder):
                    print(line, flush=True)
                (folder / name).unlink()


if __name__ == "__main__":
    main()
