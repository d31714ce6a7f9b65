"""Where videos come from, and the manifest that says what each file of a batch is."""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

from tasks.errors import SourceError

MANIFEST = "manifest.json"
PARTIAL = ".partial"

YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}")
DRIVE_ID = re.compile(r"[A-Za-z0-9_-]{10,100}")
PACKAGE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?==[A-Za-z0-9][A-Za-z0-9.!+_-]*")


@dataclass(frozen=True)
class Source:
    """Where a video comes from.

    place: the YouTube id, the address, the path, NAME==VERSION of a package, or the Google Drive id of a tar archive.
    member: the path inside the package's wheel, or of the folder of pictures in the archive; empty for the others.
    """

    uri: str
    scheme: Literal["youtube", "http", "file", "pypi", "gdrive"]
    place: str
    member: str = ""


@dataclass(frozen=True)
class WantedVideo:
    """A video of the catalogue: its id (also its file's name), source, licence, and hash where known.

    hanging: in words, what goes with it; said when it fails.
    """

    video: str
    source: str
    licence: str
    sha256: str | None
    hanging: str = ""


def parse_source(uri: str) -> Source:
    """Read a source's URI.

    Raises:
        ValueError: it is none of the five forms; the text says what it should be.
    """
    scheme, _, rest = uri.partition(":")
    if scheme == "youtube":
        if not YOUTUBE_ID.fullmatch(rest):
            raise ValueError(f"{uri!r}: a YouTube id has 11 letters, digits, - and _: youtube:dQw4w9WgXcQ")
        return Source(uri, "youtube", rest)
    if scheme in ("http", "https"):
        if not _has_host(uri) or re.search(r"\s", uri):
            raise ValueError(f"{uri!r}: not an address; write https://host/path, a space as %20")
        return Source(uri, "http", uri)
    if scheme == "file":
        if not rest or rest.startswith("//") or "\0" in rest:
            raise ValueError(f"{uri!r}: write file:PATH, absolute or from the project's folder, without //")
        return Source(uri, "file", rest)
    if scheme == "pypi":
        package, _, member = rest.partition("#")
        if not PACKAGE.fullmatch(package):
            raise ValueError(f"{uri!r}: write one exact version: pypi:NAME==VERSION#PATH/IN/WHEEL")
        if not _is_plain_path(member):
            raise ValueError(f"{uri!r}: after # comes the file's path in the wheel, as its listing has it")
        return Source(uri, "pypi", package, member)
    if scheme == "gdrive":
        archive, _, folder = rest.partition("#")
        if not DRIVE_ID.fullmatch(archive):
            raise ValueError(f"{uri!r}: write the id in a Google Drive link: gdrive:ID#FOLDER/IN/TAR")
        if not _is_plain_path(folder):
            raise ValueError(f"{uri!r}: after # comes the pictures' folder in the tar archive, such as val/test_img")
        return Source(uri, "gdrive", archive, folder)
    raise ValueError(
        f"{uri!r}: not a source; write youtube:ID, https://..., file:PATH, pypi:NAME==VERSION#PATH/IN/WHEEL"
        f" or gdrive:ID#FOLDER/IN/TAR"
    )


def _has_host(uri: str) -> bool:
    try:
        return bool(urlsplit(uri).hostname)
    except ValueError:  # brackets that are no IPv6 address
        return False


def _is_plain_path(member: str) -> bool:
    path = PurePosixPath(member)
    return bool(member) and str(path) == member and not path.is_absolute() and not {"..", "."} & set(path.parts)


@dataclass(frozen=True)
class ManifestRow:
    """One video of the manifest; file, sha256 (hex), size (bytes) and retrieved are None for a skipped one.

    reason: why it is skipped, or that its source gave other bytes before; "gone: ...", "private: ...", "changed: ...".
    retrieved: UTC, when these bytes were first fetched; the rest after it is what the source's site says.
    """

    video: str
    source: str
    licence: str
    status: Literal["ok", "skipped"]
    reason: str | None = None
    file: str | None = None
    sha256: str | None = None
    size: int | None = None
    retrieved: str | None = None
    title: str | None = None
    uploader: str | None = None
    upload_date: str | None = None
    duration_s: float | None = None
    source_licence: str | None = None


@dataclass(frozen=True)
class Manifest:
    """A batch's videos, by id."""

    rows: tuple[ManifestRow, ...]

    @property
    def ok(self) -> tuple[ManifestRow, ...]:
        """The videos that are there."""
        return tuple(row for row in self.rows if row.status == "ok")

    @property
    def skipped(self) -> tuple[ManifestRow, ...]:
        """The videos that the batch goes without, each with its reason."""
        return tuple(row for row in self.rows if row.status == "skipped")


def read_manifest(folder: Path) -> Manifest:
    """Read FOLDER/manifest.json.

    Raises:
        SourceError: it is missing or damaged.
    """
    path = folder / MANIFEST
    try:
        return Manifest(tuple(ManifestRow(**row) for row in json.loads(path.read_text("utf-8"))))
    except FileNotFoundError as error:
        raise SourceError(f"{path}: no manifest; run the download stage") from error
    except (TypeError, ValueError) as error:
        raise SourceError(f"{path}: damaged ({error}); delete it, and the videos are fetched again") from error


def write_manifest(folder: Path, rows: Iterable[ManifestRow]) -> Manifest:
    """Write FOLDER/manifest.json, rows by id; whole or not at all."""
    manifest = Manifest(tuple(sorted(rows, key=lambda row: row.video)))
    text = json.dumps([asdict(row) for row in manifest.rows], indent=2, sort_keys=True, ensure_ascii=False)
    partial = folder / PARTIAL / MANIFEST
    partial.parent.mkdir(exist_ok=True)
    partial.write_text(text + "\n", "utf-8")
    partial.replace(folder / MANIFEST)
    return manifest
