from pathlib import Path

import pytest

from tasks.catalog import parse_frames, read_catalog
from tasks.errors import CatalogError
from tasks.video import Crop

VIDEOS = "video,source,licence,num_frames,crop\nv,file:a.mp4,CC0,100,4:0:100:50\n"
CLIPS = "clip,video,split,subject,first,last,step,width,height\nb,v,test,me,0,9,3,64,32\na,v,train,me,5,6,,64,32\n"


def write(root: Path, videos: str = VIDEOS, clips: str = CLIPS) -> Path:
    folder = root / "catalog" / "batch"
    folder.mkdir(parents=True)
    (folder / "videos.csv").write_text(videos)
    (folder / "clips.csv").write_text(clips)
    return root


def test_reads_spans_steps_and_crops_in_the_order_of_clip_names(tmp_path):
    catalog = read_catalog(write(tmp_path), "batch")
    assert list(catalog.clips) == ["a", "b"]
    assert catalog.clips["b"].frames == (0, 3, 6, 9)
    assert catalog.clips["a"].frames == (5, 6)
    assert catalog.videos["v"].crop == Crop(4, 0, 100, 50)


def test_explicit_frames_keep_irregular_steps():
    assert parse_frames("1841;1846-1854/4; 1860") == (1841, 1846, 1850, 1854, 1860)


@pytest.mark.parametrize("text", ["", "3;2", "5;5", "9-3", "1-9/0", "a", "1,2", "-4", "1-5;5"])
def test_frame_lists_that_make_no_sense_are_refused(text):
    with pytest.raises(ValueError, match=r"\w"):
        parse_frames(text)


@pytest.mark.parametrize(
    ("videos", "clips", "message"),
    [
        (VIDEOS.replace("licence", "license"), CLIPS, r"videos.csv row 1, column 'license': is not known"),
        (VIDEOS.replace(",licence", "").replace(",CC0", ""), CLIPS, r"videos.csv row 1: column 'licence' is missing"),
        (VIDEOS + "v,file:b.mp4,CC0,,\n", CLIPS, r"videos.csv row 3, column video: 'v' stands twice"),
        (VIDEOS + "V,file:b.mp4,CC0,,\n", CLIPS, r"videos.csv row 3, column video: 'V' stands twice"),
        (VIDEOS.replace("\nv,", "\n../v,"), CLIPS, r"videos.csv row 2, column video: '../v' cannot name a file"),
        (VIDEOS.replace("\nv,", "\n-v,"), CLIPS, r"row 2, column video: '-v' cannot name a file"),
        (VIDEOS.replace("file:a.mp4", "ftp://x"), CLIPS, r"videos.csv row 2, column source: "),
        (VIDEOS.replace(",100,", ",many,"), CLIPS, r"column num_frames: 'many' is not a whole number"),
        (VIDEOS.replace("4:0:100:50", "4:0:0:50"), CLIPS, r"column crop: '4:0:0:50'"),
        (VIDEOS.replace("4:0:100:50", "4,0"), CLIPS, r"videos.csv row 2: has 6 cells, the header has 5"),
        (
            VIDEOS,
            CLIPS.replace("0,9,3", "0,103,3"),
            r"clips.csv row 2, column last: frame 102 is past the last one of v, which is 99",
        ),
        (VIDEOS, CLIPS.replace("0,9,3", "9,0,3"), r"clips.csv row 2, column last: 0 is before the first frame, 9"),
        (VIDEOS, CLIPS.replace("0,9,3", "0,9,x"), r"clips.csv row 2, column step: 'x' is not a whole number"),
        (VIDEOS, CLIPS.replace(",64,32\na", ",64,-32\na"), r"clips.csv row 2, column height"),
        (VIDEOS, CLIPS.replace("b,v", "b,w"), r"clips.csv row 2, column video: 'w' is not in videos.csv"),
        (VIDEOS, CLIPS.replace("test", "tset"), r"clips.csv row 2, column split: 'tset' is none of train, test"),
        (VIDEOS, CLIPS.replace("5,6,", "5,5,"), r"clips.csv row 3, column last: gives one frame"),
        (VIDEOS, CLIPS + "a,v,test,me,0,3,1,64,32\n", r"clips.csv row 4, column clip: 'a' stands twice"),
        (VIDEOS, "clip,video\n", r"clips.csv row 1: column 'split' is missing"),
        (VIDEOS, CLIPS.splitlines()[0], r"clips.csv: has a header and no rows"),
        ("", CLIPS, r"videos.csv: is empty"),
    ],
)
def test_bad_rows_are_refused_with_file_row_and_column(tmp_path, videos, clips, message):
    with pytest.raises(CatalogError, match=message):
        read_catalog(write(tmp_path, videos, clips), "batch")


def test_a_span_past_a_known_end_is_refused_before_any_work(tmp_path):
    with pytest.raises(
        CatalogError, match=r"clips.csv row 3, column last: frame 100 is past the last one of v, which is 99"
    ):
        read_catalog(write(tmp_path, clips=CLIPS.replace("5,6,", "5,100,")), "batch")


def test_a_missing_file_and_a_batch_that_leaves_the_folder_are_named(tmp_path):
    with pytest.raises(CatalogError, match="no such file"):
        read_catalog(tmp_path, "batch")
    with pytest.raises(CatalogError, match="an id is letters"):
        read_catalog(tmp_path, "../batch")
