"""Stage background: pictures interpolated between the key frames of one key step, into data/B/backgrounds-K."""

from functools import partial

from flows.stage import Stage, note_missing_clips
from tasks.background import make_backgrounds, plan_background, write_backgrounds
from tasks.items import each
from tasks.tables import list_tables

TOOLS = ("numpy", "opencv", "pyarrow")


def run(stage: Stage) -> None:
    wanted, params = stage.params.backgrounds[stage.item], stage.params.background
    clips = stage.data(wanted.batch, "clips")
    note_missing_clips(stage, clips)
    key = partial(stage.key, params)
    paths = {path.stem: path for path in list_tables(clips)}
    outputs = stage.outputs({clip: [path] for clip, path in paths.items()}, params, wanted.key_step)
    todo = {output: plan_background(paths[output.name], wanted.key_step, key) for output in stage.pending(outputs)}
    stage.do(partial(each, make_backgrounds), [item for plan in todo.values() for item in plan.items])
    stage.write([(output, plan.items, partial(write_backgrounds, plan, stage.store)) for output, plan in todo.items()])
    stage.place(outputs, stage.data(wanted.batch, f"backgrounds-{wanted.key_step}"))
