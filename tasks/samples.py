"""A renderer's training set: the key frames of its clips at its own size, with joints and backgrounds.

Keys are numbered from 0; key k is row k * key_step of its clip. Nothing but key frames and what was made from them is
read: a renderer sees of its clips what rendering sees.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.motion.classical import interpolate_joints
from models.renderer.keys import WeightsError
from models.renderer.methods import Base, KeyPair, render_between
from models.renderer.sizes import resize_picture, scale_joints
from models.skeleton import torso_length
from tasks.background import count_keys, runs_of_keys, share
from tasks.errors import ParamsError, TableError, ToolError
from tasks.items import Item, ItemStore
from tasks.tables import (
    SAMPLES_SCHEMA,
    Image,
    Table,
    decode_png,
    encode_png,
    hash_rows,
    read_facts,
    read_poses,
    write_table,
)

Background = Literal["base", "warp"]
MIN_PIECE_KEYS = 3
FloatArray = npt.NDArray[np.float64]
_FACTS = ("clip", "batch", "video", "split", "subject", "source_sha256")


@dataclass(frozen=True)
class SamplesSettings:
    """background: base = the picture of stage background | warp = that of the rendering method, over `base`."""

    key_step: int
    background: Background
    base: Base
    height: int
    width: int

    def describe(self) -> dict[str, str]:
        """Name -> value of what shaped the pictures."""
        values = {name: str(value) for name, value in self.__dict__.items()}
        return values if self.background == "warp" else {name: values[name] for name in values if name != "base"}


@dataclass(frozen=True)
class SamplesSpec:
    """Keys first_key..last_key-1 of a clip.

    piece: the run of the clip's keys that this table holds: all of them, or what the split "clean" leaves in one piece.
    joints_px_KJD, observed_px_KJD: of all the clip's keys, at its own size: repaired, and as they were observed; the
    repaired ones of keys outside the piece are zeros.
    """

    clip_path: Path
    pose_path: Path
    background_path: Path
    settings: SamplesSettings
    first_key: int
    last_key: int
    piece: range
    joints_px_KJD: FloatArray
    observed_px_KJD: FloatArray


@dataclass(frozen=True)
class SamplesPlan:
    """clip: the table's name: its clip's, or CLIP+N for the N-th piece of one."""

    clip: str
    items: list[Item]
    metadata: dict[str, str]


def choose_clips(renderer: str, clips: Sequence[Path], split: str, videos: Sequence[str]) -> dict[str, Path]:
    """Clip -> table of what a renderer is trained on: the clips of a split, or all, of these videos (none = all).

    The split "clean" has the clips of "train"; what of them is left out, clean_pieces says.

    Raises: ParamsError where a video has no such clip, or nothing is left.
    """
    found: dict[str, Path] = {}
    seen: set[str] = set()
    for path in clips:
        facts = read_facts("clip", path)
        if {"clean": "train"}.get(split, split) in ("all", facts["split"]):
            seen.add(facts["video"])
            if not videos or facts["video"] in videos:
                found[path.stem] = path
    missing = [video for video in videos if video not in seen]
    if missing or not found:
        what = f"video {missing[0]} has" if missing else "there is"
        raise ParamsError(
            f"renderers.{renderer} in params.yaml: {what} no clip of split {split} in {clips[0].parent};"
            f" those with one: {', '.join(sorted(seen)) or 'none'}"
        )
    return found


def read_tested_frames(clips: Sequence[Path]) -> dict[str, frozenset[int]]:
    """Hash of a source -> the frames of it that the test clips among these tables show."""
    found: dict[str, frozenset[int]] = {}
    for path in clips:
        table = Table("clip", path)
        if table.metadata["split"] == "test":
            source = table.metadata["source_sha256"]
            found[source] = found.get(source, frozenset()) | frozenset(table.frames.tolist())
    return found


def clean_pieces(clip_path: Path, key_step: int, tested: Mapping[str, frozenset[int]]) -> list[range]:
    """A training clip's keys without those that a test clip shows: the runs that stay, of at least three keys.

    Fewer have no key with a neighbour on either side, so that nothing could be learned from them.
    """
    clip = Table("clip", clip_path)
    shown = tested.get(clip.metadata["source_sha256"], frozenset())
    keys = clip.frames[: (count_keys(clip.num_rows, key_step) - 1) * key_step + 1 : key_step].tolist()
    pieces, start = [], 0
    for number in range(len(keys) + 1):
        if number == len(keys) or keys[number] in shown:
            if number - start >= MIN_PIECE_KEYS:
                pieces.append(range(start, number))
            start = number + 1
    return pieces


def plan_samples(
    clip_path: Path,
    poses: Path,
    backgrounds: Path,
    settings: SamplesSettings,
    key: Callable[..., str],
    piece: range | None = None,
    name: str | None = None,
) -> SamplesPlan:
    """Cut one clip's training set into items.

    Args:
        key: (params section or None, *parts) -> item key.
        piece: the run of its keys to take; None = all. Nothing is made from a key outside it.
        name: of the table; None = the clip's.
    """
    clip = Table("clip", clip_path)
    clip_name, step = clip.metadata["clip"], settings.key_step
    name = name or clip_name
    pose_path, background_path = poses / f"{clip_name}.parquet", backgrounds / f"{clip_name}.parquet"
    pose = Table("pose", pose_path)
    num_keys = count_keys(clip.num_rows, step)
    piece = piece or range(num_keys)
    pose_rows, observed_px_KJD = read_poses(pose, f"observed-{step}")
    if len(pose_rows) != num_keys:
        raise TableError(f"{pose_path}: has {len(pose_rows)} poses for {num_keys} keys of {clip_name}; run pose again")
    times = clip.column("time").astype(np.float64)[: (num_keys - 1) * step + 1 : step]
    kept = slice(piece.start, piece.stop)
    joints_px_KJD = np.zeros_like(observed_px_KJD)
    # As rendering has them at a key.
    joints_px_KJD[kept] = interpolate_joints(times[kept], observed_px_KJD[kept], times[kept], "robust")
    background = Table("background", background_path) if settings.background == "base" else None
    row_of = {} if background is None else _background_rows(background)
    items = []
    runs = runs_of_keys(len(piece), step, int(clip.metadata["height"]), int(clip.metadata["width"]))
    for first, last in ((piece.start + first, piece.start + last) for first, last in runs):
        around = range(max(piece.start, first - 1), min(piece.stop, last + 1))  # what a background may be made from
        frames = clip.frames[first * step : (last - 1) * step + 1 : step].tolist()
        inputs = [
            hash_rows(clip, [number * step for number in around], ("frame", "image")),
            hash_rows(pose, pose_rows[around.start : around.stop].tolist(), ("joints", "matte")),
            joints_px_KJD[first:last].tolist(),
            torso_length(observed_px_KJD[kept]),
            times[around.start : around.stop].tolist(),
        ]
        if background is not None:
            wanted = [row_of[frame] for frame in frames if frame in row_of]
            inputs += [hash_rows(background, wanted, ("frame", "image"))]
        spec = SamplesSpec(
            clip_path, pose_path, background_path, settings, first, last, piece, joints_px_KJD, observed_px_KJD
        )
        items.append(
            Item(
                f"{name} keys {first}-{last - 1}",
                key(None, settings.describe(), inputs, first, last, piece.start, piece.stop),
                spec,
            )
        )
    facts = {fact: clip.metadata[fact] for fact in _FACTS}
    return SamplesPlan(name, items, facts | settings.describe())


def make_samples(spec: SamplesSpec) -> pa.Table:
    """A run of keys: picture, joints, matte, and the background made from the keys before and after.

    Raises: TableError where a key has no background; ToolError where the method's weights are missing.
    """
    clip, pose = Table("clip", spec.clip_path), Table("pose", spec.pose_path)
    settings, step = spec.settings, spec.settings.key_step
    height, width = settings.height, settings.width
    size = (int(clip.metadata["height"]), int(clip.metadata["width"]))
    inner, frames = spec.piece[1:-1], clip.frames
    joints_px_KJD = scale_joints(spec.joints_px_KJD, size, (height, width)).astype(np.float32)
    pose_rows, _ = read_poses(pose, f"observed-{step}")
    background = Table("background", spec.background_path) if settings.background == "base" else None
    row_of = {} if background is None else _background_rows(background)

    def matte(number: int) -> Image | None:
        cell = pose.read_cell("matte", int(pose_rows[number]))
        return decode_png(cell, grey=True) if isinstance(cell, bytes) else None

    def picture(image: Image, name: str) -> dict[str, object]:
        return {"bytes": encode_png(resize_picture(image, height, width)), "path": name}

    rows = []
    for number in range(spec.first_key, spec.last_key):
        frame = int(frames[number * step])
        behind: Image | None = None
        if number in inner:
            if background is None:
                behind = _carry_person(spec, clip, number, (matte(number - 1), matte(number + 1)))
            elif frame in row_of:
                behind = background.read_image(row_of[frame])
            else:
                raise TableError(f"{spec.background_path}: lacks frame {frame}; run background again")
        shape = matte(number)
        rows.append(
            {
                "frame": frame,
                "joints": joints_px_KJD[number].ravel(),
                "image": picture(clip.read_image(number * step), f"{frame:06d}.png"),
                "background": None if behind is None else picture(behind, f"{frame:06d}.background.png"),
                "matte": None if shape is None else encode_png(resize_picture(shape, height, width)),
            }
        )
    return pa.Table.from_pylist(rows, schema=SAMPLES_SCHEMA)


def _carry_person(spec: SamplesSpec, clip: Table, number: int, mattes: tuple[Image | None, Image | None]) -> Image:
    """The picture that `warp` makes of a key from the keys before and after it, told the key's joints."""
    rows = [n * spec.settings.key_step for n in (number - 1, number, number + 1)]
    pair = KeyPair(
        clip.read_image(rows[0]),
        clip.read_image(rows[2]),
        mattes=mattes,
        joints_0_px_JD=spec.observed_px_KJD[number - 1],
        joints_1_px_JD=spec.observed_px_KJD[number + 1],
        torso_px=torso_length(spec.observed_px_KJD[spec.piece.start : spec.piece.stop]),
    )
    at = share(clip.column("time").astype(np.float64), *rows)
    try:
        (made,) = render_between("warp", pair, [at], [spec.joints_px_KJD[number]], spec.settings.base)
    except WeightsError as error:
        raise ToolError(str(error)) from error
    return made.image


def _background_rows(background: Table) -> dict[int, int]:
    """Frame -> row of its "train" background."""
    numbers = background.frames
    return {int(numbers[row]): int(row) for row in np.flatnonzero(background.column("use") == "train")}


def write_samples(plan: SamplesPlan, store: ItemStore, folder: Path) -> None:
    write_table("samples", folder / f"{plan.clip}.parquet", (store.get(item.key) for item in plan.items), plan.metadata)
