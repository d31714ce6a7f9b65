"""DAIN as a worker: the user's checkout, in its own Python, over pairs of pictures.

It speaks the command line of demo_MiddleBury_slowmotion.py, which reads and writes fixed places below the folder that
it is started in: so it is started in a folder of ours, laid out as it expects, and the checkout stays as it is.

    MiddleBurySet/other-data/PAIR/frame10.png, frame11.png               in
    model_weights/best.pth                                               a link into the checkout
    MiddleBurySet/other-result-author/NUMBER/PAIR/0000.png, 0001.png...  out: the first picture, then the pictures at
                                                                         1, 2, ... time steps, then the second picture
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import ToolError
from tasks.items import hash_file
from tasks.workers.process import run_process

SCRIPT = "demo_MiddleBury_slowmotion.py"
WEIGHTS = "model_weights/best.pth"
_DATA, _RESULTS = "MiddleBurySet/other-data", "MiddleBurySet/other-result-author"
_PAIR_DONE = "current image process time"
_ERROR = re.compile(r"[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit)\b")


@dataclass(frozen=True)
class DainSettings:
    """home: the checkout.  python: of its environment.  weights_sha256: where it is given, other bytes are refused.
    timeout_s: the longest time without a finished pair, loading the network included.
    """

    home: Path
    python: str
    weights_sha256: str | None
    timeout_s: float


def check_dain(settings: DainSettings) -> str:
    """What the checkout would run, for the record. Raises: ToolError naming what is missing.

    Without its weights DAIN says so and goes on with random ones.
    """
    if not (settings.home / SCRIPT).is_file():
        raise ToolError(f"dain: DAIN_HOME is {settings.home}, where there is no {SCRIPT}; name your checkout's folder")
    weights = settings.home / WEIGHTS
    if not weights.is_file():
        raise ToolError(f"dain: {weights} is not there; get it as its README says")
    sha256 = hash_file(weights)
    if settings.weights_sha256 not in (None, sha256):
        raise ToolError(
            f"dain: {weights}: its sha256 is {sha256}, not dain.weights_sha256; take the file that the batch was made"
            " with, or change the parameter"
        )
    return f"DAIN_slowmotion, best.pth {sha256[:12]}"


def run_dain(
    pairs: Mapping[str, tuple[bytes, bytes]],
    num_steps: int,
    work_dir: Path,
    settings: DainSettings,
    gpu: int | None,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, list[Path]]:
    """The pictures between the two of each pair, at equal steps of time.

    Args:
        pairs: name -> two pictures, PNG.
        num_steps: 2, 4, 8, ...: each pair gets num_steps - 1 pictures, at 1 / num_steps, 2 / num_steps, ...
        work_dir: a folder that does not exist yet; the results lie in it.
        on_progress: called with (pairs done, pairs in all).
    Returns: name -> its pictures, in the order of time.
    Raises: ToolError in one line for what it could not do.
    """
    if num_steps < 2 or num_steps.bit_count() != 1:
        raise ToolError(f"dain: {num_steps} steps between two pictures are no power of two")
    for name, (first, second) in pairs.items():
        folder = work_dir / _DATA / name
        folder.mkdir(parents=True)
        (folder / "frame10.png").write_bytes(first)
        (folder / "frame11.png").write_bytes(second)
    (work_dir / WEIGHTS).parent.mkdir()
    (work_dir / WEIGHTS).symlink_to((settings.home / WEIGHTS).resolve())
    log = work_dir / "dain.log"
    listener = _Listener(log, len(pairs), on_progress)
    with log.open("w", encoding="utf-8") as messages:

        def on_line(line: str) -> bool:
            messages.write(line + "\n")
            messages.flush()
            return listener.hear(line)

        code = run_process(
            command_of(settings, num_steps),
            on_line,
            settings.timeout_s,
            folder=work_dir,
            environment={"CUDA_VISIBLE_DEVICES": "" if gpu is None else str(gpu), "PYTHONUNBUFFERED": "1"},
        )
    if code is None:
        raise ToolError(
            f"dain: no finished pair for {settings.timeout_s:g} s, so it was stopped; its messages are in {log}"
        )
    if code != 0:
        how = f"failed with exit code {code}" if code > 0 else f"was killed by signal {-code}"
        raise ToolError(f"dain: {how}: {listener.last or 'it said nothing'} (all its messages: {log})")
    return _collect(work_dir / _RESULTS, list(pairs), num_steps)


def command_of(settings: DainSettings, num_steps: int) -> list[str]:
    """DAIN's own command line: `--time_step 0.25` makes three pictures between two."""
    words = [settings.python, str((settings.home / SCRIPT).resolve()), "--netName", "DAIN_slowmotion"]
    return [*words, "--time_step", str(1 / num_steps)]


class _Listener:
    def __init__(self, log: Path, total: int, on_progress: Callable[[int, int], None] | None) -> None:
        self._log, self._total, self._on_progress = log, total, on_progress
        self._done = 0
        self._is_traceback = False
        self.last = ""

    def hear(self, line: str) -> bool:
        """True = a sign of life. Raises: ToolError for an error of DAIN's own."""
        text = line.strip()
        if not text:
            return False
        self.last = text
        if "out of memory" in text:
            raise ToolError(
                "dain: the GPU's memory is too small for two pictures of this size; take smaller ones (width and height"
                f" in clips.csv), another in run.gpus, or the interpolator flow (all its messages: {self._log})"
            )
        if text.startswith("Traceback (most recent call last)"):
            self._is_traceback = True
        elif self._is_traceback and not line.startswith(" ") and _ERROR.match(text):
            raise ToolError(f"dain: {_explain(text)}{text[:200]} (all its messages: {self._log})")
        if _PAIR_DONE in text:
            self._done += 1
            if self._on_progress:
                self._on_progress(self._done, self._total)
        return _PAIR_DONE in text


def _explain(error: str) -> str:
    if re.search(r"No module named '?(\w+_cuda|networks|my_args|correlation)", error) or "_cuda" in error:
        return "its extensions are not built (my_package/build.sh, PWCNet/correlation_package_pytorch1_0/build.sh): "
    if "No module named" in error or "imread" in error:
        return "its environment lacks what it needs (PyTorch 1.0 to 1.4, SciPy below 1.2): "
    if re.search(r"CUDA driver|no NVIDIA|not compiled with CUDA", error):
        return "it needs a GPU, and none is to be had: "
    return ""


def _collect(results: Path, names: list[str], num_steps: int) -> dict[str, list[Path]]:
    runs = [path for path in results.iterdir() if path.is_dir()] if results.is_dir() else []
    if len(runs) != 1:
        raise ToolError(f"dain: it left {len(runs)} folders of results in {results}, not one")
    wanted = [f"{number:04d}.png" for number in range(num_steps + 1)]
    found = {}
    for name in names:
        folder = runs[0] / name
        there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        if there != wanted:
            raise ToolError(
                f"dain: {folder} holds {len(there)} pictures, not the {len(wanted)} of time step {1 / num_steps:g}"
            )
        found[name] = [folder / file for file in wanted[1:-1]]
    return found
