"""Stage evaluate: one render against the true frames: measures a frame, their means, and how exact the keys are."""

from functools import partial
from pathlib import Path

from flows.poses import estimate_passes
from flows.stage import Stage, note_missing_clips, write_json
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
from tasks.pose_passes import plan_pass, read_joints
from tasks.tables import Table, list_tables

TOOLS = ("mediapipe", "numpy", "opencv", "pyarrow")
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
    passes = {output: plan_generated(stage, files.render) for output, files in todo.items()}
    found = dict(zip(todo, estimate_passes(stage, list(passes.values())), strict=True))
    key = partial(stage.key, params)
    plans = {
        output: plan_measures(files, read_joints(found[output], stage.store), params, key)
        for output, files in todo.items()
    }
    stage.do(partial(each, evaluate_chunk), [item for items in plans.values() for item in items])
    stage.write(
        [
            (
                output,
                [*items, *passes[output], *found[output]],
                partial(write_evaluation, todo[output], stage.item, items, stage.store),
            )
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


def plan_generated(stage: Stage, render: Path) -> list[Item]:
    """The chunks of the pass over the half-way frames of one clip's render."""
    table = Table("render", render)
    return plan_pass(table, "generated", halfway_rows(table), None, partial(stage.key, stage.params.pose))
