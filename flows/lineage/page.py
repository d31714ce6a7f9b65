"""`inbetween lineage page`: the record as one HTML file, with pictures of the clips."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from flows.lineage import open_lineage
from flows.lineage.survey import survey
from flows.progress import Progress, say
from flows.project import ROOT, STATE
from tasks.lineage.errors import LineageError
from tasks.lineage.lineage import Lineage
from tasks.lineage.overview import CLIP, WITHDRAWN, Overview

if TYPE_CHECKING:
    from tasks.lineage.thumbnails import Thumbnail

PAGE = "lineage.html"
LIBRARY = Path(__file__).resolve().parents[2] / "third_party/cytoscape/cytoscape.min.js"
_WRITTEN = "pages.txt"  # in .inbetween: where pages were written, a path a line: a withdrawal removes them


def write_page(out: Path, rev: str | None = None, *, pictures_mb: float = 1.5, lineage: Lineage | None = None) -> None:
    """Build the page of a revision (None = the work tree) and write it.

    Args: pictures_mb: of all clips' pictures together, at most; 0 = none.  lineage: of another clone than this.
    Raises: LineageError for an unknown revision, or a place that cannot be written.
    """
    from tasks.lineage.page import make_page

    lineage = lineage or open_lineage()
    overview = survey(lineage, rev)
    pictures = _draw_pictures(lineage, overview, round(pictures_mb * 1e6)) if pictures_mb else {}
    text = make_page(overview, pictures, LIBRARY)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if pictures:
            _remember(out.resolve(), lineage.git.root)
        temporary = out.with_name(f".{out.name}.tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(out)
    except OSError as error:
        raise LineageError(f"{out}: cannot be written ({error.strerror}); name another place") from error
    num_clips = sum(thing.kind == CLIP for thing in overview.things)
    say(
        f"lineage: {out} written, {len(text.encode()) / 1e6:.1f} MB: {len(overview.things)} things, pictures of"
        f" {len(pictures)} of {num_clips} clips; open it in a browser"
    )


def _draw_pictures(lineage: Lineage, overview: Overview, budget: int) -> dict[int, "Thumbnail"]:
    from tasks.lineage.thumbnails import draw_thumbnails

    tables = {}
    for number, thing in enumerate(overview.things):
        if thing.kind == CLIP and WITHDRAWN not in thing.marks:
            own = (file for file in thing.files if file.stage == thing.parent)
            places = (lineage.places.find(file.md5) for file in own if file.path.endswith(".parquet"))
            if place := next(filter(None, places), None):
                tables[number] = place
    with Progress("lineage page: pictures", len(tables), "clips") as progress:
        return draw_thumbnails(tables, budget, os.cpu_count() or 1, progress.advance)


def _remember(out: Path, root: Path) -> None:
    path = root / STATE.name / _WRITTEN
    known = path.read_text().splitlines() if path.is_file() else []
    if str(out) not in known:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in [*known, str(out)]))


def remove_pages(root: Path = ROOT) -> list[str]:
    """Delete the pages that were written here, as they have pictures of clips. Returns which were there."""
    from tasks.lineage.page import GENERATOR

    path = root / STATE.name / _WRITTEN
    known = path.read_text().splitlines() if path.is_file() else []
    removed = []
    for page in dict.fromkeys([*map(Path, known), root / PAGE]):
        try:
            with page.open(encoding="utf-8", errors="replace") as file:
                is_ours = f'content="{GENERATOR}"' in file.read(4096)
            if is_ours:  # another file may have taken the place
                page.unlink()
                removed.append(str(page))
        except OSError:
            continue
    path.unlink(missing_ok=True)
    return removed
