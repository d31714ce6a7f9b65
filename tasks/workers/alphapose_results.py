"""What AlphaPose's demo_inference.py writes, read: alphapose-results.json in its three formats.

default  a list of {"image_id": picture's name, "category_id", "keypoints": x, y, score of 136 points, "score", ...},
         one a person: several a picture, none for a picture without people, pictures in any order
cmu      {picture's name: {"version", "bodies": [{"joints": x, y, score of 18 points}]}}
open     the same with "people" and "pose_keypoints_2d"; changed AlphaPoses (the 2021 authors') write OpenPose's
         BODY_25 and hands there
A point's score may be above 1, a person's mostly is; Python's json also writes NaN. Points are kept as they are: what
is above 1 or no number is put right where joints are made of them (tasks/people.py).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.errors import ToolError

NUM_POINTS = 136
# The cmu and open formats were made for COCO's 17 points: they hold these of the 136, in this order, and in the second
# place, meant for the neck, what stands behind the 17th of a COCO pose: Halpe's top of the head.
_EIGHTEEN = (0, 17, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
# Halpe's neck and mid hip, which the 18 lack: the middle of two of them.
_MIDDLES = {18: (5, 6), 19: (11, 12)}
_BODY_25 = {"pose_keypoints_2d": 25, "hand_left_keypoints_2d": 21, "hand_right_keypoints_2d": 21}

# Picture's name -> its people; a person is {"halpe_136": 408 numbers}, or has OpenPose's keys of BODY_25 and hands.
People = dict[str, list[dict[str, list[float]]]]


def read_results(folder: Path, pictures: Sequence[str]) -> People:
    """The people of each picture, in the order in which AlphaPose wrote them.

    Args: folder: its --outdir.  pictures: the names that it was given.
    Raises: ToolError naming the file and what in it is not AlphaPose's, or that nobody at all was found.
    """
    path = _find_results(folder)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = _rows_of(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ToolError(f"alphapose: {path}: not results as AlphaPose writes them ({error!r})") from error
    people: People = {name: [] for name in pictures}
    for name, person in rows:
        if name not in people:
            raise ToolError(f"alphapose: {path}: names the picture {name}, which it was not given")
        people[name].append(_read_person(path, name, person))
    if not any(people.values()):
        raise ToolError(
            f"alphapose: it found nobody in {len(people)} pictures; are its detector's weights and checkpoint whole?"
        )
    return people


def _find_results(folder: Path) -> Path:
    usual = folder / "alphapose-results.json"
    found = [usual] if usual.is_file() else sorted(folder.glob("*-result*.json"))
    if len(found) != 1:
        raise ToolError(f"alphapose: it left {len(found) or 'no'} result files in {folder}, not alphapose-results.json")
    return found[0]


def _rows_of(content: Any) -> list[tuple[str, Mapping[str, Any]]]:  # noqa: ANN401 (what somebody else's JSON holds)
    """(picture's name, person) of any of the three formats."""
    if isinstance(content, list):
        return [(str(row["image_id"]), {"keypoints": row["keypoints"]}) for row in content]
    return [
        (str(name), person)
        for name, picture in content.items()
        for person in (picture["bodies"] if "bodies" in picture else picture["people"])
    ]


def _read_person(path: Path, name: str, person: Mapping[str, Any]) -> dict[str, list[float]]:
    if len(person.get("pose_keypoints_2d", ())) == 3 * _BODY_25["pose_keypoints_2d"]:
        return {key: _numbers(path, name, person.get(key) or [], count) for key, count in _BODY_25.items()}
    values = next((person[key] for key in ("keypoints", "joints", "pose_keypoints_2d") if key in person), None)
    if values is not None and "keypoints" not in person and len(values) == 3 * len(_EIGHTEEN):
        return {"halpe_136": _spread(_numbers(path, name, values, len(_EIGHTEEN)))}
    return {"halpe_136": _numbers(path, name, values, NUM_POINTS)}


def _numbers(path: Path, name: str, values: Any, num_points: int) -> list[float]:  # noqa: ANN401
    if not isinstance(values, list) or not all(isinstance(value, (int, float)) for value in values):
        raise ToolError(f"alphapose: {path}: a person of {name} has no list of numbers for points")
    if values and len(values) != 3 * num_points:
        raise ToolError(
            f"alphapose: {path}: a person of {name} has {len(values) / 3:g} points, not {num_points}; name a Halpe-136"
            " config and checkpoint"
        )
    return [float(value) for value in values]


def _spread(eighteen: Sequence[float]) -> list[float]:
    """18 points of the cmu and open formats in their places among the 136; the others are not seen."""
    points = [[0.0, 0.0, 0.0] for _ in range(NUM_POINTS)]
    for place, start in zip(_EIGHTEEN, range(0, 3 * len(_EIGHTEEN), 3), strict=True):
        points[place] = list(eighteen[start : start + 3])
    for place, (a, b) in _MIDDLES.items():
        if points[a][2] > 0 and points[b][2] > 0:
            (xa, ya, sa), (xb, yb, sb) = points[a], points[b]
            points[place] = [(xa + xb) / 2, (ya + yb) / 2, min(sa, sb)]
    return [number for point in points for number in point]
