"""`make demo`: the embedded data, the whole pipeline by plain `dvc repro`, then the numbers."""

import json
import subprocess
import sys
import time

from flows.check import check_everything_named
from flows.lifetime import end_with_parent
from flows.progress import format_duration, say
from flows.project import ROOT
from flows.raw_data import bring_raw_data, check_raw_data
from tasks.errors import InbetweenError


def run_demo() -> None:
    """Raises: InbetweenError where a stage failed; its own line stands above."""
    start = time.monotonic()
    end_with_parent()
    check_everything_named(ROOT)
    bring_raw_data()
    check_raw_data()
    say("demo: dvc repro: download, split, pose, background, render, evaluate, report")
    done = subprocess.run([sys.executable, "-m", "dvc", "repro"], cwd=ROOT, check=False)
    if done.returncode:
        raise InbetweenError(
            "a stage failed; its line stands above. What is finished is kept: run it again after mending"
        )
    say(_summarise())
    say(f"demo: done in {format_duration(time.monotonic() - start)}; open report/index.html")


def _summarise() -> str:
    """Half-way frames, person: one line a render."""
    lines = [
        "",
        f"{'render':<12}{'key step':>9}{'person PSNR':>13}{'SSIM':>8}{'full PSNR':>11}   (half-way frames)",
    ]
    for path in sorted((ROOT / "metrics/render").glob("*.json")):
        metrics = json.loads(path.read_text())
        half = metrics["mean"]["halfway"]
        lines.append(
            f"{metrics['render']:<12}{metrics['key_step']:>9}{half['person_psnr']:>13.2f}{half['person_ssim']:>8.4f}"
            f"{half['full_psnr']:>11.2f}"
        )
    return "\n".join([*lines, ""])
