"""data.dvc: the remote in git holds what we made and nothing else; changed raw data is refused by name."""

from pathlib import Path

import pytest

from tests.sandbox import Sandbox, copy_project, needs_footage, set_batches, write_batch


@pytest.fixture
def sandbox(tmp_path) -> Sandbox:
    return copy_project(tmp_path / "project", has_raw_data=True)


def files_under(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_a_fresh_clone_gets_the_embedded_data_offline_and_nothing_changes(sandbox):
    assert (sandbox.root / "data/raw/embedded/no-source/README.md").is_file()
    assert (sandbox.root / "data/raw/given/README.md").is_file()
    assert sandbox.run("git", "status", "--porcelain").stdout == ""
    sandbox.run("inbetween", "data")


@needs_footage
def test_pushing_everything_leaves_only_embedded_data_in_the_remote_in_git(sandbox, tmp_path):
    committed = files_under(sandbox.root / "embedded")
    set_batches(sandbox, ["batch"])
    write_batch(sandbox, "batch", [("cut", "kick_front", 0, 16)])
    (sandbox.root / "data/raw/given/smplh.npz").write_bytes(b"licensed")
    sandbox.run("dvc", "commit", "-f", "data.dvc")
    sandbox.commit()
    sandbox.run("dvc", "repro", "-s", "download@batch", "split@batch")
    sandbox.run("dvc", "push", check=False)  # without a default remote the stages' outputs have nowhere to go
    assert files_under(sandbox.root / "embedded") == committed

    sandbox.run("dvc", "remote", "add", "--local", "-d", "store", str(tmp_path / "store"))
    sandbox.run("dvc", "push")
    assert files_under(sandbox.root / "embedded") == committed
    pushed = [path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert len(pushed) >= 4
    assert b"licensed" not in pushed


def test_raw_data_that_differs_from_git_is_refused_by_name_before_a_run(sandbox):
    (sandbox.root / "data/raw/given/new.npz").write_bytes(b"x")
    done = sandbox.run("inbetween", "data", check=False)
    assert done.returncode == 2
    assert "data/raw/given is modified" in done.stderr
    assert "dvc commit -f data.dvc" in done.stderr

    sandbox.run("dvc", "commit", "-f", "data.dvc")  # what `dvc repro` does in silence
    done = sandbox.run("inbetween", "stage", "download", "sample", check=False)
    assert done.returncode == 2
    assert "data.dvc: data/raw/given differs from git HEAD" in done.stderr
    assert not (sandbox.root / "data/sample").exists()

    sandbox.commit("meant")
    sandbox.run("inbetween", "data")


def test_dvcs_own_lock_file_cut_short_by_a_kill_is_made_anew(sandbox):
    (sandbox.root / ".dvc/tmp/rwlock").write_text("")
    assert "rwlock was cut short" in sandbox.run("inbetween", "data").stderr
    sandbox.run("dvc", "status", "data.dvc")
