"""Stage pose: the person's 19 joints in every clip, observed passes and truth apart, into data/B/poses."""

import shutil
from functools import partial
from pathlib import Path

from flows.project import STATE
from flows.stage import Stage, fresh_folder, note_missing_clips
from tasks.pose import MediapipeSettings
from tasks.pose_passes import estimate_group, group_calls, plan_poses, write_poses
from tasks.tables import list_tables

TOOLS = ("mediapipe", "numpy", "opencv", "pyarrow")
SCRIPTS = ("tasks/workers/mediapipe_worker.py",)


def run(stage: Stage) -> None:
    params, batch = stage.params.pose, stage.params.batches[stage.item]
    clips = stage.data(stage.item, "clips")
    note_missing_clips(stage, clips)
    version = stage.tools["mediapipe"] if params.worker == "mediapipe" else "BODY_25"
    key = partial(stage.key, params)
    plans = [
        plan_poses(path, batch.key_steps, params.worker, Path(batch.openpose), version, key)
        for path in list_tables(clips)
    ]
    settings = MediapipeSettings(params.upscale, params.model_complexity, params.timeout_s)
    work_dir = STATE / "work" / stage.label
    shutil.rmtree(work_dir, ignore_errors=True)  # what a killed run left
    stage.do(
        partial(estimate_group, work_dir=work_dir, settings=settings),
        [item for plan in plans for item in plan.items],
        group=group_calls,
    )
    with fresh_folder(stage.data(stage.item, "poses")) as folder:
        for plan in plans:
            write_poses(plan, stage.store, folder)
    shutil.rmtree(work_dir, ignore_errors=True)
