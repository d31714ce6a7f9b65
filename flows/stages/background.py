"""Stage background: pictures interpolated between the key frames of one key step, into data/B/backgrounds-K."""

from functools import partial

from flows.stage import Stage, fresh_folder, note_missing_clips
from tasks.background import make_backgrounds, plan_background, write_backgrounds
from tasks.items import each
from tasks.tables import list_tables

TOOLS = ("numpy", "opencv", "pyarrow")


def run(stage: Stage) -> None:
    wanted = stage.params.backgrounds[stage.item]
    clips = stage.data(wanted.batch, "clips")
    note_missing_clips(stage, clips)
    key = partial(stage.key, stage.params.background)
    plans = [plan_background(path, wanted.key_step, key) for path in list_tables(clips)]
    stage.do(partial(each, make_backgrounds), [item for plan in plans for item in plan.items])
    with fresh_folder(stage.data(wanted.batch, f"backgrounds-{wanted.key_step}")) as folder:
        for plan in plans:
            write_backgrounds(plan, stage.store, folder)
