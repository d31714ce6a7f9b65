"""`inbetween render IN OUT`: anyone's video at any rate. Probe, scan, poses, frames, and the file put together.

The work stands in a folder beside OUT until it is done, so that the same command goes on where a killed one was. What
comes out does not depend on how many processes there are, or on when one was stopped.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from flows.lifetime import hold_lock
from flows.mapping import count_workers
from flows.params import Params, load_params
from flows.progress import Progress, say
from flows.project import ROOT, leave_out_pandas
from flows.render_options import RenderOptions, check_target, choose_settings, make_folder, work_folder
from flows.streaming import map_stream
from models.cuts import find_cuts
from tasks.chunk_jobs import ChunkPlan, chunk_jobs, cut_chunks
from tasks.errors import SourceError
from tasks.items import Item, ItemStore, hash_file, item_key
from tasks.mux import FORMATS, convert_sound, is_copied, join_video
from tasks.pose import MediapipeSettings
from tasks.render import RenderSettings
from tasks.render_chunk import SEGMENT, ChunkRecord, count_rows, has_frames, read_rows, render_chunk, write_sidecar
from tasks.scan import Scan, Source, probe_source, read_scan, scan_video, write_scan
from tasks.timeline import Timeline, check_ticks, find_shots
from tasks.video import ffmpeg_path
from tasks.video_poses import (
    DENSE_STEP_S,
    VideoPoses,
    choose_size,
    do_pose_job,
    follow_again,
    plan_video_poses,
    pose_jobs,
    read_video_poses,
)

# What a process needs to make frames, measured at 1920x1080 and 360x640 (docs/benchmarks.md): its own, and a pixel's.
_PROCESS_BYTES, _PIXEL_BYTES = 300 * 2**20, {"blend": 50, "flow": 250, "rife": 900}
_MEMORY_SHARE = 0.8  # of what is free, that all of them may take
_PRELOAD = ("tasks.render_chunk", "tasks.video_poses")
_KEPT = ("items", "scan.npz", "key", "lock")  # of a work folder, by the run that goes on


@dataclass(frozen=True)
class _Job:
    """One render: what goes in, what comes out, and where the work stands meanwhile.

    sha256: of the source.  key: hash of everything that the pictures depend on.
    """

    source: Source
    target: Path
    options: RenderOptions
    settings: RenderSettings
    params: Params
    ffmpeg: str
    crf: int
    workers: int
    work: Path
    sha256: str
    key: str
    store: ItemStore


def render_video(source_path: Path, target: Path, options: RenderOptions) -> None:
    """Render a video. Raises: InbetweenError for what a user can mend, before any work where that can be known."""
    leave_out_pandas()
    check_target(source_path, target, options)
    source = probe_source(source_path)
    if source.info.num_frames < 2:
        raise SourceError(f"{source_path}: has 1 frame; two are needed to make frames between them")
    params = load_params(ROOT / "params.yaml")
    settings = choose_settings(options)
    _say_source(source)
    work = work_folder(target)
    if options.frames:
        make_folder(options.frames, options.frames)
    make_folder(work, target)
    with hold_lock(work / "lock", f"render {target.name}"):
        check_target(source_path, target, options)  # somebody else may have rendered it while we waited
        crf = params.render.crf if options.crf is None else options.crf
        sha256 = hash_file(source_path)
        inputs = [sha256, settings.__dict__, str(options.pace), params.pose.model_dump(), crf]
        key = item_key(inputs, _hash_code(settings))
        _open_work(work, f"{key} {options.frames.absolute() if options.frames else None}")
        job = _Job(
            source=source,
            target=target,
            options=options,
            settings=settings,
            params=params,
            ffmpeg=ffmpeg_path(params.run.ffmpeg),
            crf=crf,
            workers=count_workers(params.run.workers if options.workers is None else options.workers),
            work=work,
            sha256=sha256,
            key=key,
            store=ItemStore(work / "items"),
        )
        try:
            _do(job)
        except Exception:
            if not (work / "items").exists():  # nothing is finished that is worth going on from
                shutil.rmtree(work, ignore_errors=True)
            raise
        shutil.rmtree(work, ignore_errors=True)


def _do(job: _Job) -> None:
    scan = _scan(job)
    is_cut_G = find_cuts(scan.likeness_G)
    timeline = Timeline(scan.ticks_K, scan.time_base, scan.last_ticks, job.options.pace)
    shots = find_shots(is_cut_G)
    if is_cut_G.any():
        num_cuts = int(is_cut_G.sum())
        say(f"render: {num_cuts} cut{'s' if num_cuts > 1 else ''}, not interpolated across")
    info, folder = job.source.info, job.options.frames
    plan = ChunkPlan(
        video=job.source.path,
        width=info.width,
        height=info.height,
        timeline=timeline,
        shots=shots,
        chunks=cut_chunks(timeline, info.width, info.height),
        poses=_find_poses(job, timeline, shots) if job.settings.needs_poses else None,
        settings=job.settings,
        key=job.key,
        crf=job.crf,
        ffmpeg=job.ffmpeg,
        frames_folder=folder.absolute() if folder else None,
    )
    record = _render(job, plan)
    _put_together(job, plan)
    _say_result(job, timeline, record, int(is_cut_G.sum()))


def _hash_code(settings: RenderSettings) -> list[str]:
    """Hashes of all that shapes the frames: our code, the versions of its tools, the networks."""
    files = [path for folder in ("models", "tasks") for path in sorted((ROOT / folder).rglob("*.*")) if path.is_file()]
    files = [path for path in files if path.suffix in {".py", ".safetensors"}] + [ROOT / "tools.yaml"]
    if settings.needs_poses and settings.motion == "learned":
        files += sorted(Path(settings.motion_model).glob("*"))
    return [hash_file(path) for path in [*files, *settings.renderer_files()]]


def _say_source(source: Source) -> None:
    info, sound = source.info, ", ".join(codec or "unknown" for codec in source.audio)
    say(
        f"render: {source.path.name}: {info.width}x{info.height}, {info.num_frames} frames at"
        f" {float(info.average_fps):.5g} fps, {f'sound: {sound}' if sound else 'no sound'}"
    )
    if source.hdr:
        say(f"render: {source.path.name} is HDR ({source.hdr}); frames become 8-bit without tone mapping")


def _open_work(work: Path, key: str) -> None:
    """The folder of an unfinished render of the same; what is there of another one goes.

    Args: key: of all that the run leaves; which folder of frames is part of it.
    """
    mark = work / "key"
    found = mark.read_text() if mark.is_file() else None
    kept = _KEPT if found == key else ("lock",)
    for path in [path for path in work.iterdir() if path.name not in kept]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if found == key:
        for path in (work / "items").glob("*/.*"):  # what was being written when it was killed
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        say("render: goes on with what an earlier run has finished")
    elif found is not None:
        say("render: what an earlier run left is of another input, setting or version; it is dropped")
    mark.write_text(key)


def _scan(job: _Job) -> Scan:
    path = job.work / "scan.npz"
    if not path.is_file():
        with Progress("render: scan", job.source.info.num_frames, "frames") as progress:
            scan = scan_video(job.source, job.ffmpeg, progress.advance)
        check_ticks(job.source.path, scan.ticks_K)
        write_scan(path, scan)
    return read_scan(path)


def _find_poses(job: _Job, timeline: Timeline, shots: Sequence[range]) -> VideoPoses:
    info, params = job.source.info, job.params.pose
    size = choose_size(info.width, info.height, params.upscale)
    num_apart = 1 if float(1 / timeline.key_fps) <= DENSE_STEP_S else 2
    passes = plan_video_poses(shots, partial(item_key, job.key))
    settings = MediapipeSettings(size.upscale, params.model_complexity, params.timeout_s)
    work_dir = job.work / "estimator"
    work_dir.mkdir()

    def have(items: Sequence[Item], label: str) -> None:
        todo = [item for item in items if not job.store.has(item.key)]
        num_keys = {item.key: len(item.args.rows) - item.args.num_lead for item in items}
        if not items:
            return
        with Progress(label, sum(num_keys.values()), "frames") as progress:
            progress.skip(sum(num_keys.values()) - sum(num_keys[item.key] for item in todo))
            if todo:
                map_stream(
                    partial(do_pose_job, settings=settings, store=job.store, work_dir=work_dir),
                    pose_jobs(job.source.path, todo, job.work / "pictures", size, num_apart, job.ffmpeg),
                    workers=job.workers,
                    on_done=lambda _job, _result: None,
                    on_advance=progress.advance,
                    preload=_PRELOAD,
                )

    have([item for chunks in passes for item in chunks], "render: poses")
    final = follow_again(passes, job.store)
    first = {item.key for chunks in passes for item in chunks}
    have([item for chunks in final for item in chunks if item.key not in first], "render: poses again")
    scale_xy = (info.width / size.width, info.height / size.height)
    poses = read_video_poses(final, shots, job.store, num_apart, scale_xy)
    seen, base = int((poses.joints_px_KJD[..., 2] > 0).any(axis=1).sum()), job.settings.base
    if not seen:
        say(f"render: no person was found in any frame: the frames between are {base}'s")
    elif seen < timeline.num_keys:
        say(f"render: a person was found in {seen} of {timeline.num_keys} frames; beside others, frames are {base}'s")
    return poses


def _render(job: _Job, plan: ChunkPlan) -> ChunkRecord:
    """Have every chunk in the store; returns what the frames are."""
    folder = plan.frames_folder
    records: list[ChunkRecord] = []
    todo: list[int] = []
    for number in range(len(plan.chunks)):
        output = job.store.output(plan.chunk_key(number))
        rows = read_rows(output) if output.is_dir() else None
        if rows is None or (folder and not has_frames(rows, folder)):
            todo.append(number)
        else:
            records.append(count_rows(rows, job.settings))
    with Progress("render: frames", plan.timeline.num_frames, "frames") as progress:
        progress.skip(plan.timeline.num_frames - sum(plan.num_frames(number) for number in todo))
        if todo:
            map_stream(
                partial(render_chunk, store=job.store),
                chunk_jobs(plan, todo, job.work / "pictures"),
                workers=_fit_memory(job, len(todo)),
                on_done=lambda _chunk, record: records.append(record),
                on_advance=progress.advance,
                preload=_PRELOAD,
            )
    for path in folder.glob("frame_*.png") if folder else ():  # what is overwritten may have been longer
        if path.stem.removeprefix("frame_").isdecimal() and int(path.stem[6:]) >= plan.timeline.num_frames:
            path.unlink()
    return ChunkRecord(*np.sum(records, axis=0).tolist())


def _fit_memory(job: _Job, num_chunks: int) -> int:
    """As many processes as there is memory for; at least one."""
    settings, info = job.settings, job.source.info
    kind = settings.base if settings.needs_poses else settings.method
    each = _PROCESS_BYTES + _PIXEL_BYTES[kind] * info.width * info.height
    free = int(psutil.virtual_memory().available * _MEMORY_SHARE)
    workers = max(1, min(job.workers, num_chunks, free // each))
    if workers < min(job.workers, num_chunks):
        say(
            f"render: {workers} of {job.workers} processes: each takes some {each >> 20} MB for pictures of"
            f" {info.width}x{info.height}, and {free >> 20} MB are free"
        )
    return workers


def _put_together(job: _Job, plan: ChunkPlan) -> None:
    """The video with its sound and the table beside it, each whole or not at all."""
    target, container, timeline = job.target, FORMATS[job.target.suffix.lower()], plan.timeline
    folders = [job.store.output(plan.chunk_key(number)) for number in range(len(plan.chunks))]
    sound = job.options.sound
    codecs = () if sound == "drop" else job.source.audio
    stretch = timeline.pace.stretch if sound == "stretch" else 1
    sounds = convert_sound(job.source.path, codecs, container, stretch, job.work, job.ffmpeg)
    ticks = [moment.tick for key in range(timeline.num_keys) for moment in timeline.moments(key)]
    joined = job.work / f"joined{target.suffix}"
    with Progress("render: file", timeline.num_frames, "frames") as progress:
        join_video(
            joined,
            container,
            [folder / SEGMENT for folder in folders],
            np.array(ticks, np.int64),
            timeline.end_tick,
            timeline.out_base,
            job.source.pixel_aspect,
            sounds,
            progress.advance,
        )
    info = job.source.info
    facts = job.settings.describe() | {
        "pace": f"{timeline.pace.kind} {timeline.pace.value}",
        "fps": str(timeline.out_fps),
        "width": str(info.width),
        "height": str(info.height),
        "source_sha256": job.sha256,
    }
    if job.settings.needs_poses:  # where nobody is seen frames are the base's, whatever is painted over
        facts["base"] = job.settings.base
    for name in ("key_step", "motion_model", "renderer"):  # paths of this machine
        facts.pop(name, None)
    write_sidecar(target.with_suffix(".parquet"), folders, facts)
    joined.replace(target)


def _say_result(job: _Job, timeline: Timeline, record: ChunkRecord, num_cuts: int) -> None:
    container, sound = FORMATS[job.target.suffix.lower()], "no sound"
    if job.source.audio:
        how = {"keep": "kept", "stretch": f"stretched {timeline.pace.stretch} times", "drop": "dropped"}
        converted = [codec for codec in job.source.audio if codec and not is_copied(codec, container)]
        is_aac = job.options.sound == "keep" and converted
        sound = f"sound {how[job.options.sound]}{' (' + ', '.join(converted) + ' as AAC)' if is_aac else ''}"
    based = f" ({record.num_based} of them {job.settings.base}'s: nobody is seen)" if record.num_based else ""
    at_cuts = f"at {num_cuts} cut{'s' if num_cuts > 1 else ''}" if num_cuts else ""
    where = " and ".join(filter(None, [at_cuts, "after the last one"]))
    held = f", {record.num_held} repeated ({where})" if record.num_held else ""
    say(
        f"render: {job.target}: {timeline.num_frames} frames at {float(timeline.out_fps):.5g} fps:"
        f" {record.num_original} original, {record.num_generated} by {job.settings.method}{based}{held}; {sound};"
        f" a row a frame in {job.target.with_suffix('.parquet')}"
    )
