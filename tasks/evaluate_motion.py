"""Evaluation of the motion network on the test subsets: measures beside the classical methods, and an animation."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from torch import nn

from models import load
from models.checkpoint import CheckpointError, network_name
from models.motion.classical import MotionMethod
from models.motion.evaluation import (
    CONDITIONS,
    Condition,
    MethodScore,
    Predictor,
    classical_predictor,
    make_keys,
    middle,
    score_methods,
)
from models.motion.inference import inbetween
from models.skeleton import BONES, FloatArray, Joint
from tasks.errors import SourceError, TableError
from tasks.video import write_mp4
from tasks.view_shards import ViewShards, check_leaks

BASELINES: tuple[MotionMethod, ...] = ("linear", "cubic", "pchip", "robust")
FPS = 60

# The animation: a row of panels, on clean keys and on noisy ones.
PANEL_PX = 280
NUM_SHOWN = 3
SHOWN_STEP = 16
SHOWN_FRAMES = 161  # the middle of a clip; all of it is predicted
SHOWN: tuple[tuple[Condition, MotionMethod], ...] = (("clean", "cubic"), ("noisy", "robust"))
_PAPER, _GHOST, _INK = (33, 29, 26), (128, 118, 108), (222, 216, 210)  # BGR, for a light page and a dark one
_SIDES = {"left": (233, 180, 86), "right": (60, 138, 245), "middle": (190, 190, 190)}


class TestClip(NamedTuple):
    """name: subject/sequence.  points_TJ2: the middle of the sequence, projected units."""

    name: str
    subject: str
    points_TJ2: npt.NDArray[np.float32]


@dataclass(frozen=True)
class MotionTest:
    """What is scored, on what. train, test: data/views/SUBSET folders.  model: the checkpoint folder."""

    train: Sequence[Path]
    test: Sequence[Path]
    model: Path
    key_steps: Sequence[int]
    max_frames: int
    noise_keys: tuple[int, int, int]
    seed: int


class MotionResult(NamedTuple):
    """network: its name.  scores: key step -> condition -> method -> score."""

    network: str
    clips: list[TestClip]
    scores: dict[int, dict[Condition, dict[str, MethodScore]]]


def read_test_clips(test: MotionTest) -> list[TestClip]:
    """The middle of every test sequence that has 17 frames.

    Raises: TableError where none has, or a test sequence is also a training one.
    """
    with closing(ViewShards(test.train)) as train, closing(ViewShards(test.test)) as shards:
        check_leaks(train.index(), shards.index())
        clips = [
            # A copy: else all of its row group stays in memory.
            TestClip(f"{row.subject}/{row.sequence}", row.subject, middle(row.points_TJ2, test.max_frames).copy())
            for row in shards
        ]
    clips = [clip for clip in clips if len(clip.points_TJ2)]
    if not clips:
        raise TableError(f"{', '.join(map(str, test.test)) or 'data/views'}: no test sequence has 17 frames to score")
    return clips


def load_network(folder: Path) -> nn.Module:
    """Raises: SourceError where the folder is no checkpoint."""
    try:
        return load(folder)
    except CheckpointError as error:
        raise SourceError(f"{error}; run stage train_motion") from error


def network_predictor(network: nn.Module) -> Predictor:
    def predict(points_KJ2: FloatArray, is_seen_KJ: npt.NDArray[np.bool_], key_step: int) -> FloatArray:
        return inbetween(points_KJ2, key_step, network, is_seen_KJ=is_seen_KJ)

    return predict


def evaluate_motion(test: MotionTest, on_clip: Callable[[], None]) -> MotionResult:
    """Score the network beside the classical methods, on clean keys and with the paper's noise and its mirror image."""
    clips = read_test_clips(test)
    network = load_network(test.model)
    name = network_name(network)
    methods: dict[str, Predictor] = {name: network_predictor(network)}
    methods |= {method: classical_predictor(method) for method in BASELINES}
    points = [clip.points_TJ2 for clip in clips]
    scores = score_methods(points, methods, test.key_steps, test.noise_keys, test.seed, on_clip)
    return MotionResult(name, clips, scores)


def summarise(result: MotionResult) -> dict[str, object]:
    """For metrics/motion.json: every measure, and the network's mean absolute error over each other method's."""
    by_step: dict[str, object] = {}
    for step, conditions in result.scores.items():
        by_step[f"step_{step}"] = {
            condition: {
                "measures": {
                    method: {**score.measures._asdict(), "jerk_ratio": score.jerk_ratio}
                    for method, score in methods.items()
                },
                "mae_ratio": {
                    method: methods[result.network].measures.mae / score.measures.mae
                    for method, score in methods.items()
                    if method != result.network and score.measures.mae > 0
                },
            }
            for condition, methods in conditions.items()
        }
    return {
        "network": result.network,
        "num_clips": len(result.clips),
        "num_frames": sum(len(clip.points_TJ2) for clip in result.clips),
        "subjects": sorted({clip.subject for clip in result.clips}),
        **by_step,
    }


def plot_rows(result: MotionResult) -> list[dict[str, object]]:
    """For `dvc plots`: the mean absolute error of every method, condition and key step."""
    return [
        {
            "key_step": step,
            "method": f"{method}, {condition}",
            "mae": result.scores[step][condition][method].measures.mae,
        }
        for step in result.scores
        for condition in CONDITIONS
        for method in result.scores[step][condition]
    ]


def write_animation(path: Path, test: MotionTest, clips: Sequence[TestClip], ffmpeg: str) -> None:
    """Keys, network, a classical method and truth side by side, on the test clips that move most, at half speed."""
    network = load_network(test.model)
    name = network_name(network)
    order = sorted(range(len(clips)), key=lambda i: -_motion(clips[i].points_TJ2))[:NUM_SHOWN]
    frames = (
        frame
        for number in order
        for condition, classical in SHOWN
        for frame in _panels(test, clips[number], number, condition, {name: network_predictor(network)} | {
            classical: classical_predictor(classical)
        })
    )  # fmt: skip
    write_mp4(path, frames, Fraction(FPS // 2), 22, ffmpeg)


def _motion(points_TJ2: FloatArray) -> float:
    """Path length of all joints relative to the hip."""
    pose_TJ2 = points_TJ2 - points_TJ2[:, Joint.MID_HIP, None]
    return float(np.linalg.norm(np.diff(pose_TJ2, axis=0), axis=2).sum())


def _panels(
    test: MotionTest, clip: TestClip, number: int, condition: Condition, methods: Mapping[str, Predictor]
) -> Iterator[npt.NDArray[np.uint8]]:
    """The same keys as were scored; beneath every method's figure lies the true one."""
    truth_TJ2 = clip.points_TJ2
    keys = make_keys(truth_TJ2, SHOWN_STEP, condition, test.noise_keys, [test.seed, number])
    predicted = {name: predict(keys.points_KJ2, keys.is_seen_KJ, SHOWN_STEP) for name, predict in methods.items()}
    shown = middle(np.arange(len(truth_TJ2), dtype=np.float32), SHOWN_FRAMES).astype(int)
    # The view follows the true hip sideways, so that a walk does not make the figure small.
    hip_x_T = truth_TJ2[:, Joint.MID_HIP, 0]
    reach = float(np.abs(truth_TJ2[shown, :, 0] - hip_x_T[shown, None]).max())
    top, bottom = (float(end) for end in (truth_TJ2[shown, :, 1].min(), truth_TJ2[shown, :, 1].max()))
    scale = 0.76 * PANEL_PX / max(bottom - top, 2 * reach, 1e-6)

    def place(points_J2: FloatArray, frame: int) -> FloatArray:
        centre_2 = np.array([hip_x_T[frame], (top + bottom) / 2])
        placed_px_J2: FloatArray = (points_J2 - centre_2) * scale + PANEL_PX / 2
        return placed_px_J2

    for frame in shown.tolist():
        key = frame // SHOWN_STEP
        truth_px_J2 = place(truth_TJ2[frame], frame)
        given_px_J2 = place(keys.points_KJ2[key], key * SHOWN_STEP)
        panels = [_panel(f"{condition} keys", given_px_J2, keys.is_seen_KJ[key])]
        panels += [
            _panel(name, place(points_TJ2[frame], frame), ghost_px_J2=truth_px_J2)
            for name, points_TJ2 in predicted.items()
        ]
        panels.append(_panel("truth", truth_px_J2))
        _write(panels[0], f"every {SHOWN_STEP}th frame, half speed", (10, PANEL_PX - 24))
        _write(panels[0], clip.name[:36], (10, PANEL_PX - 10))
        for panel in panels[1:-1]:
            _write(panel, "grey: truth", (10, PANEL_PX - 10), _GHOST)
        _write(panels[-1], "left", (10, PANEL_PX - 10), _SIDES["left"])
        _write(panels[-1], "right", (44, PANEL_PX - 10), _SIDES["right"])
        if frame % SHOWN_STEP == 0:
            for panel in panels:
                _write(panel, "key", (PANEL_PX - 36, 20))
                cv2.circle(panel, (PANEL_PX - 44, 16), 3, _INK, -1, cv2.LINE_AA)
        for panel in panels[1:]:
            panel[:, 0] = _GHOST
        yield np.concatenate(panels, axis=1)


def _panel(
    title: str,
    points_px_J2: FloatArray,
    is_seen_J: npt.NDArray[np.bool_] | None = None,
    ghost_px_J2: FloatArray | None = None,
) -> npt.NDArray[np.uint8]:
    panel = np.full((PANEL_PX, PANEL_PX, 3), _PAPER, np.uint8)
    if ghost_px_J2 is not None:
        _draw(panel, ghost_px_J2, dict.fromkeys(_SIDES, _GHOST))
    _draw(panel, points_px_J2, _SIDES, is_seen_J)
    _write(panel, title, (10, 20))
    return panel


def _draw(
    panel: npt.NDArray[np.uint8],
    points_px_J2: FloatArray,
    colours: Mapping[str, tuple[int, int, int]],
    is_seen_J: npt.NDArray[np.bool_] | None = None,
) -> None:
    """A stick figure; what is not seen has no bones."""
    ends = np.round(np.clip(points_px_J2, -PANEL_PX, 2 * PANEL_PX) * 16).astype(int)
    for a, b in BONES:
        if is_seen_J is not None and not (is_seen_J[a] and is_seen_J[b]):
            continue
        side = next((s for s in ("left", "right") if s.upper() in f"{a.name} {b.name}"), "middle")
        cv2.line(panel, tuple(ends[a].tolist()), tuple(ends[b].tolist()), colours[side], 2, cv2.LINE_AA, 4)


def _write(
    panel: npt.NDArray[np.uint8], text: str, place_px: tuple[int, int], colour: tuple[int, int, int] = _INK
) -> None:
    cv2.putText(panel, text, place_px, cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)
