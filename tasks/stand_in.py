"""Stand-ins for the licensed data, in their form: SMPL-H and DMPL body files, AMASS motions, evaluation views.

All of it is ours and small, so that the whole chain runs on a fresh clone. The same code gives the same bytes.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.body import load_body, write_stand_in_body, write_stand_in_dmpls
from models.stand_in_motion import draw_style, make_motion

# Rounded to binary steps, 0.12 mrad or mm, so that zip finds the zeros.
_STEP = 2.0**-13
_SCALES = {"female": 0.96, "male": 1.03, "neutral": 1.0}
NUM_VIEWS = 1000
VIEW_RANGE_RAD = (0.2, 0.0, 1.0)


class Subject(NamedTuple):
    """gender_form: how the files write the gender; "str" or "bytes"."""

    name: str
    gender: str
    gender_form: str
    num_betas: int
    has_dmpls: bool
    takes: tuple[tuple[str, float, float], ...]  # kind, seconds, frames a second


SUBJECTS = {
    "train": (
        Subject("ada", "female", "str", 16, True,
                (("walk", 7.0, 120.0), ("kick", 7.5, 120.0), ("swing", 6.0, 120.0), ("jump", 6.5, 120.0))),
        Subject("ben", "male", "bytes", 10, False,
                (("run", 5.5, 100.0), ("turn", 7.0, 120.0), ("squat", 6.5, 100.0), ("walk", 6.0, 100.0))),
        Subject("cleo", "neutral", "str", 16, False,
                (("kick", 8.0, 120.0), ("jump", 7.0, 120.00004577636719), ("swing", 7.0, 120.0), ("run", 5.0, 120.0))),
    ),
    "test": (
        Subject("dora", "female", "bytes", 16, True,
                (("walk", 6.5, 120.0), ("kick", 7.5, 120.0), ("turn", 6.0, 120.0))),
        Subject("emil", "male", "str", 10, False,
                (("run", 5.5, 120.0), ("jump", 6.5, 100.0), ("swing", 6.0, 120.0))),
    ),
}  # fmt: skip

_AMASS_README = """Motions of this project in AMASS's form, SUBSET/SUBJECT/*_poses.npz: stand-ins, made by
`inbetween standin`, where the licensed motions (amass.is.tue.mpg.de) are not at hand. Five subjects of ours walk, run,
kick, jump, swing their arms, squat and turn. Good for running the chain, not for training a network to be used.
"""
_BODY_README = """Bodies of this project in the form of SMPL-H's smplh/GENDER/model.npz and AMASS's
dmpls/GENDER/model.npz: stand-ins of 208 points and 52 joints, made by `inbetween standin`, where the licensed bodies
(mano.is.tue.mpg.de, amass.is.tue.mpg.de) are not at hand. Their bones are a person's; their betas are not SMPL's.
"""
_NO_MODEL_README = """What a render or a training names that uses no checkpoint: empty on purpose.
"""


def write_stand_ins(folder: Path) -> None:
    """Write body_models/, amass/train, amass/test, evaluation_views.npy and no-model/ into a folder."""
    for number, (gender, scale) in enumerate(_SCALES.items()):
        write_stand_in_body(folder / f"body_models/smplh/{gender}/model.npz", 100 + number, scale=scale)
        write_stand_in_dmpls(folder / f"body_models/dmpls/{gender}/model.npz", 200 + number)
    seed = 300
    for subset, subjects in SUBJECTS.items():
        for subject in subjects:
            body = folder / f"body_models/smplh/{subject.gender}/model.npz"
            _write_subject(folder / "amass" / subset / subject.name, subject, body, seed)
            seed += 1
    views = np.random.default_rng(400).uniform(-1, 1, (NUM_VIEWS, 3)) * VIEW_RANGE_RAD
    np.save(folder / "evaluation_views.npy", views)
    _write_text(folder / "amass/README.md", _AMASS_README)
    _write_text(folder / "body_models/README.md", _BODY_README)
    _write_text(folder / "no-model/README.md", _NO_MODEL_README)


def _write_subject(folder: Path, subject: Subject, body_path: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    style, body = draw_style(generator), load_body(body_path)
    gender = np.array(subject.gender if subject.gender_form == "str" else subject.gender.encode())
    betas = _round(generator.normal(0, 0.8, 16))[: subject.num_betas]
    folder.mkdir(parents=True, exist_ok=True)
    _write_npz(folder / "shape.npz", gender=gender, betas=betas)
    # Both spellings are found in AMASS.
    fps_key = "mocap_framerate" if subject.gender_form == "str" else "mocap_frame_rate"
    for kind, duration_s, fps in subject.takes:
        times_s = np.arange(round(duration_s * fps)) / fps
        motion = make_motion(kind, style, body, betas, times_s, generator)
        arrays = {
            "poses": _round(motion.poses_NP), "trans": _round(motion.trans_ND), "betas": betas, "gender": gender,
            fps_key: np.array(fps),
        }  # fmt: skip
        if subject.has_dmpls:
            rates_hz, phases = generator.uniform(0.5, 2.5, 8), generator.uniform(0, 2 * np.pi, 8)
            arrays["dmpls"] = _round(0.4 * np.sin(2 * np.pi * rates_hz * times_s[:, None] + phases))
        _write_npz(folder / f"{kind}_poses.npz", **arrays)


def _round(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.rint(values / _STEP) * _STEP


def _write_npz(path: Path, **arrays: npt.NDArray[np.generic]) -> None:
    with path.open("wb") as file:  # NumPy gives every member the same date
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
