"""Evaluate: generated frames against the true ones that were left out, frame by frame and in the mean.

Pictures are compared in items (measure_chunk); poses found in the generated frames are compared when a clip's table is
written, so that both can be worked on at once.

Only generated frames that the clip holds a true picture of are measured; keys are checked to be exact instead.
A measure that does not exist (no person in the frame, no pose found) is null in the table and left out of means.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.measures import BoolArray, Image, compare_frames, correct_share, joint_errors, person_mask
from models.renderer.keys import WeightsError
from models.skeleton import NUM_JOINTS, FloatArray, torso_length
from tasks.errors import TableError, ToolError
from tasks.items import Item, ItemStore, each
from tasks.pose import MediapipeSettings
from tasks.pose_passes import PassSpec, estimate_group
from tasks.tables import (
    EVALUATION_SCHEMA,
    SCHEMAS,
    Table,
    decode_png,
    encode_png,
    hash_rows,
    read_facts,
    write_table,
)

PICTURE_MEASURES = ("person_psnr", "person_ssim", "person_lpips", "full_psnr", "full_ssim", "full_lpips")
MEASURES = (*PICTURE_MEASURES, "joint_error_px", "pck")
RANKING = "person_psnr"  # what the worst frames are the worst by
WORST = f"{RANKING}_worst_tenth"
FRAMES_PER_ITEM = 64
DIGITS = 6  # of every number in metrics: the last bits of a mean may depend on the machine

Json = dict[str, object]
LpipsFrames = Literal["none", "halfway", "all"]


@dataclass(frozen=True)
class EvaluateSpec:
    """Rows start..stop-1 of one render's clip: what one item of this stage measures.

    poses: the clip's pose table; its "truth" pass is read.
    lpips: the frames that have LPIPS.
    """

    render: Path
    clip: Path
    poses: Path
    start: int
    stop: int
    margin_torso_share: float
    lpips: LpipsFrames


@dataclass(frozen=True)
class RenderFacts:
    """What a render is, for the head of its metrics.

    lpips: the frames that have it, or "no weights".
    """

    render: str
    batch: str
    key_step: int
    motion: str
    method: str
    lpips: str


class ClipFiles(NamedTuple):
    """The tables that one clip of a render is measured from."""

    render: Path
    clip: Path
    poses: Path


class KeyCheck(NamedTuple):
    """How many key frames a render has, and how many of them are the clip's, pixel by pixel."""

    num_keys: int
    num_exact: int


class Gaps(NamedTuple):
    """For every row of a render: where it lies between its keys, 0..1, and whether it is the one half-way."""

    position: npt.NDArray[np.float64]
    is_halfway: BoolArray


def place_in_gaps(frames: npt.NDArray[np.int32], before: npt.NDArray[np.int32], after: npt.NDArray[np.int32]) -> Gaps:
    """Where each row lies between its keys.

    Args:
        frames, before, after: (rows,) frame numbers of the rows and of their keys; a key is its own.

    Returns: a key has position 0 and is never half-way; a gap with an odd number of steps has two half-way frames.
    """
    length = (after - before).astype(np.int64)
    # Twice the distance to the middle, in frames: whole numbers, so that ties are exact.
    off_middle = np.abs(2 * frames.astype(np.int64) - before - after)
    is_halfway = np.zeros(len(frames), bool)
    for key in np.unique(before[length > 0]):
        in_gap = (before == key) & (length > 0)
        is_halfway |= in_gap & (off_middle == off_middle[in_gap].min())
    position = np.where(length > 0, (frames - before) / np.maximum(length, 1), 0.0)
    return Gaps(position, is_halfway)


def halfway_rows(render: Table) -> list[int]:
    """The rows of a render's generated frames that lie half-way between their keys."""
    is_generated = render.column("origin") == "generated"
    gaps = place_in_gaps(render.frames, _ints(render, "key_before"), _ints(render, "key_after"))
    rows: list[int] = np.flatnonzero(is_generated & gaps.is_halfway).tolist()
    return rows


def evaluate_group(
    items: Sequence[Item], work_dir: Path, settings: MediapipeSettings
) -> Iterator[tuple[int, pa.Table]]:
    """Comparisons, or the poses in generated frames: a group is of one kind."""
    if isinstance(items[0].args, PassSpec):
        return estimate_group(items, work_dir, settings)
    return each(measure_chunk, items)


def measure_chunk(spec: EvaluateSpec) -> pa.Table:
    """Compare the generated frames among some rows of a render with the true ones.

    Returns: EVALUATION_SCHEMA, a row for each generated frame that the clip has a true picture of; `mask` is a PNG,
        255 = person; the joints' measures are null.
    Raises: TableError where a table is missing, damaged, or of pictures of another size; ToolError where LPIPS is
        wanted and its weights cannot be read.
    """
    render, clip, poses = Table("render", spec.render), Table("clip", spec.clip), Table("pose", spec.poses)
    frames, before, after = render.frames, _ints(render, "key_before"), _ints(render, "key_after")
    is_generated = render.column("origin") == "generated"
    gaps = place_in_gaps(frames, np.where(is_generated, before, frames), np.where(is_generated, after, frames))
    row_of_truth = {int(frame): row for row, frame in enumerate(clip.frames)}
    pose_rows, joints_TJD = _read_truth(poses)
    torso_px = torso_length(joints_TJD)
    records: list[Json] = []
    for row in range(spec.start, spec.stop):
        frame = int(frames[row])
        if not is_generated[row] or frame not in row_of_truth:
            continue
        image_HWC, truth_HWC = render.read_image(row), clip.read_image(row_of_truth[frame])
        if image_HWC.shape != truth_HWC.shape:
            raise TableError(
                f"{spec.render}: frame {frame} is of shape {image_HWC.shape}, in {spec.clip} of {truth_HWC.shape};"
                " run split and render again"
            )
        height, width = truth_HWC.shape[:2]
        joints_JD, matte_HW = np.zeros((NUM_JOINTS, 3)), None
        if frame in pose_rows:
            index, pose_row = pose_rows[frame]
            joints_JD = joints_TJD[index]
            matte = poses.read_cell("matte", pose_row)
            matte_HW = decode_png(matte, grey=True) if isinstance(matte, bytes) else None
        is_person_HW = person_mask(matte_HW, joints_JD, height, width, spec.margin_torso_share, torso_px)
        measures: dict[str, float] = compare_frames(image_HWC, truth_HWC, is_person_HW)._asdict()
        if spec.lpips == "all" or (spec.lpips == "halfway" and gaps.is_halfway[row]):
            measures |= _measure_lpips(image_HWC, truth_HWC, is_person_HW)
        records.append(
            {
                "frame": frame,
                "key_before": int(before[row]),
                "key_after": int(after[row]),
                "gap_position": float(gaps.position[row]),
                "is_halfway": bool(gaps.is_halfway[row]),
                **{name: _or_null(value) for name, value in measures.items()},
                "mask": encode_png(is_person_HW.astype(np.uint8) * 255),
            }
        )
    return pa.Table.from_pylist(records, schema=EVALUATION_SCHEMA)


def _measure_lpips(image_HWC: Image, truth_HWC: Image, is_person_HW: BoolArray) -> dict[str, float]:
    """Nothing for pictures that are too small for it."""
    import torch  # takes seconds to import, and most frames do without

    from models.lpips import MIN_SIDE_PX, lpips

    if min(truth_HWC.shape[:2]) < MIN_SIDE_PX:
        return {}
    torch.set_num_threads(1)  # the stage has a process a core
    try:
        full, person = lpips(image_HWC, truth_HWC, is_person_HW)
    except WeightsError as error:
        raise ToolError(str(error)) from error
    return {"full_lpips": full, "person_lpips": person}


def _or_null(value: float) -> float | None:
    return None if math.isnan(value) else value


def measure_joints(
    table: pa.Table, poses: Table, found: Mapping[int, npt.NDArray[np.float32]], pck_torso_share: float
) -> pa.Table:
    """measure_chunk's rows with the joints' measures of those frames in which poses were looked for.

    Args:
        poses: the clip's; its "truth" pass is read.
        found: frame -> (19, 3) joints px found in the generated frame.
    """
    places, joints_TJD = _read_truth(poses)
    torso_px = torso_length(joints_TJD)
    errors_px: list[float | None] = []
    shares: list[float | None] = []
    for frame in table["frame"].to_pylist():
        error_px = share = math.nan
        if frame in found:
            truth_JD = joints_TJD[places[frame][0]] if frame in places else np.zeros((NUM_JOINTS, 3))
            errors_J = joint_errors(found[frame], truth_JD)
            if not np.isnan(errors_J).all():
                error_px = float(np.nanmean(errors_J))
            share = correct_share(found[frame], truth_JD, torso_px, pck_torso_share)
        errors_px.append(_or_null(error_px))
        shares.append(_or_null(share))
    for name, values in (("joint_error_px", errors_px), ("pck", shares)):
        table = table.set_column(
            table.schema.get_field_index(name), EVALUATION_SCHEMA.field(name), pa.array(values, pa.float64())
        )
    return table


def _ints(table: Table, name: str) -> npt.NDArray[np.int32]:
    return table.column(name).astype(np.int32)


def _read_truth(poses: Table) -> tuple[dict[int, tuple[int, int]], FloatArray]:
    """The truth pass: frame -> (index into the joints, row of the table), and (T, 19, 3) joints px."""
    rows = np.flatnonzero(poses.column("pass") == "truth")
    if not len(rows):
        raise TableError(f"{poses.path}: has no pass truth; run the pose stage again")
    joints_TJD = poses.column("joints")[rows].reshape(-1, NUM_JOINTS, 3).astype(np.float64)
    frames = poses.frames[rows]
    places = {int(frame): (i, int(row)) for i, (frame, row) in enumerate(zip(frames, rows, strict=True))}
    return places, joints_TJD


def check_keys_exact(render_path: Path, clip_path: Path) -> KeyCheck:
    """Compare every original frame of a render with the clip's. Raises: TableError for a key that the clip lacks."""
    render, clip = Table("render", render_path), Table("clip", clip_path)
    row_of_truth = {int(frame): row for row, frame in enumerate(clip.frames)}
    frames = render.frames
    rows = np.flatnonzero(render.column("origin") == "original")
    exact = 0
    for row in rows.tolist():
        frame = int(frames[row])
        if frame not in row_of_truth:
            raise TableError(f"{render_path}: key frame {frame} is not in {clip_path}; run render again")
        kept, given = render.read_picture(row), clip.read_picture(row_of_truth[frame])
        exact += kept == given or np.array_equal(decode_png(kept), decode_png(given))
    return KeyCheck(len(rows), int(exact))


def read_evaluation(path: Path) -> pa.Table:
    """One clip's measures, without the masks. Raises: TableError."""
    table = Table("evaluation", path)
    names = [name for name in SCHEMAS["evaluation"].names if name != "mask"]
    return pa.table({name: table.column(name) for name in names})


def plan_measures(
    files: ClipFiles, margin_torso_share: float, lpips: LpipsFrames, key: Callable[..., str]
) -> list[Item]:
    """Cut the measuring of one clip's render into items. key: (*parts) -> item key."""
    render, clip, poses = Table("render", files.render), Table("clip", files.clip), Table("pose", files.poses)
    truth_rows = np.flatnonzero(poses.column("pass") == "truth").tolist()
    pose_frames = poses.frames
    # The truth pass of the whole clip enters every item: the torso's length is its median over the clip.
    truth = hash_rows(poses, truth_rows, ("frame", "joints"))
    items = []
    for start in range(0, render.num_rows, FRAMES_PER_ITEM):
        stop = min(render.num_rows, start + FRAMES_PER_ITEM)
        frames = set(render.frames[start:stop].tolist())
        inputs = [
            hash_rows(render, range(start, stop), ("frame", "origin", "key_before", "key_after", "image")),
            hash_rows(
                clip, [row for row, frame in enumerate(clip.frames.tolist()) if frame in frames], ("frame", "image")
            ),
            hash_rows(poses, [row for row in truth_rows if int(pose_frames[row]) in frames], ("matte",)),
            truth,
        ]
        spec = EvaluateSpec(*files, start, stop, margin_torso_share, lpips)
        items.append(Item(f"{files.render.stem} {start}-{stop - 1}", key(inputs, start, stop, lpips), spec))
    return items


def write_evaluation(
    files: ClipFiles,
    render: str,
    items: Sequence[Item],
    found: Mapping[int, npt.NDArray[np.float32]],
    pck_torso_share: float,
    store: ItemStore,
    folder: Path,
) -> None:
    """CLIP.parquet: the measures of every generated frame, and in the metadata how the keys came out.

    Args: found: as of measure_joints.
    """
    poses = Table("pose", files.poses)
    chunks = (measure_joints(store.get(item.key), poses, found, pck_torso_share) for item in items)
    check = check_keys_exact(files.render, files.clip)
    facts = {"clip": files.render.stem, "render": render}
    facts |= {name: str(value) for name, value in check._asdict().items()}
    write_table("evaluation", folder / files.render.name, chunks, facts)


def read_key_check(path: Path) -> KeyCheck:
    """What write_evaluation found of one clip's keys."""
    facts = read_facts("evaluation", path)
    return KeyCheck(int(facts["num_keys"]), int(facts["num_exact"]))


def summarise(facts: RenderFacts, clips: Mapping[str, pa.Table], keys: Mapping[str, KeyCheck]) -> Json:
    """The metrics of one render, for `dvc metrics show`: per clip and in the mean, half-way frames and all apart.

    Args:
        clips: clip -> rows of EVALUATION_SCHEMA (the mask may be missing).
        keys: clip -> how its key frames came out.

    Returns: numbers in nested dicts. Means of dB are means over frames; the mean over clips counts each clip once. Of
        each clip also the frame with the lowest person PSNR, and that measure's mean over the worst tenth of frames.
    """
    per_clip: dict[str, dict[str, Json]] = {name: _summarise_clip(table) for name, table in sorted(clips.items())}
    return {
        "render": facts.render,
        "batch": facts.batch,
        "key_step": facts.key_step,
        "motion": facts.motion,
        "method": facts.method,
        "lpips": facts.lpips,
        "clips": per_clip,
        "mean": {which: _mean_of([clip[which] for clip in per_clip.values()]) for which in ("halfway", "all")},
        "keys": {
            "count": sum(check.num_keys for check in keys.values()),
            "exact": sum(check.num_exact for check in keys.values()),
        },
    }


def _summarise_clip(table: pa.Table) -> dict[str, Json]:
    is_halfway = _floats(table, "is_halfway") == 1
    summary = _summarise_frames(table, np.ones_like(is_halfway))
    others = _summarise_frames(table, ~is_halfway)
    if others["num_frames"]:
        # What only half-way frames have (poses are found in those alone) is no mean of all frames.
        summary = {name: value for name, value in summary.items() if name in others}
    return {"halfway": _summarise_frames(table, is_halfway), "all": summary}


def _summarise_frames(table: pa.Table, is_counted: BoolArray) -> Json:
    summary: Json = {"num_frames": int(is_counted.sum())}
    for name in MEASURES:
        values = _floats(table, name)[is_counted]
        values = values[~np.isnan(values)]
        if len(values):
            summary[name] = _mean(values.tolist())
    ranked = rank_frames(table.filter(pa.array(is_counted)))
    if ranked:
        summary[WORST] = _mean([value for value, _ in ranked[: math.ceil(len(ranked) / 10)]])
        summary["worst_frame"] = ranked[0][1]
    return summary


def rank_frames(table: pa.Table) -> list[tuple[float, int]]:
    """(person PSNR dB, frame) of the frames that have it, the worst first."""
    values, frames = table[RANKING].to_pylist(), table["frame"].to_pylist()
    return sorted((value, frame) for value, frame in zip(values, frames, strict=True) if value is not None)


def _mean_of(summaries: Sequence[Json]) -> Json:
    mean: Json = {"num_frames": sum(n for s in summaries if isinstance(n := s["num_frames"], int))}
    for name in (*MEASURES, WORST):
        values = [value for summary in summaries if isinstance(value := summary.get(name), float)]
        if values:
            mean[name] = _mean(values)
    return mean


def _mean(values: Sequence[float]) -> float:
    # An exactly rounded sum: the same on every machine, whatever the order or the vector width.
    return round(math.fsum(values) / len(values), DIGITS)


def _floats(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """A column as float64, null as NaN."""
    return np.array([math.nan if v is None else v for v in table[name].to_pylist()], np.float64)


def plot_rows(facts: RenderFacts, clips: Mapping[str, pa.Table]) -> list[Json]:
    """One dict a frame for `dvc plots`, clips by name, frames in order, null for a measure that does not exist.

    Every row has the same keys: DVC shows nothing of a list whose rows differ.
    """
    rows: list[Json] = []
    for clip, table in sorted(clips.items()):
        for record in table.select(["frame", "gap_position", *PICTURE_MEASURES]).to_pylist():
            numbers = {
                name: round(value, DIGITS) if isinstance(value, float) and not math.isnan(value) else None
                for name, value in record.items()
                if name != "frame"
            }
            rows.append({"clip": clip, "frame": record["frame"], "method": facts.method, **numbers})
    return rows
