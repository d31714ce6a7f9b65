"""A training's log: a progress bar, and DVCLive's scalars for `dvc plots` and `dvc metrics`."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from flows.progress import Progress, say
from tasks.errors import ToolError


class LiveLog:
    """Called as log(step, values). What an interrupted run has logged is kept beside its state, and shown again."""

    def __init__(self, label: str, folder: Path, history: Path, num_steps: int) -> None:
        """folder: DVCLive's, made anew.  history: the file that outlives a run that is cut off."""
        self._label, self._folder, self._history = label, folder, history
        self._progress = Progress(label, num_steps, "steps")
        self._step = 0

    def __enter__(self) -> "LiveLog":
        """Raises: ToolError in a git repository without a commit."""
        from dvclive import Live  # with all of DVC, which a stage does not need to be imported
        from scmrepo.exceptions import SCMError

        self._past = self._read_history()
        try:
            # dvcyaml: DVCLive would write a dvc.yaml of its own.
            self._live = Live(str(self._folder), report=None, save_dvc_exp=False, dvcyaml=None)
        except SCMError as error:  # it names each run after git's HEAD
            raise ToolError(f"{self._label}: git: {error}; make a first commit: git add -A && git commit") from error
        self._progress.__enter__()
        return self

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        # A run that goes on repeats the steps since its last saved state.
        while self._past and self._past[0][0] < step:
            self._log(*self._past.pop(0), is_past=True)
        self._past = []
        self._log(step, values)
        self._history.parent.mkdir(parents=True, exist_ok=True)
        with self._history.open("a") as file:
            file.write("\n" + json.dumps([step, dict(values)]))  # in front: the line before may be cut off

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            for past in self._past:  # a run that was cut off after its last step
                self._log(*past, is_past=True)
        self._progress.__exit__(kind, error, trace)
        self._live.end()

    def _log(self, step: int, values: Mapping[str, float], *, is_past: bool = False) -> None:
        self._live.step = step
        for name, value in values.items():
            self._live.log_metric(name, value)
        self._live.make_summary()
        (self._progress.skip if is_past else self._progress.advance)(step - self._step)
        self._step = step

    def _read_history(self) -> list[tuple[int, dict[str, float]]]:
        if not self._history.is_file():
            return []
        found: dict[int, dict[str, float]] = {}
        for line in self._history.read_text().splitlines():
            try:
                step, values = json.loads(line)
            except ValueError:  # the first is empty; the line that the run was killed in is cut off
                continue
            found = {past: kept for past, kept in found.items() if past < step}
            found[step] = values
        if found:
            say(f"{self._label}: goes on from step {max(found)} or a little before")
        return list(found.items())


def forget_run(state: Path) -> None:
    """Remove what a training keeps to go on from, and what it has logged."""
    for path in (state, state.with_suffix(".jsonl")):
        path.unlink(missing_ok=True)


def log_nothing(step: int, values: Mapping[str, float]) -> None:
    """The log of processes but the first."""
    del step, values
