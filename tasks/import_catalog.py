"""The clips of an import as new batches: what their two files say, so that the stages make of them what they make of
videos. Each clip's table is a video of its own (tasks/pictures.py), and the clip all of its frames.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tasks.clip_proposals import describe_frames
from tasks.tables import Table, list_tables


class ClipFacts(NamedTuple):
    """What a catalogue says of a clip and the import does not."""

    subject: str
    licence: str


class BatchRows(NamedTuple):
    """Rows of videos.csv and of clips.csv."""

    videos: list[dict[str, str]]
    clips: list[dict[str, str]]


def import_batches(folder: Path, place: Path, known: Mapping[str, ClipFacts], licence: str) -> dict[str, BatchRows]:
    """Split ("train", "test") -> rows: a batch a side, because their imported backgrounds are of different key steps.

    Args:
        folder: clips/ of an import.
        place: the same, from the project's folder.
        known: clip -> facts, of those that a catalogue has; others are subjects of their own, under `licence`.
    """
    found: dict[str, BatchRows] = {}
    for path in list_tables(folder):
        table = Table("clip", path)
        clip, facts = table.metadata["clip"], table.metadata
        subject, licence_of = known.get(clip, ClipFacts(clip, licence))
        rows = found.setdefault(facts["split"], BatchRows([], []))
        rows.videos.append(
            {
                "video": clip,
                "source": f"file:{place / path.name}",
                "licence": licence_of,
                "sha256": "",
                "num_frames": "",
                "crop": "",
                "fps": f"{float(facts['fps']):g}",
            }
        )
        rows.clips.append(
            {
                "clip": clip,
                "video": clip,
                "split": facts["split"],
                "subject": subject,
                **describe_frames(table.frames.tolist()),
                "width": facts["width"],
                "height": facts["height"],
            }
        )
    return found
