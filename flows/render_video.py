"""`inbetween render IN OUT`: anyone's video at any rate. Probe, scan, poses, frames, and the file put together.

The work stands in a folder beside OUT until it is done, so that the same command goes on where a killed one was. Nothing
of it depends on how many processes there are, or on when it was stopped.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from flows.lifetime import hold_lock
from flows.mapping import count_workers
from flows.params import Params, load_params
from flows.progress import Progress, say
from flows.project import ROOT, leave_out_pandas
from flows.raw_data import bring_raw_data
from flows.streaming import map_stream
from models.cuts import find_cuts
from models.renderer.keys import WeightsError, find_rife_weights
from models.renderer.methods import Background, Base, available_base
from tasks.errors import ParamsError, SourceError, ToolError
from tasks.items import Item, ItemStore, hash_file, item_key
from tasks.mux import FORMATS, convert_sound, is_copied, join_video
from tasks.pose import MediapipeSettings
from tasks.render import Method, Motion, RenderSettings
from tasks.render_chunk import (
    CONTEXT_KEYS,
    SEGMENT,
    ChunkRecord,
    Gap,
    RenderChunk,
    ShotPart,
    count_rows,
    has_frames,
    read_rows,
    render_chunk,
    write_sidecar,
)
from tasks.scan import Scan, Source, probe_source, read_scan, scan_video, write_scan
from tasks.tables import frames_per_chunk
from tasks.timeline import Pace, Timeline, check_ticks, find_shots
from tasks.video import ffmpeg_path, read_frames
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

Audio = Literal["keep", "stretch", "drop"]
EMBEDDED_MOTION = ROOT / "data/raw/embedded/motion/tangents"
MIN_FPS, MAX_FPS = 1, 1000
_PRELOAD = ("tasks.render_chunk", "tasks.video_poses")


@dataclass(frozen=True)
class RenderOptions:
    """What the command line says. None = as the embedded defaults or params.yaml have it.

    motion_model: checkpoint folder of a learned motion.  renderer: of method neural, which paints over `background`.
    """

    pace: Pace
    method: Method
    motion: Motion
    base: Base
    background: Background
    motion_model: Path | None
    renderer: Path | None
    audio: Audio | None
    frames: Path | None
    crf: int | None
    workers: int | None
    overwrite: bool


@dataclass(frozen=True)
class _Job:
    """One render: what goes in, what comes out, and where the work stands meanwhile.

    key: hash of everything that the result depends on.
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
    key: str
    store: ItemStore


def read_pace(rate: int | None, fps: str | None, slow: int | None) -> Pace:
    """The one of --rate, --fps and --slow that is given; none is --rate 2. Raises: ParamsError."""
    given = [name for name, value in (("--rate", rate), ("--fps", fps), ("--slow", slow)) if value is not None]
    if len(given) > 1:
        raise ParamsError(f"{' and '.join(given)}: say one of them; each says how many frames there will be")
    if fps is not None:
        try:
            value = Fraction(fps)
        except (ValueError, ZeroDivisionError):
            value = Fraction(0)
        if not MIN_FPS <= value <= MAX_FPS:
            raise ParamsError(
                f"--fps {fps}: frames a second are needed, {MIN_FPS} to {MAX_FPS}: 60, 59.94 or 60000/1001"
            )
        return Pace("fps", value.limit_denominator(1001))
    if slow is not None:
        return Pace("slow", Fraction(slow))
    return Pace("rate", Fraction(rate or 2))


def render_video(source_path: Path, target: Path, options: RenderOptions) -> None:
    """Render a video. Raises: InbetweenError for what a user can mend, before any work where that can be known."""
    leave_out_pandas()
    _check_target(source_path, target, options)
    source = probe_source(source_path)
    if source.info.num_frames < 2:
        raise SourceError(f"{source_path}: has 1 frame; two are needed to make frames between them")
    params = load_params(ROOT / "params.yaml")
    settings = _choose_settings(options)
    ffmpeg = ffmpeg_path(params.run.ffmpeg)
    _say_source(source, settings)
    work = target.parent / f".{target.name}.inbetween"
    work.mkdir(exist_ok=True)
    with hold_lock(work / "lock", f"render {target.name}"):
        _check_target(source_path, target, options)  # somebody else may have rendered it while we waited
        crf = params.render.crf if options.crf is None else options.crf
        key = item_key(
            hash_file(source_path),
            settings.__dict__,
            str(options.pace),
            params.pose.model_dump(),
            crf,
            _hash_code(settings),
        )
        _open_work(work, key)
        workers = count_workers(params.run.workers if options.workers is None else options.workers)
        store = ItemStore(work / "items")
        job = _Job(source, target, options, settings, params, ffmpeg, crf, workers, work, key, store)
        scan = _scan(job)
        is_cut_G = find_cuts(scan.likeness_G)
        timeline = Timeline(scan.ticks_K, scan.time_base, scan.last_ticks, options.pace)
        shots = find_shots(is_cut_G)
        if is_cut_G.any():
            say(f"render: {is_cut_G.sum()} cuts, which are not interpolated across")
        poses = _find_poses(job, timeline, shots) if settings.needs_poses else None
        chunks = timeline.chunks(frames_per_chunk(source.info.height, source.info.width))
        record = _render(job, timeline, shots, poses, chunks)
        _put_together(job, timeline, chunks)
        _say_result(job, timeline, record, int(is_cut_G.sum()))
        shutil.rmtree(work, ignore_errors=True)


def _check_target(source: Path, target: Path, options: RenderOptions) -> None:
    if target.suffix.lower() not in FORMATS:
        raise ParamsError(f"{target}: a name that ends in {', '.join(FORMATS)} is needed, which says what kind of file")
    if not target.parent.is_dir():
        raise ParamsError(f"{target}: there is no folder {target.parent}; make it first")
    if source.exists() and target.exists() and source.samefile(target):
        raise ParamsError(f"{target}: is the input itself; name another file")
    for path in (target, target.with_suffix(".parquet")):
        if path.is_dir():
            raise ParamsError(f"{path}: is a folder; name a file")
        if path.exists() and not options.overwrite:
            raise ParamsError(f"{path}: exists already; name another file, or add --overwrite")
    work = target.parent / f".{target.name}.inbetween"
    folder = options.frames
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise ParamsError(f"--frames {folder}: is a file; name a folder")
    if not folder.absolute().parent.is_dir():
        raise ParamsError(f"--frames {folder}: there is no folder {folder.parent}; make it first")
    if folder.is_dir() and any(folder.iterdir()) and not options.overwrite and not work.exists():
        raise ParamsError(f"--frames {folder}: is not empty; name another folder, or add --overwrite")


def _choose_settings(options: RenderOptions) -> RenderSettings:
    """Have what the methods need, and say it before any work where it is not there."""
    method, base = options.method, available_base(options.base)
    try:
        if method == "rife" or (method == "neural" and options.background == "rife"):
            find_rife_weights()
    except WeightsError as error:
        raise ToolError(str(error)) from error
    if (method == "neural") != (options.renderer is not None):
        raise ParamsError(
            "--renderer: method neural needs the folder of a trained renderer, and no other method takes one"
        )
    if options.motion_model is not None and options.motion != "learned":
        raise ParamsError("--motion-model: only --motion learned takes a model")
    for folder, name in ((options.renderer, "--renderer"), (options.motion_model, "--motion-model")):
        if folder is not None and not (folder / "config.json").is_file():
            raise ParamsError(f"{name} {folder}: holds no checkpoint (config.json, model.safetensors)")
    model = (options.motion_model or EMBEDDED_MOTION).absolute()
    settings = RenderSettings(
        key_step=1,
        motion=options.motion,
        method=method,
        motion_model=str(model),
        base=base,
        renderer=str((options.renderer or EMBEDDED_MOTION).absolute()),
        background=options.background,
    )
    if settings.needs_poses and options.motion == "learned" and options.motion_model is None and not model.is_dir():
        bring_raw_data()
    if settings.is_warped and base != options.base:
        say(f"render: warp works over {base}: {options.base} is not installed here")
    return settings


def _hash_code(settings: RenderSettings) -> list[str]:
    """Hashes of all that shapes the frames: our code, the versions of its tools, the networks."""
    files = [path for folder in ("models", "tasks") for path in sorted((ROOT / folder).rglob("*.*")) if path.is_file()]
    files = [path for path in files if path.suffix in {".py", ".safetensors"}] + [ROOT / "tools.yaml"]
    if settings.needs_poses and settings.motion == "learned":
        files += sorted(Path(settings.motion_model).glob("*"))
    return [hash_file(path) for path in [*files, *settings.renderer_files()]]


def _say_source(source: Source, settings: RenderSettings) -> None:
    info = source.info
    say(
        f"render: {source.path.name}: {info.width}x{info.height}, {info.num_frames} frames at"
        f" {float(info.average_fps):.5g} fps, {'sound: ' + ', '.join(source.audio) if source.audio else 'no sound'}"
    )
    if source.hdr:
        say(f"render: {source.path.name} is HDR ({source.hdr}); frames become 8-bit without tone mapping")


def _open_work(work: Path, key: str) -> None:
    """The folder of an unfinished render of the same; what is there of another one goes."""
    mark = work / "key"
    found = mark.read_text() if mark.is_file() else None
    for path in work.iterdir():
        if found == key and path.name in {"items", "scan.npz", "key"}:
            continue
        if path.name != "lock":
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
    seen = int((poses.joints_px_KJD[..., 2] > 0).any(axis=1).sum())
    if not seen:
        say(f"render: no person was found in any frame: the frames between are {job.settings.base}'s")
    elif seen < timeline.num_keys:
        say(
            f"render: a person was found in {seen} of {timeline.num_keys} frames; elsewhere it is {job.settings.base}'s"
        )
    return poses


def _render(
    job: _Job, timeline: Timeline, shots: Sequence[range], poses: VideoPoses | None, chunks: Sequence[range]
) -> ChunkRecord:
    """Have every chunk in the store; returns what the frames are."""
    folder = job.options.frames.absolute() if job.options.frames else None
    if folder:
        folder.mkdir(exist_ok=True)
    kept: list[ChunkRecord] = []
    todo: list[int] = []
    for number in range(len(chunks)):
        output = job.store.output(_chunk_key(job, number))
        rows = read_rows(output) if output.is_dir() else None
        if rows is None or (folder and not has_frames(rows, folder)):
            todo.append(number)
        else:
            kept.append(count_rows(rows, job.settings))

    def frames_of(number: int) -> int:
        return timeline.first_frame(chunks[number].stop) - timeline.first_frame(chunks[number].start)

    left = sum(frames_of(number) for number in todo)
    with Progress("render: frames", timeline.num_frames, "frames") as progress:
        progress.skip(timeline.num_frames - left)
        if todo:
            map_stream(
                partial(render_chunk, store=job.store),
                _chunk_jobs(job, timeline, shots, poses, [(number, chunks[number]) for number in todo], folder),
                workers=min(job.workers, len(todo)),
                on_done=lambda _chunk, record: kept.append(record),
                on_advance=progress.advance,
                preload=_PRELOAD,
            )
    return ChunkRecord(*np.sum(kept, axis=0).tolist())


def _chunk_key(job: _Job, number: int) -> str:
    return item_key(job.key, "chunk", number)


def _chunk_jobs(
    job: _Job,
    timeline: Timeline,
    shots: Sequence[range],
    poses: VideoPoses | None,
    chunks: Sequence[tuple[int, range]],
    folder: Path | None,
) -> Iterator[RenderChunk]:
    """Decode the video once, and hand out chunks with their pictures in a file each."""
    info, pictures = job.source.info, job.work / "pictures"
    pictures.mkdir(exist_ok=True)
    spans = [range(gaps.start, min(gaps.stop + 1, timeline.num_keys)) for _, gaps in chunks]
    frames = read_frames(job.source.path, sorted({key for span in spans for key in span}), None, job.ffmpeg)
    last = None
    for (number, gaps), span in zip(chunks, spans, strict=True):
        path = pictures / f"{number:06d}.npy"
        held = np.lib.format.open_memmap(path, "w+", np.uint8, (len(span), info.height, info.width, 3))
        for index, key in enumerate(span):
            if last is None or last.frame != key:
                last = next(frames)
            held[index] = last.image_HWC
        held.flush()
        del held
        parts, part_of = _parts(timeline, shots, poses, gaps)
        yield RenderChunk(
            key=_chunk_key(job, number),
            pictures=path,
            gaps=[_gap(timeline, shots, key, part_of.get(key)) for key in gaps],
            mattes=poses.mattes(span, info.width, info.height) if poses else [None] * len(span),
            parts=parts,
            settings=job.settings,
            tick_s=float(timeline.out_base),
            fps=timeline.out_fps.limit_denominator(1001),
            crf=job.crf,
            ffmpeg=job.ffmpeg,
            frames_folder=folder,
        )


def _gap(timeline: Timeline, shots: Sequence[range], key: int, part: int | None) -> Gap:
    is_last = key == timeline.num_keys - 1
    length_s = (
        timeline.last_ticks * float(timeline.time_base)
        if is_last
        else timeline.times_K[key + 1] - timeline.times_K[key]
    )
    start_s = int(timeline.ticks_K[key]) * float(timeline.time_base)
    is_cut = not is_last and any(shot.start == key + 1 for shot in shots)
    return Gap(key, start_s, float(length_s), timeline.moments(key), is_cut, is_last, part)


def _parts(
    timeline: Timeline, shots: Sequence[range], poses: VideoPoses | None, gaps: range
) -> tuple[list[ShotPart], dict[int, int]]:
    """The shots that a chunk's gaps are in, with keys around, and gap -> index of its shot."""
    parts: list[ShotPart] = []
    part_of: dict[int, int] = {}
    if poses is None:
        return parts, part_of
    for shot in shots:
        own = range(max(shot.start, gaps.start), min(shot.stop - 1, gaps.stop))  # the shot's last key begins no gap
        if not own:
            continue
        part_of |= dict.fromkeys(own, len(parts))
        keys = slice(max(shot.start, own.start - CONTEXT_KEYS), min(shot.stop, own.stop + 1 + CONTEXT_KEYS))
        joints = poses.joints_px_KJD[keys].astype(np.float64)
        parts.append(ShotPart(keys.start, timeline.times_K[keys], joints, float(poses.torso_px_K[own.start])))
    return parts, part_of


def _put_together(job: _Job, timeline: Timeline, chunks: Sequence[range]) -> None:
    """The video with its sound and the table beside it, each whole or not at all."""
    target, container = job.target, FORMATS[job.target.suffix.lower()]
    folders = [job.store.output(_chunk_key(job, number)) for number in range(len(chunks))]
    folders = [folder for folder, gaps in zip(folders, chunks, strict=True) if gaps]
    stretch = timeline.pace.stretch
    codecs = job.source.audio if _audio(job) != "drop" else ()
    stretched = stretch if _audio(job) == "stretch" else 1
    sounds = convert_sound(job.source.path, codecs, container, stretched, job.work, job.ffmpeg)
    ticks = np.concatenate([[moment.tick for moment in timeline.moments(key)] for key in range(timeline.num_keys)])
    partial_file = job.work / f"joined{target.suffix}"
    with Progress("render: file", timeline.num_frames, "frames") as progress:
        join_video(
            partial_file,
            container,
            [folder / SEGMENT for folder in folders],
            ticks.astype(np.int64),
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
        "source_sha256": hash_file(job.source.path),
    }
    for name in ("key_step", "motion_model", "renderer"):
        facts.pop(name, None)
    write_sidecar(target.with_suffix(".parquet"), folders, facts)
    os.replace(partial_file, target)  # noqa: PTH105 (the same)


def _audio(job: _Job) -> Audio:
    if job.options.audio:
        return job.options.audio
    return "drop" if job.options.pace.kind == "slow" else "keep"


def _say_result(job: _Job, timeline: Timeline, record: ChunkRecord, num_cuts: int) -> None:
    container = FORMATS[job.target.suffix.lower()]
    sound = "no sound"
    if job.source.audio:
        how = {"keep": "kept", "stretch": f"stretched {timeline.pace.stretch} times", "drop": "dropped"}[_audio(job)]
        converted = [codec for codec in job.source.audio if not is_copied(codec, container)]
        is_aac = _audio(job) == "keep" and converted
        sound = f"sound {how}{' (' + ', '.join(converted) + ' as AAC)' if is_aac else ''}"
    held = f", {record.num_held} held ({num_cuts} cuts, and after the last frame)" if record.num_held else ""
    based = f" ({record.num_based} of them {job.settings.base}'s: nobody is seen)" if record.num_based else ""
    say(
        f"render: {job.target}: {timeline.num_frames} frames at {float(timeline.out_fps):.5g} fps:"
        f" {record.num_original} original, {record.num_generated} by {job.settings.method}{based}{held}; {sound};"
        f" a row a frame in {job.target.with_suffix('.parquet')}"
    )
