"""The Prefect flow `ingest`: register a batch and run its stages in a clone, then land it.

Entry point of the deployment ingest/new-batch, and what `inbetween ingest` runs.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import prefect.runtime
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.events import emit_event

from flows.params import Name
from flows.progress import say
from flows.unattended.clones import Clone, CommandError, open_clone
from flows.unattended.deployed import REPORTED, conclude, describe_landing, land_change, repro_in_clone
from flows.unattended.landing import Change, Landing
from flows.unattended.new_batch import NewBatch, describe_left_out
from flows.unattended.registration import list_targets, register_batch, stage_targets
from tasks.errors import tells_of_full_disk
from tasks.sources import MANIFEST, read_manifest

INGESTED = "inbetween.batch.ingested"


def _name_run() -> str:
    batch = prefect.runtime.flow_run.parameters["batch"]
    return f"ingest-{batch['name'] if isinstance(batch, dict) else batch.name}"


@flow(name="ingest", flow_run_name=_name_run, **REPORTED)
def ingest(
    batch: NewBatch, landing: Landing = "push", stages: Literal["data", "all"] = "data", branch: Name = "main"
) -> State[Any]:
    """Register a batch, run its stages, land it.

    Args:
        landing: push = on origin's branch; branch = on inbetween/ingest-NAME, for review.
        stages: data = clips, poses and backgrounds; all = its renders and their evaluations as well.
        branch: of origin, which the batch is made on and lands on.
    """
    return conclude(lambda: _ingest(batch, landing, stages, branch))


def _ingest(batch: NewBatch, landing: Landing, stages: str, branch: str) -> str:
    review = f"inbetween/ingest-{batch.name}"
    with open_clone(f"ingest-{batch.name}", branch) as clone:
        left_out = _find_bad_videos(clone, batch) if batch.missing == "skip" else {}
        register_batch(clone.root, batch, left_out)
        targets = tuple(stage_targets(clone.root, batch, with_renders=stages == "all"))
        change = Change(
            apply=lambda root: _register(root, batch, left_out),
            repro=partial(repro_in_clone, clone, targets),
            targets=targets,
            message=_describe(batch, left_out),
            branch=review,
        )
        commit = land_change(clone, change, landing)
    if landing == "push":
        _tell_ingested(batch)
    return describe_landing(commit, landing, review)


def _register(root: Path, batch: NewBatch, left_out: Mapping[str, str]) -> None:
    register_batch(root, batch, left_out)


def _describe(batch: NewBatch, left_out: Mapping[str, str]) -> str:
    num_videos = len(batch.videos) - len(left_out)
    without = f", without {', '.join(left_out)}" if left_out else ""
    return f"Batch {batch.name}: {num_videos} video{'s' if num_videos != 1 else ''}{without}"


def _find_bad_videos(clone: Clone, batch: NewBatch) -> dict[str, str]:
    """Video -> what is wrong with it, for a batch that lands without it: what download and split say, one by one.

    Raises: CommandError where what is wrong is with no one video; CatalogError where no clip would be left.
    """
    left_out: dict[str, str] = {}
    targets = list_targets(clone.root, {"batches": [batch.name]})
    targets = [target for target in targets if target.startswith(("download@", "split@"))]
    while True:
        kept = register_batch(clone.root, batch, left_out)
        try:
            repro_in_clone(clone, targets)
        except CommandError as error:
            bad = blame_videos(str(error), kept, clone.root / "data" / batch.name / "videos")
            if error.code != 2 or not bad:
                raise
            say(f"ingest: {batch.name} goes on without {describe_left_out(bad)}")
            left_out |= bad
            clone.reset(keeps_record=True)
        else:
            return left_out


def blame_videos(error: str, batch: NewBatch, videos: Path) -> dict[str, str]:
    """Video -> reason, from the line of a failed download or split stage.

    {} where it names no video, or the disk is full or nobody could be asked, which is no video's fault.
    """
    from tasks.download import NOT_ASKED_FOR  # with yt-dlp, which takes a while

    if tells_of_full_disk(error) or NOT_ASKED_FOR in error:
        return {}
    found = {}
    starts = {row.video: error.find(f"video {row.video}: {row.source}: ") for row in batch.videos}
    for row in batch.videos:
        if (start := starts[row.video]) >= 0:
            text = error[start + len(f"video {row.video}: {row.source}: ") :]
            ends = [text.find(f"; video {other}: ") for other in starts]
            ends += [text.find("; mend the source, or"), text.find("; 1 stage that"), text.find(" stages that need")]
            found[row.video] = text[: min([end for end in ends if end >= 0], default=len(text))]
    if found:
        return found
    files = {str(row.file): row.video for row in read_manifest(videos).ok} if (videos / MANIFEST).is_file() else {}
    for file, video in files.items():
        place = f"data/{batch.name}/videos/{file}: "
        if place in error:
            return {video: _first_clause(error.partition(place)[2])}
    for clip in batch.clips:
        if f"clip {clip.clip}: " in error:
            return {clip.video: f"clip {clip.clip}: {_first_clause(error.partition(f'clip {clip.clip}: ')[2])}"}
    return {row.video: _first_clause(error.partition(f"video {row.video}: ")[2])
            for row in batch.videos if f"video {row.video}: " in error}  # fmt: skip


def _first_clause(text: str) -> str:
    return text.partition(";")[0]


def _tell_ingested(batch: NewBatch) -> None:
    emit_event(
        INGESTED,
        resource={"prefect.resource.id": f"inbetween.batch.{batch.name}", "prefect.resource.name": batch.name},
        payload={"batch": batch.name, "renders": [batch.render_name(render) for render in batch.renders]},
    )
