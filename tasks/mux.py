"""Put a rendered video together: pieces of H.264 one after the other at any times, beside the source's sound."""

import heapq
import math
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.bitstream import BitStreamFilterContext

from tasks.errors import ToolError, VideoError

# Containers that are written, and the sound that players of each expect; other sound becomes AAC. None = any.
FORMATS: dict[str, str] = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
_COPIED: dict[str, frozenset[str] | None] = {
    "mp4": frozenset({"aac", "mp3", "ac3", "eac3", "alac"}),
    "mov": frozenset({"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be"}),
    "matroska": None,
}
AAC_BIT_RATE = "192k"


@dataclass(frozen=True)
class Sound:
    """One audio stream of the result: stream `index` (among audio) of a file, its times moved by offset_s."""

    path: Path
    index: int
    offset_s: float


def is_copied(codec: str, container: str) -> bool:
    """Whether sound of this codec goes into a container as it is."""
    kept = _COPIED[container]
    return kept is None or codec in kept


def convert_sound(
    source: Path, codecs: Sequence[str], container: str, stretch: int, folder: Path, ffmpeg: str
) -> list[Sound]:
    """The source's audio streams for a container: as they are where it can hold them, else as AAC.

    Args: codecs: of the streams; "" = left out.  stretch: how many times slower, the pitch kept.
    Raises: VideoError where ffmpeg cannot convert one.
    """
    sounds = []
    for index, codec in enumerate(codecs):
        if not codec:
            continue
        if stretch == 1 and is_copied(codec, container):
            sounds.append(Sound(source, index, 0.0))
            continue
        path = folder / f"sound-{index}.m4a"
        slower = ["-af", ",".join(_tempo_steps(stretch))] if stretch > 1 else []
        command = [ffmpeg, "-v", "error", "-nostdin", "-y", "-i", f"file:{source.absolute()}", "-map", f"0:a:{index}"]
        command += [*slower, "-c:a", "aac", "-b:a", AAC_BIT_RATE, "-fflags", "+bitexact", f"file:{path.absolute()}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise ToolError(f"{ffmpeg}: ffmpeg cannot be started ({error.strerror})") from error
        if done.returncode:
            reason = (done.stderr.strip() or "ffmpeg gave no reason").splitlines()[-1]
            raise VideoError(f"{source}: its sound ({codec}) cannot be converted ({reason}); use --audio drop")
        sounds.append(Sound(path, 0, _start_of_sound(source, index) * stretch))
    return sounds


def _tempo_steps(stretch: int) -> list[str]:
    """ffmpeg's atempo goes down to a half at a time."""
    steps = max(1, math.ceil(math.log2(stretch)))
    return [f"atempo={stretch ** (-1 / steps):.9f}"] * steps


def _start_of_sound(source: Path, index: int) -> float:
    with av.open(f"file:{source.absolute()}", metadata_errors="replace") as container:
        stream = container.streams.audio[index]
        return float((stream.start_time or 0) * stream.time_base)


def join_video(
    path: Path,
    container: str,
    segments: Sequence[Path],
    ticks_T: npt.NDArray[np.int64],
    end_tick: int,
    tick: Fraction,
    pixel_aspect: Fraction,
    sounds: Sequence[Sound],
    on_frames: Callable[[int], None],
) -> None:
    """Write segments as one video.

    Args:
        path: the file to write. container: a value of FORMATS.
        segments: H.264 of one encoder and setting; together as many frames as there are ticks.
        ticks_T: when each frame is shown, rising, in `tick` seconds.
        end_tick: when the last one ends.
    """
    start_s = max(0.0, min([float(ticks_T[0] * tick), *(_first_time(sound) for sound in sounds)]))
    offset = round(start_s / tick)
    delay = max(_reorder_delay(segment) for segment in segments)
    options = {"fflags": "+bitexact", **({} if container == "matroska" else {"movflags": "+faststart"})}
    with av.open(f"file:{path.absolute()}", "w", format=container, options=options) as target:
        with av.open(str(segments[0])) as first:
            video = target.add_stream_from_template(first.streams.video[0])
            video.time_base = tick
            aspect = f"h264_metadata=sample_aspect_ratio={pixel_aspect.numerator}/{pixel_aspect.denominator}"
            BitStreamFilterContext(aspect, first.streams.video[0], video)  # for the header
        inputs = [av.open(f"file:{sound.path.absolute()}", metadata_errors="replace") for sound in sounds]
        try:
            streams = [each.streams.audio[sound.index] for each, sound in zip(inputs, sounds, strict=True)]
            outputs = [target.add_stream_from_template(stream) for stream in streams]
            pictures = _video_packets(segments, ticks_T - offset, end_tick - offset, tick, delay, video, aspect)
            packets = [
                _sound_packets(opened, stream, output, sound.offset_s - start_s)
                for opened, stream, output, sound in zip(inputs, streams, outputs, sounds, strict=True)
            ]
            for _, _, packet in heapq.merge(pictures, *packets, key=lambda timed: timed[:2]):
                target.mux_one(packet)
                if packet.stream is video:
                    on_frames(1)
        finally:
            for each in inputs:
                each.close()


def _first_time(sound: Sound) -> float:
    return _start_of_sound(sound.path, sound.index) + sound.offset_s


def _reorder_delay(segment: Path) -> int:
    """How many frames a decoder must hold back: a frame's packet may come this many places late."""
    with av.open(str(segment)) as opened:
        pts = [packet.pts for packet in opened.demux(video=0) if packet.size]
    places = {value: place for place, value in enumerate(sorted(pts))}
    return max(index - places[value] for index, value in enumerate(pts))


_Timed = tuple[float, int, Any]


def _video_packets(
    segments: Sequence[Path],
    ticks_T: npt.NDArray[np.int64],
    end_tick: int,
    tick: Fraction,
    delay: int,
    stream: Any,  # noqa: ANN401 (PyAV's)
    aspect: str,
) -> Iterator[_Timed]:
    """(decode time s, order, packet) of all segments; each is decoded when the frame `delay` before is shown."""
    bounds = [*ticks_T.tolist(), end_tick]
    step = bounds[1] - bounds[0]
    done = 0
    for segment in segments:
        with av.open(str(segment)) as opened:
            source = opened.streams.video[0]
            to_aspect = BitStreamFilterContext(aspect, source)
            packets = [packet for packet in opened.demux(source) if packet.size]
            places = {value: place for place, value in enumerate(sorted(packet.pts for packet in packets))}
            for index, packet in enumerate(packets):
                place, order = done + places[packet.pts], done + index
                (filtered,) = to_aspect.filter(packet)
                filtered.stream = stream
                filtered.time_base = tick
                filtered.pts = bounds[place]
                filtered.dts = bounds[order - delay] if order >= delay else bounds[0] - (delay - order) * step
                filtered.duration = bounds[place + 1] - bounds[place]
                if order == len(ticks_T) - 1 and place < order:
                    # An mp4 takes the length of the whole from when the last packet is decoded.
                    filtered.duration = max(1, bounds[-1] - bounds[order - delay] - delay * step)
                yield float(filtered.dts * tick), 0, filtered
            done += len(packets)
    if done != len(ticks_T):
        raise RuntimeError(f"{done} frames in the segments for {len(ticks_T)} times")


def _sound_packets(opened: Any, stream: Any, output: Any, offset_s: float) -> Iterator[_Timed]:  # noqa: ANN401 (PyAV's)
    """(decode time s, order, packet) of an audio stream, its times moved."""
    base = Fraction(stream.time_base)
    offset = round(offset_s / base)
    for packet in opened.demux(stream):
        if not packet.size or packet.pts is None:
            continue
        packet.pts += offset
        packet.dts = packet.pts if packet.dts is None else packet.dts + offset
        packet.stream = output
        yield float(packet.dts * base), 1, packet
