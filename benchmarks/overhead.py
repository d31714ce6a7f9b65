"""What the Prefect flow costs beside plain `dvc repro`, on a small batch in a project copy.

    .venv/bin/python benchmarks/overhead.py [--repeat 3]

Rows: nothing to do; everything from nothing (two clips of 24 frames, 8 stages); the embedded server alone, its first
start (which makes the database) and later ones. Wall time and CPU time of the command and its children; the least of
the repeats, because other work on the machine only ever adds.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.render_only import make_project
from tests.sandbox import Sandbox

SERVER = (
    "import time; start = time.monotonic(); from flows.server import serve_prefect\n"
    "with serve_prefect(): print(time.monotonic() - start)"
)


class Cost(NamedTuple):
    wall_s: float
    cpu_s: float


def measure(sandbox: Sandbox, *command: str) -> Cost:
    before, start = os.times(), time.monotonic()
    sandbox.run(*command, timeout=900)
    after = os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(time.monotonic() - start, cpu_s)


def forget_all(sandbox: Sandbox) -> None:
    """No output, no finished item, no cache; the raw data stays."""
    for batch in ("a", "b"):
        shutil.rmtree(sandbox.root / "data" / batch, ignore_errors=True)
    for name in ("data/renders", ".inbetween/items", ".dvc/cache/runs"):
        shutil.rmtree(sandbox.root / name, ignore_errors=True)
    (sandbox.root / "dvc.lock").unlink(missing_ok=True)


def least(costs: list[Cost]) -> Cost:
    return Cost(min(cost.wall_s for cost in costs), min(cost.cpu_s for cost in costs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    repeat = parser.parse_args().repeat
    with tempfile.TemporaryDirectory() as folder:
        sandbox = make_project(Path(folder) / "project")
        starts = [float(sandbox.run("python", "-c", SERVER).stdout) for _ in range(repeat + 1)]
        print(f"{'':<32}{'wall s':>8}{'cpu s':>8}")
        for label, command in (("dvc repro", ("dvc", "repro")), ("inbetween repro", ("inbetween", "repro"))):
            full, nothing = [], []
            for _ in range(repeat):
                forget_all(sandbox)
                full.append(measure(sandbox, *command))
                nothing.append(measure(sandbox, *command))
            for what, cost in (("from nothing", least(full)), ("nothing to do", least(nothing))):
                print(f"{label + ', ' + what:<32}{cost.wall_s:>8.1f}{cost.cpu_s:>8.1f}")
        print(f"{'server, first start':<32}{starts[0]:>8.1f}")
        print(f"{'server, later starts':<32}{min(starts[1:]):>8.1f}")
        print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
