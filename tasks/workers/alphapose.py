"""AlphaPose as a worker: the user's checkout, in its own Python, once over a folder of pictures.

It speaks its own command line (scripts/demo_inference.py) and writes its own results, which alphapose_results.py reads.
What it does not say by its exit code is read from what it prints: after an error it prints the error and goes on
waiting for its own threads, for ever.

A frame's people are found in that frame alone: neither its tracker (--pose_track, --pose_flow, --detector tracker) nor
any smoothing over time is ever asked for. So a pass over key frames may take their people out of one call over all
frames: no hidden frame has a say in them. That each is the same person is our part (models/pose/follow.py).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.errors import ToolError
from tasks.items import hash_file
from tasks.workers.alphapose_results import People, read_results
from tasks.workers.process import run_process

SCRIPT = "scripts/demo_inference.py"
NUM_POINTS = 136
SMALLER = 4  # how much smaller batches are after the GPU's memory did not do
# Pictures that wait inside AlphaPose, for each of its three queues; its own 1,024 take tens of gigabytes.
QUEUE = 64

_BAR = re.compile(r"(\d+)/(\d+) \[")
_ERROR = re.compile(r"[A-Za-z_][\w.]*(?::|$)")  # cv2.error too, of a thread: nothing else tells of it
_CAUGHT = "An error as above occurs when processing the images"
_WRITTEN = "Results have been written to json"


@dataclass(frozen=True)
class AlphaposeSettings:
    """home: the checkout.  python: of its environment.  config, checkpoint: in the checkout, or absolute.
    checkpoint_sha256: where it is given, other bytes are refused.  detector: yolo, yolox-l, ... (detector/apis.py).
    output: --format; "default" = without it.  min_box_area: px; smaller people are left out.
    detection_batch, pose_batch: pictures and people on the GPU at once.  timeout_s: the longest time without a word.
    """

    home: Path
    python: str
    config: str
    checkpoint: str
    checkpoint_sha256: str | None
    detector: str
    output: Literal["default", "cmu", "open"]
    min_box_area: int
    detection_batch: int
    pose_batch: int
    timeout_s: float


class _OutOfMemoryError(Exception):
    pass


def check_alphapose(settings: AlphaposeSettings) -> str:
    """What the checkout would run, for the record: its config and checkpoint by their bytes.

    Raises: ToolError naming what is missing, or a config that is not of the whole body's 136 points.
    """
    if not (settings.home / SCRIPT).is_file():
        raise ToolError(
            f"alphapose: ALPHAPOSE_HOME is {settings.home}, where there is no {SCRIPT}; name your checkout's folder"
        )
    config = _find(settings, "config", settings.config)
    checkpoint = _find(settings, "checkpoint", settings.checkpoint)
    weights = _detector_weights(settings.detector)
    if weights and not (settings.home / weights).is_file():
        raise ToolError(
            f"alphapose: the weights of its detector {settings.detector} are missing: {settings.home / weights};"
            " its docs/INSTALL.md says where they are to be had"
        )
    num_points = _count_points(config)
    if num_points != NUM_POINTS:
        raise ToolError(
            f"alphapose: {config}: is of {num_points} points, where the whole body's {NUM_POINTS} are needed; name a"
            " config under configs/halpe_136 and its checkpoint (alphapose.config, alphapose.checkpoint)"
        )
    sha256 = hash_file(checkpoint)
    if settings.checkpoint_sha256 not in (None, sha256):
        raise ToolError(
            f"alphapose: {checkpoint}: its sha256 is {sha256}, not alphapose.checkpoint_sha256; take the file that the"
            " batch was made with, or change the parameter"
        )
    return f"{config.stem} {hash_file(config)[:12]}, {checkpoint.name} {sha256[:12]}, {settings.detector}"


def _find(settings: AlphaposeSettings, name: str, value: str) -> Path:
    path = settings.home / value
    if not path.is_file():
        raise ToolError(
            f"alphapose: alphapose.{name}: {path} is not there; get it (its docs/MODEL_ZOO.md), or name another"
        )
    return path


def _detector_weights(detector: str) -> str | None:
    if detector == "yolo":
        return "detector/yolo/data/yolov3-spp.weights"
    if detector.startswith("yolox"):
        return f"detector/yolox/data/{detector.replace('-', '_')}.pth"
    return None


def _count_points(config: Path) -> int | None:
    try:
        content = YAML(typ="safe", pure=True).load(config.read_text(encoding="utf-8"))
        return int(content["DATA_PRESET"]["NUM_JOINTS"])
    except (YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        line = " ".join(str(error).split())[:200]
        raise ToolError(
            f"alphapose: {config}: not a config of AlphaPose's: no DATA_PRESET.NUM_JOINTS ({line})"
        ) from error


def run_alphapose(
    pictures: Path,
    work_dir: Path,
    settings: AlphaposeSettings,
    gpu: int | None,
    on_progress: Callable[[int, int], None] | None = None,
) -> People:
    """The people of every picture of a folder; a second time with smaller batches where the GPU's memory does not do.

    Args:
        pictures: a folder of pictures and nothing else.  work_dir: an existing folder for its results and messages.
        gpu: its number; None = on the processor.
        on_progress: called with (pictures done, pictures in all); starts again with the smaller batches.
    Returns: picture's name -> people; one without people is there too.
    Raises: ToolError in one line for what it could not do.
    """
    names = sorted(path.name for path in pictures.iterdir())
    try:
        return _run_once(pictures, names, work_dir / "first", settings, gpu, on_progress)
    except _OutOfMemoryError:
        smaller = replace(
            settings,
            detection_batch=max(1, settings.detection_batch // SMALLER),
            pose_batch=max(1, settings.pose_batch // SMALLER),
        )
    try:
        return _run_once(pictures, names, work_dir / "second", smaller, gpu, on_progress)
    except _OutOfMemoryError as error:
        raise ToolError(
            f"alphapose: the GPU's memory is too small, for batches of {smaller.detection_batch} pictures and"
            f" {smaller.pose_batch} people too; lower alphapose.detection_batch and alphapose.pose_batch, or name"
            " another in run.gpus"
        ) from error


def command_of(settings: AlphaposeSettings, pictures: Path, results: Path, gpu: int | None) -> list[str]:
    """AlphaPose's own command line."""
    words = [settings.python, SCRIPT, "--cfg", settings.config, "--checkpoint", settings.checkpoint]
    words += ["--indir", str(pictures), "--outdir", str(results), "--detector", settings.detector]
    words += ["--detbatch", str(settings.detection_batch), "--posebatch", str(settings.pose_batch)]
    words += ["--gpus", "-1" if gpu is None else "0", "--qsize", str(QUEUE), "--sp"]
    if settings.output != "default":
        words += ["--format", settings.output]
    if settings.min_box_area:
        words += ["--min_box_area", str(settings.min_box_area)]
    return words


def _run_once(
    pictures: Path,
    names: Sequence[str],
    work_dir: Path,
    settings: AlphaposeSettings,
    gpu: int | None,
    on_progress: Callable[[int, int], None] | None,
) -> People:
    results = work_dir / "results"
    results.mkdir(parents=True)
    log = work_dir / "alphapose.log"
    with log.open("w", encoding="utf-8") as messages:
        listener = _Listener(settings, log, on_progress)

        def on_line(line: str) -> bool:
            messages.write(line + "\n")
            messages.flush()
            return listener.hear(line)

        environment = {
            "CUDA_VISIBLE_DEVICES": "" if gpu is None else str(gpu),
            "PYTHONPATH": str(settings.home),  # its packages lie beside its scripts, and may not be installed
            "PYTHONUNBUFFERED": "1",
        }
        code = run_process(
            command_of(settings, pictures.resolve(), results.resolve(), gpu),
            on_line,
            settings.timeout_s,
            folder=settings.home,
            environment=environment,
        )
    if code is None:
        raise ToolError(
            f"alphapose: no word for {settings.timeout_s:g} s, so it was stopped; its messages are in {log}"
        )
    if code != 0:
        how = f"failed with exit code {code}" if code > 0 else f"was killed by signal {-code}"
        raise ToolError(f"alphapose: {how}: {listener.last or 'it said nothing'} (all its messages: {log})")
    if listener.done < listener.total:
        raise ToolError(
            f"alphapose: it ended after {listener.done} of {listener.total} pictures: {listener.last}; see {log}"
        )
    return read_results(results, names)


class _Listener:
    """Follows what AlphaPose prints: its bar, and the errors after which it would not end."""

    def __init__(self, settings: AlphaposeSettings, log: Path, on_progress: Callable[[int, int], None] | None) -> None:
        self._settings, self._log, self._on_progress = settings, log, on_progress
        self.done = self.total = 0
        self.last = ""
        self._is_written = self._is_traceback = False

    def hear(self, line: str) -> bool:
        """True = a sign of life. Raises: _OutOfMemoryError, or ToolError for an error of its own."""
        text = line.strip()
        if not text or text == self.last:
            return False
        before, self.last = self.last, text
        bar = _BAR.search(text)
        if bar:
            self.done, self.total = int(bar[1]), int(bar[2])
            if self._on_progress:
                self._on_progress(self.done, self.total)
        self._is_written = self._is_written or text.startswith(_WRITTEN)
        if self._is_written:
            return True
        if text.startswith(_CAUGHT):
            self._fail(before)
        if text.startswith("Traceback (most recent call last)"):
            self._is_traceback = not before.startswith("Exception ignored")
        elif self._is_traceback and not line.startswith(" ") and _ERROR.match(text):
            self._fail(text)
        elif "CUDA out of memory" in text:
            raise _OutOfMemoryError
        return True

    def _fail(self, error: str) -> None:
        if "out of memory" in error:
            raise _OutOfMemoryError
        unfit = f"the checkpoint {self._settings.checkpoint} does not fit the config {self._settings.config}"
        build = "run `python setup.py build develop` in ALPHAPOSE_HOME with ALPHAPOSE_PYTHON"
        remedies = (
            (r"loading state_dict", f"{unfit}; name the two of one row of its docs/MODEL_ZOO.md"),
            (r"No module named", f"its environment lacks a package; {build}"),
            (r"CUDA driver|no NVIDIA|CUDA error: no", "no GPU is to be had; set run.gpus to [] for the processor"),
        )
        for pattern, remedy in remedies:
            if re.search(pattern, error):
                raise ToolError(f"alphapose: {remedy} ({error[:200]}; all its messages: {self._log})")
        raise ToolError(f"alphapose: {error[:300]} (all its messages: {self._log})")
