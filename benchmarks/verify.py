"""`inbetween lineage verify` beside a plain hash (md5sum) of the same bytes, taken in turn.

python -m benchmarks.verify [FOLDER]       0.7 GB in FOLDER, 1.4 GB with DVC's copies; a temporary one by default
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from flows.lineage.verify import verify
from flows.project import prepare_environment

ROUNDS = 5
LARGE, SMALL = (8, 64 << 20), (2000, 100_000)  # how many, bytes: films and tables; chunks and lists


def make(root: Path) -> None:
    random = np.random.default_rng(1)
    folder = root / "data/files"
    folder.mkdir(parents=True)
    for name, (number, size) in {"large": LARGE, "small": SMALL}.items():
        for i in range(number):
            (folder / f"{name}-{i:04d}.bin").write_bytes(random.bytes(size))
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"], ["dvc", "add", "-q", "data/files"]):
        subprocess.run(command, cwd=root, check=True)


def hash_plainly(root: Path) -> None:
    """The files of the workspace and of the cache, one after the other, by md5sum."""
    paths = [
        str(p) for top in ("data/files", ".dvc/cache/files") for p in sorted((root / top).rglob("*")) if p.is_file()
    ]
    subprocess.run(["xargs", "-0", "md5sum"], input="\0".join(paths).encode(), stdout=subprocess.DEVNULL, check=True)


def main() -> None:
    prepare_environment()
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as name:
        root = Path(name)
        make(root)
        print("round  md5sum s  verify, 1 thread  verify, a thread a core  ratio  ratio")
        for number in range(ROUNDS):
            times = []
            for work in (
                lambda: hash_plainly(root),
                lambda: verify(root, places=("workspace", "cache"), threads=1),
                lambda: verify(root, places=("workspace", "cache")),
            ):
                start = time.monotonic()
                work()
                times.append(time.monotonic() - start)
            plain, one, many = times
            print(f"{number:5}  {plain:8.2f}  {one:16.2f}  {many:23.2f}  {one / plain:5.2f}  {many / plain:5.2f}")


if __name__ == "__main__":
    main()
