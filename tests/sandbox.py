"""A copy of the project in a temporary folder, with its own git and DVC, for tests that run stages for real."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NO_SOURCE = "data/raw/embedded/no-source"
SHARED = ROOT.parent / "shared"
FOOTAGE = SHARED / "footage"
BIN = Path(sys.executable).parent

needs_footage = pytest.mark.skipif(not FOOTAGE.is_dir(), reason="the real footage of ../shared is not on this machine")


@dataclass
class Sandbox:
    """A project copy. run() calls a command in it the way a user would."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "INBETWEEN_", "DVC_"))}
        env |= {
            "PYTHONPATH": str(self.root),  # the copy's code, not the installed checkout's
            "PATH": f"{BIN}{os.pathsep}{env['PATH']}",
            "DVC_NO_ANALYTICS": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_HOME": str(self.root / ".inbetween" / "prefect"),
            "HOME": env["HOME"],
        }
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # without compiled modules every process compiles what it imports
        return env | self.env

    def run(self, *command: str, check: bool = True, timeout: float = 280) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, cwd=self.root, env=self.environment(), capture_output=True, text=True, timeout=timeout
        )
        assert not check or done.returncode == 0, f"{command} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command in a session of its own and do not wait."""
        return subprocess.Popen(
            command, cwd=self.root, env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True,
        )  # fmt: skip

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def commit(self, message: str = "change") -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", message)


def copy_project(root: Path, *, has_raw_data: bool = False) -> Sandbox:
    """The project's files as they stand (tracked and new), without data and environment, in a git repository.

    Args: has_raw_data: True = `inbetween data` has been run in it. It is made once for all tests of this process.
    """
    made = _make_project_with_raw_data() if has_raw_data else _make_project()
    return Sandbox(shutil.copytree(made.name, root, symlinks=True, dirs_exist_ok=True))


@cache
def _make_project_with_raw_data() -> "tempfile.TemporaryDirectory[str]":
    folder = tempfile.TemporaryDirectory(prefix="inbetween-tests-")
    copy_project(Path(folder.name), has_raw_data=False).run("inbetween", "data")
    return folder


@cache
def _make_project() -> "tempfile.TemporaryDirectory[str]":
    folder = tempfile.TemporaryDirectory(prefix="inbetween-tests-")
    root = Path(folder.name)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
    for package in ("flows", "models", "tasks"):  # compiled modules too: else every copy compiles them anew
        for compiled in (ROOT / package).rglob("*.pyc"):
            target = root / compiled.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(compiled, target)
    for record in ("dvc.lock", "lineage/runs.jsonl"):
        (root / record).unlink(missing_ok=True)
    sandbox = Sandbox(root)
    sandbox.run("git", "init", "-q", "-b", "main")
    sandbox.run("git", "config", "user.email", "test@example.org")
    sandbox.run("git", "config", "user.name", "Test")
    sandbox.commit("start")
    return folder


def write_batch(
    sandbox: Sandbox, batch: str, clips: Sequence[tuple[str, str, int, int]], size: str = "180,320"
) -> None:
    """catalog/BATCH from clips (clip, footage file name without .mp4, first, last)."""
    videos = dict.fromkeys(video for _, video, _, _ in clips)
    sandbox.write(
        f"catalog/{batch}/videos.csv",
        "video,source,licence\n" + "".join(f"{v},file:{FOOTAGE / v}.mp4,BSD-3-Clause\n" for v in videos),
    )
    sandbox.write(
        f"catalog/{batch}/clips.csv",
        "clip,video,split,subject,first,last,width,height\n"
        + "".join(f"{c},{v},test,someone,{first},{last},{size}\n" for c, v, first, last in clips),
    )


def set_batches(
    sandbox: Sandbox, batches: Sequence[str], key_step: int = 8, methods: Sequence[str] = ("flow",)
) -> None:
    """params.yaml of the copy for these batches: one key step, and a render a method and batch."""
    text = (sandbox.root / "params.yaml").read_text().split("\nbatches:")[0]
    text = re.sub(r"num_steps: \d+\n", "num_steps: 2\n", text)
    lines = [text, "batches:"]
    for batch in batches:
        lines.append(f"  {batch}: {{key_steps: [{key_step}], pose: {{worker: mediapipe, source: {NO_SOURCE}}}}}")
    lines.append("backgrounds:")
    lines += [
        f"  {batch}-{key_step}: {{batch: {batch}, key_step: {key_step}, interpolator: flow, source: {NO_SOURCE}}}"
        for batch in batches
    ]
    lines += ["renderers: {}", "renders:"]
    for batch in batches:
        lines += [
            f"  {batch}-{method}-{key_step}:"
            f" {{batch: {batch}, split: test, key_step: {key_step}, motion: robust,"
            f" motion_model: data/raw/embedded/no-model, renderer: data/raw/embedded/no-model, method: {method},"
            f" base: flow}}"
            for method in methods
        ]
    sandbox.write("params.yaml", "\n".join(lines) + "\n")
