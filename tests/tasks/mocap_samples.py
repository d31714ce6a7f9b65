"""Motions as stage joints leaves them, made up, for the tests of what comes after."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.tables import JOINTS_SCHEMA, write_table


def make_motion(seed: int = 0, num_frames: int = 40) -> np.ndarray:
    """(T, 52, 3) float32 m: a figure that stands anywhere, looks anywhere, and has every joint in motion."""
    generator = np.random.default_rng(seed)
    rest = generator.normal(0, 0.3, (52, 3))
    turn = generator.uniform(-np.pi, np.pi)
    for left, right in ((1, 2), (16, 17)):
        rest[left, :2] = 0.2 * np.cos(turn), 0.2 * np.sin(turn)
        rest[right] = -rest[left]
    swing = generator.normal(0, 0.05, (52, 3)) * np.sin(np.arange(num_frames) / 7 + seed)[:, None, None]
    return (rest + swing + generator.normal(0, 2, 3)).astype(np.float32)


def joints_rows(rows: list[tuple[str, str, np.ndarray]], subset: str = "set") -> pa.Table:
    """rows: (subject, sequence, (T, 52, 3) joints). Each recording's hash tells it from all others."""
    return pa.Table.from_pylist(
        [
            {
                "subset": subset,
                "subject": subject,
                "sequence": sequence,
                "licence": "Apache-2.0",
                "source_sha256": f"hash of {subject} {sequence}",
                "fps": 60.0,
                "num_frames": len(joints),
                "joints": joints.ravel(),
            }
            for subject, sequence, joints in rows
        ],
        schema=JOINTS_SCHEMA,
    )


def write_joints(path: Path, rows: list[tuple[str, str, np.ndarray]], subset: str = "set") -> None:
    write_table("joints", path, [joints_rows([row], subset) for row in rows], {"subset": subset})
