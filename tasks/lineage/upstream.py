"""Upstream: what a thing was made from, back to videos, recordings, body models, given weights, code and params.

Item by item: a clip's render leads to that clip's table, pose and background alone; a checkpoint to the clips or
motions that its provenance names, whatever else its stage could have read.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from tasks.lineage.catalogues import describe_span
from tasks.lineage.contents import Content
from tasks.lineage.graph import (
    CATALOGUE,
    PROVENANCE,
    RAW_DATA,
    Artefact,
    Folder,
    Graph,
    State,
    batch_of,
    is_code,
)
from tasks.lineage.lock import Entry, FileRef

_NOTHING = ("no-model", "no-source")  # folders that stand for "none": DVC cannot make a dependency conditional
_YOUTUBE = "https://www.youtube.com/watch?v="
_PART = re.compile(r"\.\d+$")  # a recording longer than a file may be has rows NAME.1, NAME.2


class Wanted(NamedTuple):
    """What of an output is asked for: clips (batch, clip) and motions (numbers of the index). None = all."""

    clips: frozenset[tuple[str, str]] | None = None
    motions: frozenset[int] | None = None

    def joined(self, other: "Wanted") -> "Wanted":
        return Wanted(
            None if self.clips is None or other.clips is None else self.clips | other.clips,
            None if self.motions is None or other.motions is None else self.motions | other.motions,
        )


ALL = Wanted()


@dataclass
class ClipFacts:
    """frames: decode-order numbers as the catalogue has them."""

    clip: str
    frames: str
    split: str
    subject: str


@dataclass
class VideoFacts:
    """A source video.

    roles: "" = the thing's own pictures; otherwise the checkpoint that was trained on it.  licence: the catalogue's;
    source_licence: what the site said.  retrieved: when the bytes, and with them these words, were read.
    """

    batch: str
    video: str
    source: str | None = None
    url: str | None = None
    title: str | None = None
    uploader: str | None = None
    upload_date: str | None = None
    licence: str | None = None
    source_licence: str | None = None
    retrieved: str | None = None
    sha256: str | None = None
    status: str | None = None
    clips: list[ClipFacts] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)


@dataclass(slots=True)
class MotionFacts:
    """A recording of motion. file: the path and md5 of the raw file; None = it is not among this project's data."""

    subset: str
    subject: str
    sequence: str
    licence: str
    source_sha256: str
    file: str | None = None
    md5: str | None = None
    roles: list[str] = field(default_factory=list)


@dataclass
class RawFacts:
    """Other raw data: body models, given weights. kind: "weights", "body models" or "raw data"."""

    path: str
    md5: str
    kind: str
    num_files: int
    licences: list[str] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)


@dataclass
class StageFacts:
    """One stage's part in it. event: "ran", "restored" or "not recorded".  run: Prefect's id.

    params: file -> key -> value, seeds and tool versions included, which stand in `seeds` and `tools` again.
    """

    stage: str
    cmd: str
    outs: dict[str, str]
    roles: list[str]
    event: str
    user: str | None
    started: str | None
    finished: str | None
    rev: str | None
    is_dirty: bool | None
    run: str | None
    platform: dict[str, str] | None
    seeds: dict[str, Any]
    tools: dict[str, Any]
    params: dict[str, dict[str, Any]]


@dataclass
class Upstream:
    """The answer.

    code: path -> md5 of every code file that a stage of it ran.  open: what could not be told.  is_complete: no source
    is missing for it.  frame: of a frame, its row: original or generated, from which keys.
    """

    thing: str
    revision: str
    videos: list[VideoFacts]
    motions: list[MotionFacts]
    raw: list[RawFacts]
    stages: list[StageFacts]
    code: dict[str, list[str]]
    open: list[str]
    is_complete: bool = True
    frame: dict[str, Any] | None = None


class Walk:
    """One walk from things to their sources; collects as it goes."""

    def __init__(self, graph: Graph, state: State, *, is_brief: bool = False) -> None:
        """Args: is_brief: the sources alone, without what each was used for, its file, and who ran what; the motions by
        motion_ids alone.
        """
        self._is_brief = is_brief
        self.graph, self.index, self.state = graph, graph.index, state
        self.open: dict[str, None] = dict.fromkeys([*state.index.notes, *state.notes])
        self._seen: dict[tuple[int, str], Wanted] = {}
        self._videos: dict[tuple[str, str], VideoFacts] = {}
        self._clips: dict[tuple[str, str, str], ClipFacts] = {}
        self._motions: list[tuple[Iterable[int], str, tuple[str, Mapping[str, str]] | None]] = []
        self._sets: dict[str, frozenset[int]] = {}
        self._raw: dict[tuple[str, str], RawFacts] = {}
        self._entries: dict[int, list[str]] = {}
        self._code: dict[str, dict[str, None]] = {}
        self._gaps = bool(state.notes)
        self._told: dict[str, list[tuple[dict[str, dict[str, str]], dict[str, dict[str, Any]]]]] = {}

    def answer(self, thing: str) -> Upstream:
        for (batch, name), video in self._videos.items():
            for rows, manifest in self._told.get(batch, []):
                _fill(video, rows.get(name, {}), manifest.get(name, {}))
        entries = self.index.entries(self._entries)
        runs = {} if self._is_brief else self.graph.runs_of(entries.values())
        stages = []
        for id_, entry in sorted(() if self._is_brief else entries.items(), key=lambda pair: pair[1].stage):
            run = runs.get(entry.stage)
            params = entry.params()
            stages.append(
                StageFacts(
                    stage=entry.stage,
                    cmd=entry.cmd,
                    outs={out.path: out.md5 for out in entry.outs},
                    roles=sorted(self._entries[id_]),
                    event=run.event if run else "not recorded",
                    user=run.user if run else None,
                    started=run.started if run else None,
                    finished=run.finished if run else None,
                    rev=run.rev if run else None,
                    is_dirty=run.is_dirty if run else None,
                    run=run.run if run else None,
                    platform=run.platform if run else None,
                    seeds=dict(find_seeds(params)),
                    tools=tools_of(params),
                    params=params,
                )
            )
        if silent := sorted(stage.stage for stage in stages if stage.event == "not recorded"):
            self.note(f"{_some(silent)}: no line in lineage/runs.jsonl, so who ran it and when is not known")
        return Upstream(
            thing=thing,
            revision=self.state.revision.name,
            videos=[self._videos[key] for key in sorted(self._videos)],
            motions=[] if self._is_brief else self._motion_facts(),
            raw=[self._raw[key] for key in sorted(self._raw)],
            stages=stages,
            code={path: list(md5s) for path, md5s in sorted(self._code.items())},
            open=list(self.open),
            is_complete=not self._gaps,
        )

    def note(self, line: str, *, is_gap: bool = False) -> None:
        """Args: is_gap: a source may be missing for it."""
        self.open[line] = None
        self._gaps = self._gaps or is_gap

    def visit(self, id_: int, wanted: Wanted = ALL, role: str = "") -> None:
        """A stage's part: `wanted` of what it made."""
        role = "" if self._is_brief else role
        seen = self._seen.get((id_, role))
        joined = wanted if seen is None else seen.joined(wanted)
        if joined == seen:
            return
        self._seen[id_, role] = joined
        entry = self.graph.entry(id_)
        _add(self._entries.setdefault(id_, []), role)
        own = self._own(entry, joined)
        for dep in entry.deps:
            if is_code(dep.path):
                self._code.setdefault(dep.path, {})[dep.md5] = None
            elif not dep.path.startswith(CATALOGUE):
                artefacts, problem = self.graph.artefacts(self.state, dep)
                if problem:
                    self.note(f"{entry.stage}: {problem}", is_gap=True)
                for artefact in artefacts:
                    self._follow(entry, artefact, own, role)
        if any(dep.path.startswith(CATALOGUE) for dep in entry.deps):
            self._catalogue(entry, joined, role)

    def start(self, artefact: Artefact, wanted: Wanted = ALL) -> None:
        """Walk from an artefact as the thing itself."""
        if artefact.entry is None:
            self._take_raw(artefact, wanted, "", None)
            return
        entry = self.graph.entry(artefact.entry)
        folder = self.graph.folder(artefact.out, batch_of(entry))
        if folder and folder.provenance and artefact.out.path.startswith("data/"):
            self.visit(artefact.entry, self._trained_on(artefact, ""), "")
        else:
            self.visit(artefact.entry, wanted)

    def _own(self, entry: Entry, wanted: Wanted) -> Wanted:
        """What of a stage's inputs its wanted outputs need: theirs where they are clip by clip, else everything."""
        clips: set[tuple[str, str]] | None = None
        motions: set[int] | None = None
        for out in entry.outs:
            folder = self.graph.folder(out, batch_of(entry)) if out.md5.endswith(".dir") else None
            if folder is None:
                continue
            if folder.clips:
                clips = (clips or set()) | set(folder.clips)
            for ids in folder.motions.values():
                motions = motions or set()
                motions.update(ids)
            if folder.by_name:
                self.note(
                    f"{out.path}: {len(folder.by_name)} tables are in no place to be read; they are taken for the clips"
                    " that they are named after"
                )
            if folder.provenance:
                return wanted
        return Wanted(
            None if clips is None else frozenset(clips if wanted.clips is None else clips & wanted.clips),
            None if motions is None else frozenset(motions if wanted.motions is None else motions & wanted.motions),
        )

    def _follow(self, reader: Entry, artefact: Artefact, own: Wanted, role: str) -> None:
        if artefact.entry is None:
            self._take_raw(artefact, own, role, reader)
            return
        maker = self.graph.entry(artefact.entry)
        folder = self.graph.folder(artefact.out, batch_of(maker)) if artefact.out.md5.endswith(".dir") else None
        if folder is None:
            if artefact.out.path.startswith("data/"):
                self.note(
                    f"{artefact.out.path} with md5 {artefact.out.md5[:8]}: the list of its files is in no place"
                    " (`dvc fetch` may bring it): taken whole"
                )
            self.visit(artefact.entry, own if _is_videos(artefact.out.path) else ALL, role)
        elif folder.provenance:
            self.visit(artefact.entry, self._trained_on(artefact, artefact.out.path), artefact.out.path)
        elif folder.motions:
            self._follow_motions(reader, artefact, folder, own, role)
        else:
            self.visit(artefact.entry, own, role)

    def _follow_motions(self, reader: Entry, artefact: Artefact, folder: Folder, own: Wanted, role: str) -> None:
        if artefact.out.md5 not in self._sets:
            self._sets[artefact.out.md5] = frozenset(chain.from_iterable(folder.motions.values()))
        held = self._sets[artefact.out.md5]
        if own.motions is None and reader.stage == "evaluate_motion" and _split_of(reader, artefact) == "train":
            return  # it reads the training side for the rows' mean alone
        chosen = held if own.motions is None else held & own.motions
        if chosen:
            self.visit(artefact.entry or 0, Wanted(None, chosen), role)

    def _trained_on(self, artefact: Artefact, role: str) -> Wanted:
        """What a checkpoint was trained on, by its provenance; what its start was trained on is taken in at once."""
        member, content = self.graph.provenance(artefact.out.md5)
        if member is None or content is None or content.kind != "checkpoint":
            self.note(
                f"{artefact.out.path}: its {PROVENANCE} is in no place to be read: all that its stage could read is"
                " given"
            )
            return ALL
        clips = frozenset((row.get("batch", ""), row.get("clip", "")) for row in content.facts.get("clips", []))
        if member.md5 not in self._sets:
            self._sets[member.md5] = frozenset(self.index.sequence_ids(member.md5))
        motions = self._sets[member.md5]
        start_ids = self.index.sequence_ids(member.md5, start=True)
        if start_ids:
            start = content.facts.get("start") or {}
            self._take_motions(start_ids, f"{start.get('folder', 'start')}", None)
        return Wanted(clips if "clips" in content.facts else frozenset(), motions)

    def _take_raw(self, artefact: Artefact, own: Wanted, role: str, reader: Entry | None) -> None:
        path = "/".join(filter(None, [artefact.out.path, artefact.below]))
        if PurePosixPath(path).name in _NOTHING:
            return
        if self._is_brief and own.motions is not None and "/amass" in path:
            self._take_motions(own.motions, role, None)
            return
        files = self.index.files_below(artefact.out.md5, artefact.below)
        if files is None:
            self.note(f"{path}: the list of its files is in no place (`dvc fetch` may bring it)", is_gap=True)
            files = {}
        is_motions = any(name.endswith((".npz", ".parquet")) for name in files) and "body_models" not in path
        if is_motions and reader is not None and own.motions is not None:
            self._take_motions(own.motions, role, (path, files))
            return
        member, content = self.graph.provenance(artefact.out.md5, artefact.below)
        kind = "weights" if content or path.endswith((".pth", ".pt", ".safetensors")) else "raw data"
        kind = "body models" if "body_models" in path else kind
        row = self._raw.setdefault((path, artefact.out.md5), RawFacts(path, artefact.out.md5, kind, len(files)))
        _add(row.roles, role)
        row.licences = self.state.licences_of(path)
        if member and content:
            row.licences = licences_of(content) or row.licences
            self._take_motions(self.index.sequence_ids(member.md5), path, None)

    def _take_motions(self, ids: Iterable[int], role: str, place: tuple[str, Mapping[str, str]] | None) -> None:
        """Args: place: the folder where their files may be, and its files."""
        self._motions.append((ids, role, place))

    def motion_ids(self) -> frozenset[int]:
        """All motions that were met, by their numbers in the index."""
        return frozenset().union(*(ids for ids, _, _ in self._motions))

    def _motion_facts(self) -> list[MotionFacts]:
        """In the order of their names. There may be a hundred thousand: those of the same use share its words."""
        numbers = sorted(self.motion_ids())  # mostly the order of names, which spares the sorting below
        rows = dict(zip(numbers, self.index.sequence_rows(numbers), strict=True))
        roles: dict[str, set[int]] = {}
        files: dict[int, tuple[str, str]] = {}
        for ids, role, place in self._motions:
            roles.setdefault(role, set()).update(ids)
            if place is None:
                continue
            folder, names = place
            for id_ in ids:
                _, subject, sequence, _, _ = rows[id_]
                if id_ not in files and (found := _file_of(subject, sequence, names)):
                    files[id_] = (f"{folder}/{found}", names[found])
        only = tuple(roles) if len(roles) == 1 else ()
        words: dict[tuple[str, ...], list[str]] = {}
        facts = []
        for id_, row in sorted(rows.items(), key=itemgetter(1)):
            own = only or tuple(role for role, held in roles.items() if id_ in held)
            file, md5 = files.get(id_, (None, None))
            facts.append(MotionFacts(*row, file, md5, words.setdefault(own, list(own))))
        return facts

    def _catalogue(self, entry: Entry, wanted: Wanted, role: str) -> None:
        """A stage that reads a catalogue: its clips with their spans, its videos with what is known of them."""
        read = {dep.path.rpartition("/")[2]: dep for dep in entry.deps if dep.path.startswith(CATALOGUE)}
        batch = batch_of(entry) or next(iter(read.values())).path.split("/")[1]
        if clips := read.get("clips.csv"):
            held = self._own(entry, wanted).clips
            for row in self._catalogue_rows(clips):
                if held is None or (batch, row.get("clip", "")) in held:
                    facts = ClipFacts(row["clip"], describe_span(row), row.get("split", ""), row.get("subject", ""))
                    video = self._video(batch, row.get("video", ""), role)
                    if (batch, row["clip"], row.get("video", "")) not in self._clips:
                        self._clips[batch, row["clip"], row.get("video", "")] = facts
                        video.clips.append(facts)
        if videos := read.get("videos.csv"):
            rows = {row.get("video", ""): row for row in self._catalogue_rows(videos)}
            manifest = self._manifest(entry)
            if "clips.csv" not in read and wanted == ALL:
                for name in rows:
                    self._video(batch, name, role)
            self._told.setdefault(batch, []).append((rows, manifest))

    def _catalogue_rows(self, dep: FileRef) -> list[dict[str, str]]:
        """The catalogue's rows as the stage read them, in whatever revision they stand."""
        catalogue = self.index.catalogue(md5=dep.md5)
        if catalogue is None:
            self.note(
                f"{dep.path} with md5 {dep.md5[:8]} was read, and no revision holds it: its rows stay open", is_gap=True
            )
            return []
        return catalogue.rows

    def _manifest(self, entry: Entry) -> dict[str, dict[str, Any]]:
        """Video -> its row of the manifest, where this stage wrote one."""
        for out in entry.outs:
            members = self.index.members(out.md5)
            if members is None and _is_videos(out.path):
                self.note(
                    f"{out.path}: the list of its files is in no place: hashes and dates of its videos stay open",
                    is_gap=True,
                )
            for member in members or []:
                if member.name == "manifest.json":
                    content = self.index.content(member.md5)
                    if content is None or content.kind != "manifest":
                        self.note(
                            f"{out.path}/manifest.json is in no place to be read: hashes and dates stay open",
                            is_gap=True,
                        )
                        return {}
                    return {str(row.get("video")): row for row in content.facts["rows"]}
        return {}

    def _video(self, batch: str, name: str, role: str) -> VideoFacts:
        row = self._videos.setdefault((batch, name), VideoFacts(batch, name))
        _add(row.roles, role)
        return row

    def want_video(self, batch: str, name: str) -> None:
        """A video as the thing itself."""
        self._video(batch, name, "")


def _fill(video: VideoFacts, row: dict[str, str], manifest: dict[str, Any]) -> None:
    video.source = video.source or row.get("source") or manifest.get("source")
    video.licence = video.licence or row.get("licence") or manifest.get("licence")
    video.url = video.url or (url_of(video.source) if video.source else None)
    for name in ("title", "uploader", "upload_date", "source_licence", "retrieved", "sha256", "status"):
        if getattr(video, name) is None:
            setattr(video, name, manifest.get(name))
    video.sha256 = video.sha256 or row.get("sha256") or None


def url_of(source: str) -> str:
    """Where a person finds a source: a link, or what the catalogue says."""
    kind, _, rest = source.partition(":")
    return _YOUTUBE + rest if kind == "youtube" else source


def find_seeds(params: object, path: str = "") -> Iterable[tuple[str, Any]]:
    """Every parameter that is a seed, by its path."""
    if isinstance(params, dict):
        for key, value in params.items():
            where = f"{path}.{key}" if path else str(key)
            if "seed" in str(key).lower() and not isinstance(value, dict):
                yield where.partition(".yaml.")[2] or where, value
            else:
                yield from find_seeds(value, where)


def tools_of(params: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Tool -> version, as the stage's params hold them."""
    return dict(params.get("tools.yaml", {}))


def licences_of(content: Content) -> list[str]:
    """What a provenance says of its licences."""
    own = [content.facts["licence"]] if content.facts.get("licence") else []
    return sorted({str(licence) for licence in [*content.facts.get("licences", []), *own]})


def _file_of(subject: str, sequence: str, files: Mapping[str, str]) -> str:
    """The raw file of a motion, "" = it is not there. A subject is DATASET/SUBJECT, the folder may be the dataset's."""
    name = f"{subject}/{sequence}.npz"
    if name in files:
        return name
    short = f"{subject}/{_PART.sub('', sequence)}.npz"
    return next((n for n in (short, name.partition("/")[2], short.partition("/")[2]) if n in files), "")


def _split_of(reader: Entry, artefact: Artefact) -> str:
    """The side that a mocap subset stands on, by the reader's params."""
    subset = PurePosixPath(artefact.out.path).name
    for values in reader.params().values():
        mocap = values.get("mocap")
        if isinstance(mocap, dict) and subset in mocap:
            return str(mocap[subset].get("split", ""))
    return ""


def _is_videos(path: str) -> bool:
    return path.endswith("/videos") and not path.startswith(RAW_DATA)


def _add(roles: list[str], role: str) -> None:
    if role not in roles:
        roles.append(role)


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more stages" if names[4:] else "")
