"""Whether a person is to be seen, in a few frames of a video: MediaPipe as the worker, on each frame by itself."""

import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np

from models.skeleton import Joint, joints_from_mediapipe
from tasks.people import drop_unseen
from tasks.pose import NUM_BODY_POINTS, Image, MediapipeSettings
from tasks.workers.contract import run_worker, write_request
from tasks.workers.environment import prepare_mediapipe

NUM_BODY_JOINTS = 15  # without toes and hands
MIN_SCORE, MIN_JOINTS = 0.6, 9
MIN_HEIGHT_SHARE = 0.15  # of the picture's shorter side; a smaller body is not worth a renderer
MIN_ASPECT = 1.2  # of the longer side to the shorter, above which squares of a picture are worth a look of their own


def see_people(
    images: Iterable[Image],
    work_dir: Path,
    settings: MediapipeSettings,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[bool]:
    """For each picture (H, W, 3) BGR, whether it shows a person large enough, most of the body in it.

    The estimator sees every picture as a small square, in which a person who fills half the height of a wide picture is
    lost. So pictures where it finds nobody are looked at once more, in squares as large as fit.

    Args:   work_dir: an existing folder for the pictures while they are needed; left as it was.
            on_progress: called with (pictures done, pictures in all); starts again for the squares.
    Raises: ToolError where the worker cannot be made or fails.
    """
    command = prepare_mediapipe()
    with tempfile.TemporaryDirectory(dir=work_dir, prefix="people-") as temporary:
        folder = Path(temporary)

        def look(name: str, pictures: list[Path], shorter_px: list[int]) -> list[bool]:
            if not pictures:
                return []
            results, names = folder / f"{name}.results", [picture.name for picture in pictures]
            sequence = {"folder": str(pictures[0].parent), "results": str(results), "frames": names, "mode": "static"}
            request = folder / f"{name}.json"
            found = {"upscale": settings.upscale, "model_complexity": settings.model_complexity}
            write_request(request, [sequence], found)
            expected = {results: ["keypoints.json", *names]}
            run_worker(command, request, expected, settings.timeout_s, on_progress, name="people: mediapipe")
            rows = json.loads((results / "keypoints.json").read_text(encoding="utf-8"))["frames"]
            sides = zip(pictures, rows, shorter_px, strict=True)
            return [_is_person(row["static"], picture, shorter) for picture, row, shorter in sides]

        wholes, sizes_px = [], []
        (folder / "wholes").mkdir()
        for number, image in enumerate(images):
            wholes.append(_write(folder / "wholes" / f"{number:08d}.png", image))
            sizes_px.append(min(image.shape[:2]))
        is_seen = look("whole", wholes, sizes_px)
        squares: list[Path] = []
        of: list[int] = []
        (folder / "squares").mkdir()
        for number in [number for number, seen in enumerate(is_seen) if not seen]:
            for part, square in enumerate(_squares(np.asarray(cv2.imread(str(wholes[number])), np.uint8))):
                squares.append(_write(folder / "squares" / f"{number:08d}-{part}.png", square))
                of.append(number)
        for number, seen in zip(of, look("squares", squares, [sizes_px[number] for number in of]), strict=True):
            is_seen[number] = is_seen[number] or seen
    return is_seen


def _write(path: Path, image: Image) -> Path:
    cv2.imwrite(str(path), image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return path


def _squares(image: Image) -> list[Image]:
    """Overlapping squares over the longer side; none for a picture that nearly is one."""
    height, width = image.shape[:2]
    side = min(height, width)
    if max(height, width) < MIN_ASPECT * side:
        return []
    num_squares = int(np.ceil(1.5 * max(height, width) / side)) - 1
    starts = np.linspace(0, max(height, width) - side, num_squares).astype(int)
    return [image[:, at : at + side] if width > height else image[at : at + side] for at in starts]


def _is_person(pose: dict[str, list[list[float]]] | None, picture: Path, shorter_px: int) -> bool:
    """Neck, hip and most of the body inside the picture, large enough."""
    if not pose or not pose.get("body"):
        return False
    height, width = np.asarray(cv2.imread(str(picture), cv2.IMREAD_GRAYSCALE)).shape
    body = np.array(pose["body"], np.float64).reshape(1, NUM_BODY_POINTS, 3)
    no_hand = np.zeros((1, 21, 3))
    joints = drop_unseen(joints_from_mediapipe(body, no_hand, no_hand), (width, height))[0, :NUM_BODY_JOINTS]
    is_inside = ((joints[:, :2] >= 0) & (joints[:, :2] <= (width, height))).all(axis=1)
    is_sure = is_inside & (joints[:, 2] >= MIN_SCORE)
    has_trunk = bool(is_sure[Joint.NECK] and is_sure[Joint.MID_HIP])
    if not has_trunk or int(is_sure.sum()) < MIN_JOINTS:
        return False
    return float(np.ptp(joints[is_sure, 1])) >= MIN_HEIGHT_SHARE * shorter_px
