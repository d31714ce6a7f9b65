"""Everything of one revision at once: each source, clip and output, what it was made from and what was made from it.

The questions answer for one thing. This takes one step of the walk of `upstream` from every stage and follows the steps
for each thing; that its answers are those of `upstream`, `downstream` and `licences` is what its tests hold.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tasks.lineage.coverage import Coverage, find_gaps
from tasks.lineage.graph import RAW_DATA, Artefact, Folder, Graph, State, batch_of
from tasks.lineage.joining import is_made
from tasks.lineage.licences import NO, OWN_DATA, OWN_LICENCE, UNKNOWN, Licences, judge_sources
from tasks.lineage.lineage import Lineage
from tasks.lineage.lock import Entry, FileRef
from tasks.lineage.upstream import ALL, ClipFacts, MotionFacts, RawFacts, StageFacts, Upstream, VideoFacts, Walk, Wanted

VIDEO, CLIP, SUBJECT = "video", "clip", "subject"
RAW, DATASET, CHECKPOINT, RENDER, METRIC, REPORT = "raw data", "dataset", "checkpoint", "render", "metric", "report"
KINDS = (VIDEO, CLIP, SUBJECT, RAW, DATASET, CHECKPOINT, RENDER, METRIC, REPORT)
WITHDRAWN, STALE, NON_COMMERCIAL, NOT_KNOWN, GAP = "withdrawn", "stale", "non-commercial", "licence unknown", "gap"
MARKS = (WITHDRAWN, STALE, NON_COMMERCIAL, NOT_KNOWN, GAP)
PICTURES, MOTION = "pictures", "motion"

Marked = Mapping[tuple[str, str], Mapping[str, str]]


class File(NamedTuple):
    """One file of an item. stage: the number of the thing that holds it."""

    stage: int
    path: str
    md5: str


@dataclass
class Thing:
    """A source, a clip, or what one stage made.

    key: its stage, or what `inbetween lineage upstream` calls it.  of: VIDEO, CLIP or SUBJECT where its items are
    things of their own.  batch: or mocap subset; "" = none, or several.  chain: PICTURES, MOTION or "".
    parent: number of the thing that it is an item of, -1 = none.  facts: upstream's answer about it.
    marks: of MARKS -> why, a line each.
    up: numbers of what it was made from, by the checkpoint through which (-1 = by itself).  down: of what was made from
    it.  Its parent, which holds it, stands in neither.
    """

    kind: str
    key: str
    name: str
    of: str = ""
    batch: str = ""
    chain: str = ""
    parent: int = -1
    facts: VideoFacts | ClipFacts | RawFacts | StageFacts | None = None
    recordings: list[MotionFacts] = field(default_factory=list)
    outs: tuple[FileRef, ...] = ()
    files: list[File] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    marks: dict[str, list[str]] = field(default_factory=dict)
    licences: Licences | None = None
    up: dict[int, frozenset[int]] = field(default_factory=dict)
    down: frozenset[int] = frozenset()

    @property
    def ask(self) -> str:
        """What to ask `inbetween lineage` for: of a checkpoint its folder, as its stage writes metrics beside it."""
        return self.outs[0].path if self.kind == CHECKPOINT else self.key


class Asked(NamedTuple):
    """What of an output is meant: the numbers of clips and of subjects. None = all."""

    clips: frozenset[int] | None = None
    subjects: frozenset[int] | None = None

    def joined(self, other: "Asked") -> "Asked":
        return Asked(_join(self.clips, other.clips), _join(self.subjects, other.subjects))

    def met(self, other: "Asked") -> "Asked":
        return Asked(_meet(self.clips, other.clips), _meet(self.subjects, other.subjects))


class Edge(NamedTuple):
    """What a stage reads, or weights were trained on.

    asked: what of it.  None = it is read, and nothing of it is in what is made.  by_item: an item of the reader is made
    from the same item of the source.
    """

    source: int
    reader: int
    asked: Asked | None
    by_item: bool = False


@dataclass
class Overview:
    """things: sources, then stages in the order of dvc.lock, then items.  cuts: a video -> its clips.
    holds: an output -> its items.  coverage, open: as the questions give them.
    """

    revision: str
    commit: str
    things: list[Thing]
    edges: list[Edge]
    cuts: dict[int, list[int]]
    holds: dict[int, set[int]]
    coverage: Coverage
    open: list[str]

    def find(self, key: str) -> int:
        """The number of a thing. Raises: KeyError."""
        for number, thing in enumerate(self.things):
            if thing.key == key:
                return number
        raise KeyError(key)


def look_over(
    lineage: Lineage,
    rev: str | None = None,
    *,
    due: Mapping[str, list[str]] | None = None,
    withdrawn: Marked | None = None,
) -> Overview:
    """The whole of one revision.

    Args:
        rev: a tag, branch or commit; None = the work tree.
        due: stage -> why it is due, a line each.
        withdrawn: (batch, video) -> its row of withdrawn.csv.
    Raises: LineageError where there is no such revision.
    """
    state = lineage.state(rev)
    trace = _Trace(lineage.graph, state)
    trace.take_all_steps()
    answer = trace.answer("everything")
    found = _Things(lineage.graph, state, trace, answer, withdrawn or {})
    edges = _Edges(found, trace, answer)
    for number in range(len(found.things)):
        edges.follow(number)
    coverage = find_gaps(lineage.graph, state, answer, trace.motion_ids())
    _judge(found.things, answer, {found.stages[id_]: lines for id_, lines in trace.gaps.items()}, bool(state.notes))
    _mark(found.things, coverage, due or {}, withdrawn or {})
    commit = state.revision.id
    if rev is None:
        commit = (lineage.git.ask("rev-parse", "--verify", "-q", "HEAD") or "").strip()
    return Overview(
        state.revision.name, commit, found.things, edges.all, found.cuts, found.holds, coverage, answer.open
    )


class _Step(NamedTuple):
    """Entries, and what of the maker's outputs the walk would ask for."""

    reader: int
    maker: int
    wanted: Wanted


class _Trace(Walk):
    """The walk, one step from each stage: where it would go on is noted. A source's roles are its readers."""

    def __init__(self, graph: Graph, state: State) -> None:
        super().__init__(graph, state)
        self.steps: list[_Step] = []
        self.gaps: dict[int, list[str]] = {}  # entry -> why a source of it may be missing
        self.trained: dict[int, Wanted] = {}  # entry of a checkpoint -> what it was trained on
        self._at: int | None = None
        self._is_inside = False
        self._known: dict[tuple[str, str], Wanted] = {}

    def take_all_steps(self) -> None:
        done: set[int] = set()
        waiting = list(self.state.ids.values())
        while waiting:  # a lock edited by hand may lead to entries of other revisions
            id_ = waiting.pop(0)
            if id_ not in done:
                done.add(id_)
                first = len(self.steps)
                self._take_step(id_)
                waiting += [step.maker for step in self.steps[first:]]
        self.done = done

    def _take_step(self, id_: int) -> None:
        entry = self.graph.entries[id_]
        self._at, self._is_inside = id_, False
        models = [out for out in entry.outs if _is_checkpoint(self.graph, entry, out)]
        out = next(iter([*models, *entry.outs]), FileRef("", ""))
        self.start(Artefact(out, id_))

    def visit(self, id_: int, wanted: Wanted = ALL, role: str = "") -> None:
        assert self._at is not None
        if self._is_inside:
            self.steps.append(_Step(self._at, id_, wanted))
            return
        self._is_inside = True
        entry = self.graph.entries[id_]
        if any(_is_checkpoint(self.graph, entry, out) for out in entry.outs):
            self.trained[id_] = wanted
        super().visit(id_, wanted, entry.stage)

    def _trained_on(self, artefact: Artefact, role: str) -> Wanted:
        """Once a checkpoint: a hundred renders may be made with one of a hundred thousand recordings."""
        key = (artefact.out.path, artefact.out.md5)
        if key not in self._known:
            self._known[key] = super()._trained_on(artefact, role)
        return self._known[key]

    def note(self, line: str, *, is_gap: bool = False) -> None:
        super().note(line, is_gap=is_gap)
        if is_gap and self._at is not None:
            self.gaps.setdefault(self._at, []).append(line)


def _is_checkpoint(graph: Graph, entry: Entry, out: FileRef) -> bool:
    folder = graph.folder(out, batch_of(entry)) if out.md5.endswith(".dir") else None
    return bool(folder and folder.provenance and out.path.startswith("data/"))


class _Things:
    """All that there is, by number."""

    def __init__(self, graph: Graph, state: State, trace: _Trace, answer: Upstream, withdrawn: Marked) -> None:
        self.graph, self.index, self.state, self.withdrawn = graph, graph.index, state, withdrawn
        self.things: list[Thing] = []
        self.by_key: dict[str, int] = {}
        self.stages: dict[int, int] = {}  # entry -> number
        self.cuts: dict[int, list[int]] = {}
        self.holds: dict[int, set[int]] = {}
        self.video_of: dict[int, int] = {}
        self._subject_of: dict[int, int] = {}  # a motion's number in the index -> number
        self._subjects_of: dict[frozenset[int], frozenset[int]] = {}
        self._add_sources(answer)
        self._add_stages(trace.done, answer)
        self._add_items(answer)

    def _add(self, thing: Thing) -> int:
        number = self.by_key[thing.key] = len(self.things)
        self.things.append(thing)
        return number

    def _add_sources(self, answer: Upstream) -> None:
        """Raw data, and recordings by their subset and subject."""
        for raw in answer.raw:
            self._add(Thing(RAW, raw.path, raw.path.removeprefix(RAW_DATA).partition("/")[2] or raw.path, facts=raw))
        subsets: dict[str, dict[str, list[MotionFacts]]] = {}
        for motion in answer.motions:
            subsets.setdefault(motion.subset, {}).setdefault(motion.subject, []).append(motion)
        for subset, subjects in subsets.items():
            group = self._add(Thing(RAW, f"recordings:{subset}", subset, SUBJECT, subset, MOTION))
            for subject, motions in subjects.items():
                key = f"subject:{subset}/{subject}"
                self._add(Thing(SUBJECT, key, subject, "", subset, MOTION, group, recordings=motions))
                self.things[group].recordings += motions

    def _add_stages(self, ids: Iterable[int], answer: Upstream) -> None:
        facts = {(stage.stage, tuple(stage.outs.items())): stage for stage in answer.stages}
        order = {id_: number for number, id_ in enumerate(self.state.ids.values())}
        for id_ in sorted(ids, key=lambda id_: order.get(id_, len(order))):
            entry = self.graph.entries[id_]
            thing = _describe(entry)
            thing.facts = facts[entry.stage, tuple((out.path, out.md5) for out in entry.outs)]
            # One of another revision has the name of this one's.
            thing.key = entry.stage if entry.stage not in self.by_key else f"{entry.stage} {entry.outs[0].md5}"
            self.stages[id_] = self._add(thing)

    def _add_items(self, answer: Upstream) -> None:
        for video in answer.videos:
            number = self._video(video.batch, video.video, video)
            for clip in video.clips:
                self._clip(video.batch, clip.clip, number, clip)
        for batch, name in self.withdrawn:
            if f"data/{batch}/videos" in self.state.outs:
                self._video(batch, name)
        for id_, number in self.stages.items():
            entry = self.graph.entries[id_]
            for out in entry.outs:
                folder = self.graph.folder(out, batch_of(entry)) if out.md5.endswith(".dir") else None
                if folder:
                    self._hold(number, out, folder)

    def _made(self, path: str) -> int:
        return self.stages[self.state.ids[self.state.outs[path][0]]] if path in self.state.outs else -1

    def _video(self, batch: str, name: str, facts: VideoFacts | None = None) -> int:
        key = f"video:{batch}/{name}"
        if key in self.by_key:
            return self.by_key[key]
        row = self.withdrawn.get((batch, name), {})
        told = VideoFacts(batch, name, row.get("source"), licence=row.get("licence"), sha256=row.get("sha256") or None)
        parent = self._made(f"data/{batch}/videos")
        number = self._add(Thing(VIDEO, key, name, "", batch, PICTURES, parent, facts or told))
        out = self.things[parent].outs[0] if parent >= 0 else FileRef("", "")
        self.things[number].files = [
            File(parent, f"{out.path}/{member.name}", member.md5)
            for member in (self.index.members(out.md5) if parent >= 0 else None) or []
            if member.name.rpartition(".")[0] == name
        ]
        return number

    def _clip(self, batch: str, name: str, video: int = -1, facts: ClipFacts | None = None) -> int:
        key = f"clip:{batch}/{name}"
        if key not in self.by_key:
            parent = self._made(f"data/{batch}/clips")
            number = self._add(Thing(CLIP, key, name, "", batch, PICTURES, parent, facts))
            if video >= 0:
                self.cuts.setdefault(video, []).append(number)
                self.video_of[number] = video
        return self.by_key[key]

    def _hint(self, batch: str, clip: str, video: str) -> int:
        """A clip that the catalogue may have no more, by what a table or checkpoint says of it."""
        known = f"clip:{batch}/{clip}" in self.by_key or not video
        return self._clip(batch, clip, -1 if known else self._video(batch, video))

    def _hold(self, number: int, out: FileRef, folder: Folder) -> None:
        if folder.provenance:
            content = self.index.content(folder.provenance.md5)
            for row in content.facts.get("clips", []) if content else []:
                self._hint(row.get("batch", ""), row.get("clip", ""), row.get("video", ""))
            return
        for (batch, clip), members in folder.clips.items():
            content = None if f"clip:{batch}/{clip}" in self.by_key else self.index.content(members[0].md5)
            item = self._hint(batch, clip, content.facts.get("video", "") if content else "")
            self.things[item].files += [File(number, f"{out.path}/{m.name}", m.md5) for m in members]
            self.holds.setdefault(number, set()).add(item)
        for ids in folder.motions.values():
            self.holds.setdefault(number, set()).update(self.subjects(ids))

    def subjects(self, ids: Iterable[int]) -> frozenset[int]:
        """Of motions, by their numbers in the index. A recording that no raw data has any more is left out."""
        wanted = list(ids)
        if new := [id_ for id_ in wanted if id_ not in self._subject_of]:
            for id_, row in zip(new, self.index.sequences(new), strict=True):
                self._subject_of[id_] = self.by_key.get(f"subject:{row.subset}/{row.subject}", -1)
        return frozenset({self._subject_of[id_] for id_ in wanted} - {-1})

    def asked(self, wanted: Wanted) -> Asked:
        clips = subjects = None
        if wanted.clips is not None:
            keys = (f"clip:{batch}/{clip}" for batch, clip in wanted.clips)
            clips = frozenset(self.by_key[key] for key in keys if key in self.by_key)
        if wanted.motions is not None:
            if wanted.motions not in self._subjects_of:
                self._subjects_of[wanted.motions] = self.subjects(wanted.motions)
            subjects = self._subjects_of[wanted.motions]
        return Asked(clips, subjects)


def _describe(entry: Entry) -> Thing:
    """What a stage made, by the folder that it stands in."""
    path = next((out.path for out in entry.outs if out.path.startswith("data/")), None)
    path = path or (entry.outs[0].path if entry.outs else entry.stage)
    head, _, rest = path.removeprefix("data/").partition("/")
    item = entry.stage.partition("@")[2] or rest or head
    batch = batch_of(entry)
    chain = PICTURES if batch else ""
    match head:
        case "models":
            thing = Thing(CHECKPOINT, "", rest, batch=batch, chain=chain)
        case "renders":
            thing = Thing(RENDER, "", rest, batch=batch, chain=chain)
        case "evaluations" | "evaluations-motion" | "metrics":
            thing = Thing(METRIC, "", item if head == "evaluations" else rest or "motion", batch=batch, chain=chain)
        case "report":
            thing = Thing(REPORT, "", "report")
        case "joints" | "views":
            thing = Thing(DATASET, "", f"{head} {rest}", batch=rest, chain=MOTION)
        case "samples":
            thing = Thing(DATASET, "", f"samples {rest}", batch=batch, chain=PICTURES)
        case _:
            of = {"videos": VIDEO, "clips": CLIP}.get(rest, "")
            name = f"{head} {rest}" if rest else head
            chain = PICTURES if rest else ""
            thing = Thing(DATASET, "", name, of, head if rest else "", chain)
    thing.outs = entry.outs
    return thing


class _Edges:
    """What was made from what, and the paths along it."""

    def __init__(self, found: _Things, trace: _Trace, answer: Upstream) -> None:
        self.found, self.things, self.holds = found, found.things, found.holds
        self.all: list[Edge] = []
        self.into: dict[int, list[Edge]] = {}
        self.out_of: dict[int, list[Edge]] = {}
        self.trained: dict[int, set[int]] = {}  # a checkpoint's number, given weights' too -> items
        self.items: dict[int, set[int]] = {}
        for number, thing in enumerate(self.things):
            if thing.parent >= 0:
                self.items.setdefault(thing.parent, set()).add(number)
        for id_, wanted in trace.trained.items():
            asked = found.asked(wanted)
            self.trained[found.stages[id_]] = set((asked.clips or frozenset()) | (asked.subjects or frozenset()))
        self._join_stages(trace)
        self._join_sources(answer)
        self.holders: dict[int, list[int]] = {}  # item -> what holds it or was trained on it
        self._touched_from: dict[frozenset[int], frozenset[int]] = {}
        for number, items in [*self.holds.items(), *self.trained.items()]:
            for item in items:
                self.holders.setdefault(item, []).append(number)
        self.order = self._sort()
        self._spread_chains()

    def _join_stages(self, trace: _Trace) -> None:
        stages, joined = self.found.stages, set()
        for step in trace.steps:
            maker, reader = stages[step.maker], stages[step.reader]
            joined.add((maker, reader))
            by_item = bool(self.holds.get(reader)) and not {maker, reader} & self.trained.keys()
            self._connect(Edge(maker, reader, self.found.asked(step.wanted), by_item))
        for id_, reader in stages.items():
            for dep in trace.graph.entries[id_].deps:
                parts = trace.graph.artefacts(trace.state, dep)[0] if is_made(dep.path) else []
                for maker in {stages[part.entry] for part in parts if part.entry in stages}:
                    if (maker, reader) not in joined:
                        joined.add((maker, reader))
                        self._connect(Edge(maker, reader, None))

    def _join_sources(self, answer: Upstream) -> None:
        """Raw data to the stages that read it; recordings also to the weights that were trained on them."""
        by_key = self.found.by_key
        for raw in answer.raw:
            for role in raw.roles:
                self._connect(Edge(by_key[raw.path], by_key[role], Asked()))
        readers: dict[tuple[int, str], set[int]] = {}
        for number, thing in enumerate(self.things):
            for role in {role for motion in thing.recordings for role in motion.roles} if thing.parent >= 0 else ():
                readers.setdefault((thing.parent, role), set()).add(number)
        for (group, role), items in readers.items():
            reader = by_key.get(role, -1)
            if reader >= 0:
                if self.things[reader].kind == RAW:
                    self.trained.setdefault(reader, set()).update(items)
                by_item = reader in self.holds and reader not in self.trained
                self._connect(Edge(group, reader, Asked(frozenset(), frozenset(items)), by_item))

    def _connect(self, edge: Edge) -> None:
        self.all.append(edge)
        self.into.setdefault(edge.reader, []).append(edge)
        self.out_of.setdefault(edge.source, []).append(edge)

    def _sort(self) -> list[int]:
        """The things that edges join, sources first."""
        missing = {number: len(self.into.get(number, [])) for number in range(len(self.things))}
        order = [number for number, count in missing.items() if not count]
        for number in order:
            for edge in self.out_of.get(number, []):
                missing[edge.reader] -= 1
                if not missing[edge.reader]:
                    order.append(edge.reader)
        return order

    def _spread_chains(self) -> None:
        """A stage without a batch of its own belongs where all that it is made from does, raw data where it is read."""
        for number in self.order:
            thing = self.things[number]
            if thing.kind != RAW and not thing.batch and thing.kind != REPORT:
                sources = [self.things[e.source] for e in self.into.get(number, []) if e.asked is not None]
                thing.batch = _only(source.batch for source in sources if source.kind != RAW)
                thing.chain = thing.chain or _only(source.chain for source in sources if source.kind != RAW)
        for number, thing in enumerate(self.things):
            if thing.kind == RAW and not thing.of:
                readers = [self.things[edge.reader] for edge in self.out_of.get(number, [])]
                thing.chain = _only(reader.chain for reader in readers if reader.kind != REPORT)
                thing.batch = _only(reader.batch for reader in readers if reader.kind != REPORT)

    def follow(self, number: int) -> None:
        """Write a thing's `up` and `down`."""
        thing = self.things[number]
        own, parent = {number, thing.parent}, {thing.parent} - {-1}
        if thing.kind == VIDEO:
            clips = set(self.found.cuts.get(number, []))
            thing.down = (self._touched({number, *clips}, parent) | clips) - own
        elif thing.kind == CLIP:
            thing.up = self._reached(thing.parent, Asked(frozenset({number}))) if parent else {}
            if not parent and number in self.found.video_of:
                thing.up = {-1: frozenset({self.found.video_of[number]})}
            thing.down = self._touched({number}, parent) - own
        elif thing.kind == SUBJECT:
            thing.down = self._touched({number}, parent) - own
        elif thing.kind == RAW and thing.of:
            thing.down = self._touched(self.items.get(number, set()), {number}) - own
        else:
            thing.up = self._reached(number, Asked())
            thing.down = self._made_from(number) - own
        thing.up = {role: numbers - own for role, numbers in thing.up.items() if numbers - own}

    def _reached(self, start: int, asked: Asked) -> dict[int, frozenset[int]]:
        """As upstream walks: the checkpoint gone through, or -1 -> what is reached."""
        found: dict[int, set[int]] = {}
        seen: dict[tuple[int, int], Asked] = {}
        waiting = [(start, asked, -1)]
        while waiting:
            number, asked, role = waiting.pop()
            before = seen.get((number, role))
            joined = asked if before is None else before.joined(asked)
            if joined == before:
                continue
            seen[number, role] = joined
            found.setdefault(role, set()).update({number}, self._items_of(number, joined))
            # A checkpoint of ours counts to what it stands for; what given weights were trained on, to them.
            if number in self.trained and self.things[number].kind == RAW:
                role = number
            for edge in self.into.get(number, []):
                if edge.asked is None:
                    continue
                passed = edge.asked.met(joined) if edge.by_item else edge.asked
                is_ours = edge.source in self.trained and self.things[edge.source].kind != RAW
                if self.things[edge.source].of != SUBJECT or passed.subjects:
                    waiting.append((edge.source, passed, edge.source if is_ours else role))
        return {role: frozenset(numbers) for role, numbers in found.items()}

    def _items_of(self, number: int, asked: Asked) -> set[int]:
        """The sources and clips that a thing stands for, where these are asked for."""
        own, videos = self.items.get(number, set()), self.found.video_of
        match self.things[number].of:
            case "subject":
                return own if asked.subjects is None else own & asked.subjects
            case "video":
                return own if asked.clips is None else {videos[clip] for clip in asked.clips if clip in videos}
            case "clip":
                clips = own if asked.clips is None else own & asked.clips
                return clips | {videos[clip] for clip in clips if clip in videos}
        return set()

    def _touched(self, items: set[int], starts: set[int]) -> frozenset[int]:
        """As downstream searches for items: what holds one, was trained on one, or was made with what was."""
        first = frozenset(starts.union(*(self.holders.get(item, ()) for item in items)))
        if first not in self._touched_from:
            self._touched_from[first] = self._spread(first)
        return self._touched_from[first]

    def _spread(self, first: frozenset[int]) -> frozenset[int]:
        touched = dict.fromkeys(first, False)  # -> whether a checkpoint came between
        waiting = list(first)
        while waiting:
            source = waiting.pop()
            is_passed_on = touched[source] or source in self.trained
            for edge in self.out_of.get(source, []):
                reader = edge.reader
                # What holds items, or was trained on some, does not have these for reading the folder they lie in.
                has_items = reader in self.trained or reader in self.holds
                if touched.get(reader, not is_passed_on and has_items) < is_passed_on or (
                    reader not in touched and not has_items
                ):
                    touched[reader] = is_passed_on
                    waiting.append(reader)
        return frozenset(touched)

    def _made_from(self, start: int) -> frozenset[int]:
        found, waiting = {start}, [start]
        while waiting:
            readers = {edge.reader for edge in self.out_of.get(waiting.pop(), [])} - found
            found |= readers
            waiting += readers
        return frozenset(found)


def _judge(things: list[Thing], answer: Upstream, gaps: Mapping[int, list[str]], has_notes: bool) -> None:
    """Each thing's licences, by the question's own rules; what is alike is judged once."""
    judged: dict[frozenset[int], Licences] = {}
    recorded = {n: {(m.subset, m.licence): m for m in t.recordings} for n, t in enumerate(things) if t.recordings}
    for number, thing in enumerate(things):
        numbers = frozenset({number}.union(*thing.up.values()))
        if thing.kind == CLIP and thing.parent >= 0:
            numbers = (numbers | {thing.parent}) - {number}
        if numbers not in judged:
            chosen = [things[n] for n in numbers]
            # Of a subset, the subjects that are meant; of the subset itself, all.
            subjects = [n for n in numbers if things[n].kind == SUBJECT] or [number]
            kinds = {key: motion for n in subjects for key, motion in recorded.get(n, {}).items()}
            sources = Upstream(
                thing=thing.key,
                revision=answer.revision,
                videos=[t.facts for t in chosen if isinstance(t.facts, VideoFacts)],
                motions=list(kinds.values()),
                raw=[t.facts for t in chosen if isinstance(t.facts, RawFacts)],
                stages=[t.facts for t in chosen if isinstance(t.facts, StageFacts)],
                code={},
                open=[],
                is_complete=not has_notes and not any(n in gaps for n in numbers),
            )
            judged[numbers] = judge_sources(sources)
        thing.licences = judged[numbers]


def _mark(things: list[Thing], coverage: Coverage, due: Mapping[str, list[str]], withdrawn: Marked) -> None:
    by_name = {thing.key: thing for thing in things}
    by_name |= {thing.key.replace(":", " ", 1): thing for thing in things if thing.kind == VIDEO}
    by_name |= {out.path: thing for thing in things for out in thing.outs}
    for thing in things:
        if thing.kind == SUBJECT:
            by_name |= {f"motion {m.subset}/{m.subject}/{m.sequence}": thing for m in thing.recordings}
    for gap in coverage.gaps:
        if thing_with_gap := by_name.get(gap.what):
            thing_with_gap.marks.setdefault(GAP, []).append(": ".join(filter(None, [gap.kind, gap.detail])))
    for thing in things:
        if reasons := due.get(thing.key):
            thing.marks[STALE] = list(reasons)
        parents = thing.licences.parents if thing.licences else []
        for mark, verdict in ((NON_COMMERCIAL, NO), (NOT_KNOWN, UNKNOWN)):
            if thing.licences and thing.licences.verdict == verdict:
                lines = [f"{p.kind} {p.name}: {p.licence}" for p in parents if p.verdict == verdict]
                thing.marks[mark] = lines or ["a source of it may not be known"]
        row = withdrawn.get((thing.batch, thing.name)) if thing.kind == VIDEO else None
        if row is not None:
            words = [row.get("withdrawn", ""), row.get("reason", "")]
            thing.marks[WITHDRAWN] = [": ".join(filter(None, words)) or "withdrawn"]
            for number in thing.down:
                things[number].marks.setdefault(WITHDRAWN, []).append(f"is of {thing.batch}/{thing.name}, withdrawn")
    for thing in things:
        thing.marks = {mark: thing.marks[mark] for mark in MARKS if mark in thing.marks}


def licence_of(raw: RawFacts) -> str:
    """Of raw data, as the question of licences takes it."""
    own = OWN_LICENCE if raw.path.startswith(f"{OWN_DATA}/") else "not told"
    return ", ".join(licence or "not told" for licence in raw.licences) or own


def _only(values: Iterable[str]) -> str:
    """The one value that there is; "" = several or none."""
    found = set(values) - {""}
    return found.pop() if len(found) == 1 else ""


def _join(one: frozenset[int] | None, other: frozenset[int] | None) -> frozenset[int] | None:
    return None if one is None or other is None else one | other


def _meet(one: frozenset[int] | None, other: frozenset[int] | None) -> frozenset[int] | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other
