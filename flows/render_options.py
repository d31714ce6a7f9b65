"""What `inbetween render` was told, checked before any work."""

import json
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

from flows.progress import say
from flows.project import ROOT
from flows.raw_data import bring_raw_data
from models.renderer.device import DeviceError, best_device, open_device
from models.renderer.keys import WeightsError, find_rife_weights
from models.renderer.methods import Base, available_base
from tasks.errors import ParamsError, ToolError
from tasks.mux import FORMATS
from tasks.render import Background, Method, Motion, RenderSettings
from tasks.timeline import Pace

Audio = Literal["keep", "stretch", "drop"]
MIN_FPS, MAX_FPS = 1, 1000
EMBEDDED_MOTION = ROOT / "data/raw/embedded/motion/tangents"


@dataclass(frozen=True)
class RenderOptions:
    """What the command line says.

    motion_model: checkpoint folder of a learned motion; None = the embedded one.
    device: of the networks that make pictures; auto = a GPU where there is one.
    renderer: of method neural, which paints over the frames of `background`: warp | base.
    audio, crf, workers: None = as the pace or params.yaml has it.
    """

    pace: Pace
    method: Method
    motion: Motion
    base: Base
    background: Background
    device: Literal["auto", "cpu", "cuda"]
    motion_model: Path | None
    renderer: Path | None
    audio: Audio | None
    frames: Path | None
    crf: int | None
    workers: int | None
    overwrite: bool

    @property
    def sound(self) -> Audio:
        """Slow motion has no sound of its own: it is dropped unless it is asked for."""
        return self.audio or ("drop" if self.pace.kind == "slow" else "keep")


def read_pace(rate: int | None, fps: str | None, slow: int | None) -> Pace:
    """The one of --rate, --fps and --slow that is given; none is --rate 2. Raises: ParamsError."""
    given = [name for name, value in (("--rate", rate), ("--fps", fps), ("--slow", slow)) if value is not None]
    if len(given) > 1:
        raise ParamsError(f"{' and '.join(given)}: give one of them; each says how many frames there will be")
    if fps is not None:
        try:
            value = Fraction(fps).limit_denominator(1001)
        except (ValueError, ZeroDivisionError):
            value = Fraction(0)
        if not MIN_FPS <= value <= MAX_FPS:
            raise ParamsError(f"--fps {fps}: {MIN_FPS} to {MAX_FPS} frames a second are needed: 60, 59.94, 60000/1001")
        return Pace("fps", value)
    if slow is not None:
        return Pace("slow", Fraction(slow))
    return Pace("rate", Fraction(rate or 2))


def work_folder(target: Path) -> Path:
    """Where the work stands until OUT is there."""
    return target.parent / f".{target.name}.inbetween"


def make_folder(folder: Path, named: Path) -> None:
    """Make a folder where there is none. named: what the user named. Raises: ParamsError."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ParamsError(f"{named}: nothing can be written there ({error.strerror}); name another place") from error


def check_target(source: Path, target: Path, options: RenderOptions) -> None:
    """Raises: ParamsError where OUT or the folder of frames cannot be written or replaces something, IN is a folder."""
    if source.is_dir():
        raise ParamsError(f"{source}: is a folder; name a video")
    if target.suffix.lower() not in FORMATS:
        raise ParamsError(f"{target}: is not the name of a video that can be written; end it in {', '.join(FORMATS)}")
    if not target.parent.is_dir():
        raise ParamsError(f"{target}: there is no folder {target.parent}; make it first")
    if source.exists() and target.exists() and source.samefile(target):
        raise ParamsError(f"{target}: is the input itself; name another file")
    for path in (target, target.with_suffix(".parquet")):
        if path.is_dir():
            raise ParamsError(f"{path}: is a folder; name a file")
        if path.exists() and not options.overwrite:
            raise ParamsError(f"{path}: exists already; name another file, or add --overwrite")
    if options.audio == "stretch" and options.pace.kind != "slow":
        raise ParamsError("--audio stretch: only --slow makes a video longer; use keep or drop")
    if options.audio == "keep" and options.pace.kind == "slow":
        raise ParamsError("--audio keep: slow motion is longer than its sound; use stretch or drop")
    folder = options.frames
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise ParamsError(f"--frames {folder}: is a file; name a folder")
    if not folder.absolute().parent.is_dir():
        raise ParamsError(f"--frames {folder}: there is no folder {folder.parent}; make it first")
    # A run that is to go on has left frames there.
    if folder.is_dir() and any(folder.iterdir()) and not options.overwrite and not work_folder(target).exists():
        raise ParamsError(f"--frames {folder}: is not empty; name another folder, or add --overwrite")


def _check_network(folder: Path, option: str, kinds: tuple[str, ...]) -> None:
    """Raises: ParamsError for a folder that holds no checkpoint, or another network's. Its weights are not read."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))["network"]
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if found is None or not (folder / "model.safetensors").is_file():
        raise ParamsError(f"{option} {folder}: holds no checkpoint (config.json, model.safetensors)")
    if found not in kinds:
        raise ParamsError(f"{option} {folder}: holds a network {found}; needed is {' or '.join(kinds)}")


def choose_settings(options: RenderOptions) -> RenderSettings:
    """Have what the methods need, the embedded data too.

    Raises: ParamsError for options that do not fit each other, ToolError where weights are missing.
    """
    method, base = options.method, available_base(options.base)
    try:
        if method == "rife":
            find_rife_weights()
    except WeightsError as error:
        raise ToolError(str(error)) from error
    if (method == "neural") != (options.renderer is not None):
        raise ParamsError("--renderer: method neural needs the folder of a trained renderer, no other method takes one")
    if options.motion_model is not None and options.motion != "learned":
        raise ParamsError("--motion-model: only --motion learned takes a model")
    if options.renderer is not None:
        _check_network(options.renderer, "--renderer", ("generator",))
    if options.motion_model is not None:
        _check_network(options.motion_model, "--motion-model", ("tangents", "transformer"))
    settings = RenderSettings(
        key_step=1,
        motion=options.motion,
        method=method,
        motion_model=str((options.motion_model or EMBEDDED_MOTION).absolute()),
        base=base,
        renderer=str(options.renderer.absolute()) if options.renderer else "",
        background=options.background,
    )
    if settings.has_network:
        settings = replace(settings, device=best_device() if options.device == "auto" else options.device)
    if settings.device != "cpu":
        try:
            open_device(settings.device)
        except DeviceError as error:
            raise ParamsError(f"--{error}") from error
    is_embedded = options.motion == "learned" and options.motion_model is None
    if settings.needs_poses and is_embedded and not EMBEDDED_MOTION.is_dir():
        bring_raw_data()
    if settings.needs_poses and base != options.base:
        say(f"render: {method} works over {base}: {options.base} is not installed here")
    return settings
