"""Train the network that chooses between the posed picture and the base's, and tell what it reaches on unseen clips.

    python benchmarks/chooser.py CLIP.mp4 [CLIP.mp4 ...] [--bases rife flow] [--folder FOLDER] [--write]

From each clip, key frames every 4th, 8th and 16th frame are kept; poses and mattes come from MediaPipe run over those
alone, and the frames between are the truth. For every clip a network is trained on the other clips and scored on this
one's half-way frames; with --write, one trained on all of them goes to models/renderer/chooser.safetensors.
FOLDER keeps what was rendered, for a second run. About 25 minutes a base on 2 cores; LPIPS's weights are needed.

Loss of a frame: log squared error relative to the base's, on the person and on the whole picture, and LPIPS relative
to the base's, taken as linear in the share plus what mixing two different pictures was seen to cost.
"""

import argparse
import pickle
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.render_methods import MASK_MARGIN_TORSO_SHARE, _estimate_poses, _matte, _read_clip
from models.lpips import LpipsTruth
from models.measures import compare_frames, person_mask
from models.motion.classical import interpolate_joints
from models.renderer.chooser import FEATURES, WEIGHTS, Chooser
from models.renderer.flow import FlowPair
from models.renderer.keys import KeyPair
from models.renderer.rife import RifePair, load_rife
from models.renderer.warp import BaseInterpolator, Composition, WarpPair
from models.skeleton import torso_length
from tasks.pose import PoseResult

OFFSETS = {4: (1, 2), 8: (1, 2, 4, 6), 16: (4, 8, 12)}
SCORED_STEPS = (8, 4)
PERSON_MSE, PERSON_LPIPS, FULL_MSE, FULL_LPIPS, HARM = 1.0, 4.0, 0.5, 1.5, 1.5
MIXING = 0.004  # LPIPS a level of difference at share x (1 - share) = 1, measured on kick_back
WIDTH, BATCH, STEPS, RATE, DECAY = 32, 4, 1000, 4e-3, 1e-2
NUM_LAYERS = 3
UNUSED = Chooser([])


class Choice(NamedTuple):
    """What choosing costs. Maps are on the chooser's cells: sums over a cell, of the person and of all, (2, h, w).

    cross, square: of the squared error's growth with the share g: error = base + 2 g cross + g^2 square.
    lpips, apart: LPIPS of the posed less the base's; difference of the two pictures, levels.
    base: (2, 2) squared error and LPIPS of the base's, summed over the person and over all.
    """

    box: tuple[slice, slice]
    joined: np.ndarray
    features: Tensor
    cross: Tensor
    square: Tensor
    lpips: Tensor
    apart: Tensor
    base: Tensor


class Frame(NamedTuple):
    """One frame with its candidates; choice: None = there is only the base's."""

    clip: str
    step: int
    offset: int
    is_extra: bool
    truth: np.ndarray
    mask: np.ndarray
    plain: np.ndarray
    choice: Choice | None


class Unseen(WarpPair):
    """With a background that is not known, as where the camera's motion cannot be found."""

    def __init__(self, keys: KeyPair, base: BaseInterpolator) -> None:
        super().__init__(keys, base, UNUSED)
        self._shows_background = False


def gather(job: tuple[Path, int, str, Path, dict[str, PoseResult]]) -> Path:
    clip, step, base, folder, poses = job
    path = folder / f"{clip.stem}-{step}-{base}.pkl"
    if path.exists():
        return path
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    frames = list(_frames(clip, step, base, poses))
    partial_path = path.with_suffix(".partial")
    partial_path.write_bytes(pickle.dumps(frames, protocol=4))
    partial_path.rename(path)
    return path


def find_base(name: str) -> BaseInterpolator:
    return FlowPair if name == "flow" else partial(RifePair, network=load_rife())


def _frames(clip: Path, step: int, base: str, poses: dict[str, PoseResult]) -> Iterator[Frame]:
    images = _read_clip(clip)
    observed, truth = poses[f"{clip.stem} {step}"], poses[f"{clip.stem} 1"]
    rows = np.arange(0, len(images), step)
    keys_KJD, truth_TJD = observed.repaired(), truth.repaired()
    joints_TJD = interpolate_joints(rows / 1.0, keys_KJD, np.arange(rows[-1] + 1) / 1.0, "robust")
    torso_px, truth_torso_px = torso_length(keys_KJD), torso_length(truth_TJD)
    for number, start in enumerate(rows[:-1].tolist()):
        mattes = (_matte(observed, number), _matte(observed, number + 1))
        keys = KeyPair(images[start], images[start + step], mattes, keys_KJD[number], keys_KJD[number + 1], torso_px)
        pairs = [WarpPair(keys, find_base(base), UNUSED), Unseen(keys, find_base(base))]
        for offset in OFFSETS[step]:
            row = start + offset
            height, width = images[row].shape[:2]
            matte = _matte(truth, row)
            mask = person_mask(matte, truth_TJD[row], height, width, MASK_MARGIN_TORSO_SHARE, truth_torso_px)
            is_scored = 2 * offset == step
            for is_extra, pair in enumerate(pairs if is_scored else pairs[:1]):
                found = pair.compose(offset / step, joints_TJD[row])
                if is_extra and found.joined is None:
                    continue
                yield _weigh(clip.stem, step, offset, bool(is_extra), images[row], mask, found)


def _weigh(
    clip: str, step: int, offset: int, is_extra: bool, truth: np.ndarray, mask: np.ndarray, found: Composition
) -> Frame:
    plain, box, joined, features = found
    facts = (clip, step, offset, is_extra, truth, mask, plain.image)
    if joined is None or features is None:
        return Frame(*facts, None)
    posed = plain.image.copy()
    posed[box.rows_columns] = joined.image
    scale = LpipsTruth(truth)
    base_lpips_HW, posed_lpips_HW = (scale.spread(image) for image in (plain.image, posed))
    error = plain.image.astype(np.float32) - truth
    change = posed.astype(np.float32) - plain.image
    height, width = features.shape[1:]
    where = box.rows_columns
    area = (box.right - box.left) * (box.bottom - box.top) / (height * width)
    person_HW = mask.astype(np.float32)

    def cells(values_HW: np.ndarray) -> Tensor:
        maps = (
            cv2.resize(np.ascontiguousarray(part[where]), (width, height), interpolation=cv2.INTER_AREA) * area
            for part in (person_HW * values_HW, values_HW)
        )
        return torch.from_numpy(np.stack(list(maps)))

    base_error_HW = (error**2).mean(axis=2)
    base = [[(p * v).sum() for p in (person_HW, np.ones_like(person_HW))] for v in (base_error_HW, base_lpips_HW)]
    choice = Choice(
        where,
        joined.image,
        torch.from_numpy(features).half(),
        cells((change * error).mean(axis=2)),
        cells((change**2).mean(axis=2)),
        cells(posed_lpips_HW - base_lpips_HW),
        cells(np.abs(change).mean(axis=2)),
        torch.tensor(base, dtype=torch.float32),
    )
    return Frame(*facts, choice)


def make_network() -> nn.Sequential:
    sizes = (len(FEATURES), *[WIDTH] * (NUM_LAYERS - 1), 1)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Conv2d(inputs, outputs, 1), nn.LeakyReLU(0.1)]
    with torch.no_grad():  # half and half at first
        for parameter, gain in zip(layers[-2].parameters(), (0.1, 0.0), strict=True):
            parameter.mul_(gain)
    return nn.Sequential(*layers[:-1])


def loss(share_hw: Tensor, choice: Choice, mixing: float) -> Tensor:
    grown = (2 * share_hw * choice.cross + share_hw**2 * choice.square).sum(dim=(1, 2))
    person_mse, full_mse = torch.log((choice.base[0] + grown) / choice.base[0].clamp(min=1e-6) + 1e-3)
    mixed = mixing * share_hw * (1 - share_hw) * choice.apart
    person_lpips, full_lpips = (share_hw * choice.lpips + mixed).sum(dim=(1, 2)) / choice.base[1].clamp(min=1e-6)
    harm = functional.relu(person_mse) + functional.relu(person_lpips)
    total: Tensor = (
        PERSON_MSE * person_mse
        + PERSON_LPIPS * person_lpips
        + FULL_MSE * full_mse
        + FULL_LPIPS * full_lpips
        + HARM * harm
    )
    return total


def train(frames: Sequence[Frame], seed: int = 0) -> nn.Sequential:
    """On frames of all clips, each clip as often as the others."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = make_network()
    clips: dict[str, list[Choice]] = {}
    for frame in frames:
        if frame.choice is not None:
            clips.setdefault(frame.clip, []).append(frame.choice)
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS + 1)
    names = sorted(clips)
    for step in range(STEPS):
        # Mixing is charged late: from the start it would drive the share to 0 and leave it there.
        mixing = MIXING * min(1.0, max(0.0, 2 * step / STEPS - 0.6))
        optimiser.zero_grad()
        for _ in range(BATCH):
            group = clips[names[rng.integers(len(names))]]
            choice = group[rng.integers(len(group))]
            features = choice.features.float()
            if rng.random() < 0.5:  # another camera's noise, another estimator's matte
                features = features * torch.exp(torch.randn(len(FEATURES), 1, 1) * 0.08)
            cost = loss(torch.sigmoid(network(features[None])[0, 0]), choice, mixing) / BATCH
            cost.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return network.eval()


def export(network: nn.Sequential, base: str) -> dict[str, np.ndarray]:
    values = {}
    for name, parameter in network.named_parameters():
        place, _, kind = name.partition(".")
        array = parameter.detach().numpy().copy()
        values[f"{base}.{int(place) // 2}.{kind}"] = array[:, :, 0, 0] if kind == "weight" else array
    return values


def as_chooser(network: nn.Sequential) -> Chooser:
    values = export(network, "x")
    return Chooser([(values[f"x.{n}.weight"], values[f"x.{n}.bias"]) for n in range(len(values) // 2)])


def score(chooser: Chooser | None, frame: Frame) -> tuple[float, ...]:
    """Full PSNR, SSIM, person PSNR, SSIM, full LPIPS, person LPIPS. chooser: None = the base alone."""
    image = frame.plain.copy()
    if chooser is not None and frame.choice is not None:
        part = image[frame.choice.box]
        share = chooser.choose(frame.choice.features.float().numpy(), *part.shape[:2])[..., None]
        change = frame.choice.joined.astype(np.float32) - part
        part[:] = np.clip(part + share * change + 0.5, 0, 255).astype(np.uint8)
    return (*compare_frames(image, frame.truth, frame.mask), *LpipsTruth(frame.truth).compare(image, frame.mask))


def leave_out(job: tuple[str, str, list[Path]]) -> dict[int, np.ndarray]:
    """Per step the scores of the base's and the chosen half-way frames of a clip, (frames, 2, 6)."""
    held, _, paths = job
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    network = as_chooser(train([frame for path in paths for frame in read(path) if frame.clip != held]))
    found: dict[int, np.ndarray] = {}
    for path in paths:
        frames = [f for f in read(path) if f.clip == held and 2 * f.offset == f.step and not f.is_extra]
        if frames and frames[0].step in SCORED_STEPS:
            found[frames[0].step] = np.array([[score(None, f), score(network, f)] for f in frames])
    return found


def read(path: Path) -> list[Frame]:
    frames: list[Frame] = pickle.loads(path.read_bytes())  # noqa: S301 (written by this script)
    return frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path, metavar="CLIP.mp4")
    parser.add_argument("--bases", nargs="+", choices=("rife", "flow"), default=["rife", "flow"])
    parser.add_argument("--folder", type=Path, default=Path("chooser-frames"), help="default: chooser-frames")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="train on all clips, into models/renderer/")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    pose_path = arguments.folder / "poses.pkl"
    if not pose_path.exists():
        clips = {clip.stem: _read_clip(clip) for clip in arguments.clips}
        pose_path.write_bytes(pickle.dumps(_estimate_poses(clips, list(OFFSETS))))
    poses = pickle.loads(pose_path.read_bytes())  # noqa: S301 (written by this script)
    with get_context("fork").Pool(arguments.workers) as pool:
        for base in arguments.bases:
            jobs = [(clip, step, base, arguments.folder, poses) for step in OFFSETS for clip in arguments.clips]
            paths = pool.map(gather, jobs, chunksize=1)
            names = [clip.stem for clip in arguments.clips]
            print(f"base {base}: half-way frames, chosen less base, by a network that has not seen the clip")
            print(
                f"{'clip':<14}{'step':>5}{'person PSNR':>13}{'SSIM':>9}{'LPIPS':>9}{'worst dB':>10}{'full LPIPS':>12}"
            )
            for name, found in zip(names, pool.imap(leave_out, [(name, base, paths) for name in names]), strict=True):
                for step, scores in found.items():
                    plain, chosen = np.nanmean(scores, axis=0)
                    worst = np.nanmin(scores[:, 1, 2] - scores[:, 0, 2])
                    print(
                        f"{name:<14}{step:>5}{chosen[2] - plain[2]:>+13.2f}{chosen[3] - plain[3]:>+9.4f}"
                        f"{chosen[5] / plain[5] - 1:>+9.1%}{worst:>+10.2f}{chosen[4] / plain[4] - 1:>+12.1%}",
                        flush=True,
                    )
            if arguments.write:
                values = load_file(WEIGHTS) if WEIGHTS.exists() else {}
                values |= export(train([frame for path in paths for frame in read(path)]), base)
                sources = ", ".join(names)
                save_file(values, WEIGHTS, {"made_by": "benchmarks/chooser.py", "clips": sources})
                WEIGHTS.chmod(0o644)


if __name__ == "__main__":
    main()
