"""Small projects with git, DVC and a remote, for tests of what is read from them; made once and copied."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

PIPELINE = """
stages:
  copy:
    cmd: mkdir -p data/clips metrics && cp src/* data/clips/ && echo {} > metrics/m.json
    deps: [src]
    outs: [data/clips]
    metrics:
      - metrics/m.json:
          cache: false
"""
RAW = """outs:
- path: data/raw/own
  hash: md5
  remote: embedded
- path: data/raw/given
  hash: md5
  push: false
"""
CONFIG = """[core]
    analytics = false
    remote = store
['remote "store"']
    url = ../store
['remote "embedded"']
    url = ../embedded
"""
FILES = {
    ".gitignore": "/data/\n/.inbetween/\n/store/\n",
    "dvc.yaml": PIPELINE,
    "data.dvc": RAW,
    "src/a.txt": "clip a\n" * 20,
    "src/b.txt": "clip b\n" * 20,
    "data/raw/own/body.txt": "a body of ours\n",
    "data/raw/given/README.md": "yours\n",
    "config": CONFIG,
}
MAKE = """
import pathlib, subprocess
from dvc.cli import main
def git(*words): subprocess.run(["git", *words], check=True)
def dvc(*words): assert main([*words, "-q"]) == 0, words
def commit(name):
    dvc("repro")
    dvc("push")
    git("add", "-A")
    git("commit", "-q", "-m", name)
git("init", "-q", "-b", "main")
git("config", "user.email", "test@example.org")
git("config", "user.name", "Test")
dvc("init")
pathlib.Path("config").rename(".dvc/config")
dvc("commit", "-f", "data.dvc")
commit("one")
git("tag", "old")
pathlib.Path("src/b.txt").write_text("clip b, another\\n" * 20)
pathlib.Path("src/c.txt").write_text("clip c\\n" * 20)
commit("two")
"""


def run(root: Path, *command: str) -> str:
    env = os.environ | {
        "DVC_NO_ANALYTICS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{command} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def write_files(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def make_dvc_project(root: Path) -> Path:
    """Two revisions, `old` and HEAD: data/clips (a, b, then a, b2, c), raw data in two outputs, all pushed."""
    root.mkdir(parents=True)
    write_files(root, FILES)
    run(root, sys.executable, "-c", MAKE)  # one process: DVC takes a second to start
    return root


def copy_dvc_project(made: Path, root: Path) -> Path:
    shutil.copytree(made, root, symlinks=True)
    return root


def md5_of(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def object_of(project: Path, text: str, store: str = ".dvc/cache") -> Path:
    """Where a store keeps these bytes."""
    md5 = md5_of(text)
    return project / store / "files/md5" / md5[:2] / md5[2:]


def flip_byte(path: Path) -> None:
    """Change one byte and nothing else: not the size, not the time."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    path.chmod(status.st_mode)
