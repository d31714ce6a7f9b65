"""Stage split: each clip's frames, cut from its video by number, into data/B/clips/CLIP.parquet."""

from functools import partial

from flows.progress import say
from flows.project import ROOT
from flows.stage import Output, Stage
from tasks.catalog import read_catalog
from tasks.clips_manifest import describe_batch, write_clips_manifest
from tasks.dependents import say_dependents
from tasks.sources import read_manifest
from tasks.split import note_skipped, plan_clips, split_group, write_clip
from tasks.video import ffmpeg_path

TOOLS = ("ffmpeg", "opencv", "pyarrow")


def run(stage: Stage) -> None:
    catalog = read_catalog(ROOT, stage.item)
    videos, clips = stage.data(stage.item, "videos"), stage.data(stage.item, "clips")
    plans = {
        Output(plan.row.clip, stage.key(None, [item.key for item in plan.items], plan.metadata)): plan
        for plan in plan_clips(catalog, videos, stage.params.split.max_chunk_frames, stage.key)
    }
    todo = {output: plans[output] for output in stage.pending(list(plans))}
    work = partial(split_group, ffmpeg=ffmpeg_path(stage.params.run.ffmpeg))
    stage.do(work, [item for plan in todo.values() for item in plan.items])
    stage.write([(output, plan.items, partial(write_clip, plan, stage.store)) for output, plan in todo.items()])
    stage.place(list(plans), clips)
    note_skipped(catalog, list(plans.values()), videos, clips)
    said = describe_batch(catalog, read_manifest(videos))
    write_clips_manifest(clips, said)
    for video, row in said.get("videos", {}).items():
        say(f"{stage.label}: video {video}: {row['reason']}; on it hang {say_dependents(row['splits'])}")
    if "leaks" in said:
        say(f"{stage.label}: test clips share frames with training clips: inbetween catalog check {stage.item}")
