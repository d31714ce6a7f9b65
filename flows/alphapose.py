"""AlphaPose for a whole batch: one call over the pictures of every clip whose people are not known yet."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from flows.checkouts import find_checkout
from flows.gpus import hold_gpu
from flows.progress import Progress, say
from flows.project import STATE
from flows.stage import Stage
from tasks.items import hash_file
from tasks.tables import Table
from tasks.workers.alphapose import AlphaposeSettings, check_alphapose, run_alphapose
from tasks.workers.alphapose_results import People


def find_people(stage: Stage, clips: Mapping[str, Path]) -> tuple[Path, str]:
    """A folder with a folder of JSON files a clip (tasks/people.py), a file a frame; and what made them.

    The store keeps a clip's files; those of several clips are made by one call.
    """
    home, python = find_checkout("alphapose")
    settings = AlphaposeSettings(home=home, python=python, **stage.params.alphapose.model_dump())
    version = check_alphapose(settings)
    keys = {
        clip: stage.key(stage.params.alphapose, "people", hash_file(path), version, str(settings.output))
        for clip, path in clips.items()
    }
    todo = {clip: clips[clip] for clip, key in keys.items() if not stage.store.has_output(key)}
    say(f"{stage.label}: the people of {len(clips)} clips, of {len(clips) - len(todo)} kept from earlier runs")
    if todo:
        work_dir = STATE / "work" / f"{stage.label}-alphapose"
        shutil.rmtree(work_dir, ignore_errors=True)  # what a killed run left
        people = _find(stage, todo, settings, work_dir)
        for clip, path in todo.items():
            write_people(stage, keys[clip], clip, path, people)
        shutil.rmtree(work_dir)
    folder = STATE / "work" / f"{stage.label}-people"
    shutil.rmtree(folder, ignore_errors=True)
    for clip, key in keys.items():
        (folder / clip).mkdir(parents=True)
        stage.store.link_output(key, folder / clip)
    return folder, version


def _find(stage: Stage, clips: Mapping[str, Path], settings: AlphaposeSettings, work_dir: Path) -> People:
    pictures = work_dir / "pictures"
    pictures.mkdir(parents=True)
    for clip, path in clips.items():
        table = Table("clip", path)
        for row, frame in enumerate(table.frames.tolist()):
            (pictures / picture_name(clip, frame)).write_bytes(table.read_picture(row))
    label = f"{stage.label} alphapose"
    total = sum(1 for _ in pictures.iterdir())
    with hold_gpu(stage.params.run.gpus, STATE / "locks", label) as gpu, Progress(label, total, "pictures") as progress:
        furthest = 0

        def on_progress(done: int, _: int) -> None:
            nonlocal furthest
            progress.advance(max(0, done - furthest))
            furthest = max(furthest, done)

        return run_alphapose(pictures, work_dir, settings, gpu, on_progress)


def picture_name(clip: str, frame: int) -> str:
    """No two frames of a batch have the same: AlphaPose tells pictures apart by their names alone."""
    return f"{clip}_{frame:012d}.png"


def write_people(stage: Stage, key: str, clip: str, path: Path, people: People) -> None:
    """Keep a clip's people in the store, a JSON file a frame."""

    def write(folder: Path) -> None:
        folder.mkdir()
        for frame in Table("clip", path).frames.tolist():
            text = json.dumps({"people": people[picture_name(clip, frame)]})
            (folder / f"{clip}_{frame:012d}_keypoints.json").write_text(text)

    stage.store.put_output(key, write)
