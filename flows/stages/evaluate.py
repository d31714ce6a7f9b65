"""Stage evaluate: one render against the true frames: measures a frame, their means, and how exact the keys are."""

import shutil
from functools import partial
from pathlib import Path

from flows.project import STATE
from flows.stage import Output, Stage, note_missing_clips, write_json
from tasks.evaluate import (
    ClipFiles,
    RenderFacts,
    evaluate_chunk,
    halfway_rows,
    plan_measures,
    plot_rows,
    read_evaluation,
    read_key_check,
    summarise,
    write_evaluation,
)
from tasks.items import Item, each
from tasks.pose import MediapipeSettings
from tasks.pose_passes import estimate_group, group_calls, plan_pass, read_joints
from tasks.tables import Table, list_tables

TOOLS = ("mediapipe", "numpy", "opencv", "pyarrow", "scikit-image")
SCRIPTS = ("tasks/workers/mediapipe_worker.py",)


def run(stage: Stage) -> None:
    wanted, params = stage.params.renders[stage.item], stage.params.evaluate
    note_missing_clips(stage, stage.data(wanted.batch, "clips"))
    clips = {
        path.stem: ClipFiles(
            path, stage.data(wanted.batch, "clips", path.name), stage.data(wanted.batch, "poses", path.name)
        )
        for path in list_tables(stage.data("renders", stage.item))
    }
    outputs = stage.outputs(clips, params, stage.params.pose.model_dump())
    todo = {output: clips[output.name] for output in stage.pending(outputs)}
    found = find_poses(stage, todo)
    key = partial(stage.key, params)
    plans = {
        output: plan_measures(files, read_joints([stage.store.get(item.key) for item in found[output]]), params, key)
        for output, files in todo.items()
    }
    stage.do(partial(each, evaluate_chunk), [item for items in plans.values() for item in items])
    stage.write(
        [
            (output, [*items, *found[output]], partial(write_evaluation, todo[output], stage.item, items, stage.store))
            for output, items in plans.items()
        ]
    )
    folder = stage.data("evaluations", stage.item)
    stage.place(outputs, folder)
    facts = RenderFacts(stage.item, wanted.batch, wanted.key_step, wanted.motion, wanted.method)
    tables = {path.stem: read_evaluation(path) for path in list_tables(folder)}
    keys = {path.stem: read_key_check(path) for path in list_tables(folder)}
    write_json(Path("metrics/render", f"{stage.item}.json"), summarise(facts, tables, keys))
    write_json(Path("metrics/plots", f"{stage.item}.json"), plot_rows(facts, tables))


def find_poses(stage: Stage, clips: dict[Output, ClipFiles]) -> dict[Output, list[Item]]:
    """The items that hold the poses found in the half-way frames of each clip's render."""
    params = stage.params.pose
    settings = MediapipeSettings(params.upscale, params.model_complexity, params.timeout_s)
    items = {}
    for output, files in clips.items():
        table = Table("render", files.render)
        items[output] = plan_pass(table, "generated", halfway_rows(table), None, partial(stage.key, params))
    work_dir = STATE / "work" / stage.label
    shutil.rmtree(work_dir, ignore_errors=True)  # what a killed run left
    work = partial(estimate_group, work_dir=work_dir, settings=settings)
    stage.do(work, [item for clip_items in items.values() for item in clip_items], group=group_calls)
    shutil.rmtree(work_dir, ignore_errors=True)
    return items
