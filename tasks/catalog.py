"""The catalogue: catalog/B/videos.csv and clips.csv, what a batch is made from, checked before any work starts.

Columns are described in docs/formats.md. Every refusal names file, row and column, and what to write instead.
"""

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from tasks.errors import CatalogError
from tasks.sources import Source, WantedVideo, parse_source
from tasks.video import Crop

VIDEO_COLUMNS = ("video", "source", "licence", "sha256", "num_frames", "crop", "fps")
CLIP_COLUMNS = ("clip", "video", "split", "subject", "first", "last", "step", "frames", "width", "height")
SPLITS = ("train", "test")
MAX_SIDE_PX = 8192
MAX_FPS = 1000
UNKNOWN_LICENCE = "unknown"  # proposed where a site states none; for a person to mend

# An id becomes a file's name, so it must not leave its folder or start like an option.
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FPS = re.compile(r"\d{1,7}(?:\.\d{1,6}|/0*[1-9]\d{0,6})?")
_SPAN = re.compile(r"(\d+)(?:-(\d+)(?:/(\d+))?)?")


@dataclass(frozen=True)
class VideoRow:
    """One video of a batch. num_frames: None = not known before it is there. crop: None = the whole picture.

    fps: pictures per second of a folder of pictures. Of a film, the rate at which its frames were counted, where that
        is known: the film states its own, and one of another rate shows other pictures under these numbers.
    """

    video: str
    source: str
    licence: str
    sha256: str | None
    num_frames: int | None
    crop: Crop | None
    fps: Fraction | None = None

    def wanted(self) -> WantedVideo:
        return WantedVideo(video=self.video, source=self.source, licence=self.licence, sha256=self.sha256)


@dataclass(frozen=True)
class ClipRow:
    """One clip of a batch. frames: decode-order numbers in the video, ascending. width, height: of its pictures, px."""

    clip: str
    video: str
    split: str
    subject: str
    frames: tuple[int, ...]
    width: int
    height: int


@dataclass(frozen=True)
class Catalog:
    """A checked batch. Clips stand in the order of their names: the order of every output."""

    batch: str
    videos: Mapping[str, VideoRow]
    clips: Mapping[str, ClipRow]

    def clips_of(self, video: str) -> list[ClipRow]:
        return [clip for clip in self.clips.values() if clip.video == video]


def parse_frames(text: str) -> tuple[int, ...]:
    """ "3;5;10-16/2" -> (3, 5, 10, 12, 14, 16). Raises ValueError with the remedy."""
    frames: list[int] = []
    for part in text.split(";"):
        match = _SPAN.fullmatch(part.strip())
        if not match:
            raise ValueError(f"{part.strip()!r} is not a frame or a span; write them like 3;5;10-16/2")
        first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        if last < first or step < 1:
            raise ValueError(f"{part.strip()!r} runs backwards or stands still; write FIRST-LAST/STEP")
        frames.extend(range(first, last + 1, step))
    if any(later <= earlier for earlier, later in pairwise(frames)):
        raise ValueError("the frames are not in rising order, or one stands twice")
    return tuple(frames)


def read_catalog(root: Path, batch: str, *, needs_clips: bool = True) -> Catalog:
    """Read and check one batch.

    Args: needs_clips: False = clips.csv may have a header alone (a batch whose clips are still to be chosen).
    Raises: CatalogError naming file, row (the header is row 1), column and the remedy.
    """
    catalog, faults = parse_catalog(root, batch)
    if faults:
        raise faults[0]
    if needs_clips and not catalog.clips:
        raise CatalogError(
            f"catalog/{batch}/clips.csv: has a header and no rows; add at least one, or have some proposed:"
            f" inbetween catalog add {batch}"
        )
    return catalog


def parse_catalog(root: Path, batch: str) -> tuple[Catalog, list[CatalogError]]:
    """What is right in one batch, and a sentence for each row that is not.

    Raises: CatalogError for a batch's name that is none.
    """
    if not _ID.fullmatch(batch):
        raise CatalogError(f"batch {batch!r}: {_ID_RULE}")
    folder = root / "catalog" / batch
    faults: list[CatalogError] = []
    videos: dict[str, VideoRow] = {}
    clips: dict[str, ClipRow] = {}
    broken: set[str] = set()  # videos whose clips cannot be checked
    for row in _read_rows(
        folder / "videos.csv", root, VIDEO_COLUMNS, ("sha256", "num_frames", "crop", "fps"), faults, needs_rows=True
    ):
        try:
            video = _video_row(row)
            row.refuse_duplicate("video", video.video, videos)
            videos[video.video] = video
        except CatalogError as fault:
            faults.append(fault)
            broken.add(row.cells["video"])
    optional = ("subject", "first", "last", "step", "frames")
    for row in _read_rows(folder / "clips.csv", root, CLIP_COLUMNS, optional, faults, needs_rows=False):
        if row.cells["video"] in broken - videos.keys():
            continue
        try:
            clip = _clip_row(row, videos)
            row.refuse_duplicate("clip", clip.clip, clips)
            clips[clip.clip] = clip
        except CatalogError as fault:
            faults.append(fault)
    return Catalog(batch, videos, dict(sorted(clips.items()))), faults


_ID_RULE = "an id is letters, digits, `_`, `-` and `.`, starts with a letter or digit, and has at most 100 characters"


@dataclass(frozen=True)
class _Row:
    where: str
    cells: dict[str, str]

    def fail(self, column: str, sentence: str) -> CatalogError:
        return CatalogError(f"{self.where}, column {column}: {sentence}")

    def text(self, column: str) -> str:
        if not self.cells[column]:
            raise self.fail(column, "is empty; it is needed")
        return self.cells[column]

    def identifier(self, column: str) -> str:
        value = self.text(column)
        if not _ID.fullmatch(value) or value.endswith(".parquet"):
            raise self.fail(column, f"{value!r} cannot name a file; {_ID_RULE}")
        return value

    def number(self, column: str, low: int, high: int) -> int:
        value = self.text(column)
        if not value.isascii() or not value.isdigit() or not low <= int(value) <= high:
            raise self.fail(column, f"{value!r} is not a whole number from {low} to {high}")
        return int(value)

    def parsed(self, column: str, parse: Callable[[str], object]) -> object:
        try:
            return parse(self.text(column))
        except ValueError as error:
            raise self.fail(column, str(error)) from error

    def refuse_duplicate(self, column: str, value: str, seen: Mapping[str, object]) -> None:
        # Two names that differ in case alone are one file on some disks.
        if value.lower() in {name.lower() for name in seen}:
            raise self.fail(column, f"{value!r} stands twice (upper and lower case count as equal); rename one")


def _read_rows(
    path: Path,
    root: Path,
    columns: Sequence[str],
    optional: Sequence[str],
    faults: list[CatalogError],
    *,
    needs_rows: bool,
) -> list[_Row]:
    """A file's rows; none where its header cannot be used. What is wrong is added to `faults`."""
    name = path.relative_to(root).as_posix()
    try:
        lines = _read_lines(path, name, columns, optional)
    except CatalogError as fault:
        faults.append(fault)
        return []
    header = [cell.strip() for cell in lines[0]]
    rows = []
    for number, cells in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            faults.append(
                CatalogError(
                    f"{name} row {number}: has {len(cells)} cells, the header has {len(header)}; mend the commas"
                )
            )
            continue
        filled = dict.fromkeys(columns, "") | {c: v.strip() for c, v in zip(header, cells, strict=True)}
        rows.append(_Row(f"{name} row {number}", filled))
    if needs_rows and not rows and not faults:
        faults.append(CatalogError(f"{name}: has a header and no rows; add at least one"))
    return rows


def _read_lines(path: Path, name: str, columns: Sequence[str], optional: Sequence[str]) -> list[list[str]]:
    """The cells of every line, the header first. Raises: CatalogError where the header cannot be used."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise CatalogError(f"{name}: there is no such file; docs/formats.md describes it") from error
    except (UnicodeDecodeError, OSError) as error:
        raise CatalogError(f"{name}: cannot be read as UTF-8 text ({error})") from error
    lines = list(csv.reader(text.splitlines()))
    if not lines:
        raise CatalogError(f"{name}: is empty; its first row names the columns {','.join(columns)}")
    header = [cell.strip() for cell in lines[0]]
    for column in header:
        if column not in columns:
            raise CatalogError(f"{name} row 1, column {column!r}: is not known; the columns are {', '.join(columns)}")
    if len(set(header)) != len(header):
        raise CatalogError(f"{name} row 1: a column stands twice; keep one of each")
    for column in columns:
        if column not in header and column not in optional:
            raise CatalogError(f"{name} row 1: column {column!r} is missing; add it")
    return lines


def _video_row(row: _Row) -> VideoRow:
    video = row.identifier("video")
    source = row.parsed("source", parse_source)
    assert isinstance(source, Source)
    if source.scheme == "gdrive" and not row.cells["fps"]:
        raise row.fail(
            "fps", "is empty; a folder of pictures states no rate: write its pictures per second, such as 30"
        )
    sha256 = row.cells["sha256"] or None
    if sha256 and not _SHA256.fullmatch(sha256):
        raise row.fail("sha256", f"{sha256!r} is not 64 digits 0-9a-f; leave it empty to have it recorded")
    return VideoRow(
        video=video,
        source=row.text("source"),
        licence=row.text("licence"),
        sha256=sha256,
        num_frames=row.number("num_frames", 1, 10**9) if row.cells["num_frames"] else None,
        crop=_parse_crop(row) if row.cells["crop"] else None,
        fps=_parse_fps(row) if row.cells["fps"] else None,
    )


def _parse_fps(row: _Row) -> Fraction:
    text = row.cells["fps"]
    if not _FPS.fullmatch(text) or not 0 < Fraction(text) <= MAX_FPS:
        raise row.fail("fps", f"{text!r} is not a rate up to {MAX_FPS}, such as 30, 29.97 or 30000/1001")
    return Fraction(text)


def _parse_crop(row: _Row) -> Crop:
    text = row.cells["crop"]
    numbers = text.split(":")
    if len(numbers) != 4 or not all(n.isascii() and n.isdigit() for n in numbers):
        raise row.fail("crop", f"{text!r} is not LEFT:TOP:WIDTH:HEIGHT in pixels, such as 100:0:1080:720")
    left, top, width, height = map(int, numbers)
    if not (0 < width <= MAX_SIDE_PX and 0 < height <= MAX_SIDE_PX):
        raise row.fail("crop", f"{text!r}: width and height must be from 1 to {MAX_SIDE_PX}")
    return Crop(left, top, width, height)


def _clip_row(row: _Row, videos: Mapping[str, VideoRow]) -> ClipRow:
    clip = row.identifier("clip")
    video = row.identifier("video")
    if video not in videos:
        raise row.fail("video", f"{video!r} is not in videos.csv; add it there, or mend the name")
    split = row.text("split")
    if split not in SPLITS:
        raise row.fail("split", f"{split!r} is none of {', '.join(SPLITS)}")
    frames, end_column = _clip_frames(row)
    if len(frames) < 2:
        raise row.fail(end_column, "gives one frame; a clip has at least two")
    num_frames = videos[video].num_frames
    if num_frames is not None and frames[-1] >= num_frames:
        raise row.fail(end_column, span_past_end(frames[-1], video, num_frames))
    return ClipRow(
        clip=clip,
        video=video,
        split=split,
        subject=row.cells["subject"],
        frames=frames,
        width=row.number("width", 16, MAX_SIDE_PX),
        height=row.number("height", 16, MAX_SIDE_PX),
    )


def span_past_end(last: int, video: str, num_frames: int) -> str:
    return f"frame {last} is past the last one of {video}, which is {num_frames - 1}; shorten the clip"


def _clip_frames(row: _Row) -> tuple[tuple[int, ...], str]:
    if row.cells["frames"]:
        for column in ("first", "last", "step"):
            if row.cells[column]:
                raise row.fail(column, "stands beside an explicit list in `frames`; give one or the other")
        frames = row.parsed("frames", parse_frames)
        assert isinstance(frames, tuple)
        return frames, "frames"
    first, last = row.number("first", 0, 10**9), row.number("last", 0, 10**9)
    if last < first:
        raise row.fail("last", f"{last} is before the first frame, {first}")
    step = row.number("step", 1, 10**6) if row.cells["step"] else 1
    return tuple(range(first, last + 1, step)), "last"
