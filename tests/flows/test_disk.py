"""A disk that is full, or about to be, is told in a line that names it; nothing half-written is taken for whole."""

import errno
import importlib
import os
import py_compile
import re
import shutil
import sqlite3
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

import flows.disk
from flows.disk import check_room, describe_full_disk, find_cache, remove_cut_module, tell_if_short
from flows.project import ROOT
from tests.render_only import make_project
from tests.sandbox import Sandbox, needs_footage

Usage = namedtuple("Usage", "total used free")


def leave_free(monkeypatch, num_bytes: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**40, 2**40 - num_bytes, num_bytes))


def test_run_does_not_begin_on_a_full_disk(monkeypatch):
    leave_free(monkeypatch, 3 * 2**20)
    with pytest.raises(
        OSError, match=r"No space left on device: 3\.0 MB free, a run needs 16\.0 MB to begin"
    ) as caught:
        check_room()
    assert caught.value.errno == errno.ENOSPC  # worth another attempt, to an unattended run
    assert str(ROOT) in describe_full_disk(caught.value)
    leave_free(monkeypatch, 2**30)
    check_room()


def test_outputs_that_dvc_may_find_no_room_for_are_announced(monkeypatch, tmp_path, capsys):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/a.parquet").write_bytes(bytes(3 * 2**20))
    monkeypatch.setattr(flows.disk, "ROOT", tmp_path)
    assert find_cache() == tmp_path / ".dvc/cache"
    leave_free(monkeypatch, 2 * 2**20)
    tell_if_short("split@a", ["clips"])
    assert not capsys.readouterr().err  # cache and outputs share their files
    monkeypatch.setattr(flows.disk, "_device", lambda path: path.name == "cache")
    tell_if_short("split@a", ["clips", "metrics/not_there.json"])
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(
        f"split@a: {tmp_path}/.dvc/cache: 2.0 MB free, and DVC may need 3.0 MB to keep the outputs; "
    )
    assert said[1].startswith(f"split@a: {tmp_path}: 2.0 MB free, ")
    leave_free(monkeypatch, 4 * 2**20)
    tell_if_short("split@a", ["clips"])
    assert not capsys.readouterr().err


def test_full_database_is_a_line_and_another_fault_of_one_is_not(tmp_path):
    db = sqlite3.connect(tmp_path / "full.db")
    db.execute("PRAGMA max_page_count = 1")
    with pytest.raises(sqlite3.OperationalError) as caught:
        db.execute("CREATE TABLE lines (line)")
    assert describe_full_disk(caught.value).startswith("database or disk is full, that of a database of DVC or Prefect")
    with pytest.raises(sqlite3.OperationalError) as caught:
        db.execute("SELECT * FROM nothing")
    assert describe_full_disk(caught.value) == ""
    assert describe_full_disk(OSError(errno.EACCES, "no")) == ""


def test_compiled_module_that_a_full_disk_cut_short_is_removed(tmp_path, monkeypatch):
    source = tmp_path / "cut_short.py"
    source.write_text("def answer():\n    return 42\n")
    compiled = Path(py_compile.compile(str(source)))
    os.truncate(compiled, 40)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EOFError) as caught:
        importlib.import_module("cut_short")
    abort = RuntimeError()
    abort.__cause__ = caught.value  # as Typer's
    assert remove_cut_module(abort).startswith(f"{compiled}: this compiled module was cut short")
    assert importlib.import_module("cut_short").answer() == 42
    assert remove_cut_module(EOFError("no input")) == ""
    assert remove_cut_module(SystemExit(0)) == ""


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(path)]
    if sys.platform != "linux" or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("may not mount a small disk here")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def fill(disk: Path, *, but_kb: int) -> None:
    with (disk / "fill").open("wb") as file:
        rest = shutil.disk_usage(disk).free - but_kb * 1024
        while rest > 0:
            rest -= file.write(bytes(min(rest, 2**20)))


@needs_footage
@pytest.mark.faults
@pytest.mark.timeout(900)
def test_every_command_on_a_full_disk_ends_in_a_line_and_the_next_run_completes(small_disk):
    sandbox = make_project(small_disk / "project", ["a"])
    sandbox.env["DVC_SITE_CACHE_DIR"] = str(small_disk / "site")
    question = ("inbetween", "lineage", "upstream", "render@a-blend-8")
    repro = ("inbetween", "repro")
    for free_kb, command, code, line in (
        (0, repro, 1, r"inbetween repro: \[Errno 28\] No space left on device: 0\.0 MB free, a run needs 16\.0 MB"),
        (100, (*repro, "--plan"), 1, r"inbetween repro: .*(database or disk is full|disk I/O error); make room"),
        (100, ("inbetween", "data"), 1, r"inbetween data: .*(database or disk is full|disk I/O error); make room"),
        (0, question, 1, r"inbetween lineage upstream: .*; make room"),
        (0, ("dvc", "repro"), 255, r"ERROR: unexpected error - (database or disk is full|disk I/O error)"),
        (500, ("dvc", "repro"), 255, r"(?s).*inbetween stage download: \[Errno 28\] .* 0\.\d MB free, a run needs 16"),
        (17_000, repro, 1, r"(?s).*inbetween repro: \S+@a failed: \[Errno 28\] No space .* stages? that need"),
    ):
        fill(small_disk, but_kb=free_kb)
        done = sandbox.run(*command, check=False)
        (small_disk / "fill").unlink()
        said = done.stdout + done.stderr
        assert (done.returncode, "Traceback" in said) == (code, False), said
        assert re.match(line, said), said
    assert_completes(sandbox)


def assert_completes(sandbox: Sandbox) -> None:
    done = sandbox.run("inbetween", "repro")
    assert "failed" not in done.stderr
    assert sandbox.run("dvc", "status").stdout.strip() == "Data and pipelines are up to date."
