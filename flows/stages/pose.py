"""Stage pose: the person's 19 joints in every clip, observed passes and truth apart, into data/B/poses."""

import shutil
from functools import partial
from pathlib import Path

from flows.project import STATE
from flows.stage import Stage, note_missing_clips
from tasks.pose import MediapipeSettings
from tasks.pose_passes import estimate_group, group_calls, list_openpose, plan_poses, write_poses
from tasks.tables import list_tables

TOOLS = ("mediapipe", "numpy", "opencv", "pyarrow")
SCRIPTS = ("tasks/workers/mediapipe_worker.py",)


def run(stage: Stage) -> None:
    params, batch = stage.params.pose, stage.params.batches[stage.item]
    clips, openpose = stage.data(stage.item, "clips"), Path(batch.openpose)
    note_missing_clips(stage, clips)
    version = stage.tools["mediapipe"] if params.worker == "mediapipe" else "BODY_25"
    paths = {path.stem: path for path in list_tables(clips)}
    files = {clip: [path] for clip, path in paths.items()}
    if params.worker == "openpose":
        files = {clip: [path, *list_openpose(openpose / clip)] for clip, path in paths.items()}
    outputs = stage.outputs(files, params, sorted(batch.key_steps))
    key = partial(stage.key, params)
    todo = {
        output: plan_poses(paths[output.name], batch.key_steps, params.worker, openpose, version, key)
        for output in stage.pending(outputs)
    }
    settings = MediapipeSettings(params.upscale, params.model_complexity, params.timeout_s)
    work_dir = STATE / "work" / stage.label
    shutil.rmtree(work_dir, ignore_errors=True)  # what a killed run left
    work = partial(estimate_group, work_dir=work_dir, settings=settings)
    stage.do(work, [item for plan in todo.values() for item in plan.items], group=group_calls)
    shutil.rmtree(work_dir, ignore_errors=True)
    stage.write([(output, plan.items, partial(write_poses, plan, stage.store)) for output, plan in todo.items()])
    stage.place(outputs, stage.data(stage.item, "poses"))
