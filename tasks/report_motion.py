"""Motion in the report: the network beside the classical methods, what it was trained on, how, and its animation.

The section is tasks/report_motion.html.j2. What is missing is said in it and does not stop the page.
"""

import csv
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from tasks.errors import TableError
from tasks.report_media import Cell, Series, draw_chart

ANIMATION = "media/motion.mp4"
CONDITIONS = {
    "clean": "the true keys",
    "noisy": "joints moved, lost, and left and right exchanged in some keys",
    "mirrored": "the same faults, offsets in x the other way",
}
NETWORK_COLOUR = 3
CLASSICAL_COLOURS = {"linear": 0, "cubic": 1, "pchip": 2, "robust": 4}
OTHER_COLOUR = 5


@dataclass(frozen=True)
class MotionFiles:
    """What the section reads; a path may name what does not exist.

    metrics: of tasks.evaluate_motion.summarise.  curves: a folder of DVCLive's NAME.tsv.  provenance: the trained
    checkpoint's; start_provenance: that of the checkpoint that training went on from.  animation: an mp4.
    """

    metrics: Path
    curves: Path
    provenance: Path
    start_provenance: Path
    animation: Path


class Measure(NamedTuple):
    """A table of scores. best: of the values as shown, the one to mark."""

    key: str
    title: str
    scale: float
    digits: int
    best: Callable[[Sequence[float]], float]


def _nearest_to_1(values: Sequence[float]) -> float:
    return min(values, key=lambda value: abs(value - 1))


MAE = Measure("mae", "Mean absolute error, 1e-2 projected units", 100, 3, min)
MORE_MEASURES = (
    Measure("max", "Largest error of a sequence, mean over sequences, 1e-2 projected units", 100, 2, min),
    Measure("jerk_ratio", "Jerk over the truth's; 1 is as smooth as the truth", 1, 2, _nearest_to_1),
)


class ScoreRow(NamedTuple):
    series: Series
    cells: list[Cell]


class ScoreTable(NamedTuple):
    """Columns: every condition of every key step."""

    title: str
    rows: list[ScoreRow]


class Chart(NamedTuple):
    title: str
    detail: str
    svg: Markup


@dataclass
class MotionSection:
    """What the page shows of the motion network; what is empty is not there, and missing says why."""

    missing: list[str] = field(default_factory=list)
    tested: str = ""
    trained: list[str] = field(default_factory=list)
    conditions: Mapping[str, str] = field(default_factory=dict)
    key_steps: Sequence[int] = ()
    series: Sequence[Series] = ()
    table: ScoreTable | None = None
    more_tables: Sequence[ScoreTable] = ()
    charts: Sequence[Chart] = ()
    curves: Sequence[Chart] = ()
    animation: str = ""


# key step -> condition -> method -> measure -> value
Scores = Mapping[int, Mapping[str, Mapping[str, Mapping[str, float]]]]


def make_motion_section(folder: Path, files: MotionFiles) -> MotionSection:
    """Read what there is, and copy the animation beside the page.

    Raises: TableError where a file is there and is not what its stage writes.
    """
    section = MotionSection()
    if (metrics := _read_json(section, files.metrics, "evaluate_motion")) is not None:
        try:
            _show_scores(section, metrics)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise TableError(_unlike(files.metrics, "evaluate_motion", error)) from error
    if (provenance := _read_json(section, files.provenance, "train_motion")) is not None:
        section.trained = [_describe_training(files.provenance, provenance)]
        if provenance.get("start"):
            section.trained.append(_describe_start(files.start_provenance))
    section.curves = [_draw_curve(path) for path in _list_curves(files.curves)]
    if not section.curves:
        _note_missing(section, files.curves, "train_motion")
    if files.animation.is_file():
        section.animation = ANIMATION
        (folder / ANIMATION).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files.animation, folder / ANIMATION)
    else:
        _note_missing(section, files.animation, "evaluate_motion")
    return section


def _read_json(section: MotionSection, path: Path, stage: str) -> dict[str, Any] | None:
    if not path.is_file():
        _note_missing(section, path, stage)
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise TableError(_unlike(path, stage, error)) from error
    return content


def _note_missing(section: MotionSection, path: Path, stage: str) -> None:
    section.missing.append(f"There is no {path.as_posix()}; run `inbetween stage {stage}`.")


def _unlike(path: Path, stage: str, error: Exception) -> str:
    return f"{path}: is not what stage {stage} writes ({type(error).__name__}: {error}); run `inbetween stage {stage}`"


# ---- scores


def _show_scores(section: MotionSection, metrics: Mapping[str, Any]) -> None:
    network = metrics["network"]
    scores: Scores = {
        int(name.removeprefix("step_")): {condition: found["measures"] for condition, found in conditions.items()}
        for name, conditions in metrics.items()
        if name.startswith("step_")
    }
    section.tested = (
        f"on {_count(metrics['num_clips'], 'sequence')}, {_count(metrics['num_frames'], 'frame')}, of"
        f" {', '.join(metrics['subjects'])}, whom training has not seen"
    )
    section.key_steps = sorted(scores)
    first = scores[section.key_steps[0]]
    section.conditions = {condition: CONDITIONS.get(condition, "") for condition in first}
    methods = next(iter(first.values()))
    section.series = [
        Series(name, NETWORK_COLOUR if name == network else CLASSICAL_COLOURS.get(name, OTHER_COLOUR))
        for name in sorted(methods, key=lambda name: name != network)
    ]
    section.table = make_score_table(MAE, scores, section.series)
    section.more_tables = [make_score_table(measure, scores, section.series) for measure in MORE_MEASURES]
    section.charts = list(_draw_scores(scores, section.series))


def make_score_table(measure: Measure, scores: Scores, series: Sequence[Series]) -> ScoreTable:
    """A row a method, a column every condition of every key step; all that show the best number are marked."""
    shown = {
        (step, condition, s.label): round(scores[step][condition][s.label][measure.key] * measure.scale, measure.digits)
        for step in sorted(scores)
        for condition in scores[step]
        for s in series
    }
    columns = list(dict.fromkeys((step, condition) for step, condition, _ in shown))
    best = {column: measure.best([shown[*column, s.label] for s in series]) for column in columns}
    return ScoreTable(
        measure.title,
        [
            ScoreRow(
                s,
                [
                    Cell(f"{value:.{measure.digits}f}", is_best=value == best[column])
                    for column in columns
                    for value in [shown[*column, s.label]]
                ],
            )
            for s in series
        ],
    )


def _draw_scores(scores: Scores, series: Sequence[Series]) -> Iterator[Chart]:
    """Mean absolute error over the key step, a chart each condition, all with the same logarithmic axis."""
    steps = sorted(scores)
    lines = {
        condition: [
            (s, [(float(step), scores[step][condition][s.label][MAE.key] * MAE.scale) for step in steps])
            for s in series
        ]
        for condition in scores[steps[0]]
    }
    values = [value for drawn in lines.values() for _, points in drawn for _, value in points if value > 0]
    if not values:
        return
    span = (min(values) / 1.3, max(values) * 1.3)
    for condition, drawn in lines.items():
        svg = draw_chart(f"motion/{condition}", drawn, x_ticks=steps, y_span=span)
        yield Chart(f"{condition} keys", "", svg)


# ---- training


def _list_curves(folder: Path) -> list[Path]:
    """What is minimised comes first."""
    return sorted(folder.glob("*.tsv"), key=lambda path: (path.stem != "total", path.stem))


def _draw_curve(path: Path) -> Chart:
    """Raises: TableError where a line is not a step and a number."""
    try:
        with path.open(newline="") as file:
            points = [(float(row["step"]), float(row[path.stem])) for row in csv.DictReader(file, delimiter="\t")]
        if not points or not all(math.isfinite(value) for _, value in points):
            raise ValueError("there is no finite number")
    except (KeyError, TypeError, ValueError) as error:
        raise TableError(_unlike(path, "train_motion", error)) from error
    svg = draw_chart(f"training/{path.stem}", [(Series(path.stem, NETWORK_COLOUR), points)])
    return Chart(path.stem, "what is minimised" if path.stem == "total" else "a part of it", svg)


def _describe_training(path: Path, provenance: Mapping[str, Any]) -> str:
    """What the weights were trained on. Raises: TableError where it does not say."""
    try:
        origin = provenance["start"]
        begin = f"going on from {origin['folder']}" if origin else "from nothing"
        return f"The network, {provenance['network']}, was trained for {_describe_run(provenance)}, {begin}."
    except (KeyError, TypeError, ValueError) as error:
        raise TableError(_unlike(path, "train_motion", error)) from error


def _describe_start(path: Path) -> str:
    """What the weights before training were trained on, in a provenance that the user may have written.

    Raises: TableError where it is no JSON.
    """
    try:
        start = json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise TableError(f"{path}: is no JSON ({error}); mend or remove it") from error
    try:
        if "imported_from" in start:
            return f"That start was imported from {start['imported_from']['checkpoint']['file']} ({start['licence']})."
        return f"That start was trained for {_describe_run(start)}."
    except (KeyError, TypeError, ValueError):
        return "Nothing says what that start was trained on."


def _describe_run(provenance: Mapping[str, Any]) -> str:
    sequences = provenance["sequences"]
    num_frames = sum(sequence["num_frames"] for sequence in sequences)
    subsets = ", ".join(dict.fromkeys(sequence["subset"] for sequence in sequences))
    return (
        f"{_count(provenance['training']['num_steps'], 'step')} on {_count(len(sequences), 'sequence')},"
        f" {_count(num_frames, 'frame')}, of {subsets} ({', '.join(provenance['licences'])})"
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
