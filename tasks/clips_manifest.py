"""data/B/clips/manifest.json: what a batch's clips are not: videos that are missing or changed with all that hangs on
them, and test frames that are training frames too. There is no such file where there is nothing to say.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.catalog import Catalog
from tasks.dependents import dependents
from tasks.leaks import count_leaks, find_leaks
from tasks.sources import Manifest

CLIPS_MANIFEST = "manifest.json"
COUNTED_KEY_STEPS = (2, 4, 8, 16)  # a render's own is not known here: its settings must not re-cut the clips


def describe_batch(catalog: Catalog, videos: Manifest) -> dict[str, Any]:
    """What there is to say of a batch, as JSON; empty for a batch that is whole and clean.

    videos: of each that is missing or changed, its reason, and clips and share of frames (0..1) of each split.
    leaks: each test clip's frames that are training frames, and their number at the usual key steps.
    """
    said: dict[str, Any] = {}
    notes = {row.video: row.reason for row in videos.rows if row.reason and row.video in catalog.videos}
    if notes:
        said["videos"] = {
            video: {"reason": notes[video], "splits": dependents(catalog, video)} for video in sorted(notes)
        }
    leaks = find_leaks(catalog)
    if leaks:
        counts = [count_leaks(catalog, step) for step in COUNTED_KEY_STEPS]
        said["leaks"] = {
            "clips": {leak.clip: {"train_clips": leak.train_clips, "frames": leak.frames} for leak in leaks},
            "key_steps": [vars(count) for count in counts],
        }
    return said


def write_clips_manifest(folder: Path, said: Mapping[str, Any]) -> None:
    """Write FOLDER/manifest.json where there is something to say."""
    if said:
        temporary = folder / f".{CLIPS_MANIFEST}.tmp"
        temporary.write_text(json.dumps(said, indent=1, sort_keys=True) + "\n")
        temporary.replace(folder / CLIPS_MANIFEST)
