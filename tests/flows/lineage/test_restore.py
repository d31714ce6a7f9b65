import subprocess
import sys
from pathlib import Path

import pytest

from flows.lineage.restore import restore, show_restored
from tasks.lineage.errors import LineageError
from tasks.lineage.references import Withdrawal
from tasks.lineage.removal import note_withdrawn
from tests.dvc_project import md5_of, object_of

OLD_B = "clip b\n" * 20


def withdraw_b(project: Path) -> None:
    for store in (".dvc/cache", "store"):
        object_of(project, OLD_B, store).unlink()
    note_withdrawn(project, [Withdrawal(md5_of(OLD_B), "data/clips/b.txt", "sample", "b")])


def test_every_other_file_of_a_folder_comes_back_where_dvc_alone_refuses(project: Path) -> None:
    withdraw_b(project)
    done = subprocess.run(["git", "checkout", "-q", "old", "--", "dvc.lock"], cwd=project)
    assert done.returncode == 0
    dvc = subprocess.run(
        [sys.executable, "-m", "dvc", "checkout", "-q", "data/clips"], cwd=project, capture_output=True
    )
    assert dvc.returncode != 0

    answer = restore("old", "data/clips", project)
    assert answer.withdrawn == ["data/clips/b.txt"]
    assert not answer.missing
    assert (project / "data/clips/a.txt").read_text() == "clip a\n" * 20
    assert not (project / "data/clips/b.txt").exists()
    assert not (project / "data/clips/c.txt").exists()
    # What was there before stands aside, not gone.
    assert {path.name for path in project.glob(".inbetween/replaced/*/data/clips/*")} <= {"b.txt", "c.txt"}
    assert "withdrawn: data/clips/b.txt" in show_restored(answer)


def test_files_are_brought_from_a_remote_to_another_folder_and_checked(project: Path, tmp_path: Path) -> None:
    object_of(project, "clip a\n" * 20).unlink()
    cached = object_of(project, OLD_B)
    cached.chmod(0o644)
    cached.write_text("damaged")
    answer = restore("old", "data", project, to=tmp_path / "then")
    assert answer.restored["data/clips/a.txt"] == answer.restored["data/clips/b.txt"] == "store"
    assert (tmp_path / "then/data/clips/b.txt").read_text() == OLD_B
    assert (tmp_path / "then/data/raw/own/body.txt").is_file()
    assert (project / "data/clips/c.txt").is_file()
    one = restore("old", "data/clips/a.txt", project, to=tmp_path / "one")
    assert list(one.restored) == ["data/clips/a.txt"]


def test_what_is_in_no_place_is_said_and_what_is_there_is_kept(project: Path) -> None:
    for store in (".dvc/cache", "store"):
        object_of(project, OLD_B, store).unlink()
    before = (project / "data/clips/b.txt").read_text()
    answer = restore("old", "data/clips/b.txt", project)
    assert answer.missing == ["data/clips/b.txt"]
    assert (project / "data/clips/b.txt").read_text() == before


def test_a_path_or_revision_that_is_none_is_refused(project: Path) -> None:
    with pytest.raises(LineageError, match=r"data/clip: DVC tracks nothing of this name at .*; there is data/clips"):
        restore("old", "data/clip", project)
    with pytest.raises(LineageError, match="is no revision here"):
        restore("older", "data/clips", project)
    assert restore("old", "metrics/m.json", project).in_git == ["metrics/m.json"]
