"""The frames of a packed folder of pictures (tasks/pictures.py), by their numbers."""

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from tasks.errors import SourceError, VideoError
from tasks.pictures import MAX_PICTURE_BYTES, number_pictures
from tasks.video import Crop, Image, VideoFrame


@dataclass(frozen=True)
class PicturesInfo:
    """What a packed folder holds.

    width, height: pixels of its first picture, which all others must have.
    names: frame number -> the picture's name in the file, rising.
    """

    width: int
    height: int
    names: dict[int, str]

    @property
    def num_frames(self) -> int:
        """One more than the last frame's number: what a clip's numbers must stay below."""
        return next(reversed(self.names)) + 1


def probe_pictures(path: Path) -> PicturesInfo:
    """Read what a packed folder holds. Raises: VideoError where it is none, or its first picture does not decode."""
    with _opened(path) as archive:
        try:
            names = number_pictures(archive.namelist(), f"{path.name}: ")
        except SourceError as error:
            raise VideoError(f"{path}: not a folder of pictures ({error})") from error
        first = _decode(archive, path, next(iter(names)), names)
    return PicturesInfo(first.shape[1], first.shape[0], names)


def read_pictures(path: Path, frames: Sequence[int], crop: Crop | None, fps: float) -> Iterator[VideoFrame]:
    """The wanted frames of a packed folder, one by one; time_s is the number divided by fps.

    Raises: VideoError for a number that is not there, a picture that does not decode or has another size.
    """
    info = probe_pictures(path)
    with _opened(path) as archive:
        for frame in frames:
            if frame not in info.names:
                raise VideoError(f"{path}: there is no picture {frame}")
            image_HWC = _decode(archive, path, frame, info.names)
            height, width = image_HWC.shape[:2]
            if (width, height) != (info.width, info.height):
                raise VideoError(
                    f"{path}: picture {info.names[frame]} has {width}x{height} px, the first one"
                    f" {info.width}x{info.height}; only one size can be read"
                )
            if crop:
                image_HWC = image_HWC[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
            yield VideoFrame(frame, frame / fps, np.ascontiguousarray(image_HWC))


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise VideoError(f"{path}: not a packed folder of pictures ({error}); run download again") from error


def _decode(archive: zipfile.ZipFile, path: Path, frame: int, names: dict[int, str]) -> Image:
    name = names[frame]
    if archive.getinfo(name).file_size > MAX_PICTURE_BYTES:
        raise VideoError(f"{path}: picture {name} is too large")
    try:
        data = archive.read(name)
    except (zipfile.BadZipFile, OSError) as error:
        raise VideoError(f"{path}: picture {name} is damaged ({error}); run download again") from error
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise VideoError(f"{path}: picture {name} does not decode; get the folder again")
    return np.asarray(image, dtype=np.uint8)
