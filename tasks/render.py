"""Render: the frames between the keys, from key frames, observed poses and backgrounds alone; tables and .mp4."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.motion.classical import interpolate_joints, repair_keys
from models.renderer.device import Device, DeviceError
from models.renderer.keys import WeightsError
from models.renderer.methods import Base, KeyPair, render_between, render_neural
from models.skeleton import is_seen, torso_length
from tasks.background import count_keys, runs_of_keys, share
from tasks.errors import SourceError, TableError, ToolError
from tasks.items import Item, ItemStore, hash_file
from tasks.tables import (
    RENDER_SCHEMA,
    Image,
    Table,
    decode_png,
    encode_png,
    hash_rows,
    read_poses,
    write_table,
)
from tasks.video import write_mp4

Motion = Literal["linear", "cubic", "robust", "learned"]
Method = Literal["blend", "flow", "rife", "warp", "neural"]
Background = Literal["base", "warp"]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RenderSettings:
    """motion_model: the checkpoint folder of a learned motion; not read by another motion.

    base: the interpolator that warp works over.
    renderer: the checkpoint folder of neural, which paints over `background`; of no other method.
    background: base = the pictures of stage background | warp = those of the method, over `base`.
    device: of RIFE and of neural's generator; a GPU's pictures differ from the CPU's by a level here and there.
    """

    key_step: int
    motion: Motion
    method: Method
    motion_model: str
    base: Base
    renderer: str
    background: Background
    device: Device = "cpu"

    def describe(self) -> dict[str, str]:
        """Name -> value of what shaped the pictures."""
        values = {name: str(value) for name, value in self.__dict__.items()}
        if self.method != "neural":
            del values["renderer"], values["background"]
        if not self.is_warped:
            del values["base"]
        if not self.has_network:
            del values["device"]
        return values

    @property
    def is_warped(self) -> bool:
        return self.method == "warp" or (self.method == "neural" and self.background == "warp")

    @property
    def has_network(self) -> bool:
        return self.method in ("rife", "neural") or (self.is_warped and self.base == "rife")

    @property
    def reads_backgrounds(self) -> bool:
        return self.method == "flow" or (self.method == "neural" and self.background == "base")

    @property
    def needs_poses(self) -> bool:
        return self.method in ("warp", "neural")

    def inputs(self, poses: Path, backgrounds: Path) -> list[Path]:
        """Those of a clip's tables, and of the motion model's files, that the method reads."""
        found = [backgrounds] if self.reads_backgrounds else []
        if self.needs_poses:
            motion = sorted(Path(self.motion_model).glob("*")) if self.motion == "learned" else []
            found += [poses, *motion, *self.renderer_files()]
        return found

    def renderer_files(self) -> list[Path]:
        return sorted(Path(self.renderer).glob("*")) if self.method == "neural" else []


@dataclass(frozen=True)
class RenderSpec:
    """Keys first_key..last_key-1 of a clip, each with the gap after it.

    joints_px_TJD: (rows from the first key to the key after the last one, 19, 3) predicted joints; None = not needed.
    key_joints_px_KJD: the observed joints of the keys first_key..last_key.
    """

    clip_path: Path
    pose_path: Path
    background_path: Path
    settings: RenderSettings
    first_key: int
    last_key: int
    num_keys: int
    torso_px: float
    joints_px_TJD: FloatArray | None
    key_joints_px_KJD: FloatArray | None


@dataclass(frozen=True)
class RenderPlan:
    clip: str
    items: list[Item]
    metadata: dict[str, str]


def plan_render(
    clip_path: Path, poses: Path, backgrounds: Path, settings: RenderSettings, key: Callable[..., str]
) -> RenderPlan:
    """Predict one clip's joints and cut its render into items.

    Reads the clip's key rows, the pose pass "observed-K" and the "render" backgrounds, and nothing else.
    """
    clip = Table("clip", clip_path)
    name = clip.metadata["clip"]
    step = settings.key_step
    num_keys = count_keys(clip.num_rows, step)
    times = clip.column("time").astype(np.float64)
    joints: FloatArray | None = None
    key_joints: FloatArray | None = None
    torso_px = 0.0
    pose_path, background_path = poses / f"{name}.parquet", backgrounds / f"{name}.parquet"
    pose = background = None
    pose_rows: npt.NDArray[np.int64] = np.zeros(0, np.int64)
    renderer = [hash_file(path) for path in settings.renderer_files()]
    if settings.needs_poses:
        pose = Table("pose", pose_path)
        pose_rows, key_joints = read_poses(pose, f"observed-{step}")
        if len(pose_rows) != num_keys:
            raise TableError(f"{pose_path}: has {len(pose_rows)} poses for {num_keys} keys of {name}; run pose again")
        last_row = (num_keys - 1) * step
        joints = predict_joints(times[: last_row + 1 : step], key_joints, times[: last_row + 1], settings)
        torso_px = torso_length(key_joints)
    if settings.reads_backgrounds:
        background = Table("background", background_path)
    items = []
    for first, last in runs_of_keys(num_keys, step, int(clip.metadata["height"]), int(clip.metadata["width"])):
        end = min(last, num_keys - 1)
        rows = slice(first * step, end * step + 1)
        spec = RenderSpec(
            clip_path=clip_path,
            pose_path=pose_path,
            background_path=background_path,
            settings=settings,
            first_key=first,
            last_key=last,
            num_keys=num_keys,
            torso_px=torso_px,
            joints_px_TJD=None if joints is None else joints[rows],
            key_joints_px_KJD=None if key_joints is None else key_joints[first : end + 1],
        )
        inputs = [
            hash_rows(clip, range(rows.start, rows.stop, step), ("frame", "image")),
            times[rows].tolist(),
        ]
        if pose is not None and joints is not None:
            inputs += [hash_rows(pose, pose_rows[first : end + 1].tolist(), ("joints", "matte"))]
            inputs += [joints[rows].tolist(), torso_px, renderer]
        if background is not None:
            wanted = _background_rows(background, clip.frames[rows])
            inputs += [hash_rows(background, sorted(wanted.values()), ("frame", "image"))]
        items.append(Item(f"{name} keys {first}-{last - 1}", key(None, settings.__dict__, inputs, first, last), spec))
    facts = {
        n: clip.metadata[n] for n in ("clip", "batch", "video", "split", "fps", "width", "height", "source_sha256")
    }
    return RenderPlan(name, items, facts | settings.describe())


def predict_joints(
    key_times_K: FloatArray, key_joints_px_KJD: FloatArray, times_T: FloatArray, settings: RenderSettings
) -> FloatArray:
    """(T, 19, 3) joints px at any times within the keys' span; what the keys around do not show is (0, 0, 0).

    A learned motion is the network's between keys that the classical repair has been over: on real footage it is the
    better detector (the network, taught with larger faults, takes arms that are swung wide for one).

    Raises: SourceError where a learned motion's checkpoint cannot be read.
    """
    if settings.motion != "learned":
        return interpolate_joints(key_times_K, key_joints_px_KJD, times_T, settings.motion)
    from models.checkpoint import CheckpointError  # with torch, which takes seconds to import
    from models.motion.inference import inbetween

    keys_KJD = repair_keys(key_times_K, key_joints_px_KJD)
    # The learned curve has an answer for every joint: which of them the keys show, and how well, is the classical rule.
    joints_TJD = interpolate_joints(key_times_K, keys_KJD, times_T, "linear")
    if len(key_times_K) < 2 or not is_seen(keys_KJD).any():
        return joints_TJD
    try:
        points_TJ2 = inbetween(
            keys_KJD[..., :2],
            None,
            Path(settings.motion_model),
            is_seen_KJ=is_seen(keys_KJD),
            keep_keys="exact",
            times=np.interp(times_T, key_times_K, np.arange(len(key_times_K))),
            key_step_s=float(np.median(np.diff(key_times_K))),
        )
    except CheckpointError as error:
        raise SourceError(f"motion_model: {error}") from error
    return np.where(is_seen(joints_TJD)[..., None], np.dstack([points_TJ2, joints_TJD[..., 2]]), 0.0)


def _background_rows(background: Table, frames: npt.NDArray[np.int32]) -> dict[int, int]:
    """Frame -> row of its "render" background, for those of the frames that have one."""
    numbers = background.frames
    is_wanted = (background.column("use") == "render") & np.isin(numbers, frames)
    return {int(numbers[row]): int(row) for row in np.flatnonzero(is_wanted)}


def render_chunk(spec: RenderSpec) -> pa.Table:
    """The frames of a run of keys: keys as they are (the same PNG bytes), the frames between them generated."""
    clip = Table("clip", spec.clip_path)
    frames, times = clip.frames, clip.column("time").astype(np.float64)
    step, method = spec.settings.key_step, spec.settings.method
    rows: list[dict[str, object]] = []
    keys: dict[int, bytes] = {}
    for number in range(spec.first_key, spec.last_key):
        row = number * step
        before, after = int(frames[row]), int(frames[min(row + step, len(frames) - 1)])
        picture = keys.pop(number, None) or clip.read_picture(row)
        rows.append(_row(before, times[row], "original", "", before, before, picture, 0.0))
        if number == spec.num_keys - 1:
            break
        keys[number + 1] = clip.read_picture(row + step)
        for between, data, posed_share in _between(spec, clip, number, picture, keys[number + 1], frames, times):
            rows.append(
                _row(int(frames[between]), times[between], "generated", method, before, after, data, posed_share)
            )
    return pa.Table.from_pylist(rows, schema=RENDER_SCHEMA)


def _row(
    frame: int, time: float, origin: str, method: str, before: int, after: int, picture: bytes, posed_share: float
) -> dict[str, object]:
    return {
        "frame": frame,
        "time": float(time),
        "origin": origin,
        "method": method,
        "key_before": before,
        "key_after": after,
        "posed_share": posed_share,
        "image": {"bytes": picture, "path": f"{frame:06d}.png"},
    }


def _between(
    spec: RenderSpec,
    clip: Table,
    number: int,
    picture_0: bytes,
    picture_1: bytes,
    frames: npt.NDArray[np.int32],
    times: FloatArray,
) -> Iterator[tuple[int, bytes, float]]:
    """(row, PNG, share made from the pose) of each frame between key `number` and the next."""
    settings = spec.settings
    step, method, base, device = settings.key_step, settings.method, settings.base, settings.device
    start, end = number * step, (number + 1) * step
    between = range(start + 1, end)
    behind = _read_backgrounds(spec, frames[start + 1 : end]) if spec.settings.reads_backgrounds else []
    if method == "flow":  # the interpolated picture itself
        yield from ((row, picture, 0.0) for row, picture in zip(between, behind, strict=True))
        return
    pair = KeyPair(decode_png(picture_0), decode_png(picture_1))
    if spec.settings.needs_poses:
        assert spec.key_joints_px_KJD is not None
        local = number - spec.first_key
        pair = KeyPair(
            pair.image_0,
            pair.image_1,
            mattes=_mattes(spec, number),
            joints_0_px_JD=spec.key_joints_px_KJD[local],
            joints_1_px_JD=spec.key_joints_px_KJD[local + 1],
            torso_px=spec.torso_px,
        )
    wanted = [share(times, start, row, end) for row in between]
    joints = (
        None if spec.joints_px_TJD is None else [spec.joints_px_TJD[row - spec.first_key * step] for row in between]
    )
    try:
        if method == "neural":
            assert joints is not None
            pictures = (
                [decode_png(picture) for picture in behind]
                if behind
                else [frame.image for frame in render_between("warp", pair, wanted, joints, base, device)]
            )
            made = render_neural(pair, joints, pictures, Path(spec.settings.renderer), device)
        else:
            made = render_between(method, pair, wanted, joints, base, device)
    except (DeviceError, WeightsError) as error:
        raise ToolError(str(error)) from error
    yield from ((row, encode_png(image), share) for row, (image, share) in zip(between, made, strict=True))


def _read_backgrounds(spec: RenderSpec, frames: npt.NDArray[np.int32]) -> list[bytes]:
    """The "render" background of each frame, PNG. Raises: TableError where one is missing."""
    table = Table("background", spec.background_path)
    row_of = _background_rows(table, frames)
    missing = [int(frame) for frame in frames if int(frame) not in row_of]
    if missing:
        raise TableError(f"{spec.background_path}: lacks frame {missing[0]}; run background again")
    return [table.read_picture(row_of[int(frame)]) for frame in frames]


def _mattes(spec: RenderSpec, number: int) -> tuple[Image | None, Image | None]:
    table = Table("pose", spec.pose_path)
    rows, _ = read_poses(table, f"observed-{spec.settings.key_step}")
    cells = [table.read_cell("matte", int(rows[n])) for n in (number, number + 1)]
    first, second = (decode_png(cell, grey=True) if isinstance(cell, bytes) else None for cell in cells)
    return first, second


def write_render(plan: RenderPlan, store: ItemStore, folder: Path) -> None:
    """CLIP.parquet: every frame with its sidecar facts."""
    path = folder / f"{plan.clip}.parquet"
    write_table("render", path, (store.get(item.key) for item in plan.items), plan.metadata)


def write_movie(render: Path, crf: int, ffmpeg: str, folder: Path) -> None:
    """CLIP.mp4 of a render's table, for looking at."""
    table = Table("render", render)
    images = (table.read_image(row) for row in range(table.num_rows))
    folder.mkdir(parents=True, exist_ok=True)
    write_mp4(folder / f"{render.stem}.mp4", images, Fraction(table.metadata["fps"]), crf, ffmpeg)
