"""Clones and landing on a small DVC project of shell commands: real git, real DVC, a bare origin, no stage of ours."""

import subprocess
import sys
import textwrap

import pytest

from flows.unattended import clones
from flows.unattended.clones import UnreachableError, find_origin, hide_credentials, open_clone
from flows.unattended.ingest import blame_videos
from flows.unattended.landing import Change, LandingError, land, make, push_data
from tasks.errors import ParamsError
from tests.flows.unattended.test_registration import make_batch
from tests.sandbox import BIN, ROOT

PIPELINE = """
stages:
  make:
    foreach: ${batches}
    do:
      cmd: cp catalog/${key}/word.txt data/${key}.txt
      deps: ["catalog/${key}/word.txt"]
      outs: ["data/${key}.txt"]
"""


def git(folder, *words):
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout that a worker could stand in, with origin and remote; flows.unattended.clones takes it for its own."""
    root = tmp_path / "checkout"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    git(root, "config", "user.email", "test@example.org")
    git(root, "config", "user.name", "Test")
    # What `dvc init` and `dvc remote add --local -d store ../store` write, without two starts of DVC.
    (root / ".dvc").mkdir()
    (root / ".dvc/config").write_text("[core]\n    analytics = false\n")
    (root / ".dvc/.gitignore").write_text("/config.local\n/tmp\n/cache\n")
    (root / ".dvc/config.local").write_text("[core]\n    remote = store\n['remote \"store\"']\n    url = ../../store\n")
    (root / "dvc.yaml").write_text(PIPELINE)
    (root / "params.yaml").write_text("batches: # every batch\n  old: {}\n")
    (root / "catalog/old").mkdir(parents=True)
    (root / "catalog/old/word.txt").write_text("old\n")
    (root / ".gitignore").write_text("/data/\n/.inbetween/\n")
    (root / "data").mkdir()
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "start")
    git(tmp_path, "init", "-q", "--bare", "-b", "main", "origin.git")
    git(root, "remote", "add", "origin", "../origin.git")
    git(root, "push", "-q", "origin", "main")
    monkeypatch.setattr(clones, "ROOT", root)
    monkeypatch.setattr(clones, "STATE", root / ".inbetween")
    monkeypatch.setattr(clones, "CLONES", root / ".inbetween/clones")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return root


def change_for(clone, name: str) -> Change:
    def apply(root):
        (root / "catalog" / name).mkdir(exist_ok=True)
        (root / "catalog" / name / "word.txt").write_text(name + "\n")
        with (root / "params.yaml").open("a") as params:
            params.write(f"  {name}: {{}}\n")
        (root / "data").mkdir(exist_ok=True)

    def repro():
        record = clone.root / "lineage/runs.jsonl"
        record.parent.mkdir(exist_ok=True)
        if name not in (record.read_text() if record.is_file() else ""):  # a stage that is restored does not run
            record.open("a").write(f"{name} ran\n")
        assert clone.dvc("repro", f"make@{name}") == 0

    return Change(apply, repro, (f"make@{name}",), f"Batch {name}", f"inbetween/{name}")


RUN = textwrap.dedent("""
    import pathlib, sys
    from tests.flows.unattended.test_landing import change_for
    from flows.unattended import clones, landing
    root, name = pathlib.Path(sys.argv[1]), sys.argv[2]
    clones.ROOT, clones.STATE, clones.CLONES = root, root / ".inbetween", root / ".inbetween/clones"
    landing._LOCK = root / ".inbetween/locks/landing.lock"
    with clones.open_clone(name) as clone:
        change = change_for(clone, name)
        landing.make(clone, change)
        print("made", flush=True)
        sys.stdin.readline()
        print(landing.land(clone, change, "push"), clone.root.parent.name)
""")


def test_two_that_land_at_the_same_time_lose_nothing(checkout):
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", RUN, checkout, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for name in ("a", "b")
    ]
    for run in runs:
        assert run.stdout.readline() == "made\n"  # both are made on the same commit
    for run in runs:
        run.stdin.write("\n")
        run.stdin.flush()
    ends = [run.communicate(timeout=120)[0].split() for run in runs]
    assert {end[-1] for end in ends} == {"0", "1"}  # a clone each
    origin = checkout.parent / "origin.git"
    assert sorted(git(origin, "log", "--format=%s", "main").split("\n")[:-1]) == ["Batch a", "Batch b", "start"]
    lock = git(origin, "show", "main:dvc.lock")
    assert lock.count("make@a:") == lock.count("make@b:") == 1
    assert sorted(git(origin, "show", "main:lineage/runs.jsonl").splitlines()) == ["a ran", "b ran"]
    assert git(origin, "show", "main:params.yaml").startswith("batches: # every batch\n  old: {}\n")
    # What landed can be had by somebody else: every object is on the remote.
    git(checkout, "pull", "-q", "--ff-only", "origin", "main")
    (checkout / "data").mkdir(exist_ok=True)
    subprocess.run([BIN / "dvc", "pull", "-q", "make@a", "make@b"], cwd=checkout, check=True)
    assert (checkout / "data/a.txt").read_text() + (checkout / "data/b.txt").read_text() == "a\nb\n"
    assert git(checkout, "status", "--porcelain") == ""


MOVES_ON = """#!/bin/sh
unset GIT_QUARANTINE_PATH GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES
git update-ref refs/heads/main $(git commit-tree -p main -m other main^{tree})
exit 1
"""


@pytest.mark.faults
def test_whoever_is_always_too_late_gives_up_and_loses_nothing_of_the_others(checkout, monkeypatch):
    monkeypatch.setattr("flows.unattended.landing.MAX_ATTEMPTS", 3)
    origin = checkout.parent / "origin.git"
    hook = origin / "hooks/pre-receive"  # somebody else lands before each push
    hook.write_text(MOVES_ON)
    hook.chmod(0o755)
    git(origin, "config", "user.email", "other@example.org")
    git(origin, "config", "user.name", "Other")
    with open_clone("g") as clone:
        change = change_for(clone, "g")
        make(clone, change)
        with pytest.raises(LandingError, match=r"origin refused 3 times, .*; run it again, or let it leave a branch"):
            land(clone, change, "push")
    assert git(origin, "log", "--format=%s", "main").split() == ["other", "other", "other", "start"]


def test_branch_is_left_for_review_and_main_stays(checkout):
    origin = checkout.parent / "origin.git"
    before = git(origin, "rev-parse", "main")
    with open_clone("c") as clone:
        change = change_for(clone, "c")
        make(clone, change)
        commit = land(clone, change, "branch")
        assert not (checkout / "catalog/c").exists()  # nothing was done in the checkout
    assert git(origin, "rev-parse", "inbetween/c").strip() == commit
    assert git(origin, "rev-parse", "main") == before
    with open_clone("c") as clone:  # brought back to main, with nothing of the last run
        assert not (clone.root / "catalog/c").exists()
        assert not (clone.root / "lineage/runs.jsonl").exists()
        assert git(clone.root, "status", "--porcelain") == ""


def test_remote_that_is_away_lands_nothing_until_it_is_back(checkout):
    store, origin = checkout.parent / "store", checkout.parent / "origin.git"
    store.write_text("not a folder")
    with open_clone("d") as clone:
        change = change_for(clone, "d")
        with pytest.raises(UnreachableError, match=r"dvc push to store: "):
            make(clone, change)
        assert git(origin, "log", "--format=%s", "main") == "start\n"
        store.unlink()
        push_data(clone, change.targets)
        assert land(clone, change, "push")
    assert git(origin, "log", "--format=%s", "-1", "main") == "Batch d\n"


def test_clone_that_is_broken_is_made_anew(checkout):
    with open_clone("e") as clone:
        (clone.root / ".git/HEAD").write_text("rubbish")
    with open_clone("e") as clone:
        assert git(clone.root, "rev-parse", "HEAD").strip() == clone.base


def test_what_a_run_needs_is_asked_for(checkout):
    (checkout / ".dvc/config.local").unlink()
    with open_clone("f") as clone, pytest.raises(ParamsError, match="dvc remote add --local -d store"):
        push_data(clone, ())
    git(checkout, "remote", "remove", "origin")
    with pytest.raises(ParamsError, match="no git remote `origin`"):
        find_origin()


def test_credentials_of_an_address_are_never_shown():
    line = "fatal: unable to access 'https://me:s3cret@host/x.git/': no"
    assert hide_credentials(line) == "fatal: unable to access 'https://***@host/x.git/': no"


def test_video_to_blame_is_found_in_the_line_of_the_stage(tmp_path):
    batch = make_batch()
    dead = (
        "download@b1 failed: 2 of 2 videos failed: video v: file:/v.mp4: no such file; video w: file:/w.mp4:"
        " changed: its sha256 is 1, the catalogue has 2; mend the source, or set"
        " download.missing: skip in params.yaml; 1 stage that"
    )
    assert blame_videos(dead, batch, tmp_path) == {
        "v": "no such file",
        "w": "changed: its sha256 is 1, the catalogue has 2",
    }
    short = "split@b1 failed: clip d: frame 16 is past the last one of w, which is 9; shorten the clip"
    assert blame_videos(short, batch, tmp_path) == {"w": "clip d: frame 16 is past the last one of w, which is 9"}
    assert blame_videos("split@b1 failed: no ffmpeg", batch, tmp_path) == {}
    away = "download@b1 failed: 1 of 2 videos could not be asked for: video w: file:/w.mp4: refused; run it again"
    assert blame_videos(away, batch, tmp_path) == {}
    full = dead.replace("no such file", "unable to write data: [Errno 28] No space left on device")
    assert blame_videos(full, batch, tmp_path) == {}  # a full disk must not cost a batch its videos
