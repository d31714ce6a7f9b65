"""Stage render: one render's clips at full rate, from keys, observed poses and backgrounds, into data/renders/NAME."""

from functools import partial
from pathlib import Path

from flows.progress import say
from flows.stage import Output, Stage, note_missing_clips
from models.renderer.methods import available_base
from tasks.errors import ParamsError
from tasks.items import each
from tasks.render import RenderSettings, plan_render, render_chunk, write_movie, write_render
from tasks.tables import list_tables, read_facts
from tasks.video import ffmpeg_path

TOOLS = ("ffmpeg", "numpy", "opencv", "pyarrow", "rife", "scipy", "torch")
# What a learned motion, RIFE or a trained renderer imports and the others do without, and weights
# (tests/test_pipeline.py holds the list).
SCRIPTS = (
    "models/checkpoint.py",
    "models/motion/__init__.py",
    "models/motion/filling.py",
    "models/motion/inference.py",
    "models/motion/rows.py",
    "models/motion/samples.py",
    "models/motion/splines.py",
    "models/motion/tangents.py",
    "models/motion/transformer.py",
    "models/motion/views.py",
    "models/renderer/blocks.py",
    "models/renderer/chooser.safetensors",
    "models/renderer/generator.py",
    "models/renderer/labels.py",
    "models/renderer/neural.py",
    "models/renderer/rife.py",
    "models/renderer/sizes.py",
)


def run(stage: Stage) -> None:
    wanted = stage.params.renders[stage.item]
    clips = stage.data(wanted.batch, "clips")
    note_missing_clips(stage, clips)
    base = available_base(wanted.base)
    settings = RenderSettings(
        wanted.key_step,
        wanted.motion,
        wanted.method,
        wanted.motion_model,
        base,
        wanted.renderer,
        wanted.background,
        wanted.device,
    )
    if settings.is_warped and base != wanted.base:
        say(f"{stage.label}: warp works over {base}: {wanted.base} is not installed here")
    poses, backgrounds = stage.data(wanted.batch, "poses"), stage.data(wanted.batch, f"backgrounds-{wanted.key_step}")
    paths = choose_clips(stage, list_tables(clips))
    files = {clip: [path, *settings.inputs(poses / path.name, backgrounds / path.name)] for clip, path in paths.items()}
    outputs = stage.outputs(files, None, settings.__dict__)
    todo = {
        output: plan_render(paths[output.name], poses, backgrounds, settings, partial(stage.key, None))
        for output in stage.pending(outputs)
    }
    stage.do(partial(each, render_chunk), [item for plan in todo.values() for item in plan.items])
    stage.write([(output, plan.items, partial(write_render, plan, stage.store)) for output, plan in todo.items()])
    stage.place([*outputs, *encode_movies(stage, outputs)], stage.data("renders", stage.item))


def choose_clips(stage: Stage, tables: list[Path]) -> dict[str, Path]:
    """Clip -> table of what is rendered: the clips of a split, of these videos (none = all).

    Raises: ParamsError where a video has no such clip.
    """
    wanted = stage.params.renders[stage.item]
    facts = {path: read_facts("clip", path) for path in tables}
    chosen = {path: fact for path, fact in facts.items() if fact["split"] == wanted.split}
    videos = {fact["video"] for fact in chosen.values()}
    missing = [video for video in wanted.videos if video not in videos]
    if missing:
        raise ParamsError(
            f"params.yaml: renders.{stage.item}.videos: {missing[0]} has no clip of split {wanted.split};"
            f" those with one: {', '.join(sorted(videos)) or 'none'}"
        )
    return {path.stem: path for path, fact in chosen.items() if not wanted.videos or fact["video"] in wanted.videos}


def encode_movies(stage: Stage, tables: list[Output]) -> list[Output]:
    """An .mp4 of each table, apart from it: the encoder's settings re-render nothing."""
    params = stage.params.render
    movies = {Output(table.name, stage.key(params, "movie", table.key)): table for table in tables}
    ffmpeg = ffmpeg_path(stage.params.run.ffmpeg)
    writes = []
    for movie in stage.pending(list(movies), "movies"):
        table = stage.store.output(movies[movie].key) / f"{movie.name}.parquet"
        writes.append((movie, (), partial(write_movie, table, params.crf, ffmpeg)))
    stage.write(writes)
    return list(movies)
