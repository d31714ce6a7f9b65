import sqlite3
from contextlib import closing
from pathlib import Path

from tasks.lineage.marks import VideoName, read_marks
from tasks.lineage.references import Withdrawal, read_withdrawn
from tasks.lineage.removal import clear_artifacts, clear_items, mark_withdrawn, note_withdrawn, remove_runs

VIDEOS = 'video,source,licence\na,youtube:aaaaaaaaaaa,"CC-BY, 4.0"\nb,youtube:bbbbbbbbbbb,CC0\n'
CLIPS = "clip,video,split\r\nb-1,b,test\r\na-1,a,train\r\na-2,a,test\r\n"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def test_a_videos_rows_move_out_of_the_catalogue_and_the_others_keep_their_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "catalog/sample"
    write(folder / "videos.csv", VIDEOS)
    write(folder / "clips.csv", CLIPS)
    video = VideoName("sample", "a")
    rows = {video: {"video": "a", "source": "youtube:aaaaaaaaaaa", "licence": "CC-BY, 4.0"}}
    changed = mark_withdrawn(tmp_path, rows, "2026-01-02", "asked for,\nby mail", {video: "f" * 64})
    assert changed == [f"catalog/sample/{name}.csv" for name in ("withdrawn", "clips", "videos")]
    assert (folder / "videos.csv").read_bytes().decode() == VIDEOS.replace('a,youtube:aaaaaaaaaaa,"CC-BY, 4.0"\n', "")
    assert (folder / "clips.csv").read_bytes().decode() == "clip,video,split\r\nb-1,b,test\r\n"
    mark = read_marks(tmp_path)[video]
    assert (mark["withdrawn"], mark["reason"], mark["sha256"]) == ("2026-01-02", "asked for, by mail", "f" * 64)
    assert mark["licence"] == "CC-BY, 4.0"
    # Again, as after a kill: nothing changes, and the first date stays.
    assert mark_withdrawn(tmp_path, rows, "2026-02-02", "again", {}) == []
    write(folder / "videos.csv", VIDEOS)  # killed before this one
    assert mark_withdrawn(tmp_path, rows, "2026-02-02", "again", {}) == ["catalog/sample/videos.csv"]


def test_withdrawn_objects_are_noted_once(tmp_path: Path) -> None:
    rows = [Withdrawal("b" * 32, "data/b, c.txt", "sample", "a"), Withdrawal("a" * 32, "data/a.txt", "sample", "a")]
    note_withdrawn(tmp_path, rows)
    note_withdrawn(tmp_path, rows[:1])
    assert list(read_withdrawn(tmp_path)) == ["a" * 32, "b" * 32]
    assert read_withdrawn(tmp_path)["b" * 32].path == "data/b, c.txt"


def test_the_run_cache_forgets_what_would_bring_it_back(tmp_path: Path) -> None:
    write(tmp_path / "runs/aa/key/one", "outs:\n- md5: 0123.dir\n")
    write(tmp_path / "runs/bb/key/two", "outs:\n- md5: 4567.dir\n")
    assert remove_runs(tmp_path / "runs", {"0123.dir", "89"}) == 1
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["two"]
    assert remove_runs(tmp_path / "nothing", {"0123.dir"}) == 0


def test_the_item_store_keeps_what_is_others(tmp_path: Path) -> None:
    for name in ("aa/1/kick.parquet", "aa/2/kick.mp4", "bb/3/kick+1.parquet", "bb/4/kicker.parquet", "cc/5.arrow"):
        write(tmp_path / name, "x")
    assert clear_items(tmp_path, {"kick"}, set()) == 4
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["kicker.parquet"]
    assert clear_items(tmp_path / "nothing", {"kick"}, set()) == 0


def test_prefect_artifacts_that_name_it_go_with_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "prefect.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE artifact (id TEXT, data TEXT, description TEXT)")
        db.execute("CREATE TABLE artifact_collection (id TEXT, data TEXT, description TEXT)")
        db.execute("INSERT INTO artifact VALUES ('1', '| data/a/clips/kick.parquet | iVBORsecret |', NULL)")
        db.execute("INSERT INTO artifact VALUES ('2', 'others', NULL)")
        db.execute("INSERT INTO artifact_collection VALUES ('3', NULL, 'data/a/clips/kick.parquet')")
        db.commit()
    assert clear_artifacts(path, {"data/a/clips/kick.parquet"}) == 2
    assert b"secret" not in path.read_bytes()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT id FROM artifact").fetchall() == [("2",)]
    assert clear_artifacts(tmp_path / "none.db", {"x"}) == 0
