"""Report: one page that opens from disk, with players in step, measures, plots and error maps of every render.

The page is tasks/report.html.j2; its media (tasks/report_media.py) lie beside it. Nothing is fetched from anywhere.
What is missing (a render, its measures, a clip) is said on the page and does not stop it. The same input gives the same
bytes.
"""

import json
import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import numpy.typing as npt

from models.measures import ERROR_MAP_FULL_SCALE, error_map
from tasks.report_media import (
    NUM_COLOURS,
    Cell,
    Media,
    PlotPicture,
    Series,
    Video,
    draw_plots,
    fit_picture,
    join_pictures,
)
from tasks.report_motion import MotionFiles, make_motion_section
from tasks.tables import Table, decode_png

TEMPLATE = "report.html.j2"
# Order and colour of the methods that the project knows; the template has the colours, for light and dark.
METHODS = ("blend", "flow", "rife", "warp", "neural")
METHODS_WITHOUT_JOINTS = ("blend", "flow", "rife")  # a render's motion is nothing to these
REFERENCE = "warp"  # its worst and median frames are the samples, where it was rendered
SAMPLE_MARGIN = 0.2  # of the person's box, kept around it in the samples
STRIP_HEIGHT_PX = 200  # of the pictures of a worst frame, at most
STRIP_QUALITY = 75  # of JPEG
STRIP_GAP_PX = 4

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClipFiles:
    """The tables of one clip of a render; a path may name a file that does not exist."""

    clip: str
    truth: Path
    render: Path
    evaluation: Path


@dataclass(frozen=True)
class RenderEntry:
    """One render.

    metrics: what tasks.evaluate.summarise gave; None = it was not evaluated.  motion_model: the checkpoint folder of a
    learned motion.
    """

    name: str
    batch: str
    key_step: int
    motion: str
    method: str
    clips: tuple[ClipFiles, ...]
    metrics: Mapping[str, Any] | None
    motion_model: str = ""


class Measure(NamedTuple):
    """A column of the tables."""

    key: str
    title: str
    unit: str
    scale: float
    digits: int
    is_more_better: bool


MEASURES = (
    Measure("person_psnr", "Person PSNR", "dB", 1, 2, True),
    Measure("person_psnr_worst_tenth", "Worst tenth", "dB", 1, 2, True),
    Measure("person_ssim", "Person SSIM", "", 1, 4, True),
    Measure("person_lpips", "Person LPIPS", "", 1, 4, False),
    Measure("full_psnr", "Frame PSNR", "dB", 1, 2, True),
    Measure("full_ssim", "Frame SSIM", "", 1, 4, True),
    Measure("full_lpips", "Frame LPIPS", "", 1, 4, False),
    Measure("joint_error_px", "Joints off", "px", 1, 2, False),
    Measure("pck", "PCK", "%", 100, 1, True),
)
SPANS = (("halfway", "Half-way frames"), ("all", "All in-between frames"))


class Row(NamedTuple):
    series: Series
    cells: list[Cell]


class MeasureTable(NamedTuple):
    title: str
    columns: list[Measure]
    rows: list[Row]


class Player(NamedTuple):
    """One video of a row of players. psnr: per frame, dB; null on keys and where there is none."""

    role: str
    title: str
    detail: str
    source: str
    series: Series | None
    psnr: str


class SamplePicture(NamedTuple):
    title: str
    series: Series | None
    picture: str
    error: str
    psnr: str


class Sample(NamedTuple):
    title: str
    place: int
    pictures: list[SamplePicture]


class WorstFrame(NamedTuple):
    """strip: picture of the key before, the result, the truth, the key after, side by side.  place: in the players."""

    frame: int
    psnr: str
    place: int
    strip: str


class Sheet(NamedTuple):
    """The worst frames of one render of a clip."""

    series: Series
    frames: list[WorstFrame]


class Plot(NamedTuple):
    svgs: list[PlotPicture]
    measure: str


@dataclass
class ClipStep:
    """What the page shows of one clip at one key step."""

    key_step: int
    num_frames: int
    keys: str
    players: list[Player]
    tables: list[MeasureTable]
    plot: Plot | None
    sheets: list[Sheet]
    samples: list[Sample]


@dataclass
class ClipView:
    batch: str
    clip: str
    fps: Fraction
    is_landscape: bool
    steps: list[ClipStep]


@dataclass
class StepResult:
    """A batch's mean at one key step, and which method is ahead on the person half-way."""

    batch: str
    key_step: int
    rate: str
    tables: list[MeasureTable]
    best: Series | None
    best_psnr: str
    gain: str
    keys: str


@dataclass
class _Build:
    """What is gathered while the page is put together."""

    media: Media
    series: Mapping[str, Series]
    sample_frames: int
    worst_frames: int
    notes: list[str] = field(default_factory=list)
    bases: dict[str, str] = field(default_factory=dict)  # render -> what interpolated under its person


class _Measured(NamedTuple):
    """A rendered clip: its table's columns, and its per-frame measures where there are any."""

    entry: RenderEntry
    files: ClipFiles
    frames: list[int]
    is_key: list[bool]
    fps: Fraction
    psnr: dict[int, float]  # of the person, dB, by frame
    psnr_full: dict[int, float]

    @property
    def keys(self) -> list[int]:
        return [frame for frame, is_key in zip(self.frames, self.is_key, strict=True) if is_key]


def write_report(
    folder: Path,
    renders: Sequence[RenderEntry],
    *,
    motion: MotionFiles,
    skipped: Mapping[str, str],
    commands: Sequence[str],
    media_height: int,
    sample_frames: int,
    worst_frames: int,
    ffmpeg: str,
    workers: int,
) -> None:
    """Write index.html and media/ into a folder.

    Args:
        motion: what is shown of the motion network.
        skipped: clip -> why it is not there.
        commands: how the page was made, one line each.
        media_height: px of the players' videos; smaller pictures are not enlarged.
        sample_frames: in-between frames a clip and key step shown with error maps, from the worst to the median.
        worst_frames: in-between frames a clip and render shown between their keys, the worst of as many gaps.
        ffmpeg: the program.
        workers: videos written at a time.
    """
    build = _Build(Media(folder, media_height, ffmpeg), name_series(renders), sample_frames, worst_frames)
    ordered = sorted(
        renders, key=lambda entry: (entry.batch, entry.key_step, build.series[entry.name].colour, entry.name)
    )
    for entry in ordered:
        if entry.metrics is None:
            build.notes.append(f"{entry.name} has no measures; run `inbetween stage evaluate {entry.name}`.")
    lacking = [entry.name for entry in ordered if (entry.metrics or {}).get("lpips") == "no weights"]
    if lacking:
        build.notes.append(
            f"LPIPS was left out of {', '.join(lacking)}: its weights could not be had when the environment was made."
        )
    clips = [
        view
        for batch, entries in groupby(ordered, key=lambda entry: entry.batch)
        for view in _show_batch(build, batch, list(entries))
    ]
    rates = {view.batch: view.fps for view in clips}
    results = [
        _show_result(build, batch, step, list(entries), rates.get(batch))
        for (batch, step), entries in groupby(ordered, key=lambda entry: (entry.batch, entry.key_step))
    ]
    build.notes += [
        f"Clip {clip} was skipped: {reason or 'its video was skipped'}." for clip, reason in sorted(skipped.items())
    ]
    build.media.write_videos(workers)
    key_steps = sorted({step.key_step for view in clips for step in view.steps}, reverse=True)
    html = _render_page(
        clips=clips,
        results=results,
        notes=build.notes,
        motion=make_motion_section(folder, motion),
        origins=[*describe_motions(ordered), *describe_bases(build.bases)],
        commands=commands,
        key_steps=key_steps,
        # The page opens where there is most to compare.
        opening_step=max(key_steps, key=lambda step: (sum(e.key_step == step for e in ordered), step), default=0),
        all_series=sorted({build.series[e.name] for e in ordered}, key=lambda series: (series.colour, series.label)),
        rate_of_step={r.key_step: r.rate for r in results},
        has_many_batches=len({entry.batch for entry in ordered}) > 1,
        error_full_scale=ERROR_MAP_FULL_SCALE,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.html").write_text(html, encoding="utf-8")


def name_series(renders: Sequence[RenderEntry]) -> dict[str, Series]:
    """Render name -> how the page calls and colours it: its method, with its motion or its name where it must.

    A method keeps its name and colour at every key step, so that they can be compared.
    """

    def is_unique(labels: Mapping[str, str]) -> bool:
        places = [(e.batch, e.key_step, labels[e.name]) for e in renders]
        return len(set(places)) == len(places)

    labels = {e.name: e.method for e in renders}
    if not is_unique(labels):
        labels = {e.name: f"{e.method}, {e.motion}" for e in renders}
    if not is_unique(labels):
        labels = {e.name: e.name for e in renders}
    known = [m for m in METHODS if m in labels.values()]
    others = sorted(set(labels.values()) - set(known))
    # Known methods have colours of their own; the others take what those leave, and share when there are too many.
    free = [i for i in range(NUM_COLOURS) if i >= len(METHODS) or METHODS[i] not in known] or list(range(NUM_COLOURS))
    colours = {m: METHODS.index(m) for m in known} | {o: free[i % len(free)] for i, o in enumerate(others)}
    return {name: Series(label, colours[label]) for name, label in labels.items()}


def describe_motions(renders: Sequence[RenderEntry]) -> list[tuple[str, str]]:
    """(what gave the joints of the frames in between, the renders that follow it), each render once."""
    names: dict[str, list[str]] = {}
    for entry in renders:
        what = "no joints used"
        if _has_motion(entry):
            learned = f" ({entry.motion_model})" if entry.motion == "learned" else ""
            what = f"{entry.motion} motion{learned}"
        names.setdefault(what, []).append(entry.name)
    return [(what, ", ".join(found)) for what, found in sorted(names.items())]


def describe_bases(bases: Mapping[str, str]) -> list[tuple[str, str]]:
    """(which interpolation lies under the person, the renders that have it). bases: render -> flow or rife."""
    return [
        (f"base {base}", ", ".join(name for name, found in bases.items() if found == base))
        for base in sorted(set(bases.values()))
    ]


def _has_motion(entry: RenderEntry) -> bool:
    return entry.method not in METHODS_WITHOUT_JOINTS


# ---- clips


def _show_batch(build: _Build, batch: str, entries: Sequence[RenderEntry]) -> Iterator[ClipView]:
    names = dict.fromkeys(files.clip for entry in entries for files in entry.clips)
    for entry in entries:
        if not entry.clips:
            build.notes.append(f"{entry.name} has no rendered clips; run `inbetween stage render {entry.name}`.")
    for clip in names:
        read = [_read_clip(build, entry, f) for entry in entries for f in entry.clips if f.clip == clip]
        measured = [m for m in read if m]
        if not measured:
            continue
        shape = Table("render", measured[0].files.render).read_image(0).shape
        steps = [
            _show_step(build, batch, clip, step, list(group))
            for step, group in groupby(measured, key=lambda m: m.entry.key_step)
        ]
        yield ClipView(batch, clip, measured[0].fps, shape[1] > shape[0], sorted(steps, key=lambda s: -s.key_step))


def _read_clip(build: _Build, entry: RenderEntry, files: ClipFiles) -> _Measured | None:
    if not files.render.is_file():
        build.notes.append(f"{entry.name} has no clip {files.clip}; run `inbetween stage render {entry.name}`.")
        return None
    table = Table("render", files.render)
    if not table.num_rows:
        build.notes.append(f"{entry.name}: clip {files.clip} has no frames.")
        return None
    if "base" in table.metadata:
        build.bases[entry.name] = table.metadata["base"]
    psnr: dict[int, float] = {}
    psnr_full: dict[int, float] = {}
    if files.evaluation.is_file():
        evaluation = Table("evaluation", files.evaluation)
        for values, name in ((psnr, "person_psnr"), (psnr_full, "full_psnr")):
            column = evaluation.column(name).astype(np.float64)
            values |= {int(f): float(v) for f, v in zip(evaluation.frames, column, strict=True) if not math.isnan(v)}
    return _Measured(
        entry=entry,
        files=files,
        frames=table.frames.tolist(),
        is_key=(table.column("origin") == "original").tolist(),
        fps=Fraction(table.metadata["fps"]),
        psnr=psnr,
        psnr_full=psnr_full,
    )


def _show_step(build: _Build, batch: str, clip: str, key_step: int, measured: Sequence[_Measured]) -> ClipStep:
    first = measured[0]
    metrics = {m.entry.name: (m.entry.metrics or {}).get("clips", {}).get(clip) for m in measured}
    tables = make_tables([(build.series[m.entry.name], metrics[m.entry.name]) for m in measured])
    with_truth = [m for m in measured if m.psnr and m.files.truth.is_file()]
    return ClipStep(
        key_step=key_step,
        num_frames=len(first.frames),
        keys=json.dumps([i for i, is_key in enumerate(first.is_key) if is_key]),
        players=list(_list_players(build, batch, clip, key_step, measured)),
        tables=tables,
        plot=_plot_clip(build, f"{batch}/{clip}/{key_step}", measured),
        sheets=[_make_sheet(build, batch, clip, m) for m in with_truth if build.worst_frames],
        samples=list(_make_samples(build, batch, clip, with_truth)),
    )


def _list_players(
    build: _Build, batch: str, clip: str, key_step: int, measured: Sequence[_Measured]
) -> Iterator[Player]:
    """The input as it was filmed (keys held), every method, the truth where there is one for every frame."""
    first = measured[0]
    media = f"media/{batch}/{clip}"
    held = np.maximum.accumulate([i if is_key else 0 for i, is_key in enumerate(first.is_key)]).tolist()
    name = build.media.add_video(f"{media}/input-{key_step}.mp4", Video("render", first.files.render, held, first.fps))
    yield Player("input", "input", f"{_rate(first.fps / key_step)} FPS", name, None, "[]")
    for m in measured:
        series = build.series[m.entry.name]
        rows = list(range(len(m.frames)))
        name = build.media.add_video(f"{media}/render-{m.entry.name}.mp4", Video("render", m.files.render, rows, m.fps))
        details = []
        if _has_motion(m.entry) and m.entry.motion not in series.label:
            details.append(f"{m.entry.motion} motion")
        if m.entry.name in build.bases:
            details.append(f"base {build.bases[m.entry.name]}")
        psnr = json.dumps([_rounded(m.psnr.get(f)) for f in m.frames], separators=(",", ":"))
        yield Player("method", series.label, ", ".join(details), name, series, psnr)
    if first.files.truth.is_file():
        row_of = {int(frame): row for row, frame in enumerate(Table("clip", first.files.truth).frames)}
        if all(frame in row_of for frame in first.frames):
            rows = [row_of[frame] for frame in first.frames]
            video = Video("clip", first.files.truth, rows, first.fps)
            name = build.media.add_video(f"{media}/truth-{first.frames[0]}-{first.frames[-1]}.mp4", video)
            yield Player("truth", "truth", f"{_rate(first.fps)} FPS", name, None, "[]")


# ---- worst frames


def _make_sheet(build: _Build, batch: str, clip: str, m: _Measured) -> Sheet:
    render, truth = Table("render", m.files.render), Table("clip", m.files.truth)
    row_of = {int(frame): row for row, frame in enumerate(truth.frames)}
    shown = []
    for frame, before, after in pick_worst(m.psnr, m.keys, build.worst_frames):
        box = _person_box(m, frame)
        images = [render.read_image(m.frames.index(number))[box] for number in (before, frame, after)]
        images.insert(2, truth.read_image(row_of[frame])[box])
        strip = join_pictures([fit_picture(image, STRIP_HEIGHT_PX) for image in images], STRIP_GAP_PX)
        name = build.media.write_picture(f"media/{batch}/{clip}/worst-{m.entry.name}-{frame}", strip, STRIP_QUALITY)
        shown.append(WorstFrame(frame, f"{m.psnr[frame]:.2f} dB", m.frames.index(frame), name))
    return Sheet(build.series[m.entry.name], shown)


def pick_worst(psnr: Mapping[int, float], keys: Sequence[int], count: int) -> list[tuple[int, int, int]]:
    """(frame, key before, key after) of the worst frame of each of the `count` worst gaps, the worst first.

    One a gap: the frames beside a bad one are bad of the same cause.
    """
    worst: dict[int, tuple[int, int, int]] = {}
    for frame in sorted(psnr, key=lambda frame: (psnr[frame], frame)):
        after = bisect_right(keys, frame)
        worst.setdefault(after, (frame, keys[after - 1], keys[after]))
    return list(worst.values())[:count]


# ---- samples with error maps


def _make_samples(build: _Build, batch: str, clip: str, measured: Sequence[_Measured]) -> Iterator[Sample]:
    """The reference method's frames from the worst to the median by the person, of every method, with error maps."""
    if not measured:
        return
    reference = next(
        (m for m in measured if m.entry.method == REFERENCE),
        max(measured, key=lambda m: math.fsum(m.psnr.values()) / len(m.psnr)),
    )
    truth = Table("clip", reference.files.truth)
    for rank, frame in pick_samples(reference.psnr, build.sample_frames):
        place = reference.frames.index(frame)
        before = max(key for key in reference.keys if key < frame)
        after = min(key for key in reference.keys if key > frame)
        rows, columns = _person_box(reference, frame)
        truth_HWC = truth.read_image(truth.frames.tolist().index(frame))
        media = f"media/{batch}/{clip}/{reference.entry.key_step}-{frame}"
        pictures = [
            SamplePicture("truth", None, build.media.write_picture(f"{media}-truth", truth_HWC[rows, columns]), "", "")
        ]
        for m in measured:
            if frame not in m.psnr:
                continue
            image_HWC = Table("render", m.files.render).read_image(m.frames.index(frame))
            errors_HWC = error_map(image_HWC, truth_HWC)
            pictures.append(
                SamplePicture(
                    title=build.series[m.entry.name].label,
                    series=build.series[m.entry.name],
                    picture=build.media.write_picture(f"{media}-{m.entry.name}", image_HWC[rows, columns]),
                    error=build.media.write_picture(f"{media}-{m.entry.name}-error", errors_HWC[rows, columns]),
                    psnr=f"{m.psnr[frame]:.2f} dB",
                )
            )
        label = build.series[reference.entry.name].label
        yield Sample(f"Frame {frame}, between keys {before} and {after}: {rank} of {label}", place, pictures)


def pick_samples(psnr: Mapping[int, float], count: int) -> list[tuple[str, int]]:
    """(what it is, frame) of `count` frames evenly from the worst to the median; fewer where there are fewer frames."""
    ranked = sorted(psnr, key=lambda frame: (psnr[frame], frame))
    middle = (len(ranked) - 1) // 2
    places = dict.fromkeys(round(i * middle / max(count - 1, 1)) for i in range(count))
    names = {0: "the worst", middle: "the median"} if middle else {0: "the worst"}
    return [(names.get(place, f"{place + 1} of {len(ranked)} from the worst"), ranked[place]) for place in places]


def _person_box(m: _Measured, frame: int) -> tuple[slice, slice]:
    """The rows and columns that hold the person, with room around."""
    evaluation = Table("evaluation", m.files.evaluation)
    cell = evaluation.read_cell("mask", evaluation.frames.tolist().index(frame))
    assert isinstance(cell, bytes)
    mask_HW = decode_png(cell, grey=True)
    slices = []
    for axis, size in ((1, mask_HW.shape[0]), (0, mask_HW.shape[1])):
        places = np.flatnonzero(mask_HW.any(axis=axis))
        low, high = (int(places[0]), int(places[-1]) + 1) if len(places) else (0, size)
        room = round((high - low) * SAMPLE_MARGIN)
        slices.append(slice(max(0, low - room), min(size, high + room)))
    return slices[0], slices[1]


# ---- numbers


def _show_result(
    build: _Build, batch: str, key_step: int, entries: Sequence[RenderEntry], fps: Fraction | None
) -> StepResult:
    measured = [(e, e.metrics) for e in entries if e.metrics is not None]
    ranked = sorted(
        (
            (metrics["mean"]["halfway"]["person_psnr"], entry.name)
            for entry, metrics in measured
            if "person_psnr" in metrics.get("mean", {}).get("halfway", {})
        ),
        reverse=True,
    )
    gain = ""
    if len(ranked) > 1:
        gain = f"{ranked[0][0] - ranked[1][0]:+.2f} dB over {build.series[ranked[1][1]].label}"
    num_keys = sum(metrics["keys"]["count"] for _, metrics in measured)
    num_exact = sum(metrics["keys"]["exact"] for _, metrics in measured)
    keys = f"All {num_keys} key frames of these renders are exact, pixel by pixel."
    if num_exact != num_keys:
        keys = f"{num_keys - num_exact} of {num_keys} key frames are NOT exact."
    return StepResult(
        batch=batch,
        key_step=key_step,
        rate=f"{_rate(fps / key_step)} to {_rate(fps)} FPS" if fps else "",
        tables=make_tables([(build.series[e.name], (e.metrics or {}).get("mean")) for e in entries]),
        best=build.series[ranked[0][1]] if ranked else None,
        best_psnr=f"{ranked[0][0]:.2f}" if ranked else "",
        gain=gain,
        keys=keys if measured else "",
    )


def make_tables(rows: Sequence[tuple[Series, Mapping[str, Mapping[str, float]] | None]]) -> list[MeasureTable]:
    """Half-way frames and all in-between frames apart: a row a method, a column a measure that any of them has.

    Args: rows: (method, {"halfway": {measure: value}, "all": {...}}, None = not measured).
    Returns: no table where nothing was measured; the best of a column is marked, as shown: all that show the same.
    """
    tables = []
    for span, title in SPANS:
        values = [(series, (summary or {}).get(span, {})) for series, summary in rows]
        columns = [m for m in MEASURES if any(m.key in v for _, v in values)]
        best = {
            m.key: (max if m.is_more_better else min)(
                round(v[m.key] * m.scale, m.digits) for _, v in values if m.key in v
            )
            for m in columns
        }
        if columns:
            shown = [
                Row(series, [_cell(m, v.get(m.key), best[m.key], len(rows)) for m in columns]) for series, v in values
            ]
            tables.append(MeasureTable(title, columns, shown))
    return tables


def _cell(measure: Measure, value: float | None, best: float, num_rows: int) -> Cell:
    if value is None:
        return Cell("not measured", is_best=False)
    shown = round(value * measure.scale, measure.digits)
    return Cell(f"{shown:.{measure.digits}f}", is_best=shown == best and num_rows > 1)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _rate(fps: Fraction) -> str:
    return f"{float(fps):.2f}".rstrip("0").rstrip(".")


# ---- plots


def _plot_clip(build: _Build, name: str, measured: Sequence[_Measured]) -> Plot | None:
    """Each method's PSNR over the frames, on the person where it has one."""
    has_person = any(m.psnr for m in measured)
    lines = [(build.series[m.entry.name], sorted((m.psnr if has_person else m.psnr_full).items())) for m in measured]
    lines = [(series, points) for series, points in lines if points]
    if not lines:
        return None
    first = measured[0]
    pictures = draw_plots(name, lines, first.keys, (first.frames[0], first.frames[-1]))
    return Plot(pictures, "Person PSNR" if has_person else "Frame PSNR")


# ---- page


def _render_page(**parts: object) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["ordinal"] = _ordinal
    return environment.get_template(TEMPLATE).render(**parts)


def _ordinal(number: int) -> str:
    """8 -> 8th, 22 -> 22nd."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else ending}"
