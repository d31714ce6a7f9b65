"""catalog/humanslomo against the authors' lists: every clip, every frame."""

import csv
import hashlib
import itertools
import json
from collections import Counter

import pytest

from flows.project import ROOT
from tasks.catalog import Catalog, read_catalog
from tasks.clips_manifest import describe_batch
from tasks.errors import CatalogError
from tasks.leaks import count_leaks, find_leaks, find_same_clips
from tasks.sources import Manifest, ManifestRow, parse_source
from tasks.video import Crop

REFERENCE = ROOT.parent / "shared" / "reference" / "humanslomo"
# Of the authors' three lists: clips, frames, clips with irregular steps, and sha256 of "clip: frame frame ...\n" lines
# sorted by clip.
LISTS = {
    "train_list": (80, 4492, 17, "628daff217de305b444ce674a50b19689252cc4858739483104c1aa949626bc2"),
    "test_list": (28, 734, 7, "b656f4a21189ce5ad66f6c3f63aa9126be6cb6427ac1614c3fd948aec3eb4d1d"),
    "test_input": (28, 381, 7, "145bf7c347f00cfefcdf8c161c00b4457a68099bce3cc18fe6d77049a2bc7064"),
}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return read_catalog(ROOT, "humanslomo")


@pytest.fixture(scope="module")
def lists(catalog) -> dict[str, dict[str, tuple[int, ...]]]:
    """What we make of the authors' lists: the test inputs are the keys of the test clips at key step 2."""
    clips = {
        split: {c.clip: c.frames for c in catalog.clips.values() if c.split == split} for split in ("train", "test")
    }
    inputs = {clip: frames[::2] for clip, frames in clips["test"].items()}
    return {"train_list": clips["train"], "test_list": clips["test"], "test_input": inputs}


def digest(clips: dict[str, tuple[int, ...]]) -> str:
    lines = "".join(f"{clip}: {' '.join(map(str, frames))}\n" for clip, frames in sorted(clips.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def is_irregular(frames: tuple[int, ...]) -> bool:
    return len({later - earlier for earlier, later in itertools.pairwise(frames)}) > 1


@pytest.mark.parametrize("name", LISTS)
def test_lists_have_the_authors_clips_and_frames(lists, name):
    clips = lists[name]
    counts = (len(clips), sum(map(len, clips.values())), sum(map(is_irregular, clips.values())))
    assert (*counts, digest(clips)) == LISTS[name]


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the reference is not on this machine")
@pytest.mark.parametrize("name", LISTS)
def test_lists_equal_the_reference_frame_by_frame(catalog, lists, name):
    expected = {}
    with (REFERENCE / "clips.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] == name:
                runs = (row["irregular"] or f"{row['first_frame']}-{row['last_frame']}").split(";")
                ends = [tuple(map(int, (run + "-" + run).split("-")[:2])) for run in runs]
                expected[row["clip_id"]] = tuple(
                    frame for first, last in ends for frame in range(first, last + 1, int(row["step"]))
                )
                assert len(expected[row["clip_id"]]) == int(row["num_frames"])
    assert lists[name] == expected
    counts = json.loads((REFERENCE / "counts.json").read_text())[name]
    assert (len(expected), sum(map(len, expected.values())), sum(map(is_irregular, expected.values()))) == (
        counts["clips"],
        counts["frames"],
        counts["irregular"],
    )
    assert Counter(catalog.clips[clip].video for clip in lists[name]) == counts["videos"]


def test_sources_and_crops_are_the_authors(catalog):
    sources = {name: parse_source(video.source) for name, video in catalog.videos.items()}
    films = [name for name, source in sources.items() if source.scheme == "youtube"]
    folders = {name: source for name, source in sources.items() if source.scheme == "gdrive"}
    assert len(films) == 8
    assert {name: source.member for name, source in folders.items()} == dict.fromkeys(
        ("00_Dance", "01_Dance"), "val/test_img"
    )
    assert [catalog.videos[name].fps for name in films] == [30, 24, 24, 30, 30, 25, 50, 25]
    assert {catalog.videos[name].crop for name in films} == {Crop(100, 0, 1080, 720)}
    assert {catalog.videos[name].crop for name in folders} == {Crop(128, 0, 768, 512)}
    assert {(clip.width, clip.height) for clip in catalog.clips.values()} == {(768, 512)}


def test_the_optional_videos_are_a_batch_whose_clips_are_still_to_be_chosen():
    optional = read_catalog(ROOT, "humanslomo-optional", needs_clips=False)
    assert list(optional.videos) == [f"{n}_optional" for n in range(10, 17)]
    assert {parse_source(video.source).scheme for video in optional.videos.values()} == {"youtube"}
    with pytest.raises(CatalogError, match=r"clips.csv: has a header and no rows; .*catalog add humanslomo-optional"):
        read_catalog(ROOT, "humanslomo-optional")


def test_the_known_leak_is_found(catalog):
    counts = count_leaks(catalog, 2)
    assert (counts.num_leaked_between, counts.num_between) == (106, 353)
    assert (counts.num_leaked_keys, counts.num_keys) == (266, 381)
    assert str(counts) == (
        "106 of 353 in-between test frames and 266 of 381 test keys are also training frames (key step 2)"
    )
    leaks = {leak.clip: leak for leak in find_leaks(catalog)}
    assert sum(len(leak.frames) for leak in leaks.values()) == 106 + 266
    assert leaks["test_010"].train_clips == ("03_Boxing_119",)
    assert leaks["test_010"].frames == (2024, 2026, 2028, 2030, 2032, 2034, 2036)
    assert find_same_clips(catalog) == [("08_Kungfu_421", "08_Kungfu_426")]


def test_the_manifest_says_the_leak_and_what_hangs_on_a_missing_video(catalog):
    gone = ManifestRow("03_Boxing", "youtube:iUFjH-vfaL8", "", "skipped", "gone: [youtube] Video unavailable")
    said = describe_batch(catalog, Manifest((gone,)))
    assert said["leaks"]["key_steps"][0] == {
        "key_step": 2, "num_keys": 381, "num_leaked_keys": 266, "num_between": 353, "num_leaked_between": 106,
    }  # fmt: skip
    assert len(said["leaks"]["clips"]) == 28
    row = said["videos"]["03_Boxing"]
    assert row["reason"] == "gone: [youtube] Video unavailable"
    assert row["splits"]["test"] == {"clips": ["test_010", "test_011", "test_012"], "frames_share": round(71 / 734, 4)}
    assert len(row["splits"]["train"]["clips"]) == 11
    assert row["splits"]["train"]["frames_share"] == round(650 / 4492, 4)


def test_a_batch_without_a_leak_has_nothing_to_say():
    assert describe_batch(read_catalog(ROOT, "sample"), Manifest(())) == {}
