"""`make demo`: the embedded data, the whole pipeline by DVC, then the numbers.

The pipeline is plain `dvc repro`. Before it, stages that do not need each other are run by two DVC processes side by
side: half of a stage is one core's work (Python's start, DVC's books, training), which leaves the other core idle.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from flows.check import check_everything_named
from flows.dvc_process import DvcProcesses
from flows.lifetime import end_with_parent
from flows.lineage.record import note_restored
from flows.lock_order import remember_order, restore_order
from flows.params import Params, load_params
from flows.pipeline import LOCK, read_plan
from flows.progress import format_duration, say
from flows.project import ROOT, STATE
from flows.raw_data import bring_raw_data, check_raw_data
from flows.stage import STAGES, item_names
from tasks.errors import InbetweenError

Lane = list[str]  # stages, one after the other

_LOCK_ORDER = STATE / "lock-order.json"


def run_demo() -> None:
    """Raises: InbetweenError where a stage failed; its own line stands above."""
    start = time.monotonic()
    end_with_parent()
    check_everything_named(ROOT)
    bring_raw_data()
    check_raw_data()
    say(f"demo: dvc repro: {', '.join(STAGES)}")
    remember_order(LOCK, _LOCK_ORDER)
    is_done = all(_run_side_by_side(lanes) for lanes in plan_lanes(load_params(ROOT / "params.yaml")))
    is_done = is_done and not subprocess.run([sys.executable, "-m", "dvc", "repro"], cwd=ROOT, check=False).returncode
    restore_order(LOCK, _LOCK_ORDER, [stage.name for stage in read_plan()])
    _LOCK_ORDER.unlink()
    note_restored()
    if not is_done:
        raise InbetweenError(
            "a stage failed; its line stands above. What is finished is kept: run it again after mending"
        )
    say(_summarise())
    say(f"demo: done in {format_duration(time.monotonic() - start)}; open report/index.html")


def plan_lanes(params: Params) -> list[list[Lane]]:
    """Rounds of lanes: those of a round need nothing of each other, and a round what the rounds before it make."""

    def stages(*names: str) -> Lane:
        return [f"{name}@{item}" if item else name for name in names for item in item_names(params, name)]

    def renders(*, is_painted: bool) -> Lane:
        names = [name for name, render in params.renders.items() if (render.method == "neural") == is_painted]
        return [f"{stage}@{name}" for name in names for stage in ("render", "evaluate")]

    return [
        [stages("download", "split", "pose", "background"), stages("joints", "views", "train_motion")],
        [
            [*stages("samples", "train_renderer"), *renders(is_painted=True)],
            [*stages("evaluate_motion"), *renders(is_painted=False)],
        ],
    ]


def _run_side_by_side(lanes: Sequence[Lane]) -> bool:
    """Whether all ended well; the line of a stage that did not is shown with the others' lines."""
    processes = DvcProcesses()
    wanted = [lane for lane in lanes if lane]
    with ThreadPoolExecutor(max(len(wanted), 1)) as threads:
        runs = [threads.submit(processes.repro, *lane, environment={}, on_line=say) for lane in wanted]
        try:
            ends = [run.result() for run in runs]
        finally:
            processes.stop()  # Ctrl-C: DVC is in a session of its own
    return all(end.outcome != "failed" for end in ends)


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
