"""Stage evaluate: one render against the true frames: measures a frame, their means, and how exact the keys are."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np

from flows.project import STATE
from flows.stage import Stage, fresh_folder, note_missing_clips
from tasks.evaluate import (
    EvaluateSpec,
    RenderFacts,
    check_keys_exact,
    evaluate_chunk,
    halfway_rows,
    plot_rows,
    read_evaluation,
    summarise,
)
from tasks.items import Item, each
from tasks.pose import MediapipeSettings
from tasks.pose_passes import estimate_group, group_calls, plan_pass, read_joints
from tasks.tables import Table, hash_rows, list_tables, write_table

TOOLS = ("mediapipe", "numpy", "opencv", "pyarrow", "scikit-image")
SCRIPTS = ("tasks/workers/mediapipe_worker.py",)
FRAMES_PER_ITEM = 64


def run(stage: Stage) -> None:
    wanted = stage.params.renders[stage.item]
    note_missing_clips(stage, stage.data(wanted.batch, "clips"))
    paths = list_tables(stage.data("renders", stage.item))
    found = find_poses(stage, paths)
    items = {path: plan_measures(stage, path, found[path]) for path in paths}
    stage.do(partial(each, evaluate_chunk), [item for clip_items in items.values() for item in clip_items])
    clips, keys = {}, {}
    with fresh_folder(stage.data("evaluations", stage.item)) as folder:
        for path in paths:
            clip = Table("render", path).metadata["clip"]
            out = folder / f"{clip}.parquet"
            chunks = (stage.store.get(item.key) for item in items[path])
            write_table("evaluation", out, chunks, {"clip": clip, "render": stage.item})
            clips[clip] = read_evaluation(out)
            keys[clip] = check_keys_exact(path, clip_path(stage, path))
    facts = RenderFacts(stage.item, wanted.batch, wanted.key_step, wanted.motion, wanted.method)
    write_json(Path("metrics/render", f"{stage.item}.json"), summarise(facts, clips, keys))
    write_json(Path("metrics/plots", f"{stage.item}.json"), plot_rows(facts, clips))


def clip_path(stage: Stage, render: Path) -> Path:
    return stage.data(stage.params.renders[stage.item].batch, "clips", render.name)


def find_poses(stage: Stage, paths: list[Path]) -> dict[Path, list[Item]]:
    """The items that hold the poses found in the half-way frames of each clip's render."""
    params = stage.params.pose
    settings = MediapipeSettings(params.upscale, params.model_complexity, params.timeout_s)
    items = {}
    for path in paths:
        table = Table("render", path)
        items[path] = plan_pass(table, "generated", halfway_rows(table), None, partial(stage.key, params))
    work_dir = STATE / "work" / stage.label
    shutil.rmtree(work_dir, ignore_errors=True)  # what a killed run left
    work = partial(estimate_group, work_dir=work_dir, settings=settings)
    stage.do(work, [item for clip_items in items.values() for item in clip_items], group=group_calls)
    shutil.rmtree(work_dir, ignore_errors=True)
    return items


def plan_measures(stage: Stage, path: Path, found: list[Item]) -> list[Item]:
    """Cut the measuring of one clip's render into items."""
    params = stage.params.evaluate
    render, truth = Table("render", path), clip_path(stage, path)
    poses = stage.data(stage.params.renders[stage.item].batch, "poses", path.name)
    clip_table, pose_table = Table("clip", truth), Table("pose", poses)
    truth_rows = np.flatnonzero(pose_table.column("pass") == "truth").tolist()
    joints = read_joints([stage.store.get(item.key) for item in found])
    # The truth pass of the whole clip enters every item: the torso's length is its median over the clip.
    given = hash_rows(pose_table, truth_rows, ("frame", "joints"))
    items = []
    for start in range(0, render.num_rows, FRAMES_PER_ITEM):
        stop = min(render.num_rows, start + FRAMES_PER_ITEM)
        frames = set(render.frames[start:stop].tolist())
        rows = [row for row, frame in enumerate(clip_table.frames.tolist()) if frame in frames]
        mattes = [row for row in truth_rows if int(pose_table.frames[row]) in frames]
        inputs = [
            hash_rows(render, range(start, stop), ("frame", "origin", "key_before", "key_after", "image")),
            hash_rows(clip_table, rows, ("frame", "image")),
            hash_rows(pose_table, mattes, ("matte",)),
            given,
            {frame: joints[frame].tolist() for frame in sorted(frames & joints.keys())},
        ]
        here = {frame: joints[frame] for frame in frames & joints.keys()}
        spec = EvaluateSpec(
            path, truth, poses, start, stop, params.pck_torso_share, params.matte_margin_torso_share, here
        )
        items.append(Item(f"{path.stem} {start}-{stop - 1}", stage.key(params, inputs, start, stop), spec))
    return items


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(path)
