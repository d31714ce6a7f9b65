"""Stage render: one render's clips at full rate, from keys, observed poses and backgrounds, into data/renders/NAME."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from flows.stage import Stage, fresh_folder, note_missing_clips
from tasks.items import each
from tasks.render import RenderSettings, plan_render, render_chunk, write_render
from tasks.tables import list_tables, read_facts
from tasks.video import ffmpeg_path

TOOLS = ("ffmpeg", "numpy", "opencv", "pyarrow", "scipy")


def run(stage: Stage) -> None:
    wanted = stage.params.renders[stage.item]
    clips = stage.data(wanted.batch, "clips")
    note_missing_clips(stage, clips)
    paths = [path for path in list_tables(clips) if read_facts("clip", path)["split"] == wanted.split]
    settings = RenderSettings(wanted.key_step, wanted.motion, wanted.method)
    poses, backgrounds = (
        stage.data(wanted.batch, "poses"),
        stage.data(wanted.batch, f"backgrounds-{wanted.key_step}"),
    )
    plans = [plan_render(path, poses, backgrounds, settings, partial(stage.key, None)) for path in paths]
    stage.do(partial(each, render_chunk), [item for plan in plans for item in plan.items])
    crf, ffmpeg = stage.params.render.crf, ffmpeg_path(stage.params.run.ffmpeg)
    with (
        fresh_folder(stage.data("renders", stage.item)) as folder,
        ThreadPoolExecutor(stage.workers) as threads,
    ):
        # ffmpeg encodes in a process of its own, so threads are enough to keep the cores busy
        for _ in threads.map(lambda plan: write_render(plan, stage.store, folder, crf, ffmpeg), plans):
            pass
