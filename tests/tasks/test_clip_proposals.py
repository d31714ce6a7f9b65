"""Proposing clips, by hand-made measurements: what tests/real/test_catalog_add.py does on real footage."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from tasks.catalog import parse_frames
from tasks.clip_proposals import (
    Proposal,
    choose_splits,
    describe_frames,
    drop_same,
    places_to_look,
    propose_clips,
)
from tasks.shots import Watched, find_repeated, fit_size


def watched(*shots: tuple[int, int], changed: float = 0.01, seed: int = 0, first_frame: int = 0) -> Watched:
    """A 10 fps video of these shots, each frame with a hash of its own."""
    num_frames = shots[-1][1] + 1
    rng = np.random.default_rng(seed)
    return Watched(
        frames_T=list(range(first_frame, first_frame + num_frames)),
        fps=Fraction(10),
        width=640,
        height=360,
        change_T=np.ones(num_frames),
        changed_share_T=np.full(num_frames, changed),
        is_repeated_T=np.zeros(num_frames, bool),
        shots=list(shots),
        hashes={n: rng.integers(0, 2, 256).astype(bool) for n in range(0, num_frames, 3)},
    )


def test_looks_are_at_the_ends_of_every_long_shot_and_every_half_second_between():
    assert places_to_look(watched((0, 20), (21, 25), (26, 35))) == [0, 5, 10, 15, 20, 26, 30, 35]


def test_a_clip_is_where_a_person_is_seen_and_something_moves():
    video = watched((0, 40), (41, 44), (45, 65), first_frame=1000)
    looks = dict.fromkeys(places_to_look(video), True)
    looks |= {0: False, 5: False, 20: False}  # 20 lies between two with a person
    clips, left_out = propose_clips("v", video, looks)
    assert [(clip.first, clip.last) for clip in clips] == [(10, 40), (45, 65)]
    assert clips[0].frames == tuple(range(1010, 1041))
    assert [(one.first, one.last, one.reason) for one in left_out] == [
        (1000, 1009, "no person in the frames looked at"),
        (1041, 1044, "too short (4 frames)"),
    ]

    clips, left_out = propose_clips("v", video, dict.fromkeys(looks, False))
    assert clips == []
    assert "no person in" in left_out[0].reason
    still = watched((0, 40), changed=0.0001)
    clips, left_out = propose_clips("v", still, dict.fromkeys(places_to_look(still), True))
    assert clips == []
    assert left_out[0].reason == "nothing moves (0.01% of the picture from frame to frame)"


def test_a_long_shot_is_cut_into_equal_parts():
    video = watched((0, 449))
    clips, _ = propose_clips("v", video, dict.fromkeys(places_to_look(video), True))
    assert [(clip.first, clip.last) for clip in clips] == [(0, 149), (150, 299), (300, 449)]


def test_of_clips_that_show_the_same_the_longest_stays():
    one, other = watched((0, 59)), watched((0, 29), seed=1)
    # The other video shows frames 9..38 of the first, four bits off in each hash.
    for n in range(0, 30, 3):
        bits = one.hashes[n + 9].copy()
        bits[:4] ^= True
        other.hashes[n] = bits
    videos = {"other": other, "one": one, "third": watched((0, 59), seed=2)}
    clips = [
        clip
        for name, seen in videos.items()
        for clip in propose_clips(name, seen, dict.fromkeys(places_to_look(seen), True))[0]
    ]
    kept, dropped = drop_same(clips, videos)
    assert [clip.video for clip in kept] == ["one", "third"]
    assert [(clip.video, same.video) for clip, same in dropped] == [("other", "one")]


def test_a_poor_copy_is_found_by_its_frames_being_in_step_and_the_larger_one_stays():
    """Of 256 bits 20 are off everywhere: too many for a likeness, if the copy's frames did not follow each other."""
    large, small = watched((0, 59)), watched((0, 47), seed=1)
    shuffled = watched((0, 47), seed=2)
    order = np.random.default_rng(0).permutation(16)
    for n in range(16):
        bits = large.hashes[3 * n + 9].copy()
        bits[:20] ^= True
        small.hashes[3 * n] = bits
        shuffled.hashes[3 * int(order[n])] = bits
    videos = {"small": small, "large": large, "shuffled": shuffled}
    clips = [Proposal(name, *seen.shots[0], ()) for name, seen in videos.items()]
    kept, dropped = drop_same(clips, videos)
    assert [clip.video for clip in kept] == ["large", "shuffled"]
    assert [(clip.video, same.video) for clip, same in dropped] == [("small", "large")]

    copy = replace(large, width=320, height=180)
    (clip,), _ = drop_same([Proposal(name, 0, 59, ()) for name in ("copy", "large")], {"copy": copy, "large": large})
    assert clip.video == "large"


def test_repeated_frames_are_found_among_those_that_move_and_not_in_a_still():
    change = np.full(40, 0.5)
    change[[5, 10, 15]] = 0.02  # every fifth frame twice
    change[20:] = 0.01  # the second shot stands still
    change[[0, 20]] = 0
    assert np.flatnonzero(find_repeated(change, np.zeros(40), [0, 20])).tolist() == [5, 10, 15]


def test_a_quiet_frame_of_a_light_that_flickers_is_no_repeated_one():
    change = np.full(20, 15.0)
    change[[0, 6, 8]] = (0, 1.4, 1.6)
    changed_share = np.full(20, 0.7)
    changed_share[[6, 8]] = (0.03, 0.0)
    assert np.flatnonzero(find_repeated(change, changed_share, [0])).tolist() == [8]


def test_repeated_frames_are_left_out_of_the_list():
    video = watched((0, 14))
    video.is_repeated_T[[4, 9]] = True
    (clip,), _ = propose_clips("v", video, dict.fromkeys(places_to_look(video), True))
    columns = describe_frames(clip.frames)
    assert columns == {"first": "", "last": "", "step": "", "frames": "0-3;5-8;10-14"}
    assert parse_frames(columns["frames"]) == clip.frames


@pytest.mark.parametrize(("frames", "first", "last", "step"), [((3, 4, 5), "3", "5", ""), ((0, 2, 4), "0", "4", "2")])
def test_regular_clips_have_first_last_and_step(frames, first, last, step):
    assert describe_frames(frames) == {"first": first, "last": last, "step": step, "frames": ""}


def test_every_fourth_clip_is_a_test_and_there_is_one_among_few():
    assert choose_splits([None] * 8) == ["train", "train", "train", "test"] * 2
    assert choose_splits([None] * 2) == ["train", "test"]
    assert choose_splits([None]) == ["train"]


def test_clip_sizes_fit():
    assert fit_size(640, 360, 768 * 512) == (640, 360)
    width, height = fit_size(1920, 1080, 768 * 512)
    assert width * height <= 768 * 512
    assert abs(width / height - 16 / 9) < 0.01
    assert width % 2 == height % 2 == 0
