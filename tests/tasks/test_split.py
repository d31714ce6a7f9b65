import hashlib
import json
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from tasks.catalog import read_catalog
from tasks.errors import VideoError
from tasks.items import ItemStore, do_group, item_key
from tasks.split import note_skipped, plan_clips, split_group, write_clip
from tasks.tables import Table, read_skipped
from tasks.video import ffmpeg_path, write_mp4

FFMPEG = ffmpeg_path("pinned")
NUM_FRAMES = 12


def grey_of(frame: int) -> int:
    return 20 + 18 * frame


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A batch of one 12-frame video whose left half tells the frame's number by its grey, the right half is black."""
    videos = tmp_path / "data/batch/videos"
    videos.mkdir(parents=True)
    image = np.zeros((64, 96, 3), np.uint8)
    frames = []
    for frame in range(NUM_FRAMES):
        image[:, :48] = grey_of(frame)
        frames.append(image.copy())
    write_mp4(videos / "v.mp4", frames, 30, 4, FFMPEG)
    digest = hashlib.sha256((videos / "v.mp4").read_bytes()).hexdigest()
    row = {"video": "v", "source": "file:v.mp4", "licence": "CC0", "status": "ok", "file": "v.mp4", "sha256": digest}
    gone = {"video": "w", "source": "file:w.mp4", "licence": "CC0", "status": "skipped", "reason": "404"}
    (videos / "manifest.json").write_text(json.dumps([row, gone]))
    return tmp_path


def write_catalog(root: Path, clips: str, crop: str = "") -> None:
    folder = root / "catalog/batch"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "videos.csv").write_text(f"video,source,licence,crop\nv,file:v.mp4,CC0,{crop}\nw,file:w.mp4,CC0,\n")
    (folder / "clips.csv").write_text("clip,video,split,frames,first,last,step,width,height\n" + clips)


def split(root: Path, max_chunk_frames: int = 256) -> dict[str, Table]:
    catalog = read_catalog(root, "batch")
    videos, out = root / "data/batch/videos", root / "data/batch/clips"
    plans = plan_clips(catalog, videos, max_chunk_frames, partial(item_key, "split"))
    store = ItemStore(root / "items")
    do_group(partial(split_group, ffmpeg=FFMPEG), [item for plan in plans for item in plan.items], store)
    for plan in plans:
        write_clip(plan, store, out)
    note_skipped(catalog, plans, videos, out)
    return {path.stem: Table("clip", path) for path in out.glob("*.parquet")}


def test_every_clip_gets_exactly_its_frames_with_their_times(root):
    write_catalog(root, "a,v,test,,2,10,4,48,32\nb,v,train,0;3;4;11,,,,96,64\n")
    clips = split(root, max_chunk_frames=2)
    assert clips["a"].frames.tolist() == [2, 6, 10]
    assert clips["b"].frames.tolist() == [0, 3, 4, 11]
    for table in clips.values():
        for row, frame in enumerate(table.frames.tolist()):
            image = table.read_image(row)
            left = image[:, : image.shape[1] // 2 - 4].astype(int)
            assert abs(left - grey_of(frame)).max() <= 4
        np.testing.assert_allclose(table.column("time"), table.frames / 30, atol=1e-9)
    assert clips["a"].read_image(0).shape == (32, 48, 3)
    assert clips["a"].metadata["fps"] == "15/2"
    assert clips["b"].metadata["split"] == "train"


def test_the_crop_is_taken_before_resizing(root):
    write_catalog(root, "a,v,test,,0,11,1,48,64\n", crop="48:0:48:64")
    assert cv2.minMaxLoc(split(root)["a"].read_image(11)[:, 6:, 0])[1] <= 4


def test_clips_without_a_video_are_left_out_and_said(root):
    write_catalog(root, "a,v,test,,0,3,1,48,32\nc,w,test,,0,3,1,48,32\n")
    assert set(split(root)) == {"a"}
    assert read_skipped(root / "data/batch/clips") == {"c": "404"}


@pytest.mark.parametrize(
    ("clips", "crop", "message"),
    [
        ("a,v,test,,0,12,1,48,32\n", "", "clip a: frame 12 is past the last one of v, which is 11; shorten the clip"),
        ("a,v,test,,0,3,1,48,32\n", "50:0:50:64", "video v: the crop leaves the picture of 96x64"),
        ("c,w,test,,0,3,1,48,32\n", "", "no clip is left, all its videos were skipped"),
    ],
)
def test_what_the_video_cannot_give_is_refused_before_decoding(root, clips, crop, message):
    write_catalog(root, clips, crop)
    with pytest.raises(VideoError, match=message):
        plan_clips(read_catalog(root, "batch"), root / "data/batch/videos", 256, partial(item_key, "split"))


@pytest.mark.parametrize("content", [b"", b"not a video"])
def test_a_file_that_is_no_video_is_named(root, content):
    write_catalog(root, "a,v,test,,0,3,1,48,32\n")
    (root / "data/batch/videos/v.mp4").write_bytes(content)
    with pytest.raises(VideoError, match=r"v\.mp4"):
        plan_clips(read_catalog(root, "batch"), root / "data/batch/videos", 256, partial(item_key, "split"))
