"""lineage/runs.jsonl: a line for each stage that ran, by itself, and for each that DVC restored, found afterwards."""

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from flows.lineage import record
from flows.project import ROOT
from tasks.items import identify
from tasks.lineage.runs import Run, parse_run, parse_runs
from tests.sandbox import Sandbox, copy_project

STAGE = "joints@standin-test"


def lines_of(sandbox: Sandbox) -> list[dict]:
    path = sandbox.root / "lineage/runs.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def locked_outs(sandbox: Sandbox) -> dict[str, str]:
    entry = yaml.safe_load((sandbox.root / "dvc.lock").read_text())["stages"][STAGE]
    return {out["path"]: out["md5"] for out in entry["outs"]}


def test_what_ran_and_what_dvc_restored_stand_in_the_record(tmp_path):
    sandbox = copy_project(tmp_path / "project", has_raw_data=True)
    head = sandbox.run("git", "rev-parse", "HEAD").stdout.strip()
    sandbox.run("dvc", "repro", STAGE)
    (first,) = lines_of(sandbox)
    assert first["outs"] == locked_outs(sandbox)  # what DVC wrote into dvc.lock after the stage had ended
    assert (first["stage"], first["event"], first["user"]) == (STAGE, "ran", "Test")
    assert (first["rev"], first["is_dirty"]) == (head, False)
    assert first["started"] <= first["finished"]
    assert first["tools"].keys() == {"numpy", "pyarrow", "smplx", "torch"}
    assert "run" not in first

    assert "0 restored" in sandbox.run("inbetween", "lineage", "record").stderr

    # Other outputs than the last line's, and nothing ran: as where DVC takes them from its run cache.
    lock = sandbox.root / "dvc.lock"
    text = lock.read_text()
    out, md5 = next(iter(locked_outs(sandbox).items()))
    lock.write_text(text.replace(md5, "0" * 32 + ".dir"))
    assert "1 restored" in sandbox.run("inbetween", "lineage", "record").stderr
    restored = lines_of(sandbox)[-1]
    assert (restored["event"], restored["outs"]) == ("restored", {out: "0" * 32 + ".dir"})
    assert "0 restored" in sandbox.run("inbetween", "lineage", "record").stderr
    lock.write_text(text.replace("stages:", "<<<<<<< HEAD\nstages:"))
    done = sandbox.run("inbetween", "lineage", "record", check=False)
    assert done.returncode == 2
    assert "dvc.lock line 2: holds the marks of an unfinished merge" in done.stderr


def test_every_declared_output_of_the_lock_is_recorded():
    entries = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
    for label, entry in entries.items():
        stage, _, item = label.partition("@")
        assert record.output_paths(stage, item) == sorted(out["path"] for out in entry["outs"])


def test_a_folder_has_the_md5_that_dvc_gives_it(tmp_path):
    folder = tmp_path / "out"
    for name in ("b.txt", "a/x.txt", "a-1.txt", "ä.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db.local import LocalHashFileDB
    from dvc_objects.fs.local import LocalFileSystem

    fs = LocalFileSystem()
    _, _, built = build(LocalHashFileDB(fs, str(tmp_path / "odb")), str(folder), fs, "md5", dry_run=True)
    files = record.hash_files(folder, {})
    assert record.hash_output(folder, files) == built.hash_info.value
    known = {identify(path): md5 for path, md5 in files.items()}
    assert record.hash_files(folder, known) == files
    assert record.hash_output(tmp_path / "none", record.hash_files(tmp_path / "none", {})) == ""


def test_lines_of_runs_side_by_side_are_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RUNS", tmp_path / "lineage/runs.jsonl")
    monkeypatch.setattr(record, "_LOCK", tmp_path / "lock")
    row = {"stage": "render@x", "event": "ran", "outs": {"data/renders/x": "0" * 32}, "user": "Ä" * 2000}
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: record._append(row | {"seconds": float(n)}), range(40)))
    runs, bad = parse_runs((tmp_path / "lineage/runs.jsonl").read_text())
    assert bad == []
    assert sorted(run.seconds for run in runs) == [float(n) for n in range(40)]


def test_a_line_that_was_cut_short_costs_itself_alone(tmp_path, monkeypatch):
    path = tmp_path / "runs.jsonl"
    monkeypatch.setattr(record, "RUNS", path)
    monkeypatch.setattr(record, "_LOCK", tmp_path / "lock")
    path.write_text('{"stage": "split@o')
    record._append({"stage": "split@one", "event": "ran", "outs": {"data/one/clips": "0" * 32}})
    runs, bad = parse_runs(path.read_text())
    assert ([run.stage for run in runs], bad) == (["split@one"], [1])


def test_a_line_is_the_same_text_each_time_and_comes_back():
    run = Run("split@one", "ran", {"data/one/clips": "0" * 32}, rev="1" * 40, is_dirty=True, user="Ada")
    assert run.to_line() == (
        '{"stage":"split@one","event":"ran","outs":{"data/one/clips":"00000000000000000000000000000000"},'
        '"rev":"1111111111111111111111111111111111111111","is_dirty":true,"user":"Ada"}'
    )
    assert parse_run(run.to_line()) == run


@pytest.mark.parametrize(
    "line", ["<<<<<<< HEAD", "{}", "[1]", '{"stage": "a", "event": "won", "outs": {}}', '{"stage": 1']
)
def test_what_is_no_line_of_the_record_is_none(line):
    assert parse_run(line) is None


def test_both_sides_lines_are_kept_in_a_merge(tmp_path):
    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=A", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True)

    git("init", "-q", "-b", "main")
    (tmp_path / ".gitattributes").write_text((ROOT / ".gitattributes").read_text())
    path = tmp_path / "lineage/runs.jsonl"
    path.parent.mkdir()
    path.write_text("first\n")
    git("add", "-A")
    git("commit", "-q", "-m", "first")
    for branch in ("one", "two"):
        git("checkout", "-q", "-b", branch, "main")
        path.write_text(f"first\n{branch}\n")
        git("commit", "-q", "-a", "-m", branch)
    git("merge", "-q", "-m", "both", "one")
    assert sorted(path.read_text().splitlines()) == ["first", "one", "two"]
