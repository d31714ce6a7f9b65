"""Stage evaluate: one render against the true frames: measures a frame, their means, and how exact the keys are."""

from functools import partial
from pathlib import Path

from flows.poses import estimate_passes
from flows.progress import say
from flows.stage import Stage, note_missing_clips, write_json
from tasks.evaluate import (
    ClipFiles,
    RenderFacts,
    evaluate_group,
    halfway_rows,
    plan_measures,
    plot_rows,
    read_evaluation,
    read_key_check,
    summarise,
    write_evaluation,
)
from tasks.items import Item
from tasks.pose_passes import plan_pass, read_joints
from tasks.tables import Table, list_tables

TOOLS = ("lpips", "mediapipe", "numpy", "opencv", "pyarrow", "torch")
SCRIPTS = ("models/lpips.py", "tasks/workers/mediapipe_worker.py")


def run(stage: Stage) -> None:
    wanted, params = stage.params.renders[stage.item], stage.params.evaluate
    lpips = params.lpips if "lpips" in stage.tools else "none"  # the tools are part of every key
    if lpips != params.lpips:
        say(f"{stage.label}: LPIPS is left out: its weights could not be had when the environment was made")
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
    plans = {
        output: plan_measures(files, params.matte_margin_torso_share, lpips, partial(stage.key, params))
        for output, files in todo.items()
    }
    measures = [item for items in plans.values() for item in items]
    found = dict(zip(todo, estimate_passes(stage, list(passes.values()), measures, evaluate_group), strict=True))
    writes = []
    for output, items in plans.items():
        joints = read_joints(found[output], stage.store)
        write = partial(write_evaluation, todo[output], stage.item, items, joints, params.pck_torso_share, stage.store)
        writes.append((output, [*items, *passes[output], *found[output]], write))
    stage.write(writes)
    folder = stage.data("evaluations", stage.item)
    stage.place(outputs, folder)
    lpips_said = lpips if lpips == params.lpips else "no weights"
    facts = RenderFacts(stage.item, wanted.batch, wanted.key_step, wanted.motion, wanted.method, lpips_said)
    tables = {path.stem: read_evaluation(path) for path in list_tables(folder)}
    keys = {path.stem: read_key_check(path) for path in list_tables(folder)}
    write_json(Path("metrics/render", f"{stage.item}.json"), summarise(facts, tables, keys))
    write_json(Path("metrics/plots", f"{stage.item}.json"), plot_rows(facts, tables))


def plan_generated(stage: Stage, render: Path) -> list[Item]:
    """The chunks of the pass over the half-way frames of one clip's render."""
    table = Table("render", render)
    return plan_pass(table, "generated", halfway_rows(table), None, partial(stage.key, stage.params.pose))
