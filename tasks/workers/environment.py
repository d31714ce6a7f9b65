"""The environment of a worker that is a Python script with inline dependencies (PEP 723): made once, then reused."""

import fcntl
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from tasks.errors import ToolError

MEDIAPIPE_SCRIPT = Path(__file__).with_name("mediapipe_worker.py")
_PREPARE_TIMEOUT_S = 1800
# The Debian package that holds a library which Python wheels expect of the system.
_DEBIAN_PACKAGES = {
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libGLESv2.so.2": "libgles2",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libxcb.so.1": "libxcb1",
    "libX11.so.6": "libx11-6",
    "libSM.so.6": "libsm6",
    "libXext.so.6": "libxext6",
    "libportaudio.so.2": "libportaudio2",
}


def prepare_mediapipe(lock_dir: Path | None = None) -> list[str]:
    """Make or reuse the environment of the mediapipe worker; return the command for `run_worker`.

    Args:   lock_dir: where the lock file lies that keeps two processes from making it at once; by default the package
            cache of uv, which is also where the environment is.
    Raises: ToolError with the remedy if it cannot be made (no index reached and not cached, a Python without a
            mediapipe wheel) or does not start (a system library is missing).
    """
    return prepare_script(MEDIAPIPE_SCRIPT, ["mediapipe.python.solutions.holistic", "cv2"], lock_dir)


def prepare_script(script: Path, imports: list[str], lock_dir: Path | None = None) -> list[str]:
    """Make or reuse the environment of a script with inline dependencies, tried by importing `imports` once.

    The command names the environment's own Python, not `uv run`: uv would stand between us and the worker, and its
    death would leave the worker behind.
    """
    environment = _environment()
    folder = lock_dir or Path(_uv(["cache", "dir"], environment).stdout.strip())
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"inbetween-{script.stem}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # From the cache first: as fast as looking, needs no network, and takes no newer package than last time.
        made = _uv(["sync", "--script", str(script)], {**environment, "UV_OFFLINE": "1"})
        if made.returncode != 0:
            made = _uv(["sync", "--script", str(script)], environment)
        if made.returncode != 0:
            raise ToolError(_explain_environment(script, made.stderr))
        python = _uv(["python", "find", "--script", str(script)], environment).stdout.strip()
        # Importing takes seconds, so an environment is tried once, and its own folder says that it was.
        tried = Path(python).parent.parent / ".inbetween-tried"
        if not tried.exists():
            _try_imports(script, python, imports)
            tried.touch()
    return [python, "-I", str(script)]


def _environment() -> dict[str, str]:
    dropped = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT"}
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    # Our own Python, or its cousin: one is always there, and the same one for every run of this project.
    kept |= {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1", "NO_COLOR": "1", "UV_PYTHON": sys.executable}
    if "UV_FIND_LINKS" not in kept and kept.get("PIP_FIND_LINKS"):
        kept["UV_FIND_LINKS"] = ",".join(kept["PIP_FIND_LINKS"].split())
    return kept


def _uv(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    if find_spec("uv") is None:
        raise ToolError("uv is not installed in this environment, so no worker can be prepared; run `make env`")
    import uv

    try:
        return subprocess.run(
            [uv.find_uv_bin(), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_PREPARE_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise ToolError(f"uv is damaged ({error}); remove .venv and run `make env`") from error
    except subprocess.TimeoutExpired as error:
        raise ToolError(
            f"uv {' '.join(arguments[:2])} did not end within {_PREPARE_TIMEOUT_S} s; is the package index reachable?"
        ) from error


def _explain_environment(script: Path, message: str) -> str:
    """One line for uv's several: what is wrong with the user's machine, and what to do."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    reasons = (
        (
            r"requires-python|No interpreter found|incompatible with the script",
            f"it needs Python 3.11 or 3.12 (mediapipe has no newer wheel), not {version}; install Python 3.11",
        ),
        (
            r"error sending request|Failed to fetch|client error|dns error|Network|timed out",
            "the package index was not reached, and its packages are not cached; connect this machine once",
        ),
        (
            r"no wheels with a matching|doesn't have a .*wheel|has no .*wheels|no matching platform",
            "mediapipe has no wheel for this machine; take another worker (docs/workers.md), Linux x86_64 or macOS",
        ),
        (
            r"No space left",
            "no space left for its packages (900 MB); free some, or set UV_CACHE_DIR to another disk",
        ),
    )
    for pattern, reason in reasons:
        if re.search(pattern, message):
            return f"{script.name}: {reason}"
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return f"{script.name}: its environment could not be made: {' '.join(lines[-3:]) or 'uv said nothing'}"


def _try_imports(script: Path, python: str, imports: list[str]) -> None:
    tried = subprocess.run(
        [python, "-I", "-c", f"import {', '.join(imports)}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=_PREPARE_TIMEOUT_S,
        stdin=subprocess.DEVNULL,
    )
    if tried.returncode == 0:
        return
    missing = re.search(r"(lib[\w.+-]*\.so[.\d]*): cannot open shared object", tried.stderr)
    if missing:
        package = _DEBIAN_PACKAGES.get(missing[1])
        remedy = f"apt-get install {package}" if package else f"apt-file search {missing[1]} names its package"
        raise ToolError(f"{script.name} needs the system library {missing[1]}: install it (Debian, Ubuntu: {remedy})")
    lines = tried.stderr.strip().splitlines()
    raise ToolError(
        f"{script.name} does not start: {lines[-1] if lines else 'it said nothing'}; "
        "`.venv/bin/uv cache clean` has its environment made anew"
    )
