"""Small videos for tests: pictures that say their number, with sound, times and shapes as wanted."""

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tasks.video import ffmpeg_path

FFMPEG = ffmpeg_path("pinned")
TICKS = Fraction(1, 12800)


def ball(number, width=96, height=64, shade=40):
    """A bright square that moves 2 px a picture over a gradient."""
    image = np.empty((height, width, 3), np.uint8)
    image[...] = (np.arange(width) // 2 + shade)[None, :, None].astype(np.uint8)
    left = 4 + 2 * number
    image[20:40, left : left + 14] = (200, 230, 60)
    return image


def write_video(path: Path, pictures, ticks) -> Path:
    """Lossless enough, no B-frames; ticks: when each picture is shown, in TICKS."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "6", "preset": "veryfast"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv444p" if stream.width % 2 or stream.height % 2 else "yuv420p"
        stream.time_base = stream.codec_context.time_base = TICKS
        for picture, tick in zip(pictures, ticks, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, "bgr24")
            frame.pts, frame.time_base = tick, TICKS
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def ffmpeg(*words) -> None:
    subprocess.run([FFMPEG, "-v", "error", "-y", *map(str, words)], check=True)


def add_sound(source: Path, target: Path, seconds: float, codec: str) -> Path:
    sine = ("-f", "lavfi", "-i", f"sine=440:duration={seconds}:sample_rate=48000")
    ffmpeg("-i", source, *sine, "-c:v", "copy", "-c:a", codec, target)
    return target


def decode(path: Path):
    """(time s, BGR picture) of every frame."""
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="bgr24")) for frame in container.decode(video=0)]


def sound_packets(path: Path):
    """(codec, [(time s, bytes)]) of the first audio stream, or None."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        name = stream.codec_context.name
        return name, [(float(p.pts * p.time_base), bytes(p)) for p in container.demux(stream) if p.size]
