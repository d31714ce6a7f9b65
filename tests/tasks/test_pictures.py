import hashlib
import io
import json
import os
import re
import tarfile
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from tasks.catalog import read_catalog
from tasks.download import download_videos
from tasks.errors import CatalogError, SourceError, VideoError
from tasks.items import ItemStore, do_group, item_key
from tasks.picture_frames import probe_pictures, read_pictures
from tasks.pictures import pack_folder, pack_table, pack_tar
from tasks.sources import WantedVideo, parse_source, read_manifest
from tasks.split import plan_clips, split_group, write_clip
from tasks.tables import Table, encode_png
from tasks.video import Crop, write_mp4
from tests.tasks.drive_stand_in import DriveStandIn
from tests.tasks.test_download import FFMPEG, SETTINGS

NUMBERS = (31, 33, 35, 120)
DRIVE_ID = "1OlqoZumoeWyWmoGGrrf3AyHU7Rr1O55P"
SOURCE = f"gdrive:{DRIVE_ID}#val/test_img"


def picture(number: int) -> bytes:
    """96x64, grey `number` on the left, white on the right."""
    image = np.full((64, 96, 3), 255, np.uint8)
    image[:, :48] = number
    return encode_png(image)


def name_of(number: int) -> str:
    return f"frame{number:06d}.png"


def tar_bytes(members: dict[str, bytes | tarfile.TarInfo], mode: str = "w") -> bytes:
    """A tar archive; a member is a file's bytes, or a TarInfo without any."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = 0 if isinstance(content, tarfile.TarInfo) else len(content)
            archive.addfile(info, None if isinstance(content, tarfile.TarInfo) else io.BytesIO(content))
    return buffer.getvalue()


def dance(folder: str = "subject1/val/test_img") -> dict[str, bytes | tarfile.TarInfo]:
    """An archive like the real ones: the wanted pictures out of order, among others."""
    members: dict[str, bytes | tarfile.TarInfo] = {"subject1/train/train_img/frame000001.png": picture(1)}
    members |= {f"{folder}/{name_of(number)}": picture(number) for number in reversed(NUMBERS)}
    return members | {f"{folder}/._frame000031.png": b"resource fork", f"{folder}/notes.txt": b"thanks"}


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def pack(tmp_path: Path, members: dict[str, bytes | tarfile.TarInfo], mode: str = "w", folder: str = "val/test_img"):
    archive, target = tmp_path / "a.tar", tmp_path / "out" / "v.zip"
    archive.write_bytes(tar_bytes(members, mode))
    target.parent.mkdir()
    pack_tar(archive, folder, target)
    return target


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tars_pictures_are_frames_by_their_names_numbers(tmp_path, mode):
    packed = pack(tmp_path, dance(), mode)
    info = probe_pictures(packed)
    assert (tuple(info.names), info.num_frames, info.width, info.height) == (NUMBERS, 121, 96, 64)
    frames = list(read_pictures(packed, [33, 120], Crop(40, 2, 16, 8), fps=30))
    assert [(frame.frame, frame.time_s) for frame in frames] == [(33, 33 / 30), (120, 4.0)]
    for frame in frames:
        assert frame.image_HWC.shape == (8, 16, 3)
        assert (frame.image_HWC[:, :8] == frame.frame).all()
        assert (frame.image_HWC[:, 8:] == 255).all()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.tar", "v.zip"]


def test_the_same_pictures_give_the_same_bytes_whatever_their_dates(tmp_path):
    packed = []
    for number, mtime in enumerate((1, 10**9)):
        folder = tmp_path / f"pictures{number}"
        folder.mkdir()
        for n in NUMBERS[::-1] if number else NUMBERS:
            (folder / name_of(n)).write_bytes(picture(n))
            os.utime(folder / name_of(n), (mtime, mtime))
        packed.append(tmp_path / f"{number}.zip")
        pack_folder(folder, packed[-1])
    assert packed[0].read_bytes() == packed[1].read_bytes()
    assert zipfile.ZipFile(packed[0]).namelist() == [name_of(n) for n in NUMBERS]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"/etc/frame000001.png": picture(1)}, r"member '/etc/frame000001.png' leaves its folder"),
        ({"val/test_img/../../../frame000001.png": picture(1)}, r"leaves its folder"),
        ({"../val/test_img/frame000001.png": picture(1)}, r"leaves its folder"),
        (
            {"val/test_img/frame000031.png": special("val/test_img/frame000031.png", tarfile.SYMTYPE, "/etc/passwd")},
            r"is a link or a device",
        ),
        (
            {"val/test_img/frame000031.png": special("val/test_img/frame000031.png", tarfile.LNKTYPE, "../secret")},
            r"is a link or a device",
        ),
        ({"val/test_img/frame000031.png": special("val/test_img/frame000031.png", tarfile.CHRTYPE)}, r"a device"),
        ({"a/val/test_img/frame1.png": b"", "b/val/test_img/frame2.png": b""}, r"two folders val/test_img: a/val/test"),
        ({"val/test_img/frame1.png": b"", "val/test_img/frame01.png": b""}, r"are both frame 1; keep one"),
        ({"val/test_img/cover.png": b""}, r"cover.png: its name does not end in a number"),
        ({"val/test_img/notes.txt": b""}, r"holds no numbered"),
        ({"val/other/frame1.png": b""}, r"no picture in a folder val/test_img"),
        ({"xval/test_img/frame1.png": b""}, r"no picture in a folder val/test_img"),
    ],
)
def test_archives_that_leave_their_folder_or_make_no_sense_are_refused(tmp_path, members, message):
    with pytest.raises(SourceError, match=message) as caught:
        pack(tmp_path, dance("v") | members if "other" in str(members) else members)
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.rglob("*")} <= {"a.tar", "out", "v.zip"}


def test_an_archive_out_of_all_proportion_is_refused_before_it_is_packed(tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.pictures.MAX_TOTAL_BYTES", 2 * len(picture(31)))
    with pytest.raises(SourceError, match=r"pictures are too large at 'subject1/val/test_img/frame\d+.png'"):
        pack(tmp_path, dance())
    assert not (tmp_path / "out/v.zip").exists()


@pytest.mark.parametrize("content", [b"", b"<html>", tar_bytes(dance())[:1500]])
def test_what_is_no_whole_archive_is_said_in_one_line(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(SourceError, match=r"not a whole tar archive|no picture") as caught:
        pack_tar(tmp_path / "a.tar", "val/test_img", tmp_path / "v.zip")
    assert "\n" not in str(caught.value)


def test_pictures_that_are_missing_damaged_or_of_another_size_are_named(tmp_path):
    small = encode_png(np.zeros((8, 8, 3), np.uint8))
    packed = pack(
        tmp_path, dance() | {f"subject1/val/test_img/{name_of(40)}": small, "subject1/val/test_img/frame50.png": b"?"}
    )
    for frame, message in (
        (32, "no picture 32"),
        (40, r"frame000040.png has 8x8 px, the first one 96x64"),
        (50, "decode"),
    ):
        with pytest.raises(VideoError, match=message):
            list(read_pictures(packed, [31, frame], None, 30))
    packed.write_bytes(packed.read_bytes()[:100])
    with pytest.raises(VideoError, match="not a packed folder"):
        probe_pictures(packed)


def split(root: Path) -> dict[str, Table]:
    catalog = read_catalog(root, "batch")
    plans = plan_clips(catalog, root / "data/batch/videos", 256, partial(item_key, "split"))
    store = ItemStore(root / "items")
    do_group(partial(split_group, ffmpeg=FFMPEG), [item for plan in plans for item in plan.items], store)
    for plan in plans:
        write_clip(plan, store, root / "clips")
    return {path.stem: Table("clip", path) for path in (root / "clips").glob("*.parquet")}


def write_catalog(root: Path, source: str, frames: str, fps: str = "25") -> None:
    folder = root / "catalog/batch"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "videos.csv").write_text(f"video,source,licence,crop,fps\nd,{source},CC0,16:0:64:64,{fps}\n")
    (folder / "clips.csv").write_text(f"clip,video,split,frames,width,height\nc,d,test,{frames},32,32\n")


@pytest.fixture
def drive(tmp_path, monkeypatch):
    stand_in = DriveStandIn(tmp_path)
    for name, value in stand_in.environment().items():
        monkeypatch.setenv(name, value)
    yield stand_in
    stand_in.close()


def fetch(root: Path, settings=SETTINGS, told=None):
    wanted = [video.wanted() for video in read_catalog(root, "batch").videos.values()]
    note = (lambda *news: told.append(news)) if told is not None else (lambda *news: None)
    return download_videos(wanted, root / "data/batch/videos", settings, root, note)


def test_a_folder_on_google_drive_goes_through_download_and_split(tmp_path, drive):
    drive.files[DRIVE_ID] = tar_bytes(dance())
    write_catalog(tmp_path, SOURCE, "31;33;120")
    told: list[tuple[str, float | None]] = []
    (row,) = fetch(tmp_path, told=told).ok
    assert (row.file, row.reason, told[-1]) == ("d.zip", None, ("d", 1.0))
    assert sorted(path.name for path in (tmp_path / "data/batch/videos").iterdir()) == ["d.zip", "manifest.json"]
    table = split(tmp_path)["c"]
    assert table.frames.tolist() == [31, 33, 120]
    np.testing.assert_array_equal(table.column("time"), np.array([31, 33, 120]) / 25)
    assert [int(table.read_image(n)[16, 4, 0]) for n in range(3)] == [31, 33, 120]
    assert table.metadata["source_sha256"] == row.sha256
    assert len(drive.requests[DRIVE_ID]) == 1
    fetch(tmp_path)
    assert len(drive.requests[DRIVE_ID]) == 1  # what is there and whole is not asked for again


def test_a_broken_download_from_google_drive_is_gone_on_with(tmp_path, drive):
    content = tar_bytes(dance() | {"subject1/large": bytes(3 * 2**20)})
    drive.files[DRIVE_ID], drive.cut = content, {DRIVE_ID}
    write_catalog(tmp_path, SOURCE, "31;33")
    with pytest.raises(SourceError, match=r"video d: gdrive:.*: Google Drive: Download is incomplete"):
        fetch(tmp_path, replace(SETTINGS, retries=0))
    (row,) = fetch(tmp_path, replace(SETTINGS, retries=0)).ok
    assert row.file == "d.zip"
    ranges = [asked for asked in drive.requests[DRIVE_ID] if asked]
    assert ranges
    assert int(re.fullmatch(r"bytes=(\d+)-", ranges[-1])[1]) >= len(content) // 4


def test_an_archive_that_google_drive_does_not_give_is_one_line_with_the_remedy(tmp_path, drive):
    write_catalog(tmp_path, SOURCE, "31;33")
    for full, said in (
        (set(), "gone or private, or asked for too often today"),
        ({DRIVE_ID}, "asked for too often today; try again tomorrow"),
    ):
        drive.full = full
        with pytest.raises(SourceError, match=rf"{said}.*file:FOLDER") as caught:
            fetch(tmp_path)
        assert "\n" not in str(caught.value)


def test_an_archive_that_google_drive_does_not_give_today_is_not_skipped(tmp_path, drive):
    write_catalog(tmp_path, SOURCE, "31;33")
    (tmp_path / "there").mkdir()
    for number in NUMBERS:
        cv2.imwrite(str(tmp_path / "there" / f"{number}.png"), np.full((64, 96, 3), number, np.uint8))
    wanted = [
        WantedVideo("d", SOURCE, "CC0", None),
        WantedVideo("e", "file:there", "CC0", None),
    ]
    drive.full = {DRIVE_ID}
    settings = replace(SETTINGS, missing="skip")
    with pytest.raises(SourceError, match=r"1 of 2 videos could not be asked for.*video d: .*too often today"):
        download_videos(wanted, tmp_path / "v", settings, tmp_path)
    drive.full = set()
    assert [row.video for row in download_videos(wanted, tmp_path / "v", settings, tmp_path).skipped] == ["d"]


def test_a_local_folder_of_pictures_is_a_video_too(tmp_path):
    (tmp_path / "my frames").mkdir()
    for number in NUMBERS:
        cv2.imwrite(str(tmp_path / "my frames" / f"{number}.jpg"), np.full((64, 96, 3), number, np.uint8))
    write_catalog(tmp_path, "file:my frames", "31-35/2")
    fetch(tmp_path)
    assert split(tmp_path)["c"].frames.tolist() == [31, 33, 35]
    before = read_manifest(tmp_path / "data/batch/videos")
    fetch(tmp_path)
    assert read_manifest(tmp_path / "data/batch/videos") == before

    write_catalog(tmp_path, "file:my frames", "31;32")
    with pytest.raises(VideoError, match=r"clip c: d has no picture 32; mend clips.csv"):
        split(tmp_path)
    write_catalog(tmp_path, "file:my frames", "31;121")
    with pytest.raises(VideoError, match=r"frame 121 is past the last one of d, which is 120"):
        split(tmp_path)
    write_catalog(tmp_path, "file:my frames", "31;33", fps="")
    with pytest.raises(VideoError, match=r"video d: is a folder of pictures, whose rate videos.csv must state"):
        split(tmp_path)


@pytest.mark.parametrize(
    ("source", "fps", "message"),
    [
        (SOURCE, "", r"videos.csv row 2, column fps: is empty; a folder of pictures states no rate"),
        (SOURCE, "0", r"column fps: '0' is not a rate"),
        (SOURCE, "1/0", r"column fps: '1/0' is not a rate"),
        (SOURCE, "fast", r"column fps: 'fast' is not a rate"),
        ("youtube:dQw4w9WgXcQ", "fast", r"column fps: 'fast' is not a rate"),
        ("gdrive:../x#val", "30", r"column source: .*write the id in a Google Drive link"),
        (f"gdrive:{DRIVE_ID}", "30", r"column source: .*after # comes the pictures' folder"),
        (f"gdrive:{DRIVE_ID}#../etc", "30", r"column source: .*after # comes the pictures' folder"),
        (f"gdrive:{DRIVE_ID}#/etc", "30", r"column source: .*after # comes the pictures' folder"),
    ],
)
def test_bad_folders_are_refused_by_row_and_column(tmp_path, source, fps, message):
    write_catalog(tmp_path, source, "31;33", fps)
    with pytest.raises(CatalogError, match=message):
        read_catalog(tmp_path, "batch")


def test_folder_sources_are_read():
    source = parse_source(SOURCE)
    assert (source.scheme, source.place, source.member) == ("gdrive", DRIVE_ID, "val/test_img")


def test_a_film_is_of_the_rate_at_which_its_frames_were_counted(tmp_path):
    videos = tmp_path / "data/batch/videos"
    videos.mkdir(parents=True)
    write_mp4(videos / "d.mp4", [np.zeros((64, 96, 3), np.uint8)] * 4, 30, 20, FFMPEG)
    digest = hashlib.sha256((videos / "d.mp4").read_bytes()).hexdigest()
    row = WantedVideo("d", "file:d.mp4", "CC0", digest)
    facts = {"video": row.video, "source": row.source, "licence": "CC0", "status": "ok", "file": "d.mp4"}
    (videos / "manifest.json").write_text(json.dumps([facts | {"sha256": digest}]))
    write_catalog(tmp_path, "file:d.mp4", "0;1", fps="25")
    with pytest.raises(VideoError, match=r"video d: changed: it has 30 frames a second, .* were counted at 25, so"):
        split(tmp_path)
    for fps in ("", "30", "30000/1001"):
        write_catalog(tmp_path, "file:d.mp4", "0;1", fps=fps)
        assert split(tmp_path)["c"].metadata["fps"] == "30"


def test_a_table_that_is_no_clips_is_named(tmp_path):
    path = tmp_path / "clip.parquet"
    path.write_bytes(b"PAR1 is how one begins")
    with pytest.raises(SourceError, match=r"not a clip's table .*clip\.parquet"):
        pack_table(path, tmp_path / "clip.zip")
