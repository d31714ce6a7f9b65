"""Stage samples: one renderer's training set, from key frames, observed poses and backgrounds, into data/samples/R."""

from functools import partial
from pathlib import Path

from flows.progress import say
from flows.stage import Stage, note_missing_clips
from models.renderer.methods import available_base
from tasks.items import each
from tasks.samples import (
    SamplesPlan,
    SamplesSettings,
    choose_clips,
    clean_pieces,
    make_samples,
    plan_samples,
    read_tested_frames,
    write_samples,
)
from tasks.tables import list_tables

TOOLS = ("numpy", "opencv", "pyarrow", "rife", "scipy", "torch")
SCRIPTS = (
    "models/renderer/chooser.safetensors",
    "models/renderer/rife.py",
)  # read for `warp` alone


def run(stage: Stage) -> None:
    wanted = stage.params.renderers[stage.item]
    clips, poses = stage.data(wanted.batch, "clips"), stage.data(wanted.batch, "poses")
    backgrounds = stage.data(wanted.batch, f"backgrounds-{wanted.key_step}")
    note_missing_clips(stage, clips)
    base = available_base(wanted.base)
    if wanted.background == "warp" and base != wanted.base:
        say(f"{stage.label}: warp works over {base}: {wanted.base} is not installed here")
    settings = SamplesSettings(wanted.key_step, wanted.background, base, wanted.height, wanted.width)
    paths = choose_clips(stage.item, list_tables(clips), wanted.split, wanted.videos)
    others = [poses, backgrounds] if wanted.background == "base" else [poses]
    files = {clip: [path, *(folder / path.name for folder in others)] for clip, path in paths.items()}
    pieces: dict[str, list[range | None]] = {clip: [None] for clip in paths}
    if wanted.split == "clean":
        tested = read_tested_frames(list_tables(clips))
        pieces = {clip: [*clean_pieces(path, wanted.key_step, tested)] for clip, path in paths.items()}
        for clip in [clip for clip, kept in pieces.items() if not kept]:
            say(f"{stage.label}: leaves out clip {clip}: test clips show too much of it")
            del files[clip]
    described = [[clip, str(pieces[clip])] for clip in files] if wanted.split == "clean" else []
    outputs = stage.outputs(files, None, settings.describe(), described)

    def plan_clip(clip: str) -> list[SamplesPlan]:
        whole = len(pieces[clip]) == 1
        return [
            plan_samples(
                paths[clip], poses, backgrounds, settings, partial(stage.key, None), piece,
                None if whole else f"{clip}+{number}",
            )
            for number, piece in enumerate(pieces[clip], start=1)
        ]  # fmt: skip

    todo = {output: plan_clip(output.name) for output in stage.pending(outputs)}
    stage.do(partial(each, make_samples), [item for plans in todo.values() for plan in plans for item in plan.items])

    def write_clip(plans: list[SamplesPlan], folder: Path) -> None:
        for plan in plans:
            write_samples(plan, stage.store, folder)

    stage.write(
        [
            (output, [item for plan in plans for item in plan.items], partial(write_clip, plans))
            for output, plans in todo.items()
        ]
    )
    stage.place(outputs, stage.data("samples", stage.item))
