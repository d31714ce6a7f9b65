"""Stage joints: the 52 joints of every motion of a mocap subset at 60 fps, into data/joints/SUBSET."""

from functools import partial
from pathlib import Path

from flows.progress import say
from flows.stage import Output, Stage
from tasks.joints import compute_items, read_rejects, write_rejects, write_shard
from tasks.joints_plan import Settings, Subset, check_rejects, plan_subset

TOOLS = ("numpy", "pyarrow", "smplx", "torch")


def run(stage: Stage) -> None:
    params, wanted = stage.params.joints, stage.params.mocap[stage.item]
    subset = Subset(stage.item, wanted.kind, Path(wanted.folder), wanted.licence, wanted.only, wanted.without)
    settings = Settings(params.gender, params.soft_tissue, params.trim_share, params.min_frames)
    plan = plan_subset(subset, Path(params.body_models), settings, stage.key, stage.workers)
    for note in plan.notes:
        say(f"{stage.label}: {note}")
    check_rejects(subset, plan.rejects, plan.num_motions, params.max_reject_share)

    shards = {Output(shard.name, stage.key(None, shard.facts)): shard for shard in plan.shards}
    todo = {output: shards[output] for output in stage.pending(list(shards), "shards")}
    stage.do(compute_items, list({item.key: item for shard in todo.values() for item in shard.items}.values()))
    stage.write([(output, shard.items, partial(write_shard, shard, stage.store)) for output, shard in todo.items()])

    rejects = plan.rejects + read_rejects(stage.store.output(output.key) for output in shards)
    line = check_rejects(subset, rejects, plan.num_motions, params.max_reject_share)
    if line:
        say(f"{stage.label}: {line}")
    folder = stage.data("joints", stage.item)
    stage.place(list(shards), folder)
    write_rejects(folder, rejects)
