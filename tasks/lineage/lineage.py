"""The questions, as methods of one object. Made by flows.lineage.open_lineage."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from tasks.lineage.downstream import Downstream, Search
from tasks.lineage.git import Git
from tasks.lineage.graph import Graph, State
from tasks.lineage.index import WORK_TREE, Index
from tasks.lineage.places import Places
from tasks.lineage.things import Thing, find_thing
from tasks.lineage.upstream import ALL, Upstream, Walk, Wanted


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
        thing = find_thing(self.graph, state, name)
        walk = Walk(self.graph, state)
        if thing.kind in ("clip", "video") or (
            thing.kind in ("frame", "subject") and not thing.artefacts and thing.batch
        ):
            self._walk_catalogued(walk, state, thing)
        elif thing.motions and not thing.artefacts:
            self._walk_motions(walk, state, thing)
        else:
            wanted = Wanted(
                frozenset((thing.batch, clip) for clip in thing.clips) if thing.clips else None,
                frozenset(thing.motions) if thing.motions else None,
            )
            for artefact in thing.artefacts:
                walk.start(artefact, wanted)
        return walk.answer(thing.label)

    def downstream(self, name: str, rev: str | None = None) -> Downstream:
        """What holds or used a thing, in every revision that can be reached. rev: where its name is looked up."""
        state = self.state(rev)
        search = Search(self.graph, state, find_thing(self.graph, state, name))
        return search.answer(self.places)

    def _walk_catalogued(self, walk: Walk, state: State, thing: Thing) -> None:
        """A clip or video: from the stage that cuts its batch, or fetches it, where there is one."""
        clips = frozenset((thing.batch, clip) for clip in thing.clips)
        path = f"data/{thing.batch}/" + ("videos" if thing.kind == "video" else "clips")
        if path not in state.outs:
            walk.note(f"{thing.batch}: no stage has made {path} at {state.revision.name}")
            return
        if thing.kind == "video":
            walk.want_video(thing.batch, thing.video)
        stage = state.outs[path][0]
        walk.visit(state.ids[stage], Wanted(clips, None))

    def _walk_motions(self, walk: Walk, state: State, thing: Thing) -> None:
        wanted = Wanted(None, frozenset(thing.motions))
        for path, (stage, _) in state.outs.items():
            if path.startswith("data/joints/"):
                walk.visit(state.ids[stage], wanted)
        if wanted == ALL:
            walk.note("no motion is named")
