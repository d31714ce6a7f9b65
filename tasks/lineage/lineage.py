"""The questions, as methods of one object. Made by flows.lineage.open_lineage."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from tasks.lineage.changes import Diff, History, compare, trace
from tasks.lineage.coverage import Coverage, find_gaps
from tasks.lineage.downstream import Downstream, Search
from tasks.lineage.errors import LineageError
from tasks.lineage.frames import read_frame
from tasks.lineage.git import Git
from tasks.lineage.graph import Artefact, Graph, State
from tasks.lineage.index import WORK_TREE, Index
from tasks.lineage.leaks import Leaks, find_leaks
from tasks.lineage.licences import Licences, judge_sources
from tasks.lineage.places import Places
from tasks.lineage.things import Thing, find_thing
from tasks.lineage.upstream import Upstream, Walk, Wanted


class Lineage:
    """Answers about one clone. Each takes `rev`, a tag, branch or commit; None = the work tree as it stands."""

    def __init__(self, root: Path, index: Path, places: Places, say: Callable[[str], None] = lambda line: None) -> None:
        """Raises: LineageError where there is no git repository."""
        self.git, self.places = Git(root), places
        self.index = Index(index)
        self.index.update(self.git, places, say)

    @cached_property
    def graph(self) -> Graph:
        return Graph(self.index)

    def state(self, rev: str | None = None) -> State:
        """A revision's entries. Raises: LineageError where there is no such revision."""
        return State(self.index, self.index.revision(self.git.commit_of(rev) if rev else WORK_TREE))

    def thing(self, name: str, rev: str | None = None) -> Thing:
        return find_thing(self.graph, self.state(rev), name)

    def upstream(self, name: str, rev: str | None = None) -> Upstream:
        """What a thing was made from. Raises: LineageError for a name that is unknown or means several things."""
        state = self.state(rev)
        return self._upstream(state, find_thing(self.graph, state, name))

    def downstream(self, name: str, rev: str | None = None) -> Downstream:
        """What holds or used a thing, in every revision that can be reached. rev: where its name is looked up."""
        state = self.state(rev)
        return Search(self.graph, state, find_thing(self.graph, state, name)).answer(self.places)

    def diff(self, before: str, after: str | None = None, path: str = "") -> Diff:
        """What changed between two revisions, item by item, and why; below `path` alone where it is given."""
        return compare(self.state(before), self.state(after), path.rstrip("/"))

    def history(self, name: str, rev: str | None = None) -> History:
        """A thing's versions over all revisions, oldest first, and what made each differ from the one before."""
        state = self.state(rev)
        thing = find_thing(self.graph, state, name)
        path, below = self._place_of(state, thing)
        return trace(self.graph, path, thing.label, below)

    def licences(self, name: str, rev: str | None = None) -> Licences:
        """Whether a thing may be used commercially."""
        return judge_sources(self.upstream(name, rev))

    def leaks(self, rev: str | None = None) -> Leaks:
        """What stands in both the training and the test of any model or catalogue."""
        state = self.state(rev)
        models = {}
        for path, (stage, out) in state.outs.items():
            if path.startswith("data/models/"):
                walk = Walk(self.graph, state, is_brief=True)
                walk.start(Artefact(out, state.ids[stage]))
                models[path] = (walk.answer(path), walk.motion_ids())
        return find_leaks(state, models)

    def coverage(self, rev: str | None = None) -> Coverage:
        """Outputs with no recorded producer, sources without licence, hash or date."""
        state = self.state(rev)
        walk = Walk(self.graph, state, is_brief=True)
        for id_ in state.ids.values():
            walk.visit(id_)
        return find_gaps(self.graph, state, walk.answer("everything"), walk.motion_ids())

    def _upstream(self, state: State, thing: Thing) -> Upstream:
        walk = Walk(self.graph, state)
        if thing.kind in ("clip", "video", "frame", "subject") and not thing.artefacts and thing.batch:
            self._walk_catalogued(walk, state, thing)
        elif thing.motions and not thing.artefacts:
            wanted = Wanted(None, frozenset(thing.motions))
            for path, (stage, _) in state.outs.items():
                if path.startswith("data/joints/"):
                    walk.visit(state.ids[stage], wanted)
        elif thing.kind == "code":
            raise LineageError(f"{thing.name}: is code; its sources are git's: `git log {thing.name}`")
        else:
            wanted = Wanted(
                frozenset((thing.batch, clip) for clip in thing.clips) if thing.clips else None,
                frozenset(thing.motions) if thing.motions else None,
            )
            for artefact in thing.artefacts:
                walk.start(artefact, wanted)
        answer = walk.answer(thing.label)
        if thing.kind == "frame" and thing.frame is not None:
            path, below = self._place_of(state, thing)
            answer.frame = read_frame(self.graph, self.places, state.outs[path][1], below, thing.frame)
        return answer

    def _walk_catalogued(self, walk: Walk, state: State, thing: Thing) -> None:
        """A clip or video: from the stage that cuts its batch, or fetches it, where there is one."""
        clips = frozenset((thing.batch, clip) for clip in thing.clips)
        path = f"data/{thing.batch}/" + ("videos" if thing.kind == "video" else "clips")
        if path not in state.outs:
            walk.note(f"{thing.batch}: no stage has made {path} at {state.revision.name}", is_gap=True)
            return
        if thing.kind == "video":
            walk.want_video(thing.batch, thing.video)
        walk.visit(state.ids[state.outs[path][0]], Wanted(clips, None))

    def _place_of(self, state: State, thing: Thing) -> tuple[str, str]:
        """The output, and the file in it, whose versions are the thing's. Raises: LineageError where it has none."""
        if thing.artefacts:
            return thing.artefacts[0].out.path, thing.artefacts[0].below
        if thing.kind in ("clip", "frame"):
            return f"data/{thing.batch}/clips", f"{thing.clips[0]}.parquet"
        if thing.kind == "video":
            made = state.outs.get(f"data/{thing.batch}/videos")
            members = (self.index.members(made[1].md5) if made else None) or []
            name = next((m.name for m in members if m.name.rpartition(".")[0] == thing.video), f"{thing.video}.mp4")
            return f"data/{thing.batch}/videos", name
        for path, (_, out) in state.outs.items():
            if thing.motions and path.startswith("data/joints/"):
                for member in self.index.members(out.md5) or []:
                    if not set(thing.motions).isdisjoint(self.index.sequence_ids(member.md5)):
                        return path, member.name
        raise LineageError(f"{thing.label}: has no file of its own to trace; name a path, clip or video")
