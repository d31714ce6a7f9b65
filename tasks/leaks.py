"""What of a test a renderer is trained on: frames that stand in a test clip and in a training clip of the same video.

Frames are compared by their numbers in one source, so two videos of the catalogue with one source count as one.
A key of a test is given to a renderer anyway, and may be trained on; a frame between keys is what it is measured by.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from tasks.catalog import Catalog


@dataclass(frozen=True)
class ClipLeak:
    """One test clip: how many of its keys and in-between frames are also training frames, and of which clips."""

    clip: str
    video: str
    num_keys: int
    num_leaked_keys: int
    num_between: int
    num_leaked_between: int
    leaked_between: tuple[int, ...]
    train_clips: tuple[str, ...]


@dataclass(frozen=True)
class LeakReport:
    """A batch at one key step; test clips in the order of their names, those without a leak left out of `clips`."""

    key_step: int
    num_keys: int
    num_leaked_keys: int
    num_between: int
    num_leaked_between: int
    clips: tuple[ClipLeak, ...]

    def describe(self) -> str:
        return (
            f"key step {self.key_step}: {self.num_leaked_between} of {self.num_between} in-between test frames"
            f" and {self.num_leaked_keys} of {self.num_keys} test keys are also training frames"
        )

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def find_leaks(catalog: Catalog, key_step: int, is_clean: bool = False) -> LeakReport:
    """Compare every test clip of a batch with its training clips.

    Args:
        key_step: every key_step-th row of a test clip is a key; rows after the last key are not rendered, and not counted.
        is_clean: compare with what the split "clean" keeps of the training clips.
    """
    trained = training_frames(catalog, is_clean=is_clean)
    found = []
    totals = [0, 0, 0, 0]
    for clip in catalog.clips.values():
        if clip.split != "test":
            continue
        source = catalog.videos[clip.video].source
        keys = clip.frames[::key_step]
        between = [frame for frame in clip.frames[: (len(keys) - 1) * key_step + 1] if frame not in set(keys)]
        leaked_keys = [frame for frame in keys if (source, frame) in trained]
        leaked = [frame for frame in between if (source, frame) in trained]
        for n, counted in enumerate((keys, leaked_keys, between, leaked)):
            totals[n] += len(counted)
        if leaked or leaked_keys:
            clips = sorted({name for frame in (*leaked_keys, *leaked) for name in trained[source, frame]})
            counts = (len(keys), len(leaked_keys), len(between), len(leaked))
            found.append(ClipLeak(clip.clip, clip.video, *counts, tuple(leaked), tuple(clips)))
    return LeakReport(key_step, *totals, tuple(found))


def training_frames(catalog: Catalog, *, is_clean: bool = False) -> dict[tuple[str, int], list[str]]:
    """(source, frame) -> the training clips that hold it."""
    trained: dict[tuple[str, int], list[str]] = {}
    for clip in catalog.clips.values():
        if clip.split != "train":
            continue
        source = catalog.videos[clip.video].source
        tested = frames_of_tests(catalog, source) if is_clean else frozenset()
        for frame in clip.frames:
            if frame not in tested:
                trained.setdefault((source, frame), []).append(clip.clip)
    return trained


def frames_of_tests(catalog: Catalog, source: str) -> frozenset[int]:
    """The frames of one source that any test clip shows."""
    return frozenset(
        frame
        for clip in catalog.clips.values()
        if clip.split == "test" and catalog.videos[clip.video].source == source
        for frame in clip.frames
    )


def same_clips(catalog: Catalog) -> list[tuple[str, str]]:
    """Pairs of clips of one split that hold exactly the same frames of one source."""
    first: dict[tuple[object, ...], str] = {}
    pairs = []
    for clip in catalog.clips.values():
        key = (clip.split, catalog.videos[clip.video].source, clip.frames)
        if key in first:
            pairs.append((first[key], clip.clip))
        first.setdefault(key, clip.clip)
    return pairs


def depends_on(catalog: Catalog, videos: Mapping[str, str] | Iterable[str]) -> dict[str, dict[str, object]]:
    """Video -> what of the batch hangs on it: its clips by split, and its share of each split's frames."""
    totals: dict[str, int] = {}
    for clip in catalog.clips.values():
        totals[clip.split] = totals.get(clip.split, 0) + len(clip.frames)
    found: dict[str, dict[str, object]] = {}
    for video in videos:
        splits: dict[str, dict[str, object]] = {}
        for split in sorted(totals):
            clips = [clip for clip in catalog.clips_of(video) if clip.split == split]
            if clips:
                num_frames = sum(len(clip.frames) for clip in clips)
                splits[split] = {
                    "clips": [clip.clip for clip in clips],
                    "num_frames": num_frames,
                    "share": round(num_frames / totals[split], 4),
                }
        found[video] = {"splits": splits}
    return found
