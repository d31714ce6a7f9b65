"""Video files: what is in one, exactly these frames of it, and an mp4 from pictures.

ffmpeg decodes and encodes, and PyAV reads headers and packets. A frame is named by its decode-output number:
0 for the first frame that the decoder gives, in the order of presentation. Pictures are HWC: height, width,
and three channels in OpenCV's order (blue, green, red), uint8.
"""

import queue
import re
import shutil
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import av
import cv2
import ffmpeg as ffmpeg_python
import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from tasks.errors import ToolError, VideoError

Image = NDArray[np.uint8]

# Without these three, swscale's result depends on the instruction set of the machine.
EXACT_SCALING = "accurate_rnd+full_chroma_int+bitexact"

# ffmpeg evaluates a sum with one term for each range, for every frame. 64 terms cost nothing beside the
# decoding; a sum of thousands would be evaluated as deep as it is long.
MAX_SELECT_TERMS = 64

# Formats that "decode" anything: text as a terminal would show it, and single pictures.
NOT_VIDEO_FORMATS = re.compile(r"tty|image2|\w+_pipe")

SHOWN_FRAME = re.compile(r"Parsed_showinfo\S* @ .*\bn: *\d+ +pts: *(?P<pts>-?\d+|NOPTS).* s:(?P<size>\d+x\d+)")
SHOWN_TIME_BASE = re.compile(r"Parsed_showinfo\S* @ .*config in time_base: (?P<time_base>\d+/\d+)")
COMPLAINT = re.compile(r"\[(?:error|fatal)\] (?P<text>.*\S)")


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds.

    width, height: pixels as displayed, after the rotation; a pixel that is not square is not stretched.
    num_frames: frames that the decoder gives; hidden lead-in frames of an edit list do not count.
    average_fps: frames per second over the whole file; 0 for a single frame without a rate.
    time_base: seconds in one tick of the file's clock.
    rotation_deg: counter-clockwise turn from the stored picture to the displayed one, -179 to 180.
    duration_s: from the first frame's presentation to the end of the last frame's.
    """

    width: int
    height: int
    num_frames: int
    average_fps: Fraction
    time_base: Fraction
    rotation_deg: int
    duration_s: float
    has_audio: bool
    codec: str


@dataclass(frozen=True)
class Crop:
    """A rectangle of the displayed picture, pixels."""

    left: int
    top: int
    width: int
    height: int


class VideoFrame(NamedTuple):
    """One decoded frame: its decode-output number, presentation time (the source's own) and picture."""

    frame: int
    time_s: float
    image_HWC: Image


def ffmpeg_path(source: Literal["pinned", "system"]) -> str:
    """The ffmpeg to use: the one that imageio-ffmpeg ships, or the first on PATH.

    Raises:
        ToolError: there is none.
    """
    if source == "system":
        found = shutil.which("ffmpeg")
        if found is None:
            raise ToolError("no ffmpeg on PATH; install it, or use the one that imageio-ffmpeg ships (pinned)")
        return found
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise ToolError("imageio-ffmpeg ships no ffmpeg for this machine; install one and use it (system)") from error


def probe_video(path: Path) -> VideoInfo:
    """Read what a video holds, and count its frames from its packets.

    The whole file is read, and one frame of it decoded (the rotation comes with a frame).

    Raises:
        VideoError: no such file, not a video, no frame in it, or cut short.
    """
    with _opened(path) as (container, stream):
        ticks: list[int] = []
        end = None
        num_frames = num_packets = 0
        first_frame = None
        for packet in container.demux(stream):
            if packet.size == 0:  # the flush at the end
                continue
            if packet.is_corrupt:
                raise VideoError(f"{path}: cut short or damaged after {num_frames} frames; get the file again")
            num_packets += 1
            if not packet.is_discard:
                num_frames += 1
                if packet.pts is not None:
                    ticks.append(packet.pts)
                    end = max(end or packet.pts, packet.pts + (packet.duration or 0))
            if first_frame is None:
                first_frame = next(iter(packet.decode()), None)
        if first_frame is None:
            first_frame = next(iter(stream.decode(None)), None)
        # An mp4 whose index stands at the front and that ends between two packets looks whole otherwise.
        if "mp4" in container.format.name and num_packets < len(stream.index_entries):
            raise VideoError(f"{path}: cut short after {num_frames} frames; get the file again")
        if first_frame is None or num_frames == 0:
            raise VideoError(f"{path}: has a video stream without a single frame; get another file")

        time_base = Fraction(stream.time_base)
        rotation_deg = int(first_frame.rotation)
        size = (first_frame.width, first_frame.height)
        width, height = size[::-1] if rotation_deg % 180 else size
        return VideoInfo(
            width=width,
            height=height,
            num_frames=num_frames,
            average_fps=_average_fps(stream.average_rate, ticks, time_base),
            time_base=time_base,
            rotation_deg=rotation_deg,
            duration_s=float((end - min(ticks)) * time_base) if end is not None else 0.0,
            has_audio=bool(container.streams.audio),
            codec=str(stream.codec_context.codec.canonical_name),
        )


def _average_fps(stated_fps: Fraction | None, ticks: list[int], time_base: Fraction) -> Fraction:
    """The container's rate, which is not rounded to ticks, where the frames keep it to 1 %; else theirs."""
    span = max(ticks) - min(ticks) if ticks else 0
    if span == 0:
        return Fraction(stated_fps or 0)
    measured_fps = (len(ticks) - 1) / (span * time_base)
    if stated_fps and abs(stated_fps / measured_fps - 1) < Fraction(1, 100):
        return Fraction(stated_fps)
    return measured_fps


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """A PyAV container and its video stream (not a cover picture); what PyAV reports becomes a VideoError."""
    if not path.is_file():
        raise VideoError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: an empty file; get it again")
    try:
        with av.open(_file_url(path), metadata_errors="replace") as container:
            if NOT_VIDEO_FORMATS.fullmatch(container.format.name):
                raise VideoError(f"{path}: not a video ({container.format.long_name})")
            if not container.streams:
                raise VideoError(f"{path}: cut short, or not a video: no index of streams in it; get the file again")
            for stream in container.streams.video:
                if not stream.disposition & av.stream.Disposition.attached_pic:
                    yield container, stream
                    return
            raise VideoError(f"{path}: no video stream in it")
    except av.FFmpegError as error:
        reason = (error.strerror or str(error)).lower()
        raise VideoError(f"{path}: not a video, cut short or damaged ({reason}); get the file again") from error


def _file_url(path: Path) -> str:
    """The path as ffmpeg must be told it: else a name with a colon is taken for a protocol."""
    return f"file:{path.absolute()}"


def read_frames(path: Path, frames: Sequence[int], crop: Crop | None, ffmpeg: str) -> Iterator[VideoFrame]:
    """Decode a video once, up to the last wanted frame, and give the wanted frames one by one.

    Colours are converted by the matrix and the range that the file states. The same file gives the same bytes
    on every machine. Two pictures are held at a time; ffmpeg ends when the iterator is closed, or when it
    writes to a process that is gone.

    Args:
        path: the video.
        frames: decode-output numbers from 0, rising, no number twice.
        crop: the part to keep of the displayed (rotated) picture; None keeps all.
        ffmpeg: the program.

    Returns:
        An iterator of VideoFrame; image_HWC (height, width, 3) uint8 BGR, time_s as the source states it.

    Raises:
        ValueError: the numbers do not rise from 0 or more.
        VideoError: at once for a file that is no video or a crop outside its picture; from the iterator for a
            frame past the end and for one that does not decode.
        ToolError: ffmpeg cannot be started.
    """
    frames = list(frames)
    for earlier, later in pairwise([-1, *frames]):
        if later <= earlier:
            raise ValueError(f"frame numbers must rise from 0, no number twice: {later} comes after {earlier}")
    with _opened(path) as (container, stream):
        stream_index = int(stream.index)
        first_frame = next(container.decode(stream), None)
    if first_frame is None:
        raise VideoError(f"{path}: has a video stream without a single frame; get another file")
    if first_frame.pts is None:  # ffmpeg would make times up
        raise VideoError(f"{path}: has no presentation times; put it into an mp4 with its frame rate first")
    size = (first_frame.width, first_frame.height)
    width, height = size[::-1] if int(first_frame.rotation) % 180 else size
    if crop is None:
        crop = Crop(0, 0, width, height)
    outside = crop.left + crop.width > width or crop.top + crop.height > height
    if outside or min(crop.left, crop.top) < 0 or min(crop.width, crop.height) < 1:
        raise VideoError(
            f"{path}: the crop of {crop.width}x{crop.height} px at ({crop.left}, {crop.top}) "
            f"is not inside the picture of {width}x{height} px"
        )
    return _decoded(path, stream_index, f"{width}x{height}", frames, crop, ffmpeg)


def _decoded(
    path: Path, stream_index: int, size: str, frames: list[int], crop: Crop, ffmpeg: str
) -> Iterator[VideoFrame]:
    """The frames; size is that of the whole displayed picture, as WIDTHxHEIGHT."""
    if not frames:
        return
    ranges = _ranges(frames)
    wanted = set(frames)
    command = _decode_command(path, stream_index, ranges, crop, ffmpeg)
    with _running(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None  # for mypy: both are pipes
        assert process.stderr is not None
        log = _ShowinfoLog(process.stderr)
        planes_CHW = np.empty((3, crop.height, crop.width), np.uint8)
        for frame in chain.from_iterable(ranges):
            if not _read_fully(process.stdout, planes_CHW):
                first_lost = next(number for number in frames if number >= frame)
                raise VideoError(_why_lost(path, first_lost, log.complaint()))
            shown = log.next_frame()
            if shown is None or shown.size != size:
                raise VideoError(f"{path}: frame {frame}: the picture's size changes from {size}; only one can be read")
            if shown.time_s is None:
                raise VideoError(f"{path}: frame {frame}: no presentation time; put the video into an mp4 first")
            if frame in wanted:
                green_HW, blue_HW, red_HW = planes_CHW
                yield VideoFrame(frame, shown.time_s, cv2.merge([blue_HW, green_HW, red_HW]))


def _why_lost(path: Path, frame: int, complaint: str) -> str:
    num_frames = probe_video(path).num_frames
    if frame >= num_frames:
        return f"{path}: no frame {frame}: it has {num_frames} frames, 0 to {num_frames - 1}"
    return f"{path}: frame {frame} of {num_frames} does not decode ({complaint}); get the file again"


def _ranges(frames: Sequence[int]) -> list[range]:
    """Few ranges that hold the rising numbers: exactly them where they are regular, else some more."""
    ranges: list[range] = []
    start = 0
    while start < len(frames):
        if start + 1 == len(frames):
            ranges.append(range(frames[start], frames[start] + 1))
            break
        step = frames[start + 1] - frames[start]
        end = start + 2
        while end < len(frames) and frames[end] - frames[end - 1] == step:
            end += 1
        ranges.append(range(frames[start], frames[end - 1] + 1, step))
        start = end
    if len(ranges) <= MAX_SELECT_TERMS:
        return ranges
    # Split at the widest gaps only; the unwanted frames in between are piped and dropped.
    gaps = sorted(range(1, len(frames)), key=lambda i: frames[i] - frames[i - 1], reverse=True)
    splits = [0, *sorted(gaps[: MAX_SELECT_TERMS - 1]), len(frames)]
    return [range(frames[first], frames[end - 1] + 1) for first, end in pairwise(splits)]


def _decode_command(path: Path, stream_index: int, ranges: list[range], crop: Crop, ffmpeg: str) -> list[str]:
    terms = (f"between(n,{r[0]},{r[-1]})" + (f"*not(mod(n-{r[0]},{r.step}))" if r.step > 1 else "") for r in ranges)
    # copyts: the source's own times. bitexact: the decoder's one result for all machines.
    source = ffmpeg_python.input(_file_url(path), copyts=None, flags="bitexact")
    picture = (
        source[str(stream_index)]  # ffmpeg turns it upright first
        .filter("select", "+".join(terms))
        .filter("scale", flags=EXACT_SCALING)
        .filter("format", "gbrp")  # the same values as bgr24 in half the time: exact bgr24 is not vectorised
        .filter("showinfo", checksum=0)
        # After the conversion: YUV with halved chroma can only be cut at even pixels.
        .filter("crop", crop.width, crop.height, crop.left, crop.top)
    )
    output = picture.output(
        "pipe:",
        format="rawvideo",
        vcodec="rawvideo",
        fps_mode="passthrough",  # no frame is doubled or dropped to keep a rate
        **{"frames:v": sum(map(len, ranges))},
    )
    # xerror: a frame that does not decode ends it; ffmpeg would go on, and all later numbers would be off.
    output = output.global_args("-hide_banner", "-nostdin", "-nostats", "-xerror", "-loglevel", "level+info")
    return [str(argument) for argument in ffmpeg_python.compile(output, cmd=ffmpeg)]


class _ShownFrame(NamedTuple):
    time_s: float | None
    size: str


class _ShowinfoLog:
    """Reads ffmpeg's messages beside its pictures: showinfo's line for each frame, and the first complaint.

    The line of a frame is written before its picture, so waiting for it after the picture is short.
    """

    def __init__(self, stderr: IO[bytes]) -> None:
        self._frames: queue.SimpleQueue[_ShownFrame | None] = queue.SimpleQueue()
        self._complaint: str | None = None
        self._thread = threading.Thread(target=self._read, args=(stderr,), daemon=True)
        self._thread.start()

    def _read(self, stderr: IO[bytes]) -> None:
        time_base = Fraction(0)
        try:
            for raw_line in stderr:
                line = raw_line.decode("utf-8", "replace")
                if match := SHOWN_TIME_BASE.search(line):
                    time_base = Fraction(match["time_base"])
                elif match := SHOWN_FRAME.search(line):
                    ticks = None if match["pts"] == "NOPTS" else int(match["pts"])
                    time_s = None if ticks is None else float(ticks * time_base)
                    self._frames.put(_ShownFrame(time_s, match["size"]))
                elif self._complaint is None and (match := COMPLAINT.search(line)):
                    self._complaint = match["text"]
        finally:
            self._frames.put(None)

    def next_frame(self) -> _ShownFrame | None:
        """The next picture's time and size; None when ffmpeg ended without saying."""
        return self._frames.get()

    def complaint(self) -> str:
        """ffmpeg's first error message, after it ended; those after it say only what it gave up for that."""
        self._thread.join()
        return self._complaint or "ffmpeg gave no reason"


def _read_fully(pipe: IO[bytes], planes_CHW: Image) -> bool:
    """Fill the picture from the pipe; False when it ends before."""
    rest = planes_CHW.data.cast("B")
    while rest:
        num_bytes = pipe.readinto(rest)  # type: ignore[attr-defined]
        if not num_bytes:
            return False
        rest = rest[num_bytes:]
    return True


@contextmanager
def _running(command: list[str], stdin: int, stdout: int) -> Iterator[subprocess.Popen[bytes]]:
    """ffmpeg with its messages in a pipe; killed when the block is left before it ended."""
    try:
        process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, bufsize=0)
    except OSError as error:
        raise ToolError(f"{command[0]}: ffmpeg cannot be started ({error.strerror}); see inbetween doctor") from error
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def resize_image(image_HWC: Image, width: int, height: int) -> Image:
    """Scale a picture: each new pixel the mean of what it covers when neither side grows, else bicubic."""
    old_height, old_width = image_HWC.shape[:2]
    if (old_width, old_height) == (width, height):
        return image_HWC
    shrinks = width <= old_width and height <= old_height
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    resized_HWC: Image = cv2.resize(image_HWC, (width, height), interpolation=interpolation)
    return resized_HWC


def write_mp4(path: Path, images: Iterable[Image], fps: Fraction | float, crf: int, ffmpeg: str) -> None:
    """Write pictures as an H.264 mp4; the same pictures give the same bytes.

    Args:
        path: the file to write, whole or not at all; its folder must exist.
        images: (height, width, 3) uint8 BGR, all of one size; an odd side gets its last row or column twice
            (H.264's halved chroma needs even sides).
        fps: pictures per second, > 0.
        crf: x264's quality, 0 (lossless) to 51.
        ffmpeg: the program.

    Raises:
        VideoError: no picture, one of another size or type, or ffmpeg failed.
        ToolError: ffmpeg cannot be started.
    """
    rate = fps if isinstance(fps, Fraction) else Fraction(fps).limit_denominator(1001)
    if rate <= 0:
        raise VideoError(f"{path}: cannot be written at {fps} pictures per second; give a rate above 0")
    iterator = iter(images)
    first_HWC = next(iterator, None)
    if first_HWC is None:
        raise VideoError(f"{path}: cannot be written: there is no picture for it")
    height, width = first_HWC.shape[:2]
    partial = path.with_name(f".{path.name}.partial")
    command = _encode_command(partial, width + width % 2, height + height % 2, rate, crf, ffmpeg)
    try:
        with _running(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
            assert process.stdin is not None  # for mypy: both are pipes
            assert process.stderr is not None
            log = _ShowinfoLog(process.stderr)
            try:
                for number, image_HWC in enumerate(chain([first_HWC], iterator)):
                    if image_HWC.shape != (height, width, 3) or image_HWC.dtype != np.uint8:
                        raise VideoError(
                            f"{path}: picture {number} is {image_HWC.dtype} {image_HWC.shape}, "
                            f"not uint8 {(height, width, 3)} as the first"
                        )
                    padding = ((0, height % 2), (0, width % 2), (0, 0))
                    _write_fully(process.stdin, np.pad(image_HWC, padding, mode="edge"))
                process.stdin.close()
                failed = process.wait() != 0
            except BrokenPipeError:
                failed = True
            if failed:
                raise VideoError(f"{path}: ffmpeg could not write it: {log.complaint()}")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _write_fully(pipe: IO[bytes], image_HWC: Image) -> None:
    rest = np.ascontiguousarray(image_HWC).data.cast("B")
    while rest:
        rest = rest[pipe.write(rest) :]


def _encode_command(path: Path, width: int, height: int, fps: Fraction, crf: int, ffmpeg: str) -> list[str]:
    rate = f"{fps.numerator}/{fps.denominator}"
    pictures = ffmpeg_python.input("pipe:", format="rawvideo", pix_fmt="bgr24", s=f"{width}x{height}", framerate=rate)
    converted = pictures.filter("scale", flags=EXACT_SCALING, out_color_matrix="bt709", out_range="tv").filter(
        "format", "yuv420p"
    )
    output = converted.output(
        _file_url(path),
        format="mp4",
        vcodec="libx264",
        crf=crf,
        preset="veryfast",  # less than half of the default's time, and no more bytes at these qualities
        threads=2,  # x264's result depends on how many there are
        movflags="+faststart",
        # No encoder's version and settings, neither in the file's tags nor in the stream (x264's SEI).
        fflags="+bitexact",
        **{"flags:v": "+bitexact", "bsf:v": "filter_units=remove_types=6"},
        colorspace="bt709",
        color_primaries="bt709",
        color_trc="bt709",
        color_range="tv",
    )
    output = output.global_args("-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+error")
    return [str(argument) for argument in ffmpeg_python.compile(output, cmd=ffmpeg, overwrite_output=True)]
