"""Cut a video into chunks to be rendered, each with its pictures in a file, decoded in one go."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from tasks.items import item_key
from tasks.render import RenderSettings
from tasks.render_chunk import CONTEXT_KEYS, Gap, RenderChunk, ShotPart
from tasks.tables import frames_per_chunk
from tasks.timeline import Timeline
from tasks.video import read_frames
from tasks.video_poses import VideoPoses


@dataclass(frozen=True)
class ChunkPlan:
    """chunks: the gaps of each.  key: hash of everything that the pictures depend on.  poses: None = not needed.

    frames_folder: where every frame is written as PNG too.
    """

    video: Path
    width: int
    height: int
    timeline: Timeline
    shots: Sequence[range]
    chunks: Sequence[range]
    poses: VideoPoses | None
    settings: RenderSettings
    key: str
    crf: int
    ffmpeg: str
    frames_folder: Path | None

    def chunk_key(self, number: int) -> str:
        """An output's key in the store; the segment and the rows do not depend on the folder of frames."""
        return item_key(self.key, "chunk", number)

    def num_frames(self, number: int) -> int:
        gaps = self.chunks[number]
        return self.timeline.first_frame(gaps.stop) - self.timeline.first_frame(gaps.start)


def cut_chunks(timeline: Timeline, width: int, height: int) -> list[range]:
    """The gaps of each chunk, but for chunks without a frame (where frames become fewer)."""
    return [
        gaps
        for gaps in timeline.chunks(frames_per_chunk(height, width))
        if timeline.first_frame(gaps.stop) > timeline.first_frame(gaps.start)
    ]


def chunk_jobs(plan: ChunkPlan, numbers: Sequence[int], folder: Path) -> Iterator[RenderChunk]:
    """Decode the video once, and hand out chunks as their pictures are there.

    Args: numbers: of the chunks wanted, rising.  folder: for the pictures; whoever renders a chunk removes its file.
    """
    folder.mkdir(exist_ok=True)
    timeline, poses = plan.timeline, plan.poses
    cuts = {shot.start - 1 for shot in plan.shots[1:]}
    spans = [range(plan.chunks[n].start, min(plan.chunks[n].stop + 1, timeline.num_keys)) for n in numbers]
    frames = read_frames(plan.video, sorted({key for span in spans for key in span}), None, plan.ffmpeg)
    last = None
    for number, span in zip(numbers, spans, strict=True):
        path = folder / f"{number:06d}.npy"
        pictures = np.lib.format.open_memmap(path, "w+", np.uint8, (len(span), plan.height, plan.width, 3))
        for index, key in enumerate(span):
            while last is None or last.frame < key:
                last = next(frames)
            pictures[index] = last.image_HWC
        pictures.flush()
        del pictures
        parts, part_of = _find_parts(plan, plan.chunks[number])
        yield RenderChunk(
            key=plan.chunk_key(number),
            pictures=path,
            gaps=[_make_gap(timeline, key, key in cuts, part_of.get(key)) for key in plan.chunks[number]],
            mattes=poses.mattes(span, plan.width, plan.height) if poses else [None] * len(span),
            parts=parts,
            settings=plan.settings,
            tick_s=float(timeline.out_base),
            first_tick=timeline.moments(0)[0].tick,
            fps=max(timeline.out_fps.limit_denominator(1001), Fraction(1, 1001)),
            crf=plan.crf,
            ffmpeg=plan.ffmpeg,
            frames_folder=plan.frames_folder,
        )


def _make_gap(timeline: Timeline, key: int, is_cut: bool, part: int | None) -> Gap:
    start, tick_s = int(timeline.ticks_K[key]), float(timeline.time_base)
    is_last = key == timeline.num_keys - 1
    length = timeline.last_ticks if is_last else int(timeline.ticks_K[key + 1]) - start
    return Gap(key, start * tick_s, length * tick_s, timeline.moments(key), is_cut, is_last, part)


def _find_parts(plan: ChunkPlan, gaps: range) -> tuple[list[ShotPart], dict[int, int]]:
    """The shots that a chunk's gaps are in, with keys around, and gap -> index of its shot."""
    parts: list[ShotPart] = []
    part_of: dict[int, int] = {}
    if plan.poses is None:
        return parts, part_of
    for shot in plan.shots:
        own = range(max(shot.start, gaps.start), min(shot.stop - 1, gaps.stop))  # the shot's last key begins no gap
        if not own:
            continue
        part_of |= dict.fromkeys(own, len(parts))
        keys = slice(max(shot.start, own.start - CONTEXT_KEYS), min(shot.stop, own.stop + 1 + CONTEXT_KEYS))
        joints = plan.poses.joints_px_KJD[keys].astype(np.float64)
        torso_px = float(plan.poses.torso_px_K[own.start])
        parts.append(ShotPart(keys.start, plan.timeline.key_times_s[keys], joints, torso_px))
    return parts, part_of
