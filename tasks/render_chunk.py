"""A run of key frames of any video and the frames after each: pictures in, a piece of video and its rows out.

Keys pass as they are. Between two keys the frames are a rendering method's, or the base interpolator's where nobody is
seen in one of the two; across a cut, and after the last key, the nearer key is held.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

from models.renderer.device import DeviceError
from models.renderer.keys import WeightsError
from models.renderer.methods import KeyPair, render_between, render_neural
from models.skeleton import NUM_JOINTS, is_seen
from tasks.errors import ToolError
from tasks.items import ItemStore
from tasks.render import RenderSettings, predict_joints
from tasks.tables import Image, encode_png
from tasks.timeline import Moment
from tasks.video import write_mp4

SEGMENT, ROWS = "segment.mp4", "rows.arrow"
HOLD = "hold"  # the method of a frame that repeats the nearer key
CONTEXT_KEYS = 24  # on either side of a chunk, that its motion is found with
MAX_PICTURE_BYTES = 256 * 2**20  # of the frames of one gap that are held at once

FloatArray = npt.NDArray[np.float64]

ROWS_SCHEMA = pa.schema(
    [
        ("frame", pa.int32()),
        ("time", pa.float64()),
        ("source_time", pa.float64()),
        ("source_frame", pa.int32()),
        ("origin", pa.string()),
        ("method", pa.string()),
        ("key_before", pa.int32()),
        ("key_after", pa.int32()),
        ("posed_share", pa.float32()),
        ("is_cut", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class ShotPart:
    """What a chunk's motion in one shot is found from: its own keys of the shot and some on either side.

    first: number of the first key.  times_K: s.  joints_px_KJD: (K, 19, 3).
    """

    first: int
    times_K: FloatArray
    joints_px_KJD: FloatArray
    torso_px: float


class Gap(NamedTuple):
    """A key and the frames from it to before the next one.

    time_s, length_s: of the gap in the source.  is_last: there is no key after it.
    part: index of the shot in RenderChunk.parts; None = nothing is rendered here or no pose is needed.
    """

    key: int
    time_s: float
    length_s: float
    moments: list[Moment]
    is_cut: bool
    is_last: bool
    part: int | None


@dataclass(frozen=True)
class RenderChunk:
    """pictures: file of (keys, H, W, 3) uint8, of the gaps' keys and the one after them where there is one.

    mattes: of the same keys.  tick_s: s in a tick of the rendered video.  first_tick: of the whole video.
    frames_folder: where every frame is written as PNG too; None = nowhere.
    """

    key: str
    pictures: Path
    gaps: list[Gap]
    mattes: list[Image | None]
    parts: list[ShotPart]
    settings: RenderSettings
    tick_s: float
    first_tick: int
    fps: Fraction
    crf: int
    ffmpeg: str
    frames_folder: Path | None


class ChunkRecord(NamedTuple):
    """What a chunk's frames were."""

    num_original: int
    num_generated: int
    num_held: int
    num_based: int  # of the generated ones that a method with poses had to leave to the base


class _Frame(NamedTuple):
    image: Image
    share: float
    origin: str
    method: str
    source: int
    posed_share: float
    moment: Moment
    gap: Gap


def render_chunk(chunk: RenderChunk, advance: Callable[[int], None], store: ItemStore) -> ChunkRecord:
    """Render a chunk and keep its segment and rows in the store, under the chunk's key.

    Args: advance: called with the number of frames finished since.
    Raises: ToolError where weights or a checkpoint cannot be read; SourceError for the motion model's.
    """
    rows: list[dict[str, object]] = []

    def write(folder: Path) -> None:
        folder.mkdir(parents=True)
        images = _noted(_render(chunk), rows, chunk, advance)
        write_mp4(folder / SEGMENT, images, chunk.fps, chunk.crf, chunk.ffmpeg)
        table = pa.Table.from_pylist(rows, schema=ROWS_SCHEMA)
        with pa.OSFile(str(folder / ROWS), "wb") as sink, ipc.new_file(sink, ROWS_SCHEMA) as writer:
            writer.write_table(table)

    store.put_output(chunk.key, write)
    chunk.pictures.unlink(missing_ok=True)
    return count_rows(pa.Table.from_pylist(rows, schema=ROWS_SCHEMA), chunk.settings)


def count_rows(rows: pa.Table, settings: RenderSettings) -> ChunkRecord:
    origin, method = (np.array(rows[name].to_pylist()) for name in ("origin", "method"))
    is_made = (origin == "generated") & (method != HOLD)
    num_based = int((is_made & (method != settings.method)).sum())
    return ChunkRecord(int((origin == "original").sum()), int(is_made.sum()), int((method == HOLD).sum()), num_based)


def read_rows(folder: Path) -> pa.Table:
    with pa.memory_map(str(folder / ROWS)) as source:
        return ipc.open_file(source).read_all()


def has_frames(rows: pa.Table, folder: Path) -> bool:
    """Whether every frame of a finished chunk is still in the folder of pictures."""
    return all(frame_path(folder, number).is_file() for number in rows["frame"].to_pylist())


def frame_path(folder: Path, number: int) -> Path:
    return folder / f"frame_{number:06d}.png"


def _noted(
    frames: Iterator[_Frame], rows: list[dict[str, object]], chunk: RenderChunk, advance: Callable[[int], None]
) -> Iterator[Image]:
    """Pass pictures on to the encoder; note their rows, and write them as PNG where that is wanted."""
    for frame in frames:
        moment, gap = frame.moment, frame.gap
        if chunk.frames_folder:
            path = frame_path(chunk.frames_folder, moment.frame)
            temporary = path.with_name(f".{path.name}.tmp")
            temporary.write_bytes(encode_png(frame.image))
            temporary.replace(path)
        rows.append(
            {
                "frame": moment.frame,
                "time": (moment.tick - chunk.first_tick) * chunk.tick_s,
                "source_time": gap.time_s + moment.share * gap.length_s,
                "source_frame": frame.source,
                "origin": frame.origin,
                "method": frame.method,
                "key_before": gap.key,
                "key_after": gap.key if frame.origin == "original" or gap.is_last else gap.key + 1,
                "posed_share": frame.posed_share,
                "is_cut": gap.is_cut,
            }
        )
        yield frame.image
        advance(1)


def _render(chunk: RenderChunk) -> Iterator[_Frame]:
    pictures = np.load(chunk.pictures, mmap_mode="r")
    motions = [_PartMotion(part, chunk) for part in chunk.parts]
    following: Image | None = None
    for number, gap in enumerate(chunk.gaps):
        image = following if following is not None else np.array(pictures[number])
        following = None if gap.is_last else np.array(pictures[number + 1])
        moments = gap.moments
        if moments and moments[0].share == 0.0:
            yield _Frame(image, 0.0, "original", "", gap.key, 0.0, moments[0], gap)
            moments = moments[1:]
        if not moments:
            continue
        if following is None or gap.is_cut:
            for moment in moments:
                is_later = following is not None and moment.share > 0.5
                held = following if following is not None and is_later else image
                yield _Frame(held, moment.share, "generated", HOLD, gap.key + is_later, 0.0, moment, gap)
            continue
        motion = motions[gap.part] if gap.part is not None else None
        mattes = (chunk.mattes[number], chunk.mattes[number + 1])
        yield from _between(chunk, gap, moments, (image, following), mattes, motion)


class _PartMotion:
    """The joints of one shot's part, predicted at all of the chunk's moments in it at once."""

    def __init__(self, part: ShotPart, chunk: RenderChunk) -> None:
        self.part = part
        self._rows: dict[int, int] = {}
        times: list[float] = []
        for gap in chunk.gaps:
            if gap.part is None or chunk.parts[gap.part] is not part:
                continue
            start, end = (part.times_K[gap.key + n - part.first] for n in (0, 1))
            for moment in gap.moments:
                self._rows[moment.frame] = len(times)
                times.append(min(max(start + moment.share * (end - start), start), end))
        self._joints_TJD = np.zeros((0, NUM_JOINTS, 3))
        if times:
            self._joints_TJD = predict_joints(part.times_K, part.joints_px_KJD, np.array(times), chunk.settings)

    def at(self, moment: Moment) -> FloatArray:
        """(19, 3) joints px."""
        joints_JD: FloatArray = self._joints_TJD[self._rows[moment.frame]]
        return joints_JD

    def keys(self, key: int) -> tuple[FloatArray, FloatArray]:
        """Of a gap's two keys, as observed."""
        first, second = self.part.joints_px_KJD[key - self.part.first : key - self.part.first + 2]
        return first, second

    def sees_person(self, key: int) -> bool:
        """Whether anybody is seen in both keys of a gap."""
        return self.part.torso_px > 0 and all(bool(is_seen(joints_JD).any()) for joints_JD in self.keys(key))


def _between(
    chunk: RenderChunk,
    gap: Gap,
    moments: Sequence[Moment],
    images: tuple[Image, Image],
    mattes: tuple[Image | None, Image | None],
    motion: _PartMotion | None,
) -> Iterator[_Frame]:
    settings = chunk.settings
    method: str = settings.method
    pair, joints = KeyPair(*images), None
    if settings.needs_poses:
        if motion is not None and motion.sees_person(gap.key):
            joints_0, joints_1 = motion.keys(gap.key)
            pair = KeyPair(*images, mattes, joints_0, joints_1, motion.part.torso_px)
            joints = [motion.at(moment) for moment in moments]
        else:
            method = settings.base
    # What the renderer paints rests on the frame before, so that its gap is made in one go.
    length = len(moments) if method == "neural" else max(1, MAX_PICTURE_BYTES // images[0].nbytes)
    for start in range(0, len(moments), length):
        some = moments[start : start + length]
        shares = [moment.share for moment in some]
        some_joints = joints[start : start + length] if joints is not None else None
        try:
            if method == "neural":
                assert some_joints is not None
                renderer = Path(settings.renderer)
                below = "warp" if settings.background == "warp" else settings.base
                behind = render_between(below, pair, shares, some_joints, settings.base, settings.device)
                made = render_neural(pair, some_joints, [frame.image for frame in behind], renderer, settings.device)
            else:
                made = render_between(method, pair, shares, some_joints, settings.base, settings.device)
        except (DeviceError, WeightsError) as error:
            raise ToolError(str(error)) from error
        for moment, frame in zip(some, made, strict=True):
            yield _Frame(frame.image, moment.share, "generated", method, gap.key, frame.posed_share, moment, gap)


def write_sidecar(path: Path, folders: Sequence[Path], metadata: Mapping[str, str]) -> None:
    """A parquet table of all chunks' rows, a row a frame, whole or not at all; only one chunk is held at a time."""
    facts = json.dumps({"table": "video_render", **dict(sorted(metadata.items()))})
    schema = ROWS_SCHEMA.with_metadata({"inbetween": facts})
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with pq.ParquetWriter(temporary, schema, compression="zstd", use_dictionary=False) as writer:
            for folder in folders:
                writer.write_table(read_rows(folder).cast(schema))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
