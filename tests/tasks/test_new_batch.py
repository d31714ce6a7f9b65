import pytest

from tasks.catalog import read_catalog
from tasks.errors import CatalogError, SourceError
from tasks.new_batch import name_videos, parse_rate, read_words, to_source, write_catalog

VIDEO = {"video": "v", "source": "file:v.mp4", "licence": "CC0", "sha256": "", "num_frames": "9", "crop": "", "fps": ""}
CLIP = {
    "clip": "v_001", "video": "v", "split": "train", "subject": "v", "first": "0", "last": "8", "step": "",
    "frames": "", "width": "64", "height": "48",
}  # fmt: skip


@pytest.mark.parametrize(
    ("word", "source"),
    [
        ("https://www.youtube.com/watch?v=dQw4w9WgXcQ&t=1", "youtube:dQw4w9WgXcQ"),
        ("https://youtu.be/dQw4w9WgXcQ", "youtube:dQw4w9WgXcQ"),
        ("https://www.youtube.com/shorts/dQw4w9WgXcQ/", "youtube:dQw4w9WgXcQ"),
        ("youtube:dQw4w9WgXcQ", "youtube:dQw4w9WgXcQ"),
        ("https://host/a.mp4", "https://host/a.mp4"),
        ("in/a b.mp4", "file:videos/in/a b.mp4"),
        ("../../outside.mp4", "file:{top}/outside.mp4"),
    ],
)
def test_words_become_sources(tmp_path, word, source):
    folder = tmp_path / "project/videos"
    (folder / "in").mkdir(parents=True)
    (folder / "in/a b.mp4").touch()
    (tmp_path / "outside.mp4").touch()
    assert to_source(word, folder, tmp_path / "project") == source.format(top=tmp_path)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("none.mp4", "none.mp4: there is no such file or folder, and it is no address"),
        ("https://www.youtube.com/playlist?list=PL1", "is no address of one YouTube video"),
        ("ftp://host/a.mp4", "no such file"),
        ("gdrive:x", "Google Drive link"),
        ("https://[bad/a.mp4", "not an address"),
    ],
)
def test_words_that_are_no_source_are_named(tmp_path, word, message):
    with pytest.raises(CatalogError, match=message):
        to_source(word, tmp_path, tmp_path)


def test_a_text_file_stands_for_its_lines(tmp_path):
    (tmp_path / "list.txt").write_text("  # one a line\n# mine\nyoutube:dQw4w9WgXcQ # the first\n\na.mp4\n")
    assert read_words(["list.txt", "b.mp4"], tmp_path) == ["youtube:dQw4w9WgXcQ", "a.mp4", "b.mp4"]
    with pytest.raises(CatalogError, match=r"gone.txt: cannot be read as a list of sources"):
        read_words(["gone.txt"], tmp_path)


def test_ids_come_from_names_and_never_leave_their_folder():
    sources = [
        "file:/a/My film (1).mp4",
        "file:../../b/My film (1).MOV",
        "youtube:-_dash12345",
        "https://h/x/..%2f..%2f?q=/e",
    ]
    named = name_videos(sources)
    assert list(named.values()) == sources
    assert list(named)[:3] == ["My_film_1", "My_film_1_2", "yt_-_dash12345"]
    assert all("/" not in name and not name.startswith(".") for name in named)
    with pytest.raises(CatalogError, match="stands twice"):
        name_videos(["file:a.mp4", "file:a.mp4"])


def test_files_are_written_once_and_not_over_others(tmp_path):
    folder = tmp_path / "catalog/new"
    write_catalog(folder, [VIDEO], [CLIP], replaces=False)
    assert list(read_catalog(tmp_path, "new").clips) == ["v_001"]
    assert sorted(path.name for path in folder.iterdir()) == ["clips.csv", "videos.csv"]
    before = (folder / "clips.csv").read_bytes()
    with pytest.raises(CatalogError, match=r"catalog/new/clips.csv: is there already .* or --force"):
        write_catalog(folder, [VIDEO], [CLIP | {"clip": "w"}], replaces=False)
    assert (folder / "clips.csv").read_bytes() == before
    write_catalog(folder, [VIDEO], [CLIP | {"clip": "w"}], replaces=True)
    assert list(read_catalog(tmp_path, "new").clips) == ["w"]


def test_a_header_alone_is_filled_and_videos_stay(tmp_path):
    folder = tmp_path / "catalog/new"
    write_catalog(folder, [VIDEO], [], replaces=False)
    videos = (folder / "videos.csv").read_bytes()
    write_catalog(folder, None, [CLIP], replaces=False)
    assert (folder / "videos.csv").read_bytes() == videos
    assert list(read_catalog(tmp_path, "new").clips) == ["v_001"]


@pytest.mark.parametrize("text", ["0", "-1", "fast", "1/0", "2000"])
def test_rates_that_are_none_are_refused(text):
    with pytest.raises(SourceError, match="--fps"):
        parse_rate(text)
