"""Cut clips out of videos: frames chosen by decode-order number, one decode a video, cropped, resized, lossless."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pyarrow as pa

from tasks.catalog import Catalog, ClipRow, span_past_end
from tasks.errors import VideoError
from tasks.items import Item, ItemStore
from tasks.picture_frames import PicturesInfo, probe_pictures, read_pictures
from tasks.pictures import SUFFIX
from tasks.sources import ManifestRow, read_manifest
from tasks.tables import CLIP_SCHEMA, encode_png, frames_per_chunk, picture_column, write_skipped, write_table
from tasks.video import Crop, VideoFrame, VideoInfo, probe_video, read_frames, resize_image

MAX_RATE_SHARE = 0.02  # 29.97 is 30, and 24 is not 25


@dataclass(frozen=True)
class ChunkSpec:
    """A run of a clip's frames: what one item of this stage holds. fps: of a folder of pictures; None for a film."""

    clip: str
    video: str
    path: Path
    crop: Crop | None
    frames: tuple[int, ...]
    width: int
    height: int
    fps: float | None = None


@dataclass(frozen=True)
class ClipPlan:
    row: ClipRow
    items: list[Item]
    metadata: dict[str, str]


def plan_clips(catalog: Catalog, videos: Path, max_chunk_frames: int, key: Callable[..., str]) -> list[ClipPlan]:
    """Probe every video, check every clip against it, and cut the clips into items.

    Args:
        key: (params section or None, *parts) -> item key.
    Raises: VideoError naming video and clip: no file, not a video, shorter than the clip, crop outside the picture.
    """
    manifest = read_manifest(videos)
    plans: list[ClipPlan] = []
    infos: dict[str, VideoInfo | PicturesInfo] = {}
    records = {record.video: record for record in manifest.ok}
    for clip in catalog.clips.values():
        record = records.get(clip.video)
        if record is None:
            continue
        path = videos / str(record.file)
        if clip.video not in infos:
            infos[clip.video] = _probe(path)
        info, crop = infos[clip.video], catalog.videos[clip.video].crop
        if clip.frames[-1] >= info.num_frames:
            raise VideoError(f"clip {clip.clip}: {span_past_end(clip.frames[-1], clip.video, info.num_frames)}")
        if isinstance(info, PicturesInfo) and (absent := [frame for frame in clip.frames if frame not in info.names]):
            raise VideoError(f"clip {clip.clip}: {clip.video} has no picture {absent[0]}; mend clips.csv")
        if crop and (crop.left + crop.width > info.width or crop.top + crop.height > info.height):
            raise VideoError(
                f"video {clip.video}: the crop leaves the picture of {info.width}x{info.height}; mend videos.csv"
            )
        plans.append(_plan_clip(catalog, clip, record, info, path, crop, max_chunk_frames, key))
    if not plans:
        raise VideoError(
            f"batch {catalog.batch}: no clip is left, all its videos were skipped; see {videos}/manifest.json"
        )
    return plans


def _probe(path: Path) -> VideoInfo | PicturesInfo:
    return probe_pictures(path) if path.suffix == SUFFIX else probe_video(path)


def _rate(catalog: Catalog, video: str, info: VideoInfo | PicturesInfo) -> Fraction:
    """Frames per second: a film's own, or what the catalogue says of a folder of pictures.

    Raises: VideoError for a film whose frames were counted at another rate, and for a folder without one.
    """
    fps = catalog.videos[video].fps
    if isinstance(info, VideoInfo):
        if fps is not None and abs(info.average_fps - fps) > MAX_RATE_SHARE * fps:
            raise VideoError(
                f"video {video}: changed: it has {float(info.average_fps):.5g} frames a second, and the catalogue's"
                f" were counted at {float(fps):.5g}, so its numbers are of other pictures; get it at that rate, or mend"
                " clips.csv and column fps of videos.csv"
            )
        return info.average_fps
    if fps is None:
        raise VideoError(
            f"video {video}: is a folder of pictures, whose rate videos.csv must state; fill in column fps"
        )
    return fps


def _plan_clip(
    catalog: Catalog,
    clip: ClipRow,
    record: ManifestRow,
    info: VideoInfo | PicturesInfo,
    path: Path,
    crop: Crop | None,
    max_chunk_frames: int,
    key: Callable[..., str],
) -> ClipPlan:
    size = min(max_chunk_frames, frames_per_chunk(clip.height, clip.width))
    rate = _rate(catalog, clip.video, info)
    fps = float(rate) if isinstance(info, PicturesInfo) else None
    items = []
    for start in range(0, len(clip.frames), size):
        frames = clip.frames[start : start + size]
        spec = ChunkSpec(clip.clip, clip.video, path, crop, frames, clip.width, clip.height, fps)
        parts = (record.sha256, crop, frames, clip.width, clip.height, fps)
        items.append(Item(f"{clip.clip} {frames[0]}-{frames[-1]}", key(None, *parts), spec, group=clip.video))
    metadata = {
        "clip": clip.clip,
        "batch": catalog.batch,
        "video": clip.video,
        "split": clip.split,
        "subject": clip.subject,
        "fps": str(rate / _usual_step(clip.frames)),
        "width": str(clip.width),
        "height": str(clip.height),
        "source_sha256": str(record.sha256),
    }
    return ClipPlan(clip, items, metadata)


def _usual_step(frames: Sequence[int]) -> int:
    """The most frequent distance between a clip's frames: a clip of every 4th frame has a quarter of the rate."""
    steps = Counter(later - earlier for earlier, later in pairwise(frames))
    return min(steps, key=lambda step: (-steps[step], step))


def split_group(items: Sequence[Item], ffmpeg: str) -> Iterator[tuple[int, pa.Table]]:
    """Decode one video once and give every item its frames, each table as soon as it is full.

    Items are chunks (ChunkSpec) of clips of one video; clips may overlap. Memory is bounded by the chunks open at once.
    """
    specs: list[ChunkSpec] = [item.args for item in items]
    wanted_by: dict[int, list[int]] = {}
    for index, spec in enumerate(specs):
        for frame in spec.frames:
            wanted_by.setdefault(frame, []).append(index)
    times: dict[int, list[float]] = {index: [] for index in range(len(specs))}
    pictures: dict[int, list[bytes]] = {index: [] for index in range(len(specs))}
    first = specs[0]
    for decoded in _decode(first, sorted(wanted_by), ffmpeg):
        encoded: dict[tuple[int, int], bytes] = {}
        for index in wanted_by[decoded.frame]:
            spec = specs[index]
            size = (spec.width, spec.height)
            if size not in encoded:
                encoded[size] = encode_png(resize_image(decoded.image_HWC, *size))
            times[index].append(decoded.time_s)
            pictures[index].append(encoded[size])
            if len(pictures[index]) == len(spec.frames):
                yield index, _chunk_table(spec, times.pop(index), pictures.pop(index))


def _decode(spec: ChunkSpec, frames: Sequence[int], ffmpeg: str) -> Iterator[VideoFrame]:
    if spec.fps is None:
        return read_frames(spec.path, frames, spec.crop, ffmpeg)
    return read_pictures(spec.path, frames, spec.crop, spec.fps)


def _chunk_table(spec: ChunkSpec, times: list[float], pictures: list[bytes]) -> pa.Table:
    names = [f"{frame:06d}.png" for frame in spec.frames]
    columns = [
        pa.array(spec.frames, pa.int32()),
        pa.array(times, pa.float64()),
        picture_column(pictures, names),
    ]
    return pa.Table.from_arrays(columns, schema=CLIP_SCHEMA)


def write_clip(plan: ClipPlan, store: ItemStore, folder: Path) -> None:
    write_table(
        "clip",
        folder / f"{plan.row.clip}.parquet",
        (store.get(item.key) for item in plan.items),
        plan.metadata,
    )


def note_skipped(catalog: Catalog, plans: Sequence[ClipPlan], videos: Path, folder: Path) -> None:
    """Where videos were skipped, leave beside the clips which ones are missing and why, for every later stage."""
    present = {plan.row.clip for plan in plans}
    reasons = {record.video: record.reason for record in read_manifest(videos).skipped}
    missing = {clip.clip: reasons.get(clip.video) or "" for clip in catalog.clips.values() if clip.clip not in present}
    if missing:
        write_skipped(folder, missing)
