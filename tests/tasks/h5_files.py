"""Files in the layouts of the 2021 authors' two published sets."""

from pathlib import Path

import cv2
import h5py
import numpy as np

SIZE = (12, 16)


def picture(value: int, size: tuple[int, int] = SIZE, kind: str = ".png") -> bytes:
    return cv2.imencode(kind, np.full((*size, 3), value, np.uint8))[1].tobytes()


def write_pictures(group: "h5py.Group", name: str, pictures: list[bytes]) -> None:
    dataset = group.create_dataset(
        name, (len(pictures),), maxshape=(len(pictures),), chunks=True, dtype=h5py.special_dtype(vlen=np.uint8)
    )
    for row, data in enumerate(pictures):
        dataset[row] = np.frombuffer(data, np.uint8)


def joints(num_frames: int, seed: int = 0) -> np.ndarray:
    """(frames, 19, 3), scores 0.1 to 1.1."""
    values = np.random.default_rng(seed).random((num_frames, 19, 3))
    return values * [768, 512, 1] + [0, 0, 0.1]


def write_humanslomo(path: Path, test: dict[str, int], train: dict[str, int]) -> Path:
    """clip -> number of frames; picture n of a clip has the grey value n, that of DAIN 100 + n."""
    with h5py.File(path, "w") as file:
        for side, clips in (("gt", test), ("train", train)):
            for clip, count in clips.items():
                group = file.require_group(clip)
                write_pictures(group, f"{side}_images", [picture(n) for n in range(count)])
                made = 2 * ((count + 1) // 2) - 1 if side == "gt" else count - 2
                write_pictures(group, f"{side}_dain", [picture(100 + n) for n in range(made)])
                group.create_dataset(f"{side}_poses", data=joints(count), dtype=np.float64)
    return path


def motion(num_frames: int, seed: int = 0) -> np.ndarray:
    """(frames, 52, 3) m, float64."""
    return np.random.default_rng(seed).random((num_frames, 52, 3))


def write_amass(path: Path, datasets: dict[str, dict[str, int]]) -> Path:
    """dataset -> motion -> number of frames."""
    with h5py.File(path, "w") as file:
        for dataset, motions in datasets.items():
            group = file.create_group(dataset)
            for number, (name, count) in enumerate(motions.items()):
                group.create_group(name).create_dataset("joints", data=motion(count, number), dtype=np.float64)
    return path
