"""Change one clip of a batch: only its work is done again, and the bytes are those of a rebuild from nothing."""

import hashlib
import re
import shutil
from pathlib import Path

import pytest

from tasks.items import md5_file
from tests.sandbox import Sandbox, copy_project, needs_footage, set_batches, write_batch

CLIPS = [("a", "kick_front", 0, 16), ("b", "kick_front", 10, 34), ("c", "kick_back", 0, 24), ("d", "kick_back", 50, 66)]
STAGES = (("download", "batch"), ("split", "batch"), ("background", "batch-8"), ("render", "batch-flow-8"))
FOLDERS = ("clips", "backgrounds-8")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, dict[str, tuple[int, int]]]:
    """A project in which the stages have run once, and what they counted."""
    sandbox = copy_project(tmp_path_factory.mktemp("made") / "project")
    write_batch(sandbox, "batch", CLIPS)
    set_batches(sandbox, ["batch"])
    return sandbox.root, run_stages(sandbox)


@pytest.fixture
def sandbox(made, tmp_path) -> Sandbox:
    return Sandbox(shutil.copytree(made[0], tmp_path / "project", symlinks=True))


def run_stages(sandbox: Sandbox) -> dict[str, tuple[int, int]]:
    """Stage -> (clips kept from earlier runs, items done)."""
    counts = {}
    for name, item in STAGES:
        log = sandbox.run("inbetween", "stage", name, item).stderr
        kept = re.search(r"clips, (\d+) kept from earlier runs", log)
        done = re.search(r"items, \d+ kept from earlier runs, (\d+) to do", log)
        if kept:
            counts[name] = (int(kept[1]), int(done[1]) if done else 0)
    return counts


def hash_outputs(sandbox: Sandbox) -> dict[str, str]:
    data = sandbox.root / "data"
    paths = [p for p in data.rglob("*") if p.suffix in {".parquet", ".mp4"} and "videos" not in p.parts]
    return {p.relative_to(data).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(paths)}


@needs_footage
def test_one_changed_clip_costs_one_clip_and_gives_the_bytes_of_a_rebuild(sandbox, made):
    assert made[1] == {"split": (0, 4), "background": (0, 4), "render": (0, 4)}
    first = hash_outputs(sandbox)
    assert len(first) == 4 + 4 + 4 * 2
    assert run_stages(sandbox) == {"split": (4, 0), "background": (4, 0), "render": (4, 0)}
    assert hash_outputs(sandbox) == first

    write_batch(sandbox, "batch", [CLIPS[0], ("b", "kick_front", 12, 36), *CLIPS[2:]])
    assert run_stages(sandbox) == {"split": (3, 1), "background": (3, 1), "render": (3, 1)}
    changed = hash_outputs(sandbox)
    assert {name for name in first if first[name] != changed[name]} == {
        "batch/clips/b.parquet",
        "batch/backgrounds-8/b.parquet",
        "renders/batch-flow-8/b.parquet",
        "renders/batch-flow-8/b.mp4",
    }

    sandbox.env["INBETWEEN_FRESH"] = "1"
    assert run_stages(sandbox) == {"split": (0, 4), "background": (0, 4), "render": (0, 4)}
    assert hash_outputs(sandbox) == changed


@needs_footage
@pytest.mark.parametrize(("command", "is_read_only"), [("inbetween", True), ("dvc", False)])
def test_an_output_that_was_written_in_place_is_made_anew_in_cache_and_store(sandbox, command, is_read_only):
    """is_read_only: root wrote it. DVC alone sees that its object was written where somebody made it writable."""
    sandbox.run(command, "repro", "split@batch")
    path = sandbox.root / "data/batch/clips/a.parquet"
    good = path.read_bytes()
    md5 = md5_file(path)
    held = sandbox.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    assert held.samefile(path)
    path.chmod(0o644)
    path.write_bytes(b"X" + good[1:])
    if is_read_only:
        path.chmod(0o444)
    sandbox.run(command, "repro", "split@batch")
    assert path.read_bytes() == held.read_bytes() == good


@needs_footage
def test_a_store_that_was_made_anew_shares_its_files_with_the_cache(sandbox):
    sandbox.run("dvc", "repro", "split@batch")
    shutil.rmtree(sandbox.root / ".inbetween/items")
    sandbox.run("dvc", "repro", "--force", "--single-item", "split@batch")
    for path in (sandbox.root / "data/batch/clips").glob("*.parquet"):
        assert path.stat().st_nlink == 3  # with the cache and the store


@needs_footage
def test_the_number_of_workers_does_not_change_a_byte(sandbox):
    first = hash_outputs(sandbox)
    sandbox.env["INBETWEEN_FRESH"] = "1"
    text = (sandbox.root / "params.yaml").read_text()
    sandbox.write("params.yaml", text.replace("workers: 0", "workers: 1"))
    run_stages(sandbox)
    assert hash_outputs(sandbox) == first


@needs_footage
def test_key_frames_are_the_clips_own_bytes_and_rows_are_told_apart(sandbox):
    from tasks.tables import Table

    clip = Table("clip", sandbox.root / "data/batch/clips/b.parquet")
    render = Table("render", sandbox.root / "data/renders/batch-flow-8/b.parquet")
    assert render.frames.tolist() == list(range(10, 35))
    origins = render.column("origin").tolist()
    assert [row for row, origin in enumerate(origins) if origin == "original"] == [0, 8, 16, 24]
    for row in (0, 8, 16, 24):
        assert render.read_picture(row) == clip.read_picture(row)
    assert render.column("key_before").tolist()[8:10] == [18, 18]
    assert render.column("key_after").tolist()[7:10] == [18, 18, 26]


@needs_footage
def test_a_clip_past_the_end_of_its_video_is_one_line_before_any_decode(sandbox):
    shutil.rmtree(sandbox.root / "data/batch/clips")
    write_batch(sandbox, "batch", [*CLIPS[:3], ("d", "kick_back", 50, 120)])
    sandbox.run("inbetween", "stage", "download", "batch")
    done = sandbox.run("inbetween", "stage", "split", "batch", check=False)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "inbetween stage split: clip d: frame 120 is past the last one of kick_back, which is 99; shorten the clip"
    )
    assert not (sandbox.root / "data/batch/clips").exists()


@needs_footage
def test_two_clips_of_the_same_frames_are_two_clips(sandbox):
    write_batch(sandbox, "batch", [("a", "kick_front", 0, 16), ("twin", "kick_front", 0, 16)])
    run_stages(sandbox)
    assert {p.name for p in (sandbox.root / "data/renders/batch-flow-8").iterdir()} == {
        "a.mp4", "a.parquet", "twin.mp4", "twin.parquet",
    }  # fmt: skip
