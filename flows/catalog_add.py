"""`inbetween catalog add`: propose clips of videos and write a batch's two files, for a person to mend."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from flows.params import Params, load_params
from flows.progress import Progress, say
from flows.project import ROOT, STATE
from tasks.catalog import UNKNOWN_LICENCE, VideoRow, read_catalog
from tasks.clip_proposals import (
    LeftOut,
    Proposal,
    choose_splits,
    describe_frames,
    drop_same,
    places_to_look,
    propose_clips,
)
from tasks.download import DownloadSettings, download_videos
from tasks.errors import CatalogError, VideoError
from tasks.lineage.marks import Candidate, refuse_withdrawn
from tasks.new_batch import BATCH_NAME, name_videos, parse_rate, read_words, refuse_existing, to_source
from tasks.new_batch import write_catalog as write_files
from tasks.pose import MediapipeSettings
from tasks.presence import see_people
from tasks.shots import Footage, Watched, fit_size, probe_footage, read_footage, watch
from tasks.sources import Manifest
from tasks.video import ffmpeg_path

CLIP_PIXELS = 768 * 512  # of a proposed clip's pictures, at most
KEY_STEP, NO_SOURCE = 4, "data/raw/embedded/no-source"  # of the lines for params.yaml


def add_batch(batch: str, words: Sequence[str], folder: Path, fps: str, *, force: bool) -> None:
    """Propose clips of some videos and write catalog/BATCH; without videos, of those in its videos.csv.

    Args: words: addresses, files, folders of pictures or lists of them. folder: what paths are relative to.
    Raises: InbetweenError; nothing is written then.
    """
    if not BATCH_NAME.fullmatch(batch):
        raise CatalogError(f"batch {batch!r}: a batch's name is letters, digits, _ and -, 100 at most")
    target, params = ROOT / "catalog" / batch, load_params(ROOT / "params.yaml")
    is_new = bool(words)
    if is_new:
        refuse_existing(target, ["videos.csv", "clips.csv"], replaces=force)
        sources = [to_source(word, folder, ROOT) for word in read_words(words, folder)]
        if not sources:
            raise CatalogError(f"{', '.join(words)}: names no source; write an address or a path a line")
        videos = _name_rows(sources, fps)
    else:
        refuse_existing(target, ["clips.csv"], replaces=force)
        videos = dict(read_catalog(ROOT, batch, needs_clips=False).videos)
    refuse_withdrawn(ROOT, batch, [Candidate(row.video, row.source, row.sha256 or "") for row in videos.values()])
    manifest = _fetch(batch, videos, params)
    refuse_withdrawn(ROOT, batch, [Candidate(row.video, row.source, row.sha256 or "") for row in manifest.ok])
    watched, clips, left_out = _look_at(batch, videos, manifest, params)
    for one in left_out:
        say(f"catalog add: left out {one.video} {one.first}-{one.last}: {one.reason}")
    kept, same = drop_same(clips, watched)
    for clip, other in same:
        say(f"catalog add: left out {_span(clip)}: shows the same as {_span(other)}")
    for video, seen in watched.items():
        num_repeated = sum(clip.last - clip.first + 1 - len(clip.frames) for clip in kept if clip.video == video)
        if num_repeated:
            say(f"catalog add: {video}: {num_repeated} of {len(seen.frames_T)} frames repeat the one before; left out")
    if not kept:
        raise CatalogError(f"batch {batch}: no clip to propose in {len(videos)} videos; nothing is written")
    found = {row.video: row for row in manifest.ok}
    video_rows = [
        {
            "video": name,
            "source": video.source,
            "licence": found[name].source_licence or UNKNOWN_LICENCE,
            "sha256": str(found[name].sha256),
            "num_frames": str(watched[name].frames_T[-1] + 1),
            "crop": "",
            "fps": str(video.fps) if video.fps else "",
        }
        for name, video in videos.items()
        if name in watched
    ]
    write_files(target, video_rows if is_new else None, _clip_rows(kept, watched), replaces=force)
    read_catalog(ROOT, batch)
    _say_next(batch, kept, params)


def _name_rows(sources: Sequence[str], fps: str) -> dict[str, VideoRow]:
    rate = parse_rate(fps) if fps else None
    rows = {}
    for name, source in name_videos(sources).items():
        is_folder = source.startswith("gdrive:") or (ROOT / source.removeprefix("file:")).is_dir()
        if is_folder and rate is None:
            raise CatalogError(f"{source}: is a folder of pictures, which states no rate; give it with --fps")
        rows[name] = VideoRow(name, source, UNKNOWN_LICENCE, None, None, None, rate if is_folder else None)
    return rows


def _fetch(batch: str, videos: dict[str, VideoRow], params: Params) -> Manifest:
    """The videos in a folder of ours, apart from data/: what lasts is made by the stages alone."""
    settings = DownloadSettings(
        missing="skip",
        max_height=params.download.max_height,
        max_fps=params.download.max_fps,
        retries=params.download.retries,
        rate_limit_bytes_s=params.download.rate_limit_bytes_s,
        cookies=Path(params.download.cookies) if params.download.cookies else None,
        ffmpeg_location=ffmpeg_path(params.run.ffmpeg),
    )
    with Progress("catalog add: fetch", len(videos), "videos") as progress:
        manifest = download_videos(
            [video.wanted() for video in videos.values()],
            STATE / "catalog" / batch,
            settings,
            ROOT,
            lambda _, done: progress.advance() if done == 1.0 else None,
        )
    for row in manifest.skipped:
        say(f"catalog add: left out {row.video}: {row.reason}")
    return manifest


def _look_at(
    batch: str, videos: dict[str, VideoRow], manifest: Manifest, params: Params
) -> tuple[dict[str, Watched], list[Proposal], list[LeftOut]]:
    ffmpeg, folder = ffmpeg_path(params.run.ffmpeg), STATE / "catalog" / batch
    settings = MediapipeSettings(params.pose.upscale, params.pose.model_complexity, params.pose.timeout_s)
    watched: dict[str, Watched] = {}
    clips: list[Proposal] = []
    left_out: list[LeftOut] = []
    STATE.mkdir(exist_ok=True)
    for row in manifest.ok:
        video = videos[row.video]
        footage = Footage(folder / str(row.file), video.crop, video.fps)
        try:
            num_frames = len(probe_footage(footage)[0])
            with Progress(f"catalog add: shots of {row.video}", num_frames, "frames") as progress:
                seen = watch(footage, ffmpeg, progress.advance)
        except VideoError as error:  # one bad file of a long list is no reason to lose the others
            if len(manifest.ok) == 1:
                raise
            say(f"catalog add: left out {row.video}: {error}")
            continue
        places = places_to_look(seen)
        with Progress(f"catalog add: people in {row.video}", len(places), "frames") as progress:
            done = 0

            def on_progress(now: int, _: int, progress: Progress = progress) -> None:
                nonlocal done
                if now > done:  # the second look at some pictures counts from 0 again
                    progress.advance(now - done)
                    done = now

            shown = read_footage(footage, [seen.frames_T[place] for place in places], ffmpeg)
            people = see_people((frame.image_HWC for frame in shown), STATE, settings, on_progress)
        found, lost = propose_clips(row.video, seen, dict(zip(places, people, strict=True)))
        watched[row.video] = seen
        clips += found
        left_out += lost
    return watched, clips, left_out


def _clip_rows(clips: Sequence[Proposal], watched: dict[str, Watched]) -> list[dict[str, str]]:
    rows = []
    numbers: Counter[str] = Counter()
    for clip, split in zip(clips, choose_splits(clips), strict=True):
        numbers[clip.video] += 1
        width, height = fit_size(watched[clip.video].width, watched[clip.video].height, CLIP_PIXELS)
        rows.append(
            {
                "clip": f"{clip.video}_{numbers[clip.video]:03d}",
                "video": clip.video,
                "split": split,
                "subject": clip.video,
                **describe_frames(clip.frames),
                "width": str(width),
                "height": str(height),
            }
        )
    return rows


def _span(clip: Proposal) -> str:
    return f"{clip.video} {clip.frames[0]}-{clip.frames[-1]}"


def _say_next(batch: str, clips: Sequence[Proposal], params: Params) -> None:
    num_frames = sum(len(clip.frames) for clip in clips)
    say(f"catalog/{batch}: {len(clips)} clips with {num_frames} frames are proposed; look them through, mend the two")
    say("files (licence, subject, split, spans), then:")
    say(f"  inbetween catalog check {batch}")
    say(f"  inbetween ingest {batch}")
    if batch not in params.batches:
        say("or, by hand, these lines in params.yaml, and inbetween repro:")
        pose, interpolator = (
            f"pose: {{worker: mediapipe, source: {NO_SOURCE}}}",
            f"interpolator: flow, source: {NO_SOURCE}",
        )
        say(f"  batches:     {batch}: {{key_steps: [{KEY_STEP}], {pose}}}")
        say(f"  backgrounds: {batch}-{KEY_STEP}: {{batch: {batch}, key_step: {KEY_STEP}, {interpolator}}}")
