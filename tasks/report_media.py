"""Media of the report: the players' videos, sample pictures, and plots that take the page's colours.

The same input gives the same bytes.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from tasks.tables import Image, Table
from tasks.video import resize_image, write_mp4

NUM_COLOURS = 8
MEDIA_CRF = 20  # for looking at; the numbers come from the lossless tables
JPEG_QUALITY = 88
# Colours that stand in for the page's own, which differ by light and dark; no other part of a plot has them.
_INK, _GRID = "#010101", "#020202"
_SERIES_COLOURS = [f"#0300{i:02x}" for i in range(NUM_COLOURS)]
_PLOT_SIZES_PX = {"wide": (1120, 230), "narrow": (360, 200)}
_PLOT_MARGINS_PX = (34, 10, 10, 26)  # left, right, top, bottom
_CHART_SIZE_PX = (360, 230)
_CHART_MARGINS_PX = (44, 10, 10, 26)


class Series(NamedTuple):
    """A method as the page shows it: one name and one colour at every key step."""

    label: str
    colour: int


class Cell(NamedTuple):
    """A number as the page's tables show it."""

    text: str
    is_best: bool


class PlotPicture(NamedTuple):
    """name: its size's.  left, right: where the first and the last frame are, share of the width."""

    name: str
    svg: Markup
    left: float
    right: float


class Video(NamedTuple):
    """Rows of a table's pictures as an mp4; a row may stand several times in a row."""

    kind: str
    table: Path
    rows: list[int]
    fps: Fraction


@dataclass
class Media:
    """Pictures and videos beside the page; the videos are written last, all at a time.

    height: px; what is larger is made smaller.  ffmpeg: the program.
    """

    folder: Path
    height: int
    ffmpeg: str
    videos: dict[Path, Video] = field(default_factory=dict)

    def add_video(self, name: str, video: Video) -> str:
        self.videos[self.folder / name] = video
        return name

    def write_videos(self, workers: int) -> None:
        def write(item: tuple[Path, Video]) -> None:
            path, video = item
            path.parent.mkdir(parents=True, exist_ok=True)
            write_mp4(path, _pictures(video, self.height), video.fps, MEDIA_CRF, self.ffmpeg)

        # Threads: the work is in ffmpeg's processes and in OpenCV, which lets others run.
        with ThreadPoolExecutor(max_workers=workers) as pool:
            list(pool.map(write, self.videos.items()))

    def write_picture(self, name: str, image_HWC: Image, quality: int = JPEG_QUALITY) -> str:
        """As JPEG; returns the file's name."""
        path = self.folder / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        ok, data = cv2.imencode(".jpg", fit_picture(image_HWC, self.height), [cv2.IMWRITE_JPEG_QUALITY, quality])
        assert ok, "OpenCV always has JPEG"
        path.write_bytes(data.tobytes())
        return f"{name}.jpg"


def _pictures(video: Video, height: int) -> Iterator[Image]:
    table = Table(video.kind, video.table)
    row_shown, image = -1, np.zeros((0, 0, 3), np.uint8)
    for row in video.rows:
        if row != row_shown:
            row_shown, image = row, fit_picture(table.read_image(row), height)
        yield image


def fit_picture(image_HWC: Image, max_height: int) -> Image:
    """Made smaller where it is higher than that, in px."""
    height, width = image_HWC.shape[:2]
    if height <= max_height:
        return image_HWC
    return resize_image(image_HWC, max(2, round(width * max_height / height)), max_height)


def join_pictures(images: Sequence[Image], gap_px: int) -> Image:
    """Pictures of one height side by side, white between them."""
    gap_HWC = np.full((images[0].shape[0], gap_px, 3), 255, np.uint8)
    parts = [part for image_HWC in images for part in (gap_HWC, image_HWC)]
    return np.concatenate(parts[1:], axis=1)


def draw_plots(
    name: str,
    lines: Sequence[tuple[Series, Sequence[tuple[int, float]]]],
    keys: Sequence[int],
    span: tuple[int, int],
) -> list[PlotPicture]:
    """Lines over frames, wide and narrow.

    Args:
        name: no other plot on the page has it.
        lines: (method, its (frame, value)).
        keys: frames marked by a line across.
        span: first and last frame.
    """
    return [_draw_plot(f"{name}/{size}", size, lines, keys, span) for size in _PLOT_SIZES_PX]


def _draw_plot(
    name: str,
    size: str,
    lines: Sequence[tuple[Series, Sequence[tuple[int, float]]]],
    keys: Sequence[int],
    span: tuple[int, int],
) -> PlotPicture:
    def draw(axes: Axes) -> None:
        axes.set_xlim(span[0], max(span[1], span[0] + 1))
        for frame in keys:
            axes.axvline(frame, color=_GRID, linewidth=1)
        for series, points in lines:
            (line,) = axes.plot(*zip(*points, strict=True), color=_SERIES_COLOURS[series.colour], linewidth=1.8)
            line.set_gid(f"series-{series.label}")
        axes.locator_params(axis="y", nbins=5)
        axes.locator_params(axis="x", nbins=12 if size == "wide" else 5, integer=True)

    width, _ = _PLOT_SIZES_PX[size]
    left, right, *_ = _PLOT_MARGINS_PX
    svg = _draw_svg(name, _PLOT_SIZES_PX[size], _PLOT_MARGINS_PX, draw)
    return PlotPicture(size, svg, left / width, 1 - right / width)


def draw_chart(
    name: str,
    lines: Sequence[tuple[Series, Sequence[tuple[float, float]]]],
    *,
    x_ticks: Sequence[float] = (),
    y_span: tuple[float, float] | None = None,
) -> Markup:
    """A small chart of few points a line; the first line is drawn over the others.

    Args:
        name: no other plot on the page has it.
        lines: (series, its (x, value)).
        x_ticks: () = chosen.
        y_span: both above 0, for a logarithmic axis; None = linear, chosen.
    """

    def draw(axes: Axes) -> None:
        for place, (series, points) in enumerate(lines):
            axes.plot(
                *zip(*points, strict=True),
                color=_SERIES_COLOURS[series.colour],
                linewidth=1.5 if place else 2.6,
                marker="o",
                markersize=3.5 if place else 5,
                zorder=3 - place / len(lines),
            )
        axes.xaxis.set_major_locator(FixedLocator(x_ticks) if x_ticks else MaxNLocator(5, integer=True))
        if y_span:
            axes.set_yscale("log")
            axes.set_ylim(*y_span)
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_minor_locator(NullLocator())
        else:
            axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.grid(axis="y", color=_GRID, linewidth=1)

    return _draw_svg(name, _CHART_SIZE_PX, _CHART_MARGINS_PX, draw)


def _draw_svg(
    name: str, size_px: tuple[int, int], margins_px: tuple[int, int, int, int], draw: Callable[[Axes], None]
) -> Markup:
    """What `draw` puts into axes without a frame, as SVG in the page's colours."""
    width, height = size_px
    left, right, top, bottom = margins_px
    # The salt makes the ids that matplotlib draws by chance the same every time, and no two plots' on a page alike.
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "font.size": 11}):
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        axes = figure.add_axes((left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height))
        draw(axes)
        axes.set_axisbelow(True)
        axes.tick_params(colors=_INK, length=0)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(_INK)
        out = StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Markup(_themed_svg(out.getvalue()))  # noqa: S704 - ours


def _themed_svg(svg: str) -> str:
    """matplotlib's SVG for a page: in its colours; without prolog, sizes, ids of groups and styles of everything."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg [^>]*?)height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg [^>]*?)width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'<g id="series-([^"]*)"', r'<g data-series="\1"', svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"\n\s*", "\n", svg)
    colours = {_INK: "var(--muted)", _GRID: "var(--line)"} | {c: f"var(--m{i})" for i, c in enumerate(_SERIES_COLOURS)}
    for colour, variable in colours.items():
        svg = svg.replace(colour, variable)
    return svg
