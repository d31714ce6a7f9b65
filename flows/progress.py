"""Progress of long work: a bar with ETA on a terminal, a plain line every few seconds elsewhere."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

PLAIN_INTERVAL_S = 5.0
MIN_SHARE = 0.01  # of the work, before which its start (imports, networks) would be taken for its pace


class Progress:
    """Use as a context manager; `advance` from any thread."""

    def __init__(self, label: str, total: float, unit: str = "items") -> None:
        self._label, self._total, self._unit = label, total, unit
        self._done = self._skipped = 0.0
        self._start = self._last = time.monotonic()
        self._bar: Bar | None = None
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
            )
            self._bar = Bar(*columns, TextColumn("ETA"), TimeRemainingColumn(), console=Console(stderr=True))
            self._task = self._bar.add_task(label, total=total)

    def __enter__(self) -> "Progress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def skip(self, amount: float) -> None:
        """What an earlier run has done: it took this one no time."""
        self._done += amount
        self._skipped += amount
        if self._bar:
            self._bar.advance(self._task, amount)

    def advance(self, amount: float = 1) -> None:
        self._done += amount
        if self._bar:
            self._bar.advance(self._task, amount)
            return
        now = time.monotonic()
        if now - self._last >= PLAIN_INTERVAL_S:
            self._last = now
            worked = self._done - self._skipped
            is_known = worked > 0 and worked >= MIN_SHARE * (self._total - self._skipped)
            left_s = (now - self._start) / worked * (self._total - self._done) if is_known else float("inf")
            say(f"{self._label}: {self._done:g} of {self._total:g} {self._unit}, ETA {format_duration(left_s)}")


def format_duration(seconds: float) -> str:
    if seconds == float("inf"):
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def say(line: str) -> None:
    """One line for a person, on stderr, at once."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201 the one place that prints for a stage
