"""Stage background: pictures interpolated between the key frames of one key step, into data/B/backgrounds-K."""

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from flows.dain import make_on_gpu, read_settings
from flows.project import STATE
from flows.stage import Stage, note_missing_clips
from tasks.background import make_backgrounds, plan_background, write_backgrounds
from tasks.background_dain import group_pairs
from tasks.background_imported import imported_table, write_imported
from tasks.items import Item, Work, each, group_items
from tasks.tables import list_tables
from tasks.workers.dain import check_dain

TOOLS = ("numpy", "opencv", "pyarrow", "rife", "torch")
SCRIPTS = ("models/renderer/rife.py",)


def run(stage: Stage) -> None:
    wanted = stage.params.backgrounds[stage.item]
    clips, source = stage.data(wanted.batch, "clips"), Path(wanted.source)
    note_missing_clips(stage, clips)
    work: Work = partial(each, make_backgrounds)
    group: Callable[[Sequence[Item], int], list[list[Item]]] = group_items
    version, section = "", None
    if wanted.interpolator == "dain":
        settings, section = read_settings(stage), stage.params.dain
        version, group = check_dain(settings), group_pairs
        work = partial(make_on_gpu, settings=settings, gpus=stage.params.run.gpus, label=stage.label)
        shutil.rmtree(STATE / "work" / f"{stage.label}-dain", ignore_errors=True)  # what a killed run left
    key = partial(stage.key, section)
    paths = {path.stem: path for path in list_tables(clips)}
    files = {clip: [path] for clip, path in paths.items()}
    if wanted.interpolator == "imported":
        files = {clip: [path, *imported_table(source, clip)] for clip, path in paths.items()}
    outputs = stage.outputs(files, section, wanted.key_step, wanted.interpolator, version, wanted.device)
    pending = stage.pending(outputs)
    if wanted.interpolator == "imported":
        writes = [partial(write_imported, paths[output.name], source, wanted.key_step) for output in pending]
        stage.write([(output, [], write) for output, write in zip(pending, writes, strict=True)])
    else:
        arguments = (wanted.key_step, wanted.interpolator, version, key, wanted.device)
        todo = {output: plan_background(paths[output.name], *arguments) for output in pending}
        stage.do(work, [item for plan in todo.values() for item in plan.items], group=group)
        stage.write([(out, plan.items, partial(write_backgrounds, plan, stage.store)) for out, plan in todo.items()])
    stage.place(outputs, stage.data(wanted.batch, f"backgrounds-{wanted.key_step}"))
