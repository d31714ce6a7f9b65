import os
import shutil
from pathlib import Path

import pytest

from flows.lineage.verify import show_verification, verify
from tasks.lineage.errors import LineageError
from tasks.lineage.hashing import State, hash_paths
from tasks.lineage.verify import CACHE, CORRUPT, MISSING, NEVER_PUSHED, NOT_HERE, UNEXPECTED, WORKSPACE, Verification
from tests.dvc_project import flip_byte, md5_of, object_of, run

B = "clip b, another\n" * 20


def found(answer: Verification) -> set[tuple[str, str, str]]:
    return {(f.kind, f.place, f.path) for f in answer.findings if not f.repaired}


def test_a_project_as_it_was_made_is_well(project: Path) -> None:
    answer = verify(project)
    assert answer.is_well
    assert not answer.findings
    assert {count.place: count.num_files for count in answer.counts} == {
        WORKSPACE: 6, CACHE: 8, "store": 4, "embedded": 2,
    }  # fmt: skip
    assert "all well" in show_verification(answer)


def test_a_flipped_byte_is_found_in_the_workspace_and_mended_from_the_cache(project: Path) -> None:
    flip_byte(project / "data/clips/b.txt")
    assert found(verify(project)) == {(CORRUPT, WORKSPACE, "data/clips/b.txt")}
    answer = verify(project, is_repairing=True)
    assert [(f.path, f.repaired) for f in answer.findings] == [("data/clips/b.txt", CACHE)]
    assert answer.is_well
    assert (project / "data/clips/b.txt").read_text() == B
    assert (project / ".inbetween/replaced/data/clips/b.txt").read_text() != B  # it might have been an edit
    assert not verify(project).findings


def test_a_flipped_byte_is_found_in_the_cache_and_mended_from_the_remote(project: Path) -> None:
    path = object_of(project, B)
    flip_byte(path)
    answer = verify(project)
    assert found(answer) == {(CORRUPT, CACHE, "data/clips/b.txt")}
    assert not answer.is_well
    answer = verify(project, is_repairing=True)
    assert [(f.path, f.repaired) for f in answer.findings] == [("data/clips/b.txt", "store")]
    assert path.read_text() == B
    assert not path.stat().st_mode & 0o222  # as DVC protects its cache


def test_a_flipped_byte_is_found_in_a_remote_and_mended_from_the_cache(project: Path) -> None:
    path = object_of(project, B, "store")
    flip_byte(path)
    assert found(verify(project)) == {(CORRUPT, "store", "data/clips/b.txt")}
    answer = verify(project, places=("remotes",), is_repairing=True)
    assert answer.is_well
    assert path.read_text() == B


def test_a_flipped_byte_that_hard_links_share_is_mended_everywhere(project: Path) -> None:
    cached, shown = object_of(project, B), project / "data/clips/b.txt"
    shown.unlink()
    os.link(cached, shown)
    flip_byte(cached)
    assert found(verify(project)) == {(CORRUPT, CACHE, "data/clips/b.txt"), (CORRUPT, WORKSPACE, "data/clips/b.txt")}
    assert verify(project, is_repairing=True).is_well
    assert cached.read_text() == shown.read_text() == B


def test_what_no_good_copy_is_of_stays_as_it_is(project: Path) -> None:
    flip_byte(object_of(project, B))
    flip_byte(object_of(project, B, "store"))
    (project / "data/clips/b.txt").write_text("an edit\n")
    answer = verify(project, is_repairing=True)
    assert {(f.place, f.repaired) for f in answer.findings} == {(WORKSPACE, ""), (CACHE, ""), ("store", "")}
    assert (project / "data/clips/b.txt").read_text() == "an edit\n"
    assert not answer.is_well


def test_missing_unexpected_and_never_pushed_are_told_apart(project: Path) -> None:
    (project / "data/clips/a.txt").unlink()
    (project / "data/clips/stranger.txt").write_text("?")
    object_of(project, "clip c\n" * 20, "store").unlink()  # its folder's list was pushed, so it was
    (project / ".dvc/cache/files/md5/00").mkdir(exist_ok=True)
    (project / ".dvc/cache/files/md5/00/.half.tmp").write_text("half an object")
    assert found(verify(project)) == {
        (MISSING, WORKSPACE, "data/clips/a.txt"),
        (UNEXPECTED, WORKSPACE, "data/clips/stranger.txt"),
        (MISSING, "store", "data/clips/c.txt"),
        (UNEXPECTED, CACHE, "files/md5/00/.half.tmp"),
    }
    (project / "src/d.txt").write_text("clip d\n")
    run(project, "dvc", "repro", "-q")
    kinds = found(verify(project))
    assert (NEVER_PUSHED, "store", "data/clips/d.txt") in kinds
    assert (NEVER_PUSHED, "store", "data/clips") in kinds
    assert not any("raw/given" in path for _, _, path in kinds)  # never meant for any remote
    assert verify(project).is_well  # to be pushed is no fault
    assert "never pushed: store: data/clips/d.txt" in show_verification(verify(project))


def test_a_clone_that_brought_nothing_lacks_nothing_that_a_remote_has(project: Path) -> None:
    shutil.rmtree(project / ".dvc/cache")
    shutil.rmtree(project / "data/clips")
    answer = verify(project)
    assert {kind for kind, place, path in found(answer) if "clips" in path} == {NOT_HERE}
    # data/raw/given is pushed nowhere: what the cache lost, the workspace mends, its list too.
    mended = verify(project, is_repairing=True)
    assert {(f.path, f.repaired) for f in mended.findings if f.repaired} == {
        ("data/raw/given", WORKSPACE), ("data/raw/given/README.md", WORKSPACE),
    }  # fmt: skip


def test_every_revision_that_git_reaches_is_looked_at(project: Path) -> None:
    old = object_of(project, "clip b\n" * 20)
    flip_byte(old)
    assert verify(project).is_well
    assert found(verify(project, rev="old")) == {(CORRUPT, CACHE, "data/clips/b.txt")}
    orphan = object_of(project, "nobody's\n")
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_text("nobody's\n")
    assert {(kind, place) for kind, place, _ in found(verify(project, all_revs=True))} == {
        (CORRUPT, CACHE), (UNEXPECTED, CACHE),
    }  # fmt: skip
    with pytest.raises(LineageError, match="--rev older: is no revision here; there are HEAD, main, old"):
        verify(project, rev="older")


def test_a_remote_that_is_not_there_leaves_the_question_open(project: Path) -> None:
    (project / "store").rename(project / "away")
    answer = verify(project)
    assert not answer.is_well
    assert any("remote store: its folder" in line and "is not there" in line for line in answer.open)


def test_a_lock_with_the_marks_of_a_merge_is_named(project: Path) -> None:
    text = (project / "dvc.lock").read_text()
    (project / "dvc.lock").write_text(text.replace("stages:\n", "stages:\n<<<<<<< HEAD\n"))
    answer = verify(project)
    assert not answer.is_well
    assert any("dvc.lock line 3: holds the marks of an unfinished merge" in line for line in answer.open)


def test_a_run_that_was_cut_off_is_gone_on_with(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        path.write_text(path.name)
    state = State(tmp_path / "state.sqlite")
    hash_paths([str(paths[0])], state, 1)
    state.close()  # not ended

    known = []
    state = State(tmp_path / "state.sqlite")
    assert state.begun is not None
    hashed = hash_paths([str(path) for path in paths], state, 2, lambda size, is_known: known.append(is_known))
    assert sorted(known) == [False, True]
    assert hashed[str(paths[1])].md5 == md5_of("b")
    state.end()
    state.close()
    assert State(tmp_path / "state.sqlite").begun is None  # a run that ended hides no byte that changed since

    state = State(tmp_path / "state.sqlite")
    hash_paths([str(paths[0])], state, 1)
    state.close()
    paths[0].write_text("another")
    state = State(tmp_path / "state.sqlite")
    assert hash_paths([str(paths[0])], state, 1)[str(paths[0])].md5 == md5_of("another")
    state.close()
    assert State(tmp_path / "state.sqlite", is_fresh=True).begun is None
