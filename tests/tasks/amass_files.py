"""AMASS-format files made for tests: a good motion, and what to change to make it a bad one."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.joints_plan import FRAME_NUMBERS


def amass_arrays(num_frames=120, seed=0, fps=60.0, num_betas=16, num_dmpls=0, gender="female"):
    generator = np.random.default_rng(seed)
    waves = generator.normal(0, 0.3, 156) * np.sin(np.arange(num_frames)[:, None] / 20 + generator.uniform(0, 6, 156))
    arrays = {
        "poses": waves,
        "trans": np.cumsum(generator.normal(0, 0.001, (num_frames, 3)), axis=0) + np.array([0, 0, 0.9]),
        "betas": generator.normal(0, 1, num_betas),
        "gender": np.array(gender),
        "mocap_framerate": np.array(fps),
    }
    if num_dmpls:
        arrays["dmpls"] = generator.normal(0, 1, (num_frames, num_dmpls))
    return arrays


def write_amass(path: Path, drop=(), change=None, **given) -> dict:
    """Write one motion, without some keys, then with some changed or added. Returns the arrays."""
    arrays = {key: value for key, value in amass_arrays(**given).items() if key not in drop} | (change or {})
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
    return arrays


def write_positions(path: Path, rows, row_group_size=None) -> None:
    """rows: (sequence, subject, licence, fps, joints (T, 52, 3))."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "sequence_id": [row[0] for row in rows],
            "source": ["made" for _ in rows],
            "subject": [row[1] for row in rows],
            "licence": [row[2] for row in rows],
            "fps": pa.array([row[3] for row in rows], pa.float32()),
            "num_frames": pa.array([len(row[4]) for row in rows], pa.int32()),
            "joints": pa.array([np.asarray(row[4], np.float32).ravel() for row in rows], pa.list_(pa.float32())),
        }
    )
    pq.write_table(table, path, row_group_size=row_group_size or len(rows))


def positions(num_frames, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(0, 1, (num_frames, FRAME_NUMBERS)).astype(np.float32).reshape(num_frames, 52, 3)
