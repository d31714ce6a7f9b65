"""May a thing be used commercially? Every parent's licence counts, the strictest wins, and what is not known is no."""

import re
from dataclasses import dataclass

from tasks.lineage.upstream import Upstream

YES, DUTIES, NO, UNKNOWN = "yes", "yes, with duties", "no", "unknown"
_STRICTNESS = (YES, DUTIES, UNKNOWN, NO)

# By name without case, blanks and version. What is in none of these is not known.
_FREE = {"apache", "mit", "bsd", "isc", "cc0", "pddl", "public-domain", "unlicense", "zlib"}
_WITH_DUTIES = {
    "cc-by": "name the author",
    "cc-by-sa": "name the author, share alike",
    "cmu": "do not resell the recordings themselves",
    "mpl": "publish changes to its files",
    "odc-by": "name the source",
}
_NOT = ("nc", "noncommercial", "non-commercial", "all-rights", "proprietary", "research-only", "academic", "cc-by-nd")
_VERSION = re.compile(r"[- ]v?\d+(\.\d+)*.*$")

# Packages whose licence, or that of the weights in them, reaches what is made with them: THIRD_PARTY.md.
LICENCES_OF_TOOLS = {
    "lpips": "BSD; its weights trained on ImageNet, whose terms say research",
    "mediapipe": "Apache-2.0",
    "rife": "MIT",
    "smplx": "Max Planck, non-commercial research",
}
OWN_DATA = "data/raw/embedded"  # what this project made itself
OWN_LICENCE = "Apache-2.0"


@dataclass
class Parent:
    """A source and what its licence allows. verdict: YES, DUTIES, NO or UNKNOWN.  number: of recordings, where several."""

    kind: str
    name: str
    licence: str
    verdict: str
    duty: str
    number: int = 1


@dataclass
class Licences:
    """The answer. is_allowed: commercial use.  verdict: the strictest of the parents'.  open: not known."""

    thing: str
    revision: str
    is_allowed: bool
    verdict: str
    parents: list[Parent]
    open: list[str]


def judge(licence: str) -> tuple[str, str]:
    """What a licence says of commercial use, and the duty that comes with it."""
    name = re.sub(r"[\s_]+", "-", licence.strip().lower())
    if not name:
        return UNKNOWN, ""
    short = _VERSION.sub("", name).removesuffix("-license").removesuffix("-licence")
    words = short.split("-")
    if any(bad in words or (("-" in bad or len(bad) > 2) and bad in short) for bad in _NOT):
        return NO, ""
    if short in _FREE:
        return YES, ""
    if short in _WITH_DUTIES:
        return DUTIES, _WITH_DUTIES[short]
    return UNKNOWN, ""


def judge_sources(answer: Upstream) -> Licences:
    """A thing's sources to what may be done with it."""
    parents: dict[tuple[str, str, str], Parent] = {}

    def add(kind: str, name: str, licence: str | None) -> None:
        words = licence or "not told"
        verdict, duty = judge(licence or "")
        parent = parents.setdefault((kind, name, words), Parent(kind, name, words, verdict, duty, 0))
        parent.number += 1

    for video in answer.videos:
        add("video", f"{video.batch}/{video.video}", video.licence)
        if video.source_licence:
            add("video, by its site", f"{video.batch}/{video.video}", video.source_licence)
    for motion in answer.motions:
        add("recordings", motion.subset, motion.licence)
    for raw in answer.raw:
        for licence in raw.licences or [OWN_LICENCE if raw.path.startswith(f"{OWN_DATA}/") else ""]:
            add(raw.kind, raw.path, licence)
    for tool in sorted({tool for stage in answer.stages for tool in stage.tools} & LICENCES_OF_TOOLS.keys()):
        add("package", tool, LICENCES_OF_TOOLS[tool])
    rows = sorted(parents.values(), key=lambda parent: (-_STRICTNESS.index(parent.verdict), parent.kind, parent.name))
    verdict = rows[0].verdict if rows else UNKNOWN
    if not answer.is_complete and verdict in (YES, DUTIES):
        verdict = UNKNOWN
    return Licences(answer.thing, answer.revision, verdict in (YES, DUTIES), verdict, rows, answer.open)
