"""Coverage: outputs that nobody is recorded to have made, and sources without a licence, a hash or a date."""

from collections.abc import Collection
from dataclasses import dataclass

from tasks.lineage.graph import Graph, State
from tasks.lineage.index import LICENCES
from tasks.lineage.upstream import Upstream


@dataclass
class Gap:
    """kind: "no producer", "no licence", "no hash", "no date", "no provenance" or "not readable"."""

    kind: str
    what: str
    detail: str


@dataclass
class Coverage:
    """The answer. num_outputs, num_sources: looked at."""

    revision: str
    gaps: list[Gap]
    num_outputs: int
    num_sources: int
    open: list[str]


def find_gaps(graph: Graph, state: State, sources: Upstream, motions: Collection[int]) -> Coverage:
    """Args: sources: what everything of the revision was made from.  motions: the recordings of it, by number."""
    gaps = []
    runs = graph.runs_of(state.entries.values())
    for stage, entry in state.entries.items():
        gaps += [
            Gap("no producer", out.path, f"{stage} has no line in the record")
            for out in entry.outs
            if stage not in runs
        ]
    for video in sources.videos:
        name = f"{video.batch}/{video.video}"
        for kind, value in (("no licence", video.licence), ("no hash", video.sha256), ("no date", video.retrieved)):
            if not value:
                gaps.append(Gap(kind, f"video {name}", video.source or "no source"))
    for kind, column in (("no licence", "licence"), ("no hash", "source_sha256")):
        for motion in state.index.sequences(sorted(state.index.motions.without(column).intersection(motions))):
            gaps.append(Gap(kind, f"motion {motion.subset}/{motion.subject}/{motion.sequence}", ""))
    for path, (_, out) in state.outs.items():
        if path.startswith("data/models/"):
            member, content = graph.provenance(out.md5)
            if member is None or content is None or content.kind != "checkpoint":
                gaps.append(Gap("no provenance", path, "provenance.json is missing or in no place to be read"))
    for raw in sources.raw:
        if raw.kind == "weights":
            if not all(raw.licences or [""]):
                gaps.append(Gap("no licence", raw.path, f"neither a provenance.json nor {LICENCES} names one"))
        elif raw.path.startswith("data/raw/given") and not all(raw.licences or [""]):
            gaps.append(Gap("no licence", raw.path, f"given data tells none: write it into {LICENCES}"))
    missing = [
        path for md5, path in state.index.missing.items() if any(out.md5 == md5 for _, out in state.outs.values())
    ]
    gaps += [Gap("not readable", path, "the list of its files is in no place") for path in missing]
    num_sources = len(sources.videos) + len(motions) + len(sources.raw)
    return Coverage(state.revision.name, gaps, len(state.outs), num_sources, sources.open)
