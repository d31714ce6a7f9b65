"""A checkout with a bare origin and a DVC remote, as a worker's machine has it, for tests of unattended runs."""

import json
from collections.abc import Sequence
from pathlib import Path

from tests.render_only import make_project
from tests.sandbox import FOOTAGE, Sandbox


def make_checkout(folder: Path, batches: Sequence[str] = ("old",)) -> Sandbox:
    """folder/origin.git (bare), folder/store (the DVC remote) and a checkout of the trimmed project beside them.

    Nothing has run: dvc.lock is not there.
    """
    sandbox = make_project(folder / "checkout", batches, clips={"old": [("kick", "kick_front", 60, 83)]})
    sandbox.run("git", "init", "-q", "--bare", "-b", "main", str(folder / "origin.git"))
    sandbox.run("git", "remote", "add", "origin", str(folder / "origin.git"))
    sandbox.run("git", "push", "-q", "-u", "origin", "main")
    sandbox.run("dvc", "remote", "add", "-q", "--local", "-d", "store", str(folder / "store"))
    return sandbox


def describe_batch(name: str, video: str = "kick_back", first: int = 0, **more: object) -> dict[str, object]:
    """The parameters of a batch of one clip of 24 frames, cut from real footage, and a blended render."""
    return {
        "name": name,
        "videos": [{"video": video, "source": f"file:{FOOTAGE / video}.mp4", "licence": "BSD-3-Clause"}],
        "clips": [
            {"clip": "kick", "video": video, "split": "test", "subject": "someone", "first": first,
             "last": first + 23, "width": 180, "height": 320}
        ],
        "key_steps": [8],
        "renders": [{"method": "blend", "key_step": 8}],
        **more,
    }  # fmt: skip


def write_request(sandbox: Sandbox, batch: dict[str, object]) -> str:
    path = sandbox.root.parent / f"{batch['name']}.json"
    path.write_text(json.dumps(batch))
    return str(path)
