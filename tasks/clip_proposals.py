"""Clips proposed from what was seen in videos: shots with a person in motion, each once.

A proposal is a span of one shot. Positions count a video's frames in order; frames are their numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tasks.shots import Watched

LOOK_EVERY_S = 0.5  # frames looked at for a person
MIN_CLIP_S, MAX_CLIP_S = 0.7, 20.0
MIN_CLIP_FRAMES = 9
MIN_CHANGED_SHARE = 0.001  # of the picture, from frame to frame, mean over a clip; less is a still
# Clips are the same where most frames of the shorter have a likeness in the other: of 256 bits, a copy encoded again
# differs in 2, and where a camera stands still so does another second of a small person in 8.
MAX_SAME_BITS, MIN_SAME_SHARE = 5, 0.8
# A poorer copy (smaller, dimmer, noisy, other rates, a logo, 3 % cropped) differs in 4 to 30, so that bits alone do not
# tell it from another clip of one camera. But its frames' nearest stand at the same distances in time: 0.85 or more of
# them, where of another clip of the same film it is 0.6 at most, from so many hashes on.
MAX_COPY_BITS, MIN_COPY_HASHES = 32, 12
TEST_EVERY = 4  # clips, of which the last is proposed as a test


@dataclass(frozen=True)
class Proposal:
    """first, last: positions, both included. frames: the numbers kept, without repeated ones."""

    video: str
    first: int
    last: int
    frames: tuple[int, ...]


@dataclass(frozen=True)
class LeftOut:
    """first, last: frame numbers. reason: for a person."""

    video: str
    first: int
    last: int
    reason: str


def places_to_look(watched: Watched) -> list[int]:
    """Positions to look for a person at: the ends of every shot that is long enough, and every half second between."""
    wanted: set[int] = set()
    for first, last in watched.shots:
        if _is_long(watched, first, last):
            num_looks = max(2, round((last - first) / float(watched.fps) / LOOK_EVERY_S) + 1)
            wanted |= {int(place) for place in np.linspace(first, last, num_looks)}
    return sorted(wanted)


def propose_clips(video: str, watched: Watched, seen: dict[int, bool]) -> tuple[list[Proposal], list[LeftOut]]:
    """The clips of one video. seen: position -> whether a person is to be seen there, of places_to_look."""
    clips: list[Proposal] = []
    left_out: list[LeftOut] = []

    def leave_out(first: int, last: int, reason: str) -> None:
        left_out.append(LeftOut(video, watched.frames_T[first], watched.frames_T[last], reason))

    for first, last in watched.shots:
        if not _is_long(watched, first, last):
            leave_out(first, last, f"too short ({last - first + 1} frames)")
            continue
        looks = {place: seen[place] for place in sorted(seen) if first <= place <= last}
        runs = _runs_with_person(looks)
        if not runs:
            leave_out(first, last, f"no person in {len(looks)} frames looked at")
            continue
        ends = [first - 1, *(end for _, end in runs)]
        for end, start in zip(ends, [*(start for start, _ in runs), last + 1], strict=True):
            if start > end + 1:
                leave_out(end + 1, start - 1, "no person in the frames looked at")
        for start, end in runs:
            if not _is_long(watched, start, end):
                leave_out(start, end, "a person for too short a time")
                continue
            moved = float(watched.changed_share_T[start + 1 : end + 1].mean())
            if moved < MIN_CHANGED_SHARE:
                leave_out(start, end, f"nothing moves ({moved:.2%} of the picture from frame to frame)")
                continue
            clips += [_cut(video, watched, *part) for part in _parts(watched, start, end)]
    return clips, left_out


def _is_long(watched: Watched, first: int, last: int) -> bool:
    num_frames = last - first + 1
    return num_frames >= max(MIN_CLIP_FRAMES, MIN_CLIP_S * float(watched.fps))


def _runs_with_person(looks: dict[int, bool]) -> list[tuple[int, int]]:
    """(first, last) positions of runs of looks with a person; one without, between two with, does not end a run."""
    places, is_seen = list(looks), list(looks.values())
    for n in range(1, len(is_seen) - 1):
        is_seen[n] = is_seen[n] or (looks[places[n - 1]] and looks[places[n + 1]])
    runs: list[tuple[int, int]] = []
    start: int | None = None
    for n, here in enumerate(is_seen):
        if here and start is None:
            start = places[n]
        if start is not None and (not here or n == len(is_seen) - 1):
            runs.append((start, places[n] if here else places[n - 1]))
            start = None
    return runs


def _parts(watched: Watched, first: int, last: int) -> list[tuple[int, int]]:
    """A span in equal parts of at most MAX_CLIP_S."""
    num_frames = last - first + 1
    num_parts = int(np.ceil(num_frames / (MAX_CLIP_S * float(watched.fps))))
    bounds = [first + num_frames * part // num_parts for part in range(num_parts + 1)]
    return [(start, end - 1) for start, end in pairwise(bounds)]


def _cut(video: str, watched: Watched, first: int, last: int) -> Proposal:
    kept = [place for place in range(first, last + 1) if place == first or not watched.is_repeated_T[place]]
    return Proposal(video, first, last, tuple(watched.frames_T[place] for place in kept))


def drop_same(
    clips: Sequence[Proposal], watched: dict[str, Watched]
) -> tuple[list[Proposal], list[tuple[Proposal, Proposal]]]:
    """Keep one of clips that show the same: the longest, of those the largest, else the first.

    Also (left out, kept) for each that goes.
    """
    kept: list[Proposal] = []
    dropped: list[tuple[Proposal, Proposal]] = []

    def by_worth(clip: Proposal) -> tuple[int, int]:
        return clip.first - clip.last, -watched[clip.video].width * watched[clip.video].height

    for clip in sorted(clips, key=by_worth):
        hashes = _hashes(clip, watched[clip.video])
        same = next((other for other in kept if _are_same(hashes, _hashes(other, watched[other.video]))), None)
        if same is None:
            kept.append(clip)
        else:
            dropped.append((clip, same))
    order = {id(clip): n for n, clip in enumerate(clips)}
    return sorted(kept, key=lambda clip: order[id(clip)]), dropped


@dataclass(frozen=True, eq=False)
class _Hashed:
    """times_N: s.  bits_NB: a hash of each."""

    times_N: npt.NDArray[np.float64]
    bits_NB: npt.NDArray[np.bool_]


def _hashes(clip: Proposal, watched: Watched) -> _Hashed:
    places = [place for place in watched.hashes if clip.first <= place <= clip.last]
    times_N = np.array(places) / float(watched.fps)
    return _Hashed(times_N, np.array([watched.hashes[place] for place in places]))


def _are_same(shorter: _Hashed, longer: _Hashed) -> bool:
    num_bits_SL = np.array([(longer.bits_NB != bits).sum(axis=1) for bits in shorter.bits_NB])
    nearest_S = num_bits_SL.min(axis=1)
    if np.mean(nearest_S <= MAX_SAME_BITS) >= MIN_SAME_SHARE:
        return True
    if len(nearest_S) < MIN_COPY_HASHES:
        return False
    shifts_S = longer.times_N[num_bits_SL.argmin(axis=1)] - shorter.times_N
    tolerance_s = 1.5 * max(each.times_N[1] - each.times_N[0] for each in (shorter, longer))
    is_in_step_SS = np.abs(shifts_S[:, None] - shifts_S) <= tolerance_s
    in_step_S = is_in_step_SS[is_in_step_SS.sum(axis=1).argmax()]
    return bool(in_step_S.mean() >= MIN_SAME_SHARE and np.median(nearest_S[in_step_S]) <= MAX_COPY_BITS)


def choose_splits(clips: Sequence[Proposal]) -> list[str]:
    """A split for each clip: every fourth is a test; of a few, the last one."""
    splits = ["test" if n % TEST_EVERY == TEST_EVERY - 1 else "train" for n in range(len(clips))]
    if "test" not in splits and len(clips) > 1:
        splits[-1] = "test"
    return splits


def describe_frames(frames: Sequence[int]) -> dict[str, str]:
    """Columns of clips.csv: first, last and step of a regular clip, else `frames`, a list of spans."""
    steps = {later - earlier for earlier, later in pairwise(frames)}
    if len(steps) == 1:
        (step,) = steps
        return {"first": str(frames[0]), "last": str(frames[-1]), "step": str(step) if step > 1 else "", "frames": ""}
    spans: list[list[int]] = []
    for frame in frames:
        if spans and frame == spans[-1][1] + 1:
            spans[-1][1] = frame
        else:
            spans.append([frame, frame])
    text = ";".join(f"{first}-{last}" if last > first else str(first) for first, last in spans)
    return {"first": "", "last": "", "step": "", "frames": text}
