"""Stage report: one page that opens from disk, with every render beside its truth, into report/."""

import json
from pathlib import Path

from flows.stage import Stage, empty_folder
from tasks.errors import TableError
from tasks.report import ClipFiles, RenderEntry, write_report
from tasks.report_motion import MotionFiles
from tasks.tables import list_tables, read_skipped
from tasks.video import ffmpeg_path

TOOLS = ("ffmpeg", "jinja2", "matplotlib", "opencv", "pyarrow")
SCRIPTS = ("tasks/report.html.j2", "tasks/report_motion.html.j2")
COMMANDS = ("make demo", "dvc metrics show", "dvc plots show")


def run(stage: Stage) -> None:
    params = stage.params.report
    entries = [read_entry(stage, name) for name in stage.params.renders]
    skipped: dict[str, str] = {}
    for batch in stage.params.batches:
        skipped |= read_skipped(stage.data(batch, "clips"))
    write_report(
        empty_folder(Path("report")),
        entries,
        motion=MotionFiles(
            metrics=Path("metrics/motion.json"),
            curves=Path("metrics/train_motion/plots/metrics"),
            provenance=stage.data("models", "motion", "provenance.json"),
            start_provenance=Path(stage.params.train_motion.start, "provenance.json"),
            animation=stage.data("evaluations-motion", "motion.mp4"),
        ),
        skipped=skipped,
        commands=COMMANDS,
        media_height=params.media_height,
        sample_frames=params.sample_frames,
        worst_frames=params.worst_frames,
        ffmpeg=ffmpeg_path(stage.params.run.ffmpeg),
        workers=stage.workers,
    )


def read_entry(stage: Stage, name: str) -> RenderEntry:
    """What the page shows of one render; measures that are not there are said there."""
    render = stage.params.renders[name]
    metrics = Path("metrics/render", f"{name}.json")
    return RenderEntry(
        name=name,
        batch=render.batch,
        key_step=render.key_step,
        motion=render.motion,
        method=render.method,
        clips=tuple(
            ClipFiles(
                clip=path.stem,
                truth=stage.data(render.batch, "clips", path.name),
                render=path,
                evaluation=stage.data("evaluations", name, path.name),
            )
            for path in _list_rendered(stage.data("renders", name))
        ),
        metrics=json.loads(metrics.read_text()) if metrics.is_file() else None,
        motion_model=render.motion_model,
    )


def _list_rendered(folder: Path) -> list[Path]:
    try:
        return list_tables(folder)
    except TableError:  # the page says so
        return []
