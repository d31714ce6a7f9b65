"""What a name means: a path, stage, clip, video, motion, subject, checkpoint, metric or frame of a revision."""

import difflib
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

from tasks.lineage.errors import LineageError
from tasks.lineage.graph import Artefact, Graph, State, batch_of
from tasks.lineage.joining import is_inside
from tasks.lineage.lock import FileRef
from tasks.lineage.upstream import url_of

KINDS = ("stage", "path", "checkpoint", "metric", "video", "clip", "motion", "subject", "frame", "code")
_MODELS = "data/models/"
_FRAME = re.compile(r"(.+):(\d+)")
_HASH = re.compile(r"[0-9a-f]{6,64}(\.dir)?")
_MAX_LISTED = 12


class Thing(NamedTuple):
    """What a name was found to mean.

    kind: one of KINDS.  name: as a person writes it without doubt.  artefacts: of a path, stage, checkpoint or metric.
    batch, clip, video: of a clip or video.  motions: numbers of the index, of a motion or subject.  frame: its number.
    key: of a metric, inside its file.
    """

    kind: str
    name: str
    artefacts: tuple[Artefact, ...] = ()
    batch: str = ""
    clips: tuple[str, ...] = ()
    video: str = ""
    motions: tuple[int, ...] = ()
    frame: int | None = None
    key: str = ""

    @property
    def label(self) -> str:
        return f"{self.kind} {self.name}"


def find_thing(graph: Graph, state: State, name: str) -> Thing:
    """The one thing that a name means.

    Args: name: may start with its kind, `clip:sample/kick_front`, where it means several things without.
    Raises: LineageError that lists them where there are several, or offers the nearest names where there is none.
    """
    kind, _, rest = name.partition(":")
    wanted, text = (kind, rest) if kind in KINDS and rest else ("", name)
    text = text.removeprefix("./").rstrip("/") or text
    found = list(dict.fromkeys(thing for thing in _meanings(graph, state, text) if wanted in ("", thing.kind)))
    # A stage with one output, and that output, are one thing.
    found = [thing for n, thing in enumerate(found) if not any(thing.artefacts == t.artefacts != () for t in found[:n])]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(f"{thing.kind}:{thing.name}" for thing in found[:_MAX_LISTED])
        more = f" and {len(found) - _MAX_LISTED} more" if found[_MAX_LISTED:] else ""
        raise LineageError(f"{name}: means {len(found)} things at {state.revision.name}; write one of {listed}{more}")
    near = _nearest(graph, state, text)
    offered = f"; the nearest names are {', '.join(near)}" if near else ""
    unread = f"; {'; '.join(state.notes)}" if state.notes else ""
    raise LineageError(f"{name}: nothing at {state.revision.name} has this name{offered}{unread}")


def _meanings(graph: Graph, state: State, text: str) -> Iterator[Thing]:
    yield from _stages(state, text)
    yield from _paths(graph, state, text)
    yield from _catalogued(state, text)
    yield from _motions(graph, text)
    if match := _FRAME.fullmatch(text):
        for thing in _meanings(graph, state, match[1]):
            if thing.kind == "clip" or (thing.kind == "path" and match[1].endswith(".parquet")):
                yield thing._replace(kind="frame", name=f"{thing.name}:{match[2]}", frame=int(match[2]))
    elif ":" in text and "/" in text:
        path, _, key = text.partition(":")
        for thing in _paths(graph, state, path):
            if thing.kind == "metric":
                yield thing._replace(name=text, key=key)
    if _HASH.fullmatch(text):
        yield from _hashes(graph, state, text)


def _stages(state: State, text: str) -> Iterator[Thing]:
    names = [text] if text in state.entries else [name for name in state.entries if name.partition("@")[0] == text]
    for name in names:
        outs = state.entries[name].outs
        yield Thing("stage", name, tuple(Artefact(out, state.ids[name]) for out in outs))


def _paths(graph: Graph, state: State, text: str) -> Iterator[Thing]:
    for path in (text, f"{_MODELS}{text}"):
        if path in state.outs:
            stage, out = state.outs[path]
            yield Thing(_kind_of(path), path, (Artefact(out, state.ids[stage]),))
            return
    for path, (stage, out) in state.outs.items():
        if text.startswith(f"{path}/"):
            yield from _file_in(graph, state, Artefact(out, state.ids[stage], text[len(path) + 1 :]), text)
            return
    inside = [(path, found) for path, found in state.outs.items() if path.startswith(f"{text}/")]
    for path, (stage, out) in inside:
        yield Thing(_kind_of(path), path, (Artefact(out, state.ids[stage]),))
    for out in state.raw:
        if is_inside(text, out.path):
            below = text[len(out.path) + 1 :]
            members = graph.index.members_below(out.md5, below) if below else []
            if not below or members is None or any(is_inside(member.name, below) for member in members):
                has_provenance = graph.provenance(out.md5, below)[0] is not None
                yield Thing("checkpoint" if has_provenance else "path", text, (Artefact(out, None, below),))
    is_data = inside or any(is_inside(text, out.path) for out in state.raw)
    if not is_data and any(dep.path == text for entry in state.entries.values() for dep in entry.deps):
        yield Thing("code", text)


def _kind_of(path: str) -> str:
    if path.startswith(_MODELS):
        return "checkpoint"
    return "metric" if path.startswith("metrics/") and path.endswith(".json") else "path"


def _file_in(graph: Graph, state: State, part: Artefact, text: str) -> Iterator[Thing]:
    members = graph.index.members(part.out.md5)
    if members is None:
        if part.out.path.startswith("data/"):
            raise LineageError(
                f"{text}: the list of {part.out.path}'s files is in no place to be read; `dvc fetch {part.out.path}`"
            )
        yield Thing(_kind_of(text), text, (part,))
        return
    if not any(is_inside(member.name, part.below) for member in members):
        return
    assert part.entry is not None
    folder = graph.folder(part.out, batch_of(graph.entries[part.entry]))
    clips = [
        clip for clip, files in (folder.clips if folder else {}).items() if any(f.name == part.below for f in files)
    ]
    motions = tuple((folder.motions if folder else {}).get(part.below, ()))
    batch, clip = clips[0] if clips else ("", "")
    yield Thing("path", text, (part,), batch=batch, clips=(clip,) if clip else (), motions=motions)


def _catalogued(state: State, text: str) -> Iterator[Thing]:
    wanted_batch, _, name = text.rpartition("/")
    for batch, tables in state.catalogues.items():
        if wanted_batch in ("", batch):
            clips = {row.get("clip", ""): row.get("video", "") for row in tables["clips"]}
            if name in clips:
                yield Thing("clip", f"{batch}/{name}", batch=batch, clips=(name,), video=clips[name])
        for row in tables["videos"]:
            video, source = row.get("video", ""), row.get("source", "")
            names = {source, url_of(source), source.removeprefix("youtube:")}
            if text in names or (name == video and wanted_batch in ("", batch)):
                own = tuple(r.get("clip", "") for r in tables["clips"] if r.get("video") == video)
                yield Thing("video", f"{batch}/{video}", batch=batch, clips=own, video=video)
        for subject in {row.get("subject", "") for row in tables["clips"]} - {""}:
            if text in (subject, f"{batch}/{subject}"):
                own = tuple(r.get("clip", "") for r in tables["clips"] if r.get("subject") == subject)
                yield Thing("subject", f"{batch}/{subject}", batch=batch, clips=own)


def _motions(graph: Graph, text: str) -> Iterator[Thing]:
    index = graph.index
    subset, _, rest = text.partition("/")
    subject, _, sequence = rest.rpartition("/")
    tries = [{"sequence": text}, {"subset": subset, "subject": subject, "sequence": sequence}]
    before, _, last = text.rpartition("/")
    tries.append({"subject": before, "sequence": last})
    named: dict[str, list[int]] = {}
    for where in tries:
        if all(where.values()):
            for id_, row in index.find_sequences(where):
                named.setdefault(f"{row.subset}/{row.subject}/{row.sequence}", []).append(id_)
    for name, ids in named.items():
        yield Thing("motion", name, motions=tuple(ids))
    subjects: dict[str, list[int]] = {}
    for where in ({"subject": text}, {"subset": subset, "subject": rest}):
        if all(where.values()):
            for id_, row in index.find_sequences(where):
                subjects.setdefault(f"{row.subset}/{row.subject}", []).append(id_)
    for name, ids in subjects.items():
        yield Thing("subject", name, motions=tuple(ids))


def _hashes(graph: Graph, state: State, text: str) -> Iterator[Thing]:
    for path, (stage, out) in state.outs.items():
        if out.md5.startswith(text):
            yield Thing(_kind_of(path), path, (Artefact(out, state.ids[stage]),))
    for (path, md5), ids in graph.makers.items():
        if md5.startswith(text) and state.outs.get(path, ("", FileRef("", "")))[1].md5 != md5:
            yield Thing(_kind_of(path), path, (Artefact(FileRef(path, md5), ids[-1]),))


def _nearest(graph: Graph, state: State, text: str) -> list[str]:
    names = dict.fromkeys([*state.entries, *state.outs])
    for out in state.outs:
        names[PurePosixPath(out).name] = None
    for batch, tables in state.catalogues.items():
        for kind in ("clips", "videos"):
            for row in tables[kind]:
                names[row.get(kind[:-1], "")] = None
                names[f"{batch}/{row.get(kind[:-1], '')}"] = None
    near = difflib.get_close_matches(text, [name for name in names if name], n=5, cutoff=0.6)
    if len(near) < 5:
        near += difflib.get_close_matches(text, graph.index.names_like(text), n=5 - len(near), cutoff=0.6)
    return near
