"""A new batch's two files: sources as people write them, ids, and catalog/B/*.csv written whole or not at all."""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, urlsplit

from tasks.catalog import CLIP_COLUMNS, VIDEO_COLUMNS
from tasks.errors import CatalogError, SourceError
from tasks.sources import YOUTUBE_ID, parse_source

BATCH_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")  # of a batch

_YOUTUBE_HOSTS = ("youtube.com", "www.youtube.com", "m.youtube.com", "youtu.be", "www.youtu.be")
_SCHEME = re.compile(r"(?:youtube|pypi|gdrive|file):|https?://")


def read_words(words: Iterable[str], folder: Path) -> list[str]:
    """The words of a command line; a .txt file stands for its lines (# begins a comment).

    Raises: CatalogError where such a file cannot be read.
    """
    found: list[str] = []
    for word in words:
        path = folder / word
        if path.suffix == ".txt" and not _SCHEME.match(word):
            try:
                lines = path.read_text(encoding="utf-8-sig").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise CatalogError(f"{word}: cannot be read as a list of sources ({error})") from error
            found += [source for line in lines if (source := f" {line}".split(" #")[0].strip())]
        else:
            found.append(word)
    return found


def to_source(word: str, folder: Path, root: Path) -> str:
    """A source's URI from an address, a path (relative to `folder`) or a URI.

    A path inside the project is written relative to it. Raises: CatalogError where it is none of them.
    """
    if not _SCHEME.match(word):
        path = (folder / word).resolve()
        if not path.exists():
            raise CatalogError(f"{word}: there is no such file or folder, and it is no address")
        inside = path.is_relative_to(root.resolve())
        word = f"file:{path.relative_to(root.resolve()) if inside else path}"
    elif (parts := _split_address(word)) and parts.hostname in _YOUTUBE_HOSTS:
        video = parse_qs(parts.query).get("v", [""])[0] or parts.path.rstrip("/").rpartition("/")[2]
        if not YOUTUBE_ID.fullmatch(video):
            raise CatalogError(f"{word}: is no address of one YouTube video; write https://youtu.be/ID")
        word = f"youtube:{video}"
    try:
        return parse_source(word).uri
    except ValueError as error:
        raise CatalogError(str(error)) from error


def _split_address(word: str) -> SplitResult | None:
    try:
        return urlsplit(word) if word.startswith("http") else None
    except ValueError:  # brackets that are no IPv6 address
        return None


def name_videos(sources: Sequence[str]) -> dict[str, str]:
    """Video id -> source: the file's or page's name in letters that may stand in an id, each id once.

    Raises: CatalogError where a source stands twice.
    """
    named: dict[str, str] = {}
    taken: set[str] = set()
    for source in sources:
        if source in named.values():
            raise CatalogError(f"{source}: stands twice; name each source once")
        parsed = parse_source(source)
        place = parsed.member or urlsplit(source).path if parsed.scheme == "http" else parsed.member or parsed.place
        stem = Path(place.rstrip("/")).stem
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", f"yt_{place}" if parsed.scheme == "youtube" else stem).strip("_-")[:80]
        name = name or "video"
        number = 1
        while (one := name if number == 1 else f"{name}_{number}").lower() in taken:
            number += 1
        taken.add(one.lower())
        named[one] = source
    return named


def write_catalog(
    folder: Path, videos: Sequence[Mapping[str, str]] | None, clips: Sequence[Mapping[str, str]], *, replaces: bool
) -> None:
    """Write FOLDER/videos.csv and clips.csv, each whole or not at all.

    Args:
        videos: rows; None = videos.csv stays as it is.
        replaces: whether files that are there may be replaced.
    Raises: CatalogError where one is there and may not be.
    """
    files = {"clips.csv": (CLIP_COLUMNS, clips)} | ({} if videos is None else {"videos.csv": (VIDEO_COLUMNS, videos)})
    refuse_existing(folder, list(files), replaces=replaces)
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        columns, rows = files[name]
        temporary = folder / f".{name}.tmp"
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    for name in files:
        (folder / f".{name}.tmp").replace(folder / name)


def refuse_existing(folder: Path, names: Sequence[str], *, replaces: bool) -> None:
    """Raises: CatalogError for a file that has rows already. One with a header alone is there to be filled."""
    for name in names:
        path = folder / name
        if not replaces and path.is_file() and len(path.read_text(encoding="utf-8-sig").split()) > 1:
            raise CatalogError(
                f"catalog/{folder.name}/{name}: is there already and stays as it is; take another name, or --force"
            )


def parse_rate(text: str) -> Fraction:
    """Pictures per second, such as 30 or 30000/1001. Raises: SourceError."""
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise SourceError(f"--fps {text}: is no rate; write one such as 30, 29.97 or 30000/1001") from error
    if not 0 < rate <= 1000:
        raise SourceError(f"--fps {text}: must be above 0 and at most 1000")
    return rate
