"""catalog/B/withdrawn.csv: the videos that were taken out on purpose, and the refusal of what would bring them back."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tasks.errors import CatalogError
from tasks.lineage.catalogues import parse_catalogue
from tasks.lineage.references import WITHDRAWN
from tasks.new_batch import to_source

MARKS = "withdrawn.csv"
MARK_COLUMNS = ("video", "source", "licence", "sha256", "withdrawn", "reason")


class VideoName(NamedTuple):
    batch: str
    video: str

    def __str__(self) -> str:
        return f"{self.batch}/{self.video}"


class Candidate(NamedTuple):
    """A video that somebody is about to add. source, sha256: "" = not known."""

    video: str
    source: str
    sha256: str = ""


def read_marks(root: Path) -> dict[VideoName, dict[str, str]]:
    """The rows of every catalog/B/withdrawn.csv. Raises: CatalogError naming a file with a row that is none."""
    found: dict[VideoName, dict[str, str]] = {}
    for path in sorted(root.glob(f"catalog/*/{MARKS}")):
        rows, problem = parse_catalogue(path.read_text(encoding="utf-8-sig"))
        if problem:
            raise CatalogError(f"catalog/{path.parent.name}/{MARKS}: {problem}; take it from git, or mend its rows")
        found |= {VideoName(path.parent.name, row.get("video", "")): row for row in rows}
    return found


def describe_withdrawn(root: Path, batch: str, videos: Iterable[Candidate]) -> list[str]:
    """A line for each video that was withdrawn, by its id in this batch, its source or its bytes in any.

    Raises: CatalogError for a withdrawn.csv that cannot be read.
    """
    marks = read_marks(root)
    if not marks:
        return []
    sources = {_plain(row["source"]): name for name, row in marks.items() if row.get("source")}
    hashes = {row["sha256"]: name for name, row in marks.items() if row.get("sha256")}
    lines = []
    for video in videos:
        name = VideoName(batch, video.video)
        for what, found in (
            (f"its source {video.source}", sources.get(_plain(video.source))),
            ("the same file", hashes.get(video.sha256) if video.sha256 else None),
            ("this id", name if name in marks else None),
        ):
            if found:
                row = marks[found]
                when, why = row.get("withdrawn") or "an unknown date", row.get("reason") or "no reason given"
                lines.append(
                    f"catalog/{batch}/videos.csv: {video.video}: {what} was withdrawn on {when} as {found} ({why});"
                    f" leave it out, or, if it may come back, delete its rows in catalog/{found.batch}/{MARKS} and"
                    f" {WITHDRAWN} first"
                )
                break
    return lines


def refuse_withdrawn(root: Path, batch: str, videos: Iterable[Candidate]) -> None:
    """Raises: CatalogError for the first video that was withdrawn: when, why, and how to overrule that."""
    for line in describe_withdrawn(root, batch, videos):
        raise CatalogError(line)


def _plain(source: str) -> str:
    """The one way to write a source: a site has several addresses for a video."""
    try:
        return to_source(source, Path(), Path())
    except CatalogError:
        return source
