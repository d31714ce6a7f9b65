"""The overview of this clone: what its record says, with what is withdrawn and what is due."""

from flows.lineage.why import explain_all
from tasks.lineage.errors import LineageError
from tasks.lineage.lineage import Lineage
from tasks.lineage.marks import read_marks
from tasks.lineage.overview import Overview, look_over


def survey(lineage: Lineage, rev: str | None = None) -> Overview:
    """Of the work tree, also which stages are due. Raises: LineageError where there is no such revision."""
    withdrawn = {(video.batch, video.video): row for video, row in read_marks(lineage.git.root).items()}
    due: dict[str, list[str]] = {}
    notes: list[str] = []
    if rev is None:
        try:
            due, notes = explain_all(lineage)
        except LineageError as error:
            notes = [f"which stages are due stays open: {error}"]
    overview = look_over(lineage, rev, due=due, withdrawn=withdrawn)
    overview.open += [line for line in notes if line not in overview.open]
    return overview
