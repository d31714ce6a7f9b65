# /// script
# requires-python = ">=3.9,<3.13"
# dependencies = ["mediapipe==0.10.21", "numpy==1.26.4", "opencv-contrib-python==4.11.0.86"]
# ///
"""MediaPipe holistic as a worker: `python mediapipe_worker.py REQUEST.json` (contract.py says what that means).

It runs in an environment of its own (mediapipe 0.10.21 needs NumPy < 2) and imports nothing of the project. Every
version that shapes its bytes is pinned in the header above.

settings: upscale (>= 1, the picture is enlarged by it first: small people are found better), model_complexity (0-2),
    smooth (bool: MediaPipe's own filter over time in the tracked pass; it lags where frames are far apart).
A sequence: folder, results, frames (file names in order), mode ("tracked", "static" or "both") and, optionally, crops:
    one [x0, y0, x1, y1] in px, or null for the whole picture, a frame.
results/keypoints.json: {"frames": [{"tracked": POSE, "static": POSE}, ...]}; POSE is null where nobody was found or the
    pass was not asked for, else {"body": 33 x [x px, y px, visibility], "left_hand": 21 x [x px, y px, 1] or null,
    "right_hand": the same}, in pixels of the whole picture.
results/FRAME.png: the person's matte, 8 bits, of the picture's size (0 outside the crop); from the tracked pass where
    there is one. Black where nobody was found.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
import threading
from pathlib import Path
from typing import Any

USER_ERROR = 2
PASSES = {"tracked": ("tracked",), "static": ("static",), "both": ("tracked", "static")}
NUM_BODY_POINTS = 33


def end_with_parent() -> None:
    """Exit when the caller's end of the stdin pipe closes; a person's terminal or /dev/null is left alone."""
    if not stat.S_ISFIFO(os.fstat(0).st_mode):
        return

    def wait_for_end() -> None:
        while os.read(0, 4096):
            pass
        os._exit(1)

    threading.Thread(target=wait_for_end, daemon=True).start()


def silence_native_logs() -> None:
    """Keep stderr for Python: MediaPipe's C++ writes dozens of lines to it that no setting turns off."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def refuse(message: str) -> None:
    print(message, file=sys.stderr)
    raise SystemExit(USER_ERROR)


def _points(landmarks: Any, box: tuple[int, int, int, int], *, is_hand: bool) -> list[list[float]] | None:
    """Landmarks relative to a crop as [x px, y px, visibility] of the whole picture; 1/1000 px is far below noise."""
    if landmarks is None:
        return None
    x0, y0, x1, y1 = box
    return [
        [
            round(x0 + point.x * (x1 - x0), 3),
            round(y0 + point.y * (y1 - y0), 3),
            1.0 if is_hand else round(point.visibility, 4),
        ]
        for point in landmarks.landmark
    ]


def _clip_box(crop: list[float] | None, height: int, width: int) -> tuple[int, int, int, int]:
    if crop is None:
        return 0, 0, width, height
    x0, y0 = (max(0, int(value)) for value in crop[:2])
    x1, y1 = min(width, round(crop[2])), min(height, round(crop[3]))
    if x1 - x0 < 1 or y1 - y0 < 1:
        refuse(f"crop {crop} lies outside the picture of {width}x{height}")
    return x0, y0, x1, y1


def main(request_path: str) -> None:
    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    settings = request["settings"]

    # The imports take seconds, so the request is read, and the parent watched, before them.
    import cv2
    import numpy as np
    from mediapipe.python.solutions.holistic import Holistic

    cv2.setNumThreads(1)
    upscale = float(settings["upscale"])
    total = sum(len(sequence["frames"]) for sequence in request["sequences"])
    done = 0
    print(f"progress 0 {total}", flush=True)

    def make_model(*, is_static: bool) -> Any:
        return Holistic(
            static_image_mode=is_static,
            model_complexity=int(settings["model_complexity"]),
            smooth_landmarks=bool(settings["smooth"]),
            enable_segmentation=True,
            # A matte mixed with the one before would not be of this frame.
            smooth_segmentation=False,
        )

    with contextlib.ExitStack() as stack:
        # The static model keeps nothing between pictures, so one serves every sequence; the tracker is one a sequence.
        static_model = None
        for sequence in request["sequences"]:
            names = PASSES.get(sequence["mode"])
            if names is None:
                refuse(f"unknown mode {sequence['mode']!r}: use one of {', '.join(PASSES)}")
            folder, results = Path(sequence["folder"]), Path(sequence["results"])
            crops = sequence.get("crops") or [None] * len(sequence["frames"])
            with contextlib.ExitStack() as tracker:
                models = {}
                if "tracked" in names:
                    models["tracked"] = tracker.enter_context(make_model(is_static=False))
                if "static" in names:
                    static_model = static_model or stack.enter_context(make_model(is_static=True))
                    models["static"] = static_model
                rows = []
                for name, crop in zip(sequence["frames"], crops):
                    image = cv2.imread(str(folder / name), cv2.IMREAD_COLOR)
                    if image is None:
                        refuse(f"{folder / name}: not a readable picture")
                    height, width = image.shape[:2]
                    box = _clip_box(crop, height, width)
                    x0, y0, x1, y1 = box
                    part = image[y0:y1, x0:x1]
                    if upscale != 1:
                        part = cv2.resize(part, None, fx=upscale, fy=upscale, interpolation=cv2.INTER_CUBIC)
                    part = cv2.cvtColor(part, cv2.COLOR_BGR2RGB)
                    row: dict[str, Any] = {"tracked": None, "static": None}
                    matte = np.zeros((height, width), np.uint8)
                    # In reverse, so that the tracked pass's matte is the one that stays.
                    for pass_name in reversed(names):
                        found = models[pass_name].process(part)
                        body = _points(found.pose_landmarks, box, is_hand=False)
                        if body is None:
                            continue
                        row[pass_name] = {
                            "body": body,
                            "left_hand": _points(found.left_hand_landmarks, box, is_hand=True),
                            "right_hand": _points(found.right_hand_landmarks, box, is_hand=True),
                        }
                        if found.segmentation_mask is not None:
                            share = cv2.resize(
                                found.segmentation_mask, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA
                            )
                            matte[y0:y1, x0:x1] = np.clip(share * 255 + 0.5, 0, 255).astype(np.uint8)
                    rows.append(row)
                    cv2.imwrite(str(results / f"{Path(name).stem}.png"), matte)
                    done += 1
                    print(f"progress {done} {total}", flush=True)
            target = results / "keypoints.json"
            temporary = target.with_suffix(".json.part")
            temporary.write_text(json.dumps({"frames": rows}), encoding="utf-8")
            os.replace(temporary, target)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        refuse("usage: mediapipe_worker.py REQUEST.json")
    end_with_parent()
    silence_native_logs()
    main(sys.argv[1])
