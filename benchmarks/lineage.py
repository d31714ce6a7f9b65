"""The questions of lineage on a repository of a thousand clips, beside what DVC alone can answer.

    python benchmarks/lineage.py

Makes a repository (git, dvc.lock, DVC's cache, tables, provenance; no stage runs) in a temporary folder, then asks each
question as a whole command, Python's start included. User and system seconds of the processor stand beside the wall's.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.lineage_project import Clip, Pipeline, Project, motion_rows

ROOT = Path(__file__).resolve().parent.parent
STEPS = (4, 8)


class FastHistory:
    """Commits through `git fast-import`: only what changed is written."""

    def __init__(self, project: Project) -> None:
        self.project, self._last = project, {}
        self._process = subprocess.Popen(
            ["git", "fast-import", "--quiet"], cwd=project.root, stdin=subprocess.PIPE
        )  # fmt: skip

    def commit(self, message: str) -> None:
        stream = self._process.stdin
        assert stream is not None
        when = 1767225600 + 3600 * self.project.revision_number
        stream.write(f"commit refs/heads/main\ncommitter Ada <ada@example.org> {when} +0000\n".encode())
        stream.write(b"data %d\n%s\n" % (len(message), message.encode()))
        files = self.project.files()
        for path, data in files.items():
            if self._last.get(path) != data:
                stream.write(b"M 100644 inline %s\ndata %d\n%s\n" % (path.encode(), len(data), data))
        self._last = files
        self.project.revision_number += 1

    def close(self) -> None:
        self._process.communicate()
        assert self._process.returncode == 0
        self.project.git("reset", "-q", "--hard", "main")


def code_of_stages() -> dict[str, list[str]]:
    """Stage -> the code files that the project's dvc.yaml declares."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    found = {}
    for name, stage in stages.items():
        deps = stage.get("do", stage)["deps"]
        found[name] = [dep for dep in deps if dep.startswith(("flows/", "tasks/", "models/"))]
    return found


def make_repository(root: Path, num_clips: int, num_motions: int, num_revisions: int) -> Pipeline:
    pipeline = Pipeline(Project(root, separator="-"), code_of_stages())
    batches = [f"batch{number:02d}" for number in range(20)]
    each = num_clips // len(batches)
    for batch in batches:
        pipeline.batches[batch] = {
            f"{batch}_{n:03d}": Clip(
                f"{batch}_{n:03d}", f"{batch}_v{n // 5:02d}", "test" if n % 5 == 4 else "train", f"subject{n // 5}",
                100 * n, 100 * n + 99,
            )
            for n in range(each)
        }  # fmt: skip
        pipeline.run_batch(batch, STEPS)
    subsets = [f"subset{number:02d}" for number in range(20)]
    pipeline.motions = {
        name: motion_rows(name, {f"{name}s{n}": num_motions // len(subsets) // 10 for n in range(10)})
        for name in subsets
    }
    splits = {name: "test" if number % 5 == 4 else "train" for number, name in enumerate(subsets)}
    pipeline.run_mocap(splits)
    for batch in batches:
        pipeline.run_renderer(batch, batch)
        run_renders(pipeline, batch)
    pipeline.run_report()
    pipeline.declare()
    history = FastHistory(pipeline.project)
    history.commit("everything")
    for number in range(1, num_revisions):
        batch = batches[number % len(batches)]
        clips = list(pipeline.batches[batch].values())
        clips[number // len(batches) % each].version += 1
        pipeline.run_batch(batch, STEPS)
        pipeline.run_renderer(batch, batch, seed=number)
        if number % 50 == 0:
            pipeline.run_mocap(splits)
        run_renders(pipeline, batch)
        pipeline.run_report()
        history.commit(f"revision {number}")
    history.close()
    pipeline.project.git("tag", "start", f"main~{num_revisions - 1}")
    return pipeline


def run_renders(pipeline: Pipeline, batch: str) -> None:
    pipeline.run_render(f"{batch}-plain", batch)
    pipeline.run_render(f"{batch}-painted", batch, renderer=batch)
    pipeline.run_render(f"{batch}-moved", batch, motion="data/models/motion")


def measure(command: Sequence[str], root: Path, rounds: int = 1) -> tuple[float, float, int, str]:
    """Wall s, processor s, each the least of some rounds; lines of the answer, last line of what went wrong."""
    runs = [_measure_once(command, root) for _ in range(rounds)]
    return min(run[0] for run in runs), min(run[1] for run in runs), runs[0][2], runs[0][3]


def _measure_once(command: Sequence[str], root: Path) -> tuple[float, float, int, str]:
    env = os.environ | {"PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, env=env, check=False)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    error = done.stderr.strip().splitlines()[-1] if done.returncode not in (0, 1) and done.stderr.strip() else ""
    return wall, cpu, done.stdout.count("\n"), error


ASK = """
import sys
from pathlib import Path
sys.argv[0] = "inbetween"
import flows.project, flows.lineage
root = Path.cwd()
flows.project.ROOT = flows.lineage.ROOT = root
flows.lineage.open_lineage.__defaults__ = (root, root / ".inbetween/lineage.sqlite")
from flows.cli import main
main()
"""
QUESTIONS = {
    "upstream of a renderer's checkpoint": "upstream data/models/renderer/batch03",
    "upstream of the motion checkpoint, 80,000 recordings": "upstream data/models/motion",
    "upstream of a clip's render": "upstream data/renders/batch03-painted/batch03_004.parquet",
    "downstream of a video": "downstream video:batch03/batch03_v01",
    "downstream of a recording": "downstream subset03s1_00007",
    "diff of the first and the last revision": "diff start HEAD",
    "diff of a dataset": "diff start HEAD --path data/samples/batch03",
    "why": "why render-batch03-painted",
    "coverage": "coverage",
    "leaks": "leaks",
    "licences of a render": "licences data/renders/batch03-painted",
    "history of a checkpoint": "history data/models/renderer/batch03",
    "history of a clip": "history clip:batch03/batch03_001",
    "upstream at a revision": "upstream data/models/renderer/batch03 --rev start",
}
DVC = {
    "upstream of a renderer's checkpoint": "dag train_renderer-batch03",
    "diff of the first and the last revision": "diff start HEAD",
    "why": "status render-batch03-painted",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--motions", type=int, default=100_000)
    parser.add_argument("--revisions", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3, help="how often each is asked; the least time counts")
    parser.add_argument("--keep", type=Path, help="make or use the repository here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = args.keep or Path(folder) / "repository"
        if not (root / ".git").is_dir():
            start = time.perf_counter()
            pipeline = make_repository(root, args.clips, args.motions, args.revisions)
            seconds = time.perf_counter() - start
            print(f"made {len(pipeline.project.ran)} stages in {args.revisions} revisions in {seconds:.0f} s")
        index = root / ".inbetween/lineage.sqlite"
        print(f"{'question':<56}{'wall s':>8}{'cpu s':>8}{'lines':>7}   DVC alone: wall s, cpu s")
        ask = [sys.executable, "-c", ASK, "lineage"]
        first = []
        for _ in range(args.rounds):
            for path in index.parent.glob(f"{index.name}*"):
                path.unlink()
            first.append(measure([*ask, "leaks"], root))
        wall, cpu, error = min(run[0] for run in first), min(run[1] for run in first), first[0][3]
        size = f"{index.stat().st_size / 2**20:.0f} MiB"
        print(f"{'the first question: the index is made':<56}{wall:>8.2f}{cpu:>8.2f}   {size} {error}".rstrip())
        for name, words in QUESTIONS.items():
            wall, cpu, lines, error = measure([*ask, *words.split()], root, args.rounds)
            row = f"{name:<56}{wall:>8.2f}{cpu:>8.2f}{lines:>7}"
            if name in DVC:
                wall, cpu, lines, dvc_error = measure([sys.executable, "-m", "dvc", *DVC[name].split()], root)
                row += f"   dvc {DVC[name]}: {wall:.2f} {cpu:.2f}, {lines} lines {dvc_error}"
            print(f"{row} {error}".rstrip(), flush=True)


if __name__ == "__main__":
    main()
