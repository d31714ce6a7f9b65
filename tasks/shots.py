"""What is to see in a video before anybody has chosen clips: its shots, how much moves, which frames stand twice.

Everything is measured on small pictures, in one decode of the video; only a few numbers a frame are kept.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from models.cuts import POSSIBLE, make_thumbnail, measure_likeness
from tasks.errors import VideoError
from tasks.picture_frames import probe_pictures, read_pictures
from tasks.pictures import SUFFIX
from tasks.tables import Image
from tasks.video import Crop, VideoFrame, probe_video, read_frames

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]

SMALL_WIDTH_PX = 160
CHANGED_LEVELS = 8  # of 255: more than a codec's noise
HASH_SIDE = 16  # bits a side of a perceptual hash; 8 would not tell poses apart
HASH_EVERY = 3  # frames
# A cut stands out of the changes around it (camera movements do not), and changes the picture by this much in hue,
# saturation and brightness, mean levels of 255. A person in front of a black border changes a tenth of it.
CUT_RATIO, CUT_MIN_CHANGE = 3.0, 8.0
MIN_SHOT_S = 0.3
CUT_DELAY = 8  # frames after which the detector has told of a cut, at most
# A frame stands twice where it differs from the one before by less than this share of what is usual around it, and
# next to nowhere by more than noise: of frames repeated at CRF 20 to 40 up to 0.5 % of the picture does, of the quiet
# frames of a light that flickers 2 %.
REPEATED_SHARE, USUAL_PERCENTILE, USUAL_FRAMES, MIN_USUAL_CHANGE = 0.3, 70, 6, 0.05
MAX_REPEATED_CHANGED_SHARE = 0.01


@dataclass(frozen=True)
class Footage:
    """A video to look at. fps: of a folder of pictures; None for a film."""

    path: Path
    crop: Crop | None
    fps: Fraction | None = None


@dataclass(frozen=True)
class Watched:
    """What was seen. Axis T: the video's frames, in order.

    frames_T: their numbers.  fps: frames per second.
    change_T: mean difference from the frame before, levels of 255; 0 for the first frame and after a cut.
    changed_share_T: of the picture, what differs by more than noise from the frame before, 0..1; likewise.
    is_repeated_T: True where the frame before is shown once more.
    shots: (first, last) positions in T, both included.
    hashes: position in T -> bits of a perceptual hash, of every third frame.
    """

    frames_T: list[int]
    fps: Fraction
    width: int
    height: int
    change_T: FloatArray
    changed_share_T: FloatArray
    is_repeated_T: BoolArray
    shots: list[tuple[int, int]]
    hashes: dict[int, BoolArray]


def watch(footage: Footage, ffmpeg: str, on_frame: Callable[[], None] = lambda: None) -> Watched:
    """Decode a video once and measure it.

    Raises: VideoError where it is no video, has one frame, or is a folder of pictures without a rate.
    """
    from scenedetect import FrameTimecode
    from scenedetect.detectors import AdaptiveDetector

    frames, fps, (width, height) = probe_footage(footage)
    detector = AdaptiveDetector(CUT_RATIO, max(1, round(MIN_SHOT_S * fps)), min_content_val=CUT_MIN_CHANGE)
    change, changed_share = [0.0], [0.0]
    hashes: dict[int, BoolArray] = {}
    cuts: list[int] = []
    thumbnails: deque[tuple[int, Image]] = deque(maxlen=CUT_DELAY)
    before: npt.NDArray[np.int16] | None = None
    for position, shown in enumerate(read_footage(footage, frames, ffmpeg)):
        height, width = shown.image_HWC.shape[:2]
        small_HWC = cv2.resize(
            shown.image_HWC, (SMALL_WIDTH_PX, max(1, SMALL_WIDTH_PX * height // width)), interpolation=cv2.INTER_AREA
        )
        thumbnails.append((position, make_thumbnail(small_HWC)))
        found = [cut.frame_num for cut in detector.process_frame(FrameTimecode(position, float(fps)), small_HWC)]
        cuts += [cut for cut in found if _shows_another(cut, dict(thumbnails))]
        grey = cv2.cvtColor(small_HWC, cv2.COLOR_BGR2GRAY).astype(np.int16)
        if position % HASH_EVERY == 0:
            hashes[position] = _hash(grey)
        if before is not None:
            difference = np.abs(grey - before)
            change.append(float(difference.mean()))
            changed_share.append(float((difference > CHANGED_LEVELS).mean()))
        before = grey
        on_frame()
    starts = sorted({0, *cuts})
    change_T, changed_share_T = np.array(change), np.array(changed_share)
    change_T[starts] = changed_share_T[starts] = 0
    shots = [(first, last - 1) for first, last in zip(starts, [*starts[1:], len(frames)], strict=True)]
    is_repeated_T = find_repeated(change_T, changed_share_T, starts)
    return Watched(frames, fps, width, height, change_T, changed_share_T, is_repeated_T, shots, hashes)


def _shows_another(cut: int, thumbnails: dict[int, Image]) -> bool:
    """Whether what stands before a cut is not found again after it: light that changes at once is no cut.

    thumbnails: of the last CUT_DELAY frames, by position.
    """
    before, after = thumbnails.get(cut - 1), thumbnails.get(cut)
    return before is None or after is None or measure_likeness(before, after) < POSSIBLE


def probe_footage(footage: Footage) -> tuple[list[int], Fraction, tuple[int, int]]:
    """Frame numbers, frames per second, and (width, height) of the part that is kept.

    Raises: VideoError where it is no video, has one frame, or is a folder of pictures without a rate.
    """
    if footage.path.suffix == SUFFIX:
        if footage.fps is None:
            raise VideoError(f"{footage.path}: a folder of pictures states no rate; give it (--fps)")
        pictures = probe_pictures(footage.path)
        frames, fps, size = list(pictures.names), footage.fps, (pictures.width, pictures.height)
    else:
        info = probe_video(footage.path)
        frames, fps, size = list(range(info.num_frames)), info.average_fps, (info.width, info.height)
    if len(frames) < 2:
        raise VideoError(f"{footage.path}: has one frame; a clip has at least two")
    return frames, fps, (footage.crop.width, footage.crop.height) if footage.crop else size


def read_footage(footage: Footage, frames: Sequence[int], ffmpeg: str) -> Iterator[VideoFrame]:
    """The wanted frames of a film or of a folder of pictures."""
    if footage.fps is not None and footage.path.suffix == SUFFIX:
        return read_pictures(footage.path, frames, footage.crop, float(footage.fps))
    return read_frames(footage.path, frames, footage.crop, ffmpeg)


def find_repeated(change_T: FloatArray, changed_share_T: FloatArray, starts: Sequence[int]) -> BoolArray:
    """(T,) True where a frame is the one before once more: it hardly differs, while those around it in its shot do.

    change_T, changed_share_T: as in Watched.  starts: first frames of shots, which repeat nothing. A shot that stands
    still has no repeated frames: nothing in it tells them from frames of their own.
    """
    is_repeated_T = np.zeros(len(change_T), bool)
    for start, end in pairwise([*starts, len(change_T)]):
        for position in range(start + 1, end):
            around = change_T[max(start + 1, position - USUAL_FRAMES) : min(end, position + USUAL_FRAMES + 1)]
            usual = float(np.percentile(around, USUAL_PERCENTILE))
            is_repeated_T[position] = (
                usual >= MIN_USUAL_CHANGE
                and change_T[position] < REPEATED_SHARE * usual
                and changed_share_T[position] < MAX_REPEATED_CHANGED_SHARE
            )
    return is_repeated_T


def _hash(grey: npt.NDArray[np.int16]) -> BoolArray:
    import imagehash
    from PIL import Image as PillowImage

    bits: BoolArray = imagehash.phash(PillowImage.fromarray(grey.astype(np.uint8)), hash_size=HASH_SIDE).hash.ravel()
    return bits


def fit_size(width: int, height: int, num_pixels: int) -> tuple[int, int]:
    """(width, height), even, of a picture made smaller to at most so many pixels."""
    scale = min(1.0, (num_pixels / (width * height)) ** 0.5)
    return max(16, int(width * scale) // 2 * 2), max(16, int(height * scale) // 2 * 2)
