"""Look through a whole video once: when each frame is shown, and how alike neighbours are."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from models.cuts import make_thumbnail, measure_likeness
from tasks.errors import VideoError
from tasks.video import VideoInfo, probe_video, read_frames

_NO_REASON = "ffmpeg gave no reason"  # of tasks.video: the stream ended where packets promised more
MAX_MISSING_S = 0.25
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}  # H.273


@dataclass(frozen=True)
class Source:
    """A video as its headers and packets tell it.

    pixel_aspect: width to height of a displayed pixel.  hdr: "", "PQ" or "HLG".
    audio: the codec of each audio stream; "" = one that nothing here reads.
    """

    path: Path
    info: VideoInfo
    pixel_aspect: Fraction
    hdr: str
    audio: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Scan:
    """ticks_K: when each frame is shown, in time_base.  likeness_G: of neighbours.  last_ticks: of the last one."""

    ticks_K: npt.NDArray[np.int64]
    time_base: Fraction
    last_ticks: int
    likeness_G: npt.NDArray[np.float64]


def probe_source(path: Path) -> Source:
    """Raises: VideoError, as probe_video: no such file, no video in it, cut short."""
    info = probe_video(path)
    with av.open(f"file:{path.absolute()}", metadata_errors="replace") as container:
        if "matroska" in container.format.name:
            _check_length(path, container)
        is_cover = av.stream.Disposition.attached_pic
        stream = next(each for each in container.streams.video if not each.disposition & is_cover)
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        transfer = int(stream.codec_context.color_trc or 0)
        audio = tuple(
            str(each.codec_context.codec.canonical_name) if each.codec_context else ""
            for each in container.streams.audio
        )
    if info.rotation_deg % 180:
        aspect = 1 / aspect if aspect else aspect
    return Source(path, info, aspect or Fraction(1), _HDR_TRANSFERS.get(transfer, ""), audio)


def _check_length(path: Path, container: Any) -> None:  # noqa: ANN401 (PyAV's)
    """Matroska has no index that must be whole: cut short, it only ends before the time that its header states."""
    stated_s = (container.duration or 0) / av.time_base
    ends = (
        float((packet.pts + (packet.duration or 0)) * packet.time_base)
        for packet in container.demux()
        if packet.pts is not None
    )
    end_s = max(ends, default=0.0)
    if end_s < stated_s - MAX_MISSING_S:
        raise VideoError(f"{path}: cut short: ends after {end_s:.1f} of {stated_s:.1f} s; get the file again")


def scan_video(source: Source, ffmpeg: str, on_frame: Callable[[int], None]) -> Scan:
    """Decode the whole video once.

    Args: on_frame: called with the number of frames done since.
    Raises: VideoError for a frame that does not decode.
    """
    path, info = source.path, source.info
    times: list[float] = []
    likeness: list[float] = []
    last = None
    try:
        for frame in read_frames(path, range(info.num_frames), None, ffmpeg):
            thumbnail = make_thumbnail(frame.image_HWC)
            if last is not None:
                likeness.append(measure_likeness(last, thumbnail))
            last = thumbnail
            times.append(frame.time_s)
            on_frame(1)
    except VideoError as error:
        # Not every packet is a frame (two fields, hidden frames): what the decoder gave in good order is the video.
        if _NO_REASON not in str(error) or not times:
            raise
    ticks_K = np.array([round(time_s / info.time_base) for time_s in times], np.int64)
    return Scan(ticks_K, info.time_base, _last_ticks(ticks_K, info), np.array(likeness))


def _last_ticks(ticks_K: npt.NDArray[np.int64], info: VideoInfo) -> int:
    """What the container says of the last frame, unless that is nothing or far from usual; then the usual distance."""
    usual = int(np.median(np.diff(ticks_K))) if len(ticks_K) > 1 else 1
    stated = round(info.duration_s / info.time_base) - int(ticks_K[-1] - ticks_K[0])
    return stated if 0 < stated <= 2 * usual else max(usual, 1)


def write_scan(path: Path, scan: Scan) -> None:
    temporary = path.with_suffix(".tmp.npz")
    np.savez(
        temporary,
        ticks=scan.ticks_K,
        base=np.array([scan.time_base.numerator, scan.time_base.denominator, scan.last_ticks]),
        likeness=scan.likeness_G,
    )
    temporary.replace(path)


def read_scan(path: Path) -> Scan:
    with np.load(path) as kept:
        numerator, denominator, last_ticks = (int(value) for value in kept["base"])
        return Scan(kept["ticks"], Fraction(numerator, denominator), last_ticks, kept["likeness"])
