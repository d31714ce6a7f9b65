"""What of a test a renderer is trained on: frames that stand in a test clip and in a training clip of the same video.

Frames are compared by their numbers in one source, so two videos of the catalogue with one source count as one.
A key of a test is given to a renderer anyway, and may be trained on; a frame between keys is what it is measured by.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


class Film(Protocol):
    @property
    def source(self) -> str: ...


class Clip(Protocol):
    @property
    def clip(self) -> str: ...
    @property
    def video(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def frames(self) -> Sequence[int]: ...


class Clips(Protocol):
    """A batch's catalogue (tasks.catalog.Catalog), or what lineage compares: a network's clips and those of tests."""

    @property
    def videos(self) -> Mapping[str, Film]: ...
    @property
    def clips(self) -> Mapping[str, Clip]: ...


@dataclass(frozen=True)
class ClipLeak:
    """A test clip's frames that are also training frames, and the training clips that hold them."""

    clip: str
    video: str
    frames: tuple[int, ...]
    train_clips: tuple[str, ...]


@dataclass(frozen=True)
class LeakCounts:
    """A batch's test frames at one key step: keys and in-between frames, and how many of them are training frames."""

    key_step: int
    num_keys: int
    num_leaked_keys: int
    num_between: int
    num_leaked_between: int

    def __str__(self) -> str:
        return (
            f"{self.num_leaked_between} of {self.num_between} in-between test frames and {self.num_leaked_keys} of"
            f" {self.num_keys} test keys are also training frames (key step {self.key_step})"
        )


def find_leaks(catalog: Clips) -> list[ClipLeak]:
    """The test clips that share frames with training clips, in the order of their names."""
    trained = _training_frames(catalog)
    found = []
    for clip in catalog.clips.values():
        source = catalog.videos[clip.video].source
        frames = tuple(frame for frame in clip.frames if clip.split == "test" and (source, frame) in trained)
        if frames:
            clips = {name for frame in frames for name in trained[source, frame]}
            found.append(ClipLeak(clip.clip, clip.video, frames, tuple(sorted(clips))))
    return found


def count_leaks(catalog: Clips, key_step: int) -> LeakCounts:
    """Every key_step-th row of a test clip is a key; rows after the last key are not rendered, and not counted."""
    trained = _training_frames(catalog)
    num_keys = num_leaked_keys = num_between = num_leaked_between = 0
    for clip in catalog.clips.values():
        if clip.split != "test":
            continue
        source = catalog.videos[clip.video].source
        last_row = (len(clip.frames) - 1) // key_step * key_step
        for row, frame in enumerate(clip.frames[: last_row + 1]):
            is_leaked = (source, frame) in trained
            if row % key_step:
                num_between += 1
                num_leaked_between += is_leaked
            else:
                num_keys += 1
                num_leaked_keys += is_leaked
    return LeakCounts(key_step, num_keys, num_leaked_keys, num_between, num_leaked_between)


def _training_frames(catalog: Clips) -> dict[tuple[str, int], list[str]]:
    """(source, frame) -> the training clips that hold it."""
    trained: dict[tuple[str, int], list[str]] = {}
    for clip in catalog.clips.values():
        if clip.split == "train":
            for frame in clip.frames:
                trained.setdefault((catalog.videos[clip.video].source, frame), []).append(clip.clip)
    return trained


def find_same_clips(catalog: Clips) -> list[tuple[str, str]]:
    """Pairs of clips of one split that hold exactly the same frames of one source."""
    first: dict[tuple[object, ...], str] = {}
    pairs = []
    for clip in catalog.clips.values():
        key = (clip.split, catalog.videos[clip.video].source, tuple(clip.frames))
        if key in first:
            pairs.append((first[key], clip.clip))
        first.setdefault(key, clip.clip)
    return pairs
