"""Leaks: what stands in both the training and the test of a model, or in both splits of a catalogue."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tasks.lineage.catalogues import frames_of
from tasks.lineage.graph import State
from tasks.lineage.index import Index
from tasks.lineage.upstream import Upstream

PUBLISHED_KEY_STEP = 2  # of a test list that says nothing else: every other frame is a key


@dataclass
class Leak:
    """Something in both.

    where: a checkpoint, or "catalogue BATCH".  kind: frames, in-between frames, clip, video, subject, motion or motion
    subject.  what: its name; of frames, the video's.  number: how many.  frames: their numbers in the video.
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
    """A clip of one side. video: what it is cut from, the same name for the same film."""

    clip: str
    video: str
    subject: str
    frames: list[int]
    key_step: int


class SharedFrames(NamedTuple):
    """Test frames that are training frames as well, by video. num_keys, num_inbetweens: of the test in all."""

    keys: dict[str, list[int]]
    inbetweens: dict[str, list[int]]
    num_keys: int
    num_inbetweens: int


class FramesByVideo:
    """The test side's frames by video; the keys, every key_step-th of a clip, apart from those between."""

    def __init__(self, test: Iterable[Shot]) -> None:
        self.keys: dict[str, set[int]] = {}
        self.inbetweens: dict[str, set[int]] = {}
        for shot in test:
            keys = set(shot.frames[:: shot.key_step])
            self.keys.setdefault(shot.video, set()).update(keys)
            self.inbetweens.setdefault(shot.video, set()).update(set(shot.frames) - keys)
        self.num_keys = sum(map(len, self.keys.values()))
        self.num_inbetweens = sum(map(len, self.inbetweens.values()))

    def shared_with(self, train: Iterable[Shot]) -> SharedFrames:
        trained: dict[str, set[int]] = {}
        for shot in train:
            if shot.video in self.keys:
                trained.setdefault(shot.video, set()).update(shot.frames)
        keys, inbetweens = (
            {video: sorted(found) for video in sorted(trained) if (found := side[video] & trained[video])}
            for side in (self.keys, self.inbetweens)
        )
        return SharedFrames(keys, inbetweens, self.num_keys, self.num_inbetweens)


def find_shared_frames(train: Iterable[Shot], test: Iterable[Shot]) -> SharedFrames:
    """Frames of the same video on both sides."""
    return FramesByVideo(test).shared_with(train)


def compare_sides(
    where: str, train: list[Shot], test: list[Shot], frames: FramesByVideo
) -> tuple[list[Leak], tuple[int, int, int, int]]:
    """Every leak between two sets of clips, and the counts of Leaks.num_frames. frames: of the test."""
    shared = frames.shared_with(train)
    leaks = [Leak(where, "in-between frames", v, len(frames), frames) for v, frames in shared.inbetweens.items()]
    leaks += [Leak(where, "key frames", v, len(frames), frames) for v, frames in shared.keys.items()]
    for kind, name in (("clip", "clip"), ("video", "video"), ("subject", "subject")):
        both = {getattr(s, name) for s in train} & {getattr(s, name) for s in test} - {""}
        leaks += [Leak(where, kind, what) for what in sorted(both)]
    between, keys = sum(map(len, shared.inbetweens.values())), sum(map(len, shared.keys.values()))
    counts = (between, shared.num_inbetweens, keys, shared.num_keys)
    return leaks, counts


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
        found, counts[f"catalogue {batch}"] = compare_sides(f"catalogue {batch}", train, test, FramesByVideo(test))
        leaks += found
    tested = [shot for batch in sorted(used) for split, shot in shots.get(batch, {}).values() if split == "test"]
    frames = FramesByVideo(tested)
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
            found, counts[path] = compare_sides(path, trained, tested, frames)
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
