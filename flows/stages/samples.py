"""Stage samples: one renderer's training set, from key frames, observed poses and backgrounds, into data/samples/R."""

from functools import partial

from flows.stage import Stage, note_missing_clips
from tasks.items import each
from tasks.samples import SamplesSettings, choose_clips, make_samples, plan_samples, write_samples
from tasks.tables import list_tables

TOOLS = ("numpy", "opencv", "pyarrow", "scipy")


def run(stage: Stage) -> None:
    wanted = stage.params.renderers[stage.item]
    clips, poses = stage.data(wanted.batch, "clips"), stage.data(wanted.batch, "poses")
    backgrounds = stage.data(wanted.batch, f"backgrounds-{wanted.key_step}")
    note_missing_clips(stage, clips)
    settings = SamplesSettings(wanted.key_step, wanted.background, wanted.height, wanted.width)
    paths = choose_clips(stage.item, list_tables(clips), wanted.split, wanted.videos)
    files = {clip: [path, poses / path.name, backgrounds / path.name] for clip, path in paths.items()}
    outputs = stage.outputs(files, None, settings.__dict__)
    todo = {
        output: plan_samples(paths[output.name], poses, backgrounds, settings, partial(stage.key, None))
        for output in stage.pending(outputs)
    }
    stage.do(partial(each, make_samples), [item for plan in todo.values() for item in plan.items])
    stage.write([(output, plan.items, partial(write_samples, plan, stage.store)) for output, plan in todo.items()])
    stage.place(outputs, stage.data("samples", stage.item))
