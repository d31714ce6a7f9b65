"""Stage split: each clip's frames, cut from its video by number, into data/B/clips/CLIP.parquet."""

from functools import partial

from flows.project import ROOT
from flows.stage import Stage, fresh_folder
from tasks.catalog import read_catalog
from tasks.split import note_skipped, plan_clips, split_group, write_clip
from tasks.video import ffmpeg_path

TOOLS = ("ffmpeg", "opencv", "pyarrow")


def run(stage: Stage) -> None:
    catalog = read_catalog(ROOT, stage.item)
    plans = plan_clips(catalog, stage.data(stage.item, "videos"), stage.params.split.max_chunk_frames, stage.key)
    stage.do(
        partial(split_group, ffmpeg=ffmpeg_path(stage.params.run.ffmpeg)),
        [item for plan in plans for item in plan.items],
    )
    with fresh_folder(stage.data(stage.item, "clips")) as folder:
        for plan in plans:
            write_clip(plan, stage.store, folder)
        note_skipped(catalog, plans, stage.data(stage.item, "videos"), folder)
