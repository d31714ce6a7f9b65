import subprocess
import sys

import pytest

from flows.live import LiveLog
from tasks.errors import ToolError


def test_a_repository_without_a_commit_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in (["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"]):
        subprocess.run(command, check=True)
    log = LiveLog("train_renderer@r", tmp_path / "log", tmp_path / "history.jsonl", 3)
    with pytest.raises(ToolError, match=r"train_renderer@r: git: Empty git repo; make a first commit"), log:
        pass
