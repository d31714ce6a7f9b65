"""What DVC itself costs with 10, 100, 300 batches: stages chained as this project's, whose commands do nothing.

    .venv/bin/python benchmarks/dag.py --batches 10,100,300

A batch has three stages (split, background, render), each with a small output. `dvc repro` from nothing, with nothing
to do, for one batch more, and with that batch as the target: seconds of processor time, DVC's own start included.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BIN = Path(sys.executable).parent
PIPELINE = """
stages:
  split:
    foreach: ${batches}
    do:
      cmd: mkdir -p data/${key}/clips && cp catalog/${key}.csv data/${key}/clips/c
      deps: ["catalog/${key}.csv"]
      outs: ["data/${key}/clips"]
  background:
    foreach: ${batches}
    do:
      cmd: mkdir -p data/${key}/backgrounds && cp data/${key}/clips/c data/${key}/backgrounds/c
      deps: ["data/${key}/clips"]
      outs: ["data/${key}/backgrounds"]
  render:
    foreach: ${batches}
    do:
      cmd: mkdir -p data/renders/${key} && cp data/${key}/backgrounds/c data/renders/${key}/c
      deps: ["data/${key}/clips", "data/${key}/backgrounds"]
      outs: ["data/renders/${key}"]
"""


def run(folder: Path, *words: str) -> float:
    """Run DVC there. Returns: seconds of processor, of it and what it started."""
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    before = os.times()
    subprocess.run([BIN / "dvc", *words], cwd=folder, env=environment, check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def write_batches(folder: Path, number: int) -> None:
    names = [f"b{index:04d}" for index in range(number)]
    (folder / "catalog").mkdir(exist_ok=True)
    for name in names:
        (folder / "catalog" / f"{name}.csv").write_text(name + "\n")
    (folder / "params.yaml").write_text("batches:\n" + "".join(f"  {name}: {{}}\n" for name in names))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", default="10,100,300")
    args = parser.parse_args()
    print(
        f"{'batches':>8}{'stages':>8}{'from nothing':>14}{'a stage':>9}{'no-op':>8}{'one more':>10}{'its target':>12}"
    )
    for number in map(int, args.batches.split(",")):
        with tempfile.TemporaryDirectory() as name:
            folder, start = Path(name), time.monotonic()
            subprocess.run(["git", "init", "-q", name], check=True)
            run(folder, "init", "-q")
            (folder / "dvc.yaml").write_text(PIPELINE)
            write_batches(folder, number)
            full = run(folder, "repro")
            nothing = min(run(folder, "repro") for _ in range(3))
            write_batches(folder, number + 1)
            more = run(folder, "repro")
            target = min(run(folder, "repro", f"render@b{number:04d}") for _ in range(3))
        print(
            f"{number:>8}{3 * number:>8}{full:>12.1f} s{full / 3 / number:>7.2f} s{nothing:>6.1f} s{more:>8.1f} s"
            f"{target:>10.1f} s   (wall {time.monotonic() - start:.0f} s)",
            flush=True,
        )


if __name__ == "__main__":
    main()
