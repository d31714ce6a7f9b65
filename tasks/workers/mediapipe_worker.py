# /// script
# requires-python = ">=3.11,<3.13"
# dependencies = ["mediapipe==0.10.21", "numpy==1.26.4", "opencv-contrib-python==4.11.0.86"]
# ///
"""MediaPipe holistic as a worker: `python mediapipe_worker.py REQUEST.json` (contract.py: what that means).

It runs in an environment of its own (mediapipe 0.10.21 needs NumPy < 2) and imports nothing of the project.
Every version that shapes its bytes is pinned in the header above. Same frames, same bytes, on one core or many.

settings: upscale (the picture is first enlarged by it) and model_complexity (0, 1 or 2).
A sequence: folder, results, frames (file names, in order), mode ("tracked", "static" or "both") and, optionally,
    smooth: bool, MediaPipe's own filter over time in the tracked pass; it lags where frames are far apart.
    crops: a list with one [x0, y0, x1, y1] in px, or null for the whole picture, for each frame.
results/keypoints.json: {"frames": [{"tracked": POSE, "static": POSE}, ...]}. POSE is null where nobody was found
    or the pass was not asked for, else {"body": 33 x [x px, y px, visibility], "left_hand": 21 x [x px, y px, 1]
    or null, "right_hand": the same}, in pixels of the whole picture.
results/FRAME.png: the person's matte, 8 bits, as large as the picture, black outside the crop and where nobody
    was found; from the tracked pass where there is one.
"""

import contextlib
import ctypes
import gc
import json
import os
import stat
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

USER_ERROR = 2
M_ARENA_MAX = -8  # of glibc's malloc.h
# The tracked pass comes last: where there are two mattes, its matte is kept.
PASSES = {"tracked": ["tracked"], "static": ["static"], "both": ["static", "tracked"]}


def main(request_path: str) -> None:
    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    sequences = request["sequences"]
    total = sum(len(sequence["frames"]) for sequence in sequences)
    done = -1

    def count_frame() -> None:
        nonlocal done
        done += 1
        sys.stdout.write(f"progress {done} {total}\n")
        sys.stdout.flush()

    count_frame()

    give_back = keep_one_heap()
    for sequence in sequences:
        rows = estimate_sequence(sequence, request["settings"], count_frame)
        target = Path(sequence["results"], "keypoints.json")
        temporary = target.with_suffix(".json.part")
        temporary.write_text(json.dumps({"frames": rows}), encoding="utf-8")
        temporary.replace(target)
        gc.collect()  # the models hold on to themselves
        give_back()


def keep_one_heap() -> Callable[[], object]:
    """From now on freed memory can be given back to the system, by the function returned.

    MediaPipe has many threads, and glibc gives each a heap of its own, with holes that the next sequence's models do
    not fit into: 580 MB with the first became 800 MB with the eighth. Other systems than glibc's are left as they are.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        return lambda: None
    libc.mallopt(M_ARENA_MAX, 1)
    return lambda: libc.malloc_trim(0)


def estimate_sequence(
    sequence: dict[str, Any], settings: dict[str, Any], count_frame: Callable[[], None]
) -> list[dict[str, Any]]:
    """The poses of a sequence's frames; its mattes are written as they come."""
    import cv2
    import numpy as np

    # MediaPipe's drawing helpers import it, for half of the worker's start; nothing is drawn here.
    for name in ("matplotlib", "matplotlib.pyplot"):
        sys.modules.setdefault(name, types.ModuleType(name))
    from mediapipe.python.solutions.holistic import Holistic

    cv2.setNumThreads(1)
    passes = PASSES.get(sequence["mode"])
    if passes is None:
        refuse(f"unknown mode {sequence['mode']!r}; use one of {', '.join(PASSES)}")
    folder, results, upscale = Path(sequence["folder"]), Path(sequence["results"]), float(settings["upscale"])
    crops = sequence.get("crops") or [None] * len(sequence["frames"])
    rows = []
    with contextlib.ExitStack() as stack:
        # New ones for each sequence: a tracker must not remember the one before. Making both takes 0.1 s.
        models = {
            name: stack.enter_context(
                Holistic(
                    static_image_mode=name == "static",
                    model_complexity=int(settings["model_complexity"]),
                    smooth_landmarks=bool(sequence.get("smooth")),
                    enable_segmentation=True,
                    smooth_segmentation=False,  # a matte mixed with the one before is not of this frame
                )
            )
            for name in passes
        }
        for name, crop in zip(sequence["frames"], crops, strict=True):
            image = cv2.imread(str(folder / name), cv2.IMREAD_COLOR)
            if image is None:
                refuse(f"{folder / name}: not a readable picture")
            x0, y0, x1, y1 = box = clip_box(crop, *image.shape[:2])
            part = image[y0:y1, x0:x1]
            if upscale != 1:
                part = cv2.resize(part, None, fx=upscale, fy=upscale, interpolation=cv2.INTER_CUBIC)
            part = cv2.cvtColor(part, cv2.COLOR_BGR2RGB)
            row: dict[str, Any] = {"tracked": None, "static": None}
            matte = np.zeros(image.shape[:2], np.uint8)
            for pass_name in passes:
                found = models[pass_name].process(part)
                if found.pose_landmarks is None:
                    continue
                row[pass_name] = {
                    "body": to_points(found.pose_landmarks, box, is_hand=False),
                    "left_hand": to_points(found.left_hand_landmarks, box, is_hand=True),
                    "right_hand": to_points(found.right_hand_landmarks, box, is_hand=True),
                }
                share = cv2.resize(found.segmentation_mask, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
                matte[y0:y1, x0:x1] = np.clip(share * 255 + 0.5, 0, 255).astype(np.uint8)
            cv2.imwrite(str(results / f"{Path(name).stem}.png"), matte)
            rows.append(row)
            count_frame()
    return rows


def to_points(landmarks: Any, box: tuple[int, ...], *, is_hand: bool) -> list[list[float]] | None:  # noqa: ANN401 (mediapipe has no types)
    """Landmarks as shares of a crop to [x px, y px, visibility] of the whole picture, to 1/1000 px."""
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


def clip_box(crop: list[float] | None, height: int, width: int) -> tuple[int, ...]:
    if crop is None:
        return 0, 0, width, height
    box = max(0, int(crop[0])), max(0, int(crop[1])), min(width, int(crop[2])), min(height, int(crop[3]))
    if box[2] <= box[0] or box[3] <= box[1]:
        refuse(f"crop {crop} lies outside the picture of {width}x{height}")
    return box


def end_with_caller() -> None:
    """Exit when the caller's end of the stdin pipe closes; a terminal or /dev/null there is left alone."""
    if not stat.S_ISFIFO(os.fstat(0).st_mode):
        return

    def wait_for_end() -> None:
        while os.read(0, 4096):
            pass
        os._exit(1)

    threading.Thread(target=wait_for_end, daemon=True).start()


def silence_native_logs() -> None:
    """Keep stderr for Python: MediaPipe's C++ writes lines to it that no setting turns off."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def refuse(message: str) -> NoReturn:
    sys.stderr.write(message + "\n")
    raise SystemExit(USER_ERROR)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        refuse("usage: mediapipe_worker.py REQUEST.json")
    end_with_caller()
    silence_native_logs()
    main(sys.argv[1])
