"""Leaks: what stands in both the training and the test of a model, or in both splits of a catalogue."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tasks.leaks import count_leaks
from tasks.leaks import find_leaks as find_clip_leaks
from tasks.lineage.catalogues import frames_of
from tasks.lineage.graph import State
from tasks.lineage.index import Index
from tasks.lineage.upstream import Upstream

PUBLISHED_KEY_STEP = 2  # of a test list that says nothing else: every other frame is a key


@dataclass
class Leak:
    """Something in both.

    where: a checkpoint, or "catalogue BATCH".  kind: in-between frames, key frames, frames after the last key, clip,
    video, subject, motion or motion subject.  what: its name; of frames, the video's.  number: how many.  frames: their
    numbers in the video.
    """

    where: str
    kind: str
    what: str
    number: int = 1
    frames: list[int] = field(default_factory=list)


@dataclass
class Leaks:
    """The answer. num_frames: by where, of test frames: (in-betweens in training, of how many; keys, of how many)."""

    revision: str
    leaks: list[Leak]
    num_frames: dict[str, tuple[int, int, int, int]]
    open: list[str]


class Shot(NamedTuple):
    """A clip of one side. video: what it is cut from, one name for one film.  key_step: every such row is a key."""

    clip: str
    video: str
    subject: str
    frames: list[int]
    key_step: int


class SharedFrames(NamedTuple):
    """Test frames that are training frames as well, by video. rest: after a test's last key: never rendered."""

    keys: dict[str, list[int]]
    inbetweens: dict[str, list[int]]
    rest: dict[str, list[int]]


class FrameCounts(NamedTuple):
    """Test frames that are training frames as well, of all test frames."""

    num_leaked_between: int
    num_between: int
    num_leaked_keys: int
    num_keys: int


class _Film(NamedTuple):
    source: str


class _Clip(NamedTuple):
    clip: str
    video: str
    split: str
    frames: Sequence[int]


class _Sides(NamedTuple):
    """Two sets of clips in the form of a catalogue, for tasks/leaks.py."""

    videos: dict[str, _Film]
    clips: dict[str, _Clip]


def _sides(train: Iterable[Shot], test: Iterable[Shot]) -> _Sides:
    sides = [("train", shot) for shot in train] + [("test", shot) for shot in test]
    clips = {f"{side} {shot.clip}": _Clip(shot.clip, shot.video, side, shot.frames) for side, shot in sides}
    return _Sides({shot.video: _Film(shot.video) for _, shot in sides}, clips)


def find_shared_frames(train: Sequence[Shot], test: Iterable[Shot]) -> SharedFrames:
    """Frames of the same video on both sides."""
    sources = {shot.video for shot in train}
    near = {shot.clip: shot for shot in test if shot.video in sources}
    found = SharedFrames({}, {}, {})
    for leak in find_clip_leaks(_sides(train, near.values())):
        shot = near[leak.clip]
        last_row = (len(shot.frames) - 1) // shot.key_step * shot.key_step
        rows = {frame: row for row, frame in enumerate(shot.frames)}
        for frame in leak.frames:
            row = rows[frame]
            kind = found.keys if row % shot.key_step == 0 else found.inbetweens if row < last_row else found.rest
            kind.setdefault(shot.video, []).append(frame)
    return SharedFrames(*({video: sorted(set(frames)) for video, frames in sorted(kind.items())} for kind in found))


def count_shared_frames(train: Sequence[Shot], test: Iterable[Shot]) -> FrameCounts:
    by_step: dict[int, list[Shot]] = {}
    for shot in test:
        by_step.setdefault(shot.key_step, []).append(shot)
    counts = [count_leaks(_sides(train, shots), step) for step, shots in by_step.items()]
    return FrameCounts(*(sum(getattr(count, name) for count in counts) for name in FrameCounts._fields))


def compare_sides(
    where: str, train: list[Shot], test: list[Shot], total: FrameCounts
) -> tuple[list[Leak], tuple[int, int, int, int]]:
    """Every leak between two sets of clips, and the counts of Leaks.num_frames. total: of the test alone."""
    shared = find_shared_frames(train, test)
    leaks = []
    for kind, videos in (
        ("in-between frames", shared.inbetweens),
        ("key frames", shared.keys),
        ("frames after the last key", shared.rest),
    ):
        leaks += [Leak(where, kind, video, len(frames), frames) for video, frames in videos.items()]
    for kind, name in (("clip", "clip"), ("video", "video"), ("subject", "subject")):
        both = {getattr(s, name) for s in train} & {getattr(s, name) for s in test} - {""}
        leaks += [Leak(where, kind, what) for what in sorted(both)]
    near = [shot for shot in test if shot.video in shared.keys or shot.video in shared.inbetweens]
    found = count_shared_frames(train, near)
    return leaks, (found.num_leaked_between, total.num_between, found.num_leaked_keys, total.num_keys)


def find_leaks(state: State, models: Mapping[str, tuple[Upstream, Iterable[int]]]) -> Leaks:
    """The leaks of every catalogue, and of every model between what it was trained on and all that is tested on.

    Args: models: checkpoint -> what it was made from, and its recordings by their numbers in the index.
    """
    shots = _shots(state)
    used = {path.split("/")[1] for path in state.outs if path.endswith("/clips")}
    leaks: list[Leak] = []
    counts = {}
    for batch, rows in shots.items():
        train = [shot for split, shot in rows.values() if split == "train"]
        test = [shot for split, shot in rows.values() if split == "test"]
        found, counts[f"catalogue {batch}"] = compare_sides(
            f"catalogue {batch}", train, test, count_shared_frames([], test)
        )
        leaks += found
    tested = [shot for batch in sorted(used) for split, shot in shots.get(batch, {}).values() if split == "test"]
    total = count_shared_frames([], tested)
    tested_motions = _tested_motions(state)
    open_: dict[str, None] = {}
    for path, (upstream, motions) in models.items():
        open_ |= dict.fromkeys(upstream.open)
        trained = [
            shots[video.batch][clip.clip][1]
            for video in upstream.videos
            for clip in video.clips
            if clip.clip in shots.get(video.batch, {})
        ]
        if trained:
            found, counts[path] = compare_sides(path, trained, tested, total)
            leaks += found
        leaks += _motion_leaks(state.index, path, motions, tested_motions)
    return Leaks(state.revision.name, leaks, counts, list(open_))


def _shots(state: State) -> dict[str, dict[str, tuple[str, Shot]]]:
    """Batch -> clip -> (split, clip), of every catalogue."""
    found: dict[str, dict[str, tuple[str, Shot]]] = {}
    for batch, tables in state.catalogues.items():
        sources = {row.get("video", ""): row.get("source", "") for row in tables["videos"]}
        steps = [
            step
            for entry in state.entries.values()
            if entry.stage == f"pose@{batch}"
            for values in entry.params().values()
            for step in (values.get(f"batches.{batch}") or {}).get("key_steps", [])
        ]
        key_step = min(steps, default=PUBLISHED_KEY_STEP)
        for row in tables["clips"]:
            try:
                frames = frames_of(row)
            except ValueError:
                state.notes.append(
                    f"{state.revision.name}: catalog/{batch}/clips.csv: {row.get('clip')}: its frames cannot be read"
                )
                continue
            video = sources.get(row.get("video", "")) or f"{batch}/{row.get('video')}"
            shot = Shot(f"{batch}/{row.get('clip')}", video, row.get("subject", ""), frames, key_step)
            found.setdefault(batch, {})[row.get("clip", "")] = (row.get("split", ""), shot)
    return found


def _tested_motions(state: State) -> frozenset[int]:
    """The motions of the subsets that stand on the test side."""
    splits: dict[str, str] = {}
    for entry in state.entries.values():
        if "mocap:" not in entry.params_text:  # spares the reading of all the others
            continue
        for values in entry.params().values():
            mocap = values.get("mocap")
            if isinstance(mocap, dict):
                splits |= {name: str(facts.get("split")) for name, facts in mocap.items() if isinstance(facts, dict)}
    found: set[int] = set()
    for path, (_, out) in state.outs.items():
        if path.startswith("data/views/") and splits.get(path.split("/")[2]) == "test":
            for member in state.index.members(out.md5) or []:
                found.update(state.index.sequence_ids(member.md5))
    return frozenset(found)


def _motion_leaks(index: Index, where: str, train: Iterable[int], test: frozenset[int]) -> list[Leak]:
    trained = sorted(train)
    if not (trained and test):
        return []
    both = index.sequences(index.motions.shared(trained, test))
    leaks = [Leak(where, "motion", f"{motion.subject}/{motion.sequence}") for motion in both]
    subjects = index.motions.subjects_of(trained) & index.motions.subjects_of(test)
    return leaks + [Leak(where, "motion subject", subject) for subject in sorted(subjects)]
