"""The project's errors. Each is one sentence that a user can act on; the command line prints it and exits with 2.

InbetweenError
    CatalogError      a row of catalog/B/*.csv
    ParamsError       a key of params.yaml
    SourceError       a video or other raw input: missing, dead, changed
    VideoError        a video that does not decode, is too short, or cannot be written
    TableError        a parquet table that is missing, of another kind, or damaged
    ToolError         a program or package that is missing, of another version, or failed
"""

import errno
import os

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of an OSError


def tells_of_full_disk(text: str) -> bool:
    """Whether another program's message says so: yt-dlp, gdown and pip hand it on as if the file asked for were bad."""
    return any(os.strerror(number) in text for number in FULL_DISK)


class InbetweenError(Exception):
    """What a user can mend; the text names the file, row or parameter, and the remedy."""


class CatalogError(InbetweenError):
    pass


class ParamsError(InbetweenError):
    pass


class SourceError(InbetweenError):
    pass


class VideoError(InbetweenError):
    pass


class TableError(InbetweenError):
    pass


class ToolError(InbetweenError):
    pass
