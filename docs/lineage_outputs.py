"""Fill in the outputs of docs/lineage.md: each block that begins with `$ inbetween ...` gets what it prints.

python docs/lineage_outputs.py --story FOLDER   # makes the page's project in FOLDER, or goes on with it, then asks it
python docs/lineage_outputs.py                  # asks this clone as it stands

The page's project is a copy of this one with a history and a remote of its own: the sample made from nothing (v1), a
second batch with the same kick seen from two more sides (v2), and then, by the page's own commands, a withdrawn video.
Some ten minutes on two cores.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/lineage.md"
_BLOCK = re.compile(r"^```text\n\$ (inbetween [^\n]*)\n.*?^```$", re.MULTILINE | re.DOTALL)

_WHEEL = "pypi:pose2sim==0.10.49#Pose2Sim/Demo_SinglePerson/videos"
_SECOND = {
    "name": "second",
    "videos": [
        {"video": f"kick_{side}", "source": f"{_WHEEL}/{camera}.mp4", "licence": "BSD-3-Clause"}
        for side, camera in (("left", "cam02"), ("right", "cam04"))
    ],
    "clips": [
        {
            "clip": f"kick_{side}", "video": f"kick_{side}", "split": "test", "subject": "kicker",
            "first": 51, "last": 75, "width": 360, "height": 640,
        }
        for side in ("left", "right")
    ],
    "key_steps": [8],
    "renders": [{"method": "flow", "key_step": 8}],
}  # fmt: skip
_REGISTER = """
import sys, json
from pathlib import Path
from flows.unattended.new_batch import check_batch
from flows.unattended.registration import register_batch
register_batch(Path.cwd(), check_batch(json.loads(sys.argv[1])))
"""


def commands_of(page: str) -> list[str]:
    """The commands that a page shows."""
    return [match[1] for match in _BLOCK.finditer(page)]


def fill(page: str, ask: Callable[[Sequence[str]], tuple[str, int]]) -> str:
    """The page with each command's output. ask: the words after `inbetween` -> what it says, and its exit code."""

    def replace(match: re.Match[str]) -> str:
        text, code = ask(shlex.split(match[1])[1:])
        ending = f"\n(exit code {code})" if code else ""
        lines = "\n".join(line.rstrip() for line in f"{text.rstrip()}{ending}".splitlines())
        return f"```text\n$ {match[1]}\n{lines}\n```"

    return _BLOCK.sub(replace, page)


class Project:
    """A clone that is asked with its own code."""

    def __init__(self, root: Path) -> None:
        self.root = root
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        scripts = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        self._environment = environment | {"PYTHONPATH": str(root), "PATH": scripts, "DVC_NO_ANALYTICS": "1"}

    def ask(self, words: Sequence[str]) -> tuple[str, int]:
        """A command that fails is left out of no page: the last line of what it says on stderr stands there."""
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", *words],
            cwd=self.root, env=self._environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        said = done.stderr.strip().splitlines() or [""]
        return done.stdout.rstrip() or said[-1], done.returncode

    def run(self, *command: str) -> None:
        print("$", " ".join(command)[:120], flush=True)  # noqa: T201
        subprocess.run(command, cwd=self.root, env=self._environment, check=True)


def make_story(folder: Path) -> Project:
    """The page's project, up to the second batch; one that is there already stays as it is."""
    root = folder / "project"
    if (folder / "ready").exists():
        return Project(root)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if name not in ("dvc.lock", "lineage/runs.jsonl"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    (folder / "store").mkdir()
    project = Project(root)
    for command in ("init -q -b main", "config user.email ada@example.org", "config user.name Ada"):
        project.run("git", *command.split())
    project.run("dvc", "remote", "add", "-q", "-d", "store", str(folder / "store"))
    project.run("git", "add", "-A")
    project.run("git", "commit", "-q", "-m", "the project")
    project.run(sys.executable, "-c", "from flows.raw_data import bring_raw_data; bring_raw_data()")
    _build(project, "the sample", "v1")
    project.run(sys.executable, "-c", _REGISTER, json.dumps(_SECOND))
    _build(project, "a second batch: the kick from two more sides", "v2")
    (folder / "ready").touch()
    return project


def _build(project: Project, message: str, tag: str) -> None:
    project.run("dvc", "repro", "-q")
    project.run("inbetween", "lineage", "record")
    project.run("git", "add", "-A")
    project.run("git", "commit", "-q", "-m", message)
    project.run("git", "tag", tag)
    project.run("dvc", "push", "-q", "-r", "store")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--story", type=Path, help="an empty or new folder")
    args = parser.parse_args()
    project = make_story(args.story.resolve()) if args.story else Project(ROOT)
    filled = fill(PAGE.read_text(), project.ask)
    PAGE.write_text(filled.replace(f"{project.root}/", "").replace(str(args.story), "..") if args.story else filled)


if __name__ == "__main__":
    main()
