"""Stage pose: the person's 19 joints in every clip, observed passes and truth apart, into data/B/poses."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from flows.alphapose import find_people
from flows.poses import estimate_passes
from flows.stage import Stage, note_missing_clips
from tasks.pose_passes import given_poses, plan_poses, write_poses
from tasks.tables import list_tables

TOOLS = ("mediapipe", "numpy", "opencv", "pyarrow")
SCRIPTS = ("tasks/workers/mediapipe_worker.py",)


def run(stage: Stage) -> None:
    params, batch = stage.params.pose, stage.params.batches[stage.item]
    worker, source = batch.pose.worker, Path(batch.pose.source)
    clips = stage.data(stage.item, "clips")
    note_missing_clips(stage, clips)
    paths = {path.stem: path for path in list_tables(clips)}
    version = {"mediapipe": stage.tools["mediapipe"], "openpose": "BODY_25"}.get(worker, "")
    if worker == "alphapose":
        source, version = find_people(stage, paths)
    files = {clip: [path, *given_poses(worker, source, clip)[1]] for clip, path in paths.items()}
    outputs = stage.outputs(files, params, sorted(batch.key_steps), worker)
    key = partial(stage.key, params)
    todo = stage.pending(outputs)
    plans = [plan_poses(paths[each.name], batch.key_steps, worker, source, version, key) for each in todo]
    passes = iter(estimate_passes(stage, [chunks for plan in plans for chunks in plan.passes]))
    final = [replace(plan, passes=[next(passes) for _ in plan.passes]) for plan in plans]
    stage.write(
        [
            (output, [*plan.items, *done.items], partial(write_poses, done, stage.store))
            for output, plan, done in zip(todo, plans, final, strict=True)
        ]
    )
    stage.place(outputs, stage.data(stage.item, "poses"))
