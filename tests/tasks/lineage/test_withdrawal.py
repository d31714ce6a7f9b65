import subprocess
from pathlib import Path

import pytest

from flows.lineage import open_lineage
from tasks.lineage.errors import LineageError
from tasks.lineage.lineage import Lineage
from tasks.lineage.marks import VideoName
from tasks.lineage.withdrawal import plan_withdrawal


def git(root: Path, *words: str) -> None:
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    subprocess.run(["git", *who, *words], cwd=root, check=True, capture_output=True)


def write_batch(root: Path, batch: str, videos: str, clips: str) -> None:
    folder = root / "catalog" / batch
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "videos.csv").write_text(f"video,source,licence,sha256\n{videos}")
    (folder / "clips.csv").write_text(f"clip,video,split\n{clips}")


@pytest.fixture
def lineage(tmp_path: Path) -> Lineage:
    """A clip that was renamed, a video that stands in two batches, one that was dropped from the catalogue."""
    git(tmp_path, "init", "-q")
    write_batch(tmp_path, "one", "a,youtube:aaaaaaaaaaa,CC0,\nold,https://x.org/old.mp4,CC0,\n", "first,a,train\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "one")
    write_batch(tmp_path, "one", "a,youtube:aaaaaaaaaaa,CC0,\nb,file:b.mp4,CC0,ff\n", "second,a,train\nfirst,b,test\n")
    write_batch(tmp_path, "two", "again,youtube:aaaaaaaaaaa,CC0,\na,file:other.mp4,CC0,ff\n", "third,again,test\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "two")
    return open_lineage(tmp_path, tmp_path / ".inbetween/lineage.sqlite")


def test_a_video_is_found_with_every_clip_it_ever_had_and_wherever_else_it_stands(lineage: Lineage) -> None:
    for name in ("one/a", "video:one/a", "youtube:aaaaaaaaaaa", "https://www.youtube.com/watch?v=aaaaaaaaaaa", "again"):
        plan = plan_withdrawal(lineage, name)
        assert plan.videos == [VideoName("one", "a"), VideoName("two", "again")]
        assert plan.clips == [("one", "first"), ("one", "second"), ("two", "third")]


def test_the_same_bytes_under_another_source_are_the_same_video(lineage: Lineage) -> None:
    assert plan_withdrawal(lineage, "one/b").videos == [VideoName("one", "b"), VideoName("two", "a")]


def test_a_video_that_left_the_catalogue_is_found_in_older_revisions(lineage: Lineage) -> None:
    plan = plan_withdrawal(lineage, "old")
    assert plan.rows == {VideoName("one", "old"): {
        "video": "old", "source": "https://x.org/old.mp4", "licence": "CC0", "sha256": "",
    }}  # fmt: skip


def test_a_name_that_is_none_or_means_several_is_refused(lineage: Lineage) -> None:
    with pytest.raises(LineageError, match="a: 2 batches have a video of this name; write one of one/a, two/a"):
        plan_withdrawal(lineage, "a")
    with pytest.raises(LineageError, match="agian: no revision's catalogue has such a video; the nearest are again"):
        plan_withdrawal(lineage, "agian")
