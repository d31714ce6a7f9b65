"""A video out of a real project: two videos, two revisions, a remote; killed on the way."""

import json
import os
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.render_only import make_project
from tests.sandbox import Sandbox, needs_footage, write_batch

GONE, KEPT = ("kick", "kick_back"), ("other", "kick_front")


def make_two_revisions(root: Path) -> Sandbox:
    sandbox = make_project(root / "project", ["a"])
    (root / "store").mkdir()
    sandbox.run("dvc", "remote", "add", "-q", "-d", "store", str(root / "store"))
    for last in (23, 31):
        write_batch(sandbox, "a", [(*GONE, 0, last), (*KEPT, 0, 23)])
        sandbox.run("dvc", "repro", "-q")
        sandbox.run("dvc", "push", "-q", "--run-cache")
        sandbox.commit(f"to {last}")
    return sandbox


def pictures_in(path: Path) -> set[bytes]:
    try:
        return {cell["bytes"] for cell in pq.read_table(path, columns=["image"])["image"].to_pylist()}
    except (OSError, ValueError):
        return set()


def all_files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and ".git" not in path.parts]


@needs_footage
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_video_goes_from_every_place_and_revision_and_the_others_stay(tmp_path: Path) -> None:
    sandbox = make_two_revisions(tmp_path)
    root = sandbox.root
    rows = (root / "catalog/a/videos.csv").read_text()
    film = (root / "data/a/videos/kick_back.mp4").read_bytes()
    frames = pictures_in(root / "data/a/clips/kick.parquet") | pictures_in(root / "data/renders/a-blend-8/kick.parquet")
    kept = {
        path: (root / path).read_bytes() for path in ("data/a/clips/other.parquet", "data/renders/a-blend-8/other.mp4")
    }

    # The plan changes nothing.
    done = sandbox.run("inbetween", "lineage", "withdraw", "a/kick_back", "--json")
    plan = json.loads(done.stdout)
    assert {row["path"] for row in plan["held"]} == {
        "data/a/videos/kick_back.mp4", "data/a/clips/kick.parquet", "data/a/backgrounds-8/kick.parquet",
        "data/renders/a-blend-8/kick.parquet", "data/renders/a-blend-8/kick.mp4",
    }  # fmt: skip
    assert len(plan["held"]) == 9  # two versions of each but the film
    assert plan["rebuild"] == ["download@a", "split@a", "background@a-8", "render@a-blend-8"]
    assert not sandbox.run("git", "status", "--porcelain").stdout
    done = sandbox.run("inbetween", "lineage", "withdraw", "a/kick_back", "--apply", check=False)
    assert (done.returncode, "needs --reason" in done.stderr) == (2, True)

    # Copies under other names, where nobody looks, and a table of several clips.
    (root / ".inbetween/forgotten.bin").write_bytes(film)
    (root / "notes").mkdir()
    (root / "notes/a-copy-of-mine").write_bytes(film)

    # Killed on the way, then run again.
    words = ("inbetween", "lineage", "withdraw", "a/kick_back", "--apply", "--reason", "asked for")
    process = sandbox.start(*words)
    assert process.stdout is not None
    for line in process.stdout:
        if "removed from cache" in line:
            os.killpg(process.pid, signal.SIGKILL)
            break
    process.wait()
    assert (root / "catalog/a/withdrawn.csv").is_file()
    done = sandbox.run(*words, check=False, timeout=900)
    assert done.returncode == 1  # for the user's own copy, which is the user's to take away
    assert "still here: " in done.stdout
    assert "notes/a-copy-of-mine: the whole file" in done.stdout
    (root / "notes/a-copy-of-mine").unlink()
    done = sandbox.run(*words, timeout=900)
    assert "nothing found" in done.stdout
    assert "other clones run the same command" in done.stdout

    # Looked for without our search.
    for path in [*all_files(root), *all_files(tmp_path / "store")]:
        assert path.read_bytes() != film, path
        assert frames.isdisjoint(pictures_in(path)), path
    for path, data in kept.items():
        assert (root / path).read_bytes() == data
    assert "kick_back" not in (root / "catalog/a/videos.csv").read_text()
    assert "asked for" in (root / "catalog/a/withdrawn.csv").read_text()
    assert "up to date" in sandbox.run("dvc", "status").stdout
    sandbox.commit("withdrawn")
    assert "all well" in sandbox.run("inbetween", "lineage", "verify", "--all-revs").stdout

    # Nobody brings it back by accident, under another name neither, whatever says so: a hand's edit, then plain DVC.
    (row,) = [line for line in rows.splitlines() if line.startswith("kick_back,")]
    for again in (row, row.replace("kick_back,", "renamed,", 1)):
        with (root / "catalog/a/videos.csv").open("a") as file:
            file.write(f"{again}\n")
        for command in (("dvc", "repro", "download@a"), ("inbetween", "catalog", "check", "a")):
            done = sandbox.run(*command, check=False)
            assert done.returncode != 0
            assert "as a/kick_back (asked for); leave it out, or" in done.stdout + done.stderr
        sandbox.run("git", "checkout", "-q", "catalog/a/videos.csv")
    assert "kick_back.mp4" not in {path.name for path in (root / "data/a/videos").iterdir()}

    # A touched folder of an old revision, but for what was withdrawn.
    done = sandbox.run(
        "inbetween", "lineage", "restore", "HEAD~1", "data/renders/a-blend-8", "--to", str(tmp_path / "then")
    )
    assert sorted(path.name for path in (tmp_path / "then/data/renders/a-blend-8").iterdir()) == [
        "other.mp4", "other.parquet",
    ]  # fmt: skip
    assert "withdrawn: data/renders/a-blend-8/kick.mp4" in done.stdout
