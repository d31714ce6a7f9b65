"""Stage samples: one renderer's training set, from key frames, observed poses and backgrounds, into data/samples/R."""

from functools import partial

from flows.progress import say
from flows.stage import Stage, note_missing_clips
from models.renderer.methods import available_base
from tasks.items import each
from tasks.samples import SamplesSettings, choose_clips, make_samples, plan_samples, write_samples
from tasks.tables import list_tables

TOOLS = ("numpy", "opencv", "pyarrow", "rife", "scipy", "torch")
SCRIPTS = (
    "models/renderer/chooser.safetensors",
    "models/renderer/rife.py",
)  # read for `warp` alone


def run(stage: Stage) -> None:
    wanted = stage.params.renderers[stage.item]
    clips, poses = stage.data(wanted.batch, "clips"), stage.data(wanted.batch, "poses")
    backgrounds = stage.data(wanted.batch, f"backgrounds-{wanted.key_step}")
    note_missing_clips(stage, clips)
    base = available_base(wanted.base)
    if wanted.background == "warp" and base != wanted.base:
        say(f"{stage.label}: warp works over {base}: {wanted.base} is not installed here")
    settings = SamplesSettings(wanted.key_step, wanted.background, base, wanted.height, wanted.width)
    paths = choose_clips(stage.item, list_tables(clips), wanted.split, wanted.videos)
    others = [poses, backgrounds] if wanted.background == "base" else [poses]
    files = {clip: [path, *(folder / path.name for folder in others)] for clip, path in paths.items()}
    outputs = stage.outputs(files, None, settings.describe())
    todo = {
        output: plan_samples(paths[output.name], poses, backgrounds, settings, partial(stage.key, None))
        for output in stage.pending(outputs)
    }
    stage.do(partial(each, make_samples), [item for plan in todo.values() for item in plan.items])
    stage.write([(output, plan.items, partial(write_samples, plan, stage.store)) for output, plan in todo.items()])
    stage.place(outputs, stage.data("samples", stage.item))
