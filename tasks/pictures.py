"""A folder of pictures as a video: packed into one file, and its frames read by their numbers.

FILE.zip holds the pictures as they are, not compressed again, under their own names. A frame's number is the one that
its file's name ends in (frame024365.png is 24365); numbers may have gaps. Nothing is ever unpacked to a path that an
archive names: a picture's bytes go from one archive into the other.
"""

import re
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

import cv2
import numpy as np

from tasks.errors import SourceError, VideoError
from tasks.video import Crop, Image, VideoFrame

SUFFIX = ".zip"
_PICTURE = re.compile(r"(?P<stem>.*?)(?P<number>\d{1,9})\.(?:png|jpe?g)", re.IGNORECASE)
_BEFORE_ALL = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can state: the same pictures give the same bytes
MAX_PICTURE_BYTES = 64 * 2**20
MAX_TOTAL_BYTES = 64 * 2**30
MAX_PICTURES = 10**6


class _Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


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


def pack_folder(folder: Path, target: Path) -> None:
    """Pack a folder's numbered pictures, links and other files left out.

    Raises: SourceError where it holds no picture, one without a number, or a number twice.
    """
    paths = {path.name: path for path in folder.iterdir() if path.is_file() and not path.is_symlink()}
    names = _numbered(paths, f"{folder.name}/")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in names.values():
            with paths[name].open("rb") as picture:
                _add(archive, name, picture, paths[name].stat().st_size)


def pack_tar(archive_path: Path, folder: str, target: Path) -> None:
    """Pack the numbered pictures of one folder of a tar archive (plain or compressed).

    An archive with a member that leaves its folder (an absolute path, "..") is refused whole; so are a link or a
    device among the pictures, and a picture or a sum of them out of all proportion. Other members are not looked at.

    Args: folder: its path in the archive, with or without the folders above it: val/test_img is found in subject1/.
    Raises: SourceError with the reason.
    """
    try:
        with tarfile.open(archive_path, "r:*") as archive:
            members = _members_of(archive, folder)
            names = _numbered(members, f"{folder}/")
            with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as packed:
                # As they lie in the archive: a compressed one can only be read forwards.
                for name in sorted(names.values(), key=lambda name: members[name].offset_data):
                    picture = archive.extractfile(members[name])
                    assert picture is not None  # for mypy: a regular file
                    _add(packed, name, picture, members[name].size)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise SourceError(f"not a whole tar archive ({str(error).splitlines()[0]}); get it again") from error


def _members_of(archive: tarfile.TarFile, folder: str) -> dict[str, tarfile.TarInfo]:
    """File name -> member of the one folder that ends in `folder`."""
    wanted = PurePosixPath(folder).parts
    found: dict[str, tarfile.TarInfo] = {}
    parents: dict[tuple[str, ...], None] = {}
    num_bytes = num_members = 0
    for member in archive:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or "\0" in member.name:
            raise SourceError(f"the archive's member {member.name!r} leaves its folder; such an archive is not opened")
        num_members += 1
        parts = path.parent.parts
        if num_members > MAX_PICTURES:
            raise SourceError(f"the archive holds more than {MAX_PICTURES} members")
        if parts[-len(wanted) :] != wanted or member.isdir():
            continue
        if not member.isreg():
            raise SourceError(
                f"the archive's member {member.name!r} is a link or a device, where a picture is expected"
            )
        num_bytes += member.size
        if member.size > MAX_PICTURE_BYTES or num_bytes > MAX_TOTAL_BYTES:
            raise SourceError(f"the archive's pictures are too large at {member.name!r}: {num_bytes} bytes so far")
        parents[parts] = None
        if path.name in found:
            raise SourceError(f"the archive holds {member.name!r} twice")
        found[path.name] = member
    if len(parents) > 1:
        first, second, *_ = ("/".join(parts) for parts in parents)
        raise SourceError(f"the archive has two folders {folder}: {first} and {second}; name more of the path")
    if not found:
        raise SourceError(f"the archive has no picture in a folder {folder}")
    return found


def _numbered(names: Iterable[str], where: str) -> dict[int, str]:
    """Number -> name, rising. Files that are no pictures are left out; a picture needs a number of its own."""
    found: dict[int, str] = {}
    for name in sorted(names):
        if name.startswith(".") or PurePosixPath(name).suffix.lower() not in (".png", ".jpg", ".jpeg"):
            continue
        match = _PICTURE.fullmatch(name)
        if not match:
            raise SourceError(
                f"{where}{name}: its name does not end in a number; name the pictures like frame000012.png"
            )
        number = int(match["number"])
        if number in found:
            raise SourceError(f"{where}{name} and {found[number]} are both frame {number}; keep one")
        found[number] = name
    if not found:
        raise SourceError(f"{where}: holds no numbered .png or .jpg picture")
    return dict(sorted(found.items()))


def _add(archive: zipfile.ZipFile, name: str, picture: _Reader | IO[bytes], size: int) -> None:
    if size > MAX_PICTURE_BYTES:
        raise SourceError(f"{name}: {size} bytes are no picture of a video")
    info = zipfile.ZipInfo(name, _BEFORE_ALL)
    info.external_attr = 0o644 << 16
    archive.writestr(info, picture.read(MAX_PICTURE_BYTES + 1))


def probe_pictures(path: Path) -> PicturesInfo:
    """Read what a packed folder holds. Raises: VideoError where it is none, or its first picture does not decode."""
    with _opened(path) as archive:
        try:
            names = _numbered(archive.namelist(), f"{path.name}: ")
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
