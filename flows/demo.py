"""`make demo`: the embedded data, the whole pipeline by plain `dvc repro`, then the numbers."""

import json
import subprocess
import sys
import time

from flows.check import check_everything_named
from flows.lifetime import end_with_parent
from flows.lineage.record import note_restored
from flows.progress import format_duration, say
from flows.project import ROOT
from flows.raw_data import bring_raw_data, check_raw_data
from flows.stage import STAGES
from tasks.errors import InbetweenError


def run_demo() -> None:
    """Raises: InbetweenError where a stage failed; its own line stands above."""
    start = time.monotonic()
    end_with_parent()
    check_everything_named(ROOT)
    bring_raw_data()
    check_raw_data()
    say(f"demo: dvc repro: {', '.join(STAGES)}")
    done = subprocess.run([sys.executable, "-m", "dvc", "repro"], cwd=ROOT, check=False)
    note_restored()
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
        f"{'render':<12}{'key step':>9}{'person PSNR':>13}{'SSIM':>8}{'LPIPS':>8}{'full PSNR':>11}   (half-way frames)",
    ]
    for path in sorted((ROOT / "metrics/render").glob("*.json")):
        metrics = json.loads(path.read_text())
        half = metrics["mean"]["halfway"]
        lpips = f"{half['person_lpips']:.4f}" if "person_lpips" in half else "-"
        lines.append(
            f"{metrics['render']:<12}{metrics['key_step']:>9}{half['person_psnr']:>13.2f}{half['person_ssim']:>8.4f}"
            f"{lpips:>8}{half['full_psnr']:>11.2f}"
        )
    return "\n".join([*lines, *_summarise_motion(), ""])


def _summarise_motion() -> list[str]:
    """Mean absolute error of the frames between keys, one line a key step."""
    path = ROOT / "metrics/motion.json"
    if not path.is_file():
        return []
    metrics = json.loads(path.read_text())
    network = metrics["network"]
    lines = [
        "",
        f"{'motion, error x 100':<20}{network + ', clean':>16}{'cubic':>8}{network + ', noisy':>18}{'robust':>8}",
    ]
    for step in (key for key in metrics if key.startswith("step_")):
        clean, noisy = (metrics[step][condition]["measures"] for condition in ("clean", "noisy"))
        values = (clean[network], clean["cubic"], noisy[network], noisy["robust"])
        of, cubic, faulty, robust = (100 * value["mae"] for value in values)
        lines.append(f"{'key step ' + step[5:]:<20}{of:>16.3f}{cubic:>8.3f}{faulty:>18.3f}{robust:>8.3f}")
    return lines
