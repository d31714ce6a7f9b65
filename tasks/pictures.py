"""A folder of pictures as a video: packed into one file, whose frames tasks/picture_frames.py reads by their numbers.

FILE.zip holds the pictures as they are, not compressed again, under their own names. A frame's number is the one that
its file's name ends in (frame024365.png is 24365); numbers may have gaps. Nothing is ever unpacked to a path that an
archive names: a picture's bytes go from one archive into the other.
"""

import io
import re
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from tasks.errors import SourceError, TableError
from tasks.tables import Table

SUFFIX = ".zip"
_PICTURE = re.compile(r"(?P<stem>.*?)(?P<number>\d{1,9})\.(?:png|jpe?g)", re.IGNORECASE)
_BEFORE_ALL = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can state: the same pictures give the same bytes
MAX_PICTURE_BYTES = 64 * 2**20
MAX_TOTAL_BYTES = 64 * 2**30
MAX_PICTURES = 10**6


class _Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


def pack_folder(folder: Path, target: Path) -> None:
    """Pack a folder's numbered pictures, links and other files left out.

    Raises: SourceError where it holds no picture, one without a number, or a number twice.
    """
    paths = {path.name: path for path in folder.iterdir() if path.is_file() and not path.is_symlink()}
    names = number_pictures(paths, f"{folder.name}/")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in names.values():
            with paths[name].open("rb") as picture:
                _add(archive, name, picture, paths[name].stat().st_size)


def pack_table(table: Path, target: Path) -> None:
    """Pack the pictures of a clip's table, as an import has them, under their frames' numbers.

    Raises: SourceError where it is no such table.
    """
    try:
        clip = Table("clip", table)
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            for row, frame in enumerate(clip.frames.tolist()):
                picture = clip.read_picture(row)
                _add(archive, f"{frame:06d}.png", io.BytesIO(picture), len(picture))
    except TableError as error:
        raise SourceError(f"not a clip's table ({error})") from error


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
            names = number_pictures(members, f"{folder}/")
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


def number_pictures(names: Iterable[str], where: str) -> dict[int, str]:
    """Number -> name, rising. Files that are no pictures are left out.

    Args: where: what a message has before a name.
    Raises: SourceError for a picture without a number or with that of another, and where there is none.
    """
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
