"""Small renders with tables as the stages leave them, for tests of the report."""

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from tasks.evaluate import EvaluateSpec, KeyCheck, RenderFacts, measure_chunk, read_evaluation, summarise
from tasks.report import ClipFiles, RenderEntry
from tasks.tables import CLIP_SCHEMA, POSE_SCHEMA, RENDER_SCHEMA, encode_png, write_table

FPS = 30
NUM_FRAMES = 25  # keys at every 4th and 8th frame end at the same one
HEIGHT, WIDTH = 96, 64
# How much of the truth is in each method's frames; the rest is the key before.
TRUTH_SHARES = {"blend": 0.3, "flow": 0.6, "warp": 0.9}


def true_image(frame):
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    cv2.circle(image, (12 + frame * 3 // 2, 40), 8, (40, 160, 240), -1)
    return cv2.GaussianBlur(image, (0, 0), 1)


def matte(frame):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.circle(mask, (12 + frame * 3 // 2, 40), 10, 255, -1)
    return mask


def write_truth(folder: Path, clip: str):
    facts = {"clip": clip, "fps": str(FPS)}
    frames = [
        {"frame": f, "time": f / FPS, "image": {"bytes": encode_png(true_image(f)), "path": ""}}
        for f in range(NUM_FRAMES)
    ]
    write_table("clip", folder / f"clips/{clip}.parquet", [pa.Table.from_pylist(frames, CLIP_SCHEMA)], facts)
    poses = [
        {"frame": f, "pass": "truth", "joints": [0.0] * 57, "keypoints": None, "matte": encode_png(matte(f))}
        for f in range(NUM_FRAMES)
    ]
    write_table("pose", folder / f"poses/{clip}.parquet", [pa.Table.from_pylist(poses, POSE_SCHEMA)], facts)


def write_rendered(folder: Path, name: str, clip: str, key_step: int, method: str):
    rows = []
    for frame in range(NUM_FRAMES):
        before = frame - frame % key_step
        share = 1.0 if frame == before else TRUTH_SHARES[method]
        image = cv2.addWeighted(true_image(frame), share, true_image(before), 1 - share, 0)
        rows.append(
            {
                "frame": frame,
                "time": frame / FPS,
                "origin": "original" if frame == before else "generated",
                "method": "" if frame == before else method,
                "key_before": before,
                "key_after": frame if frame == before else before + key_step,
                "image": {"bytes": encode_png(image), "path": ""},
            }
        )
    table = pa.Table.from_pylist(rows, RENDER_SCHEMA)
    write_table("render", folder / f"renders/{name}/{clip}.parquet", [table], {"clip": clip, "fps": str(FPS)})


def make_entry(folder: Path, key_step: int, method: str, clips=("jump",), motion="linear") -> RenderEntry:
    """Render, evaluate and summarise; write_truth must have been called for the clips."""
    name = f"{method}-{key_step}"
    files, tables, keys = [], {}, {}
    for clip in clips:
        paths = ClipFiles(
            clip=clip,
            truth=folder / f"clips/{clip}.parquet",
            render=folder / f"renders/{name}/{clip}.parquet",
            evaluation=folder / f"evaluations/{name}/{clip}.parquet",
        )
        write_rendered(folder, name, clip, key_step, method)
        poses = folder / f"poses/{clip}.parquet"
        spec = EvaluateSpec(paths.render, paths.truth, poses, 0, NUM_FRAMES, 0.06, "none")
        write_table("evaluation", paths.evaluation, [measure_chunk(spec)], {"clip": clip})
        files.append(paths)
        tables[clip] = read_evaluation(paths.evaluation)
        keys[clip] = KeyCheck(NUM_FRAMES // key_step + 1, NUM_FRAMES // key_step + 1)
    metrics = summarise(RenderFacts(name, "sample", key_step, motion, method, "none"), tables, keys)
    return RenderEntry(name, "sample", key_step, motion, method, tuple(files), metrics)
