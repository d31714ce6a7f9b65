"""What of a batch hangs on one of its videos: the clips and frames that go when it is gone, private or changed."""

from collections.abc import Mapping
from typing import Any

from tasks.catalog import SPLITS, Catalog


def dependents(catalog: Catalog, video: str) -> dict[str, Any]:
    """What of a batch hangs on one video: of each split its clips, and their share of the split's frames, 0..1."""
    found: dict[str, Any] = {}
    for split in SPLITS:
        clips = [clip for clip in catalog.clips_of(video) if clip.split == split]
        if clips:
            total = sum(len(clip.frames) for clip in catalog.clips.values() if clip.split == split)
            share = sum(len(clip.frames) for clip in clips) / total
            found[split] = {"clips": [clip.clip for clip in clips], "frames_share": round(share, 4)}
    return found


def say_dependents(found: Mapping[str, Any]) -> str:
    """For a person: "5 train clips (11 % of its frames) and 1 test clip (2 % of its frames)"."""
    parts = []
    for split, part in ((split, found[split]) for split in SPLITS if split in found):
        num_clips = len(part["clips"])
        plural = "s" if num_clips > 1 else ""
        parts.append(f"{num_clips} {split} clip{plural} ({part['frames_share']:.1%} of the split's frames)")
    return " and ".join(parts) or "no clip"
