"""What the motion stages leave behind, in small, for tests of the report."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np

from tasks.report_motion import MotionFiles
from tasks.video import ffmpeg_path, write_mp4

# key step -> condition -> method -> mean absolute error, projected units.
MAE = {
    4: {
        "clean": {"linear": 0.004, "tangents": 0.001, "robust": 0.002},
        "noisy": {"linear": 0.05, "tangents": 0.003, "robust": 0.01},
    },
    16: {
        "clean": {"linear": 0.02, "tangents": 0.00701, "robust": 0.007},
        "noisy": {"linear": 0.09, "tangents": 0.0123, "robust": 0.04},
    },
}


def motion_files(folder: Path) -> MotionFiles:
    """The paths, whether or not anything is there."""
    return MotionFiles(
        metrics=folder / "motion.json",
        curves=folder / "curves",
        provenance=folder / "model/provenance.json",
        start_provenance=folder / "start/provenance.json",
        animation=folder / "motion.mp4",
    )


def provenance(num_steps: int, frames: dict[str, int], subset: str, licence: str, start: str = "") -> dict:
    return {
        "network": "tangents",
        "training": {"num_steps": num_steps},
        "start": {"folder": start, "sha256": "0" * 64} if start else None,
        "sequences": [
            {"subset": subset, "subject": "ada", "sequence": name, "licence": licence, "num_frames": count}
            for name, count in frames.items()
        ],
        "licences": [licence],
    }


def write_motion(folder: Path) -> MotionFiles:
    files = motion_files(folder)
    for path in (files.curves, files.provenance.parent, files.start_provenance.parent):
        path.mkdir(parents=True)
    steps = {
        f"step_{step}": {
            condition: {
                "measures": {
                    method: {"mse": mae**2, "mae": mae, "max": 10 * mae, "jerk_ratio": 0.5 + 100 * mae}
                    for method, mae in methods.items()
                }
            }
            for condition, methods in conditions.items()
        }
        for step, conditions in MAE.items()
    }
    facts = {"network": "tangents", "num_clips": 3, "num_frames": 1234, "subjects": ["test/dora", "test/emil"]}
    files.metrics.write_text(json.dumps(facts | steps))
    (files.curves / "frames.tsv").write_text("step\tframes\n20\t0.5\n40\t0.25\n")
    (files.curves / "total.tsv").write_text("step\ttotal\n20\t1.5\n40\t1.25\n")
    trained = provenance(40, {"walk": 100, "jump": 1150}, "standin-train", "Apache-2.0", "data/raw/embedded/start")
    files.provenance.write_text(json.dumps(trained))
    files.start_provenance.write_text(json.dumps(provenance(9000, {"run": 7}, "cmu", "CMU's own")))
    pictures = [np.full((32, 64, 3), 40 * number, np.uint8) for number in range(5)]
    write_mp4(files.animation, pictures, Fraction(30), 22, ffmpeg_path("pinned"))
    return files
