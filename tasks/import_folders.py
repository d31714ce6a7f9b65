"""Folders of the 2021 authors' scripts as ours: OpenPose JSON (BODY_25 and hands) and DAIN's pictures.

poses        DIR/CLIP/*.json, a file a frame, whose number is the last of the name: NAME_000000000012_keypoints.json,
             frame00012_keypoints.json, frame00012.json
backgrounds  DIR/CLIP/*.png, named by a frame and the time after it, 0..1 of the way to the next:
             frame00012_0.500000.png; frame00012_0.000000.png is the frame itself. train-frame00012_0.500000.png was
             made from frame 12 and the one after the next, and stands for the one between them
"""

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import pyarrow as pa

from tasks.errors import SourceError
from tasks.hdf5_direct import pack
from tasks.import_record import Import, picture_array
from tasks.people import read_people
from tasks.tables import BACKGROUND_SCHEMA, encode_png, write_table

CHUNK_PICTURES = 8  # some MB of PNG: a row group
_JSON = re.compile(r"(\d+)(?:_keypoints)?\.json$")
_DAIN = re.compile(r"(?P<train>train-)?\D*(?P<frame>\d+)_(?P<time>[01]\.\d+)\.png$")


def list_clips(folder: Path) -> list[Path]:
    """The clips' folders, in the order of their names. Raises: SourceError where there is none."""
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder; name the one that holds a folder a clip")
    clips = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not clips:
        raise SourceError(f"{folder}: holds no folder; it must hold one for each clip")
    return clips


def import_poses(
    folder: Path, work: Import, frames: Mapping[str, Sequence[int]], on_done: Callable[[int], None]
) -> str:
    """poses/CLIP/CLIP_000000000012_keypoints.json, each read once to see that it is what it should be.

    Args:
        frames: clip -> its frames' numbers (a batch's catalogue). A clip whose files are numbered from 0, or otherwise
            than its frames, has as many files as frames, which it is given in their order.
        on_done: called with the files just done.
    Raises: SourceError naming the file that is no pose, or the clip whose files do not fit its frames.
    """
    contents: dict[str, Any] = {"clips": 0, "frames": 0, "left_out": {}}
    for clip in list_clips(folder):
        files = _number_files(clip, frames.get(clip.name))
        contents["clips"] += 1
        contents["frames"] += len(files)
        target = work.folder / "poses" / clip.name
        if not target.is_dir():
            temporary = target.with_name(f".{clip.name}.tmp")
            temporary.mkdir(parents=True)
            for frame, path in files.items():
                read_people(path, (1, 1))
                shutil.copyfile(path, temporary / f"{clip.name}_{frame:012d}_keypoints.json")
            temporary.rename(target)
        on_done(len(files))
    work.finish(contents)
    return f"{contents['clips']} clips, {contents['frames']} frames"


def _number_files(clip: Path, frames: Sequence[int] | None) -> dict[int, Path]:
    """Frame -> its file."""
    found: dict[int, Path] = {}
    for path in sorted(clip.glob("*.json")):
        match = _JSON.search(path.name)
        if not match:
            raise SourceError(f"{path}: its name has no frame number before .json or _keypoints.json")
        if int(match[1]) in found:
            raise SourceError(f"{path}: frame {int(match[1])} is there twice; keep one video's files in {clip}")
        found[int(match[1])] = path
    if not found:
        raise SourceError(f"{clip}: holds no .json file")
    if frames is None or not set(frames) - set(found):
        return dict(sorted(found.items()))
    if len(found) != len(frames):
        raise SourceError(
            f"{clip}: holds {len(found)} files, which are not the {len(frames)} frames that the catalogue has of it;"
            f" frame {min(set(frames) - set(found))} is missing"
        )
    return dict(zip(frames, (found[number] for number in sorted(found)), strict=True))


class _Picture(NamedTuple):
    frame: int
    path: Path


def import_backgrounds(
    folder: Path, work: Import, frames: Mapping[str, Sequence[int]], on_done: Callable[[int], None]
) -> str:
    """backgrounds/CLIP.parquet, a row a picture between two frames.

    Args:
        frames: clip -> its frames' numbers, which say which frame a time is; without them, times are taken between
            the numbers of the keys.
        on_done: called with the pictures just done.
    Raises: SourceError naming the file whose name or picture is none, or the clip whose times are not equal steps.
    """
    contents: dict[str, Any] = {"clips": 0, "pictures": 0, "left_out": {}}
    for clip in list_clips(folder):
        use, key_step, pictures = _place_pictures(clip, frames.get(clip.name))
        contents["clips"] += 1
        contents["pictures"] += len(pictures)
        target = work.folder / "backgrounds" / f"{clip.name}.parquet"
        if not target.is_file():
            metadata = {"clip": clip.name, "interpolator": "dain", "key_step": str(key_step)}
            write_table("background", target, _chunks(pictures, use), metadata, is_synced=True)
        on_done(len(pictures))
    work.finish(contents)
    return f"{contents['clips']} clips, {contents['pictures']} pictures"


def _place_pictures(clip: Path, frames: Sequence[int] | None) -> tuple[str, int, list[_Picture]]:
    """(use, key step, pictures by frame) of a clip's folder."""
    found: list[tuple[int, float, Path]] = []
    kinds = set()
    for path in sorted(clip.glob("*.png")):
        match = _DAIN.match(path.name)
        if not match:
            raise SourceError(f"{path}: no name of DAIN's pictures: FRAME_TIME.png, such as frame00012_0.500000.png")
        kinds.add("train" if match["train"] else "render")
        found.append((int(match["frame"]), float(match["time"]), path))
    if not found or len(kinds) > 1:
        raise SourceError(f"{clip}: holds {'no picture' if not found else 'pictures for training and others'}")
    return _place_train(clip, found, frames) if kinds == {"train"} else _place_render(clip, found, frames)


def _place_train(
    clip: Path, found: list[tuple[int, float, Path]], frames: Sequence[int] | None
) -> tuple[str, int, list[_Picture]]:
    """Made of frames n and n + 2 of the clip, each stands for frame n + 1, whose number the next one's name tells."""
    order = list(frames or [frame for frame, _, _ in found])
    place = {frame: row for row, frame in enumerate(order)}
    pictures = []
    for frame, _, path in found:
        row = place.get(frame)
        if row is None or (frames and row + 1 >= len(order)):
            raise SourceError(f"{path}: frame {frame} has no frame after it in the catalogue's clip")
        if row + 1 < len(order):  # without a catalogue nothing tells the number of the last one
            pictures.append(_Picture(order[row + 1], path))
    return "train", 1, pictures


def _place_render(
    clip: Path, found: list[tuple[int, float, Path]], frames: Sequence[int] | None
) -> tuple[str, int, list[_Picture]]:
    keys = sorted({frame for frame, _, _ in found})
    times = sorted({time for _, time, _ in found if time > 0})
    if not times:
        raise SourceError(f"{clip}: holds the frames themselves alone, and none between them")
    key_step = round(1 / times[0])
    if any(abs(time * key_step - round(time * key_step)) > 1e-3 for time in times):
        raise SourceError(f"{clip}: its times ({times[0]:g}, {times[1]:g}, ...) are no equal steps")
    pictures = []
    for frame, time, path in found:
        if time == 0:
            continue
        number = _frame_at(frame, time, key_step, keys, frames)
        if number is None:
            raise SourceError(f"{path}: nothing tells which frame it is; import it with --batch")
        pictures.append(_Picture(number, path))
    return "render", key_step, sorted(pictures)


def _frame_at(frame: int, time: float, key_step: int, keys: Sequence[int], frames: Sequence[int] | None) -> int | None:
    if frames is not None:
        row = frames.index(frame) + round(time * key_step) if frame in frames else len(frames)
        return frames[row] if row < len(frames) else None
    after = next((key for key in keys if key > frame), None)
    number = None if after is None else frame + time * (after - frame)
    return None if number is None or abs(number - round(number)) > 1e-3 else round(number)


def _chunks(pictures: Sequence[_Picture], use: str) -> Iterator[pa.Table]:
    for start in range(0, len(pictures), CHUNK_PICTURES):
        rows = pictures[start : start + CHUNK_PICTURES]
        columns = [
            pa.array([row.frame for row in rows], pa.int32()),
            pa.array([use] * len(rows), pa.string()),
            picture_array(pack([_read_png(row.path) for row in rows]), [f"{row.frame:06d}.{use}.png" for row in rows]),
        ]
        yield pa.Table.from_arrays(columns, schema=BACKGROUND_SCHEMA)


def _read_png(path: Path) -> bytes:
    data = path.read_bytes()
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise SourceError(f"{path}: not a readable picture; make it again")
    return data if data.startswith(b"\x89PNG") else encode_png(image)
