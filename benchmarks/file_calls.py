"""File-system calls that a clip more costs: names looked up, opened, linked, renamed, removed. Needs strace.

    .venv/bin/python benchmarks/file_calls.py [--clips 10,60]

As benchmarks/scale.py: `dvc repro` of download, split, background and a blended render, no poses; under strace, for
two numbers of clips, of which the difference is what a clip costs (Python's start and DVC's own files fall out).
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.scale import CLIPS_A_VIDEO, Shape, make_videos, write_catalog
from tests.render_only import make_project
from tests.sandbox import Sandbox

SHAPE = Shape(25, 256, 144)
STAGES = ("download@batch", "split@batch", "background@batch-8", "render@batch-blend-8")
KINDS = {
    "look up": ("stat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2", "readlink", "readlinkat"),
    "open": ("open", "openat", "openat2"),
    "make, link, rename": (
        "link",
        "linkat",
        "rename",
        "renameat",
        "renameat2",
        "mkdir",
        "mkdirat",
        "symlink",
        "symlinkat",
    ),
    "remove": ("unlink", "unlinkat", "rmdir"),
    "change mode or time": ("chmod", "fchmodat", "utimensat"),
}


def count_calls(sandbox: Sandbox, stage: str) -> Counter[str]:
    """Of DVC running this stage alone, and of all that it starts."""
    report = sandbox.root / "calls.txt"
    command = ["strace", "-f", "-c", "-e", "trace=%file", "-o", str(report), "dvc", "repro", "-s", stage]
    sandbox.run(*command, timeout=3600)
    calls: Counter[str] = Counter()
    for line in report.read_text().splitlines():
        if match := re.match(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", line):
            calls[match[2]] += int(match[1])
    report.unlink()
    del calls["total"]
    return calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", default="10,60")
    few, many = map(int, parser.parse_args().clips.split(","))
    counts: dict[int, dict[str, Counter[str]]] = {}
    for number in (few, many):
        with tempfile.TemporaryDirectory() as folder:
            sandbox = make_project(Path(folder) / "project", ["batch"], clips={"batch": [("c", "kick_front", 0, 8)]})
            make_videos(sandbox.root / "made", -(-number // CLIPS_A_VIDEO), SHAPE)
            write_catalog(sandbox, number, SHAPE)
            counts[number] = {stage: count_calls(sandbox, stage) for stage in STAGES}
    print(f"{'calls a clip more':<24}" + "".join(f"{kind:>22}" for kind in [*KINDS, "other", "all"]))
    for stage in STAGES:
        more = counts[many][stage].copy()
        more.subtract(counts[few][stage])
        row = [sum(more.pop(name, 0) for name in names) for names in KINDS.values()]
        row.append(sum(more.values()))
        row.append(sum(row))
        print(f"{stage:<24}" + "".join(f"{calls / (many - few):>22.1f}" for calls in row))


if __name__ == "__main__":
    try:
        main()
    except FileNotFoundError as error:
        sys.exit(f"file_calls: {error.filename}: is not here")
    except subprocess.TimeoutExpired as error:
        sys.exit(f"file_calls: {error}")
