"""Stage views: each motion of a mocap subset as cameras see it, into data/views/SUBSET."""

from functools import partial
from pathlib import Path

from flows.progress import say
from flows.stage import Output, Stage
from tasks.items import each
from tasks.tables import list_tables
from tasks.views import (
    finish_views,
    fixed_angles,
    list_sequences,
    make_views,
    plan_views,
    read_evaluation_views,
    write_views,
)

TOOLS = ("numpy", "pyarrow")


def run(stage: Stage) -> None:
    params, split = stage.params.views, stage.params.mocap[stage.item].split
    paths = {path.stem: path for path in list_tables(stage.data("joints", stage.item))}
    sequences = list_sequences(paths)
    angles = fixed_angles(read_evaluation_views(Path(params.evaluation_views)), sequences) if split == "test" else {}
    outputs = [
        Output(name, stage.key(None, key, angles.get(name)))
        for name, key in stage.outputs({name: [path] for name, path in paths.items()}, params, split)
    ]
    plans = {
        output: plan_views(
            paths[output.name],
            partial(stage.key, None, output.key),
            seed=params.seed,
            num_views=params.views_per_sequence,
            angles_rad=angles.get(output.name),
        )
        for output in stage.pending(outputs, "joints tables")
    }
    stage.do(partial(each, make_views), [item for plan in plans.values() for item in plan.items])
    facts = {"subset": stage.item, "split": split}
    write = partial(write_views, store=stage.store, shard_bytes=params.shard_mb * 2**20, facts=facts)
    stage.write([(output, plan.items, partial(write, plan)) for output, plan in plans.items()])
    folder = stage.data("views", stage.item)
    stage.place(outputs, folder)
    for sequence, reason in finish_views(folder, sequences).items():
        say(f"{stage.label}: goes on without {sequence}: {reason}")
