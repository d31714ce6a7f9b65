"""Stage download: the batch's videos, from wherever the catalogue says, into data/B/videos with a manifest."""

from dataclasses import replace
from pathlib import Path

from flows.progress import Progress, say
from flows.project import ROOT
from flows.stage import Stage
from tasks.catalog import read_catalog
from tasks.dependents import dependents, say_dependents
from tasks.download import DownloadSettings, download_videos
from tasks.video import ffmpeg_path

TOOLS: tuple[str, ...] = ()


def run(stage: Stage) -> None:
    catalog = read_catalog(ROOT, stage.item, needs_clips=False)
    params = stage.params.download
    settings = DownloadSettings(
        missing=params.missing,
        max_height=params.max_height,
        max_fps=params.max_fps,
        retries=params.retries,
        rate_limit_bytes_s=params.rate_limit_bytes_s,
        cookies=Path(params.cookies) if params.cookies else None,
        ffmpeg_location=ffmpeg_path(stage.params.run.ffmpeg),
    )
    hanging = {name: say_dependents(dependents(catalog, name)) for name in catalog.videos}
    share: dict[str, float] = {}
    with Progress(stage.label, len(catalog.videos), "videos") as progress:

        def on_progress(video: str, done: float | None) -> None:
            progress.advance(max(0.0, (done or 0.0) - share.get(video, 0.0)))
            share[video] = max(done or 0.0, share.get(video, 0.0))

        manifest = download_videos(
            [replace(video.wanted(), hanging=hanging[name]) for name, video in catalog.videos.items()],
            stage.data(stage.item, "videos"),
            settings,
            ROOT,
            on_progress,
        )
    for row in manifest.rows:
        if row.reason:
            word = "skipped " if row.status == "skipped" else ""
            say(f"{stage.label}: {word}{row.video}: {row.reason}; on it hang {hanging[row.video]}")
