"""Backgrounds that were imported (tasks/imports): those that a clip needs, taken out of the import's table."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from models.renderer.sizes import resize_picture
from tasks.background import BackgroundSpec, Wanted, background_rows, count_keys, runs_of_keys, wanted_pictures
from tasks.errors import TableError
from tasks.tables import Table, decode_png, encode_png, write_table


def imported_table(source: Path, clip: str) -> list[Path]:
    """The file that a clip's backgrounds are in; [] where it is not there."""
    path = source / f"{clip}.parquet"
    return [path] if path.is_file() else []


def write_imported(clip_path: Path, source: Path, key_step: int, folder: Path) -> None:
    """CLIP.parquet from the import's pictures, brought to the clip's size.

    Where the import has no picture at all of one use, neither has the clip.

    Raises: TableError where it was made for another key step, or lacks a frame.
    """
    clip = Table("clip", clip_path)
    name, height, width = clip.metadata["clip"], int(clip.metadata["height"]), int(clip.metadata["width"])
    given = Table("background", source / f"{name}.parquet")
    if given.metadata.get("key_step") != str(key_step):
        raise TableError(
            f"{given.path}: its pictures are of key step {given.metadata.get('key_step')}, not {key_step}: others would"
            " show hidden frames; name it for that key step, or make these by flow"
        )
    uses = given.column("use")
    row_of = {(int(frame), str(use)): row for row, (frame, use) in enumerate(zip(given.frames, uses, strict=True))}
    there = {str(use) for use in np.unique(uses)}
    num_keys = count_keys(clip.num_rows, key_step)
    frames = clip.frames

    def chunks() -> Iterator[pa.Table]:
        for first, last in runs_of_keys(num_keys, key_step, height, width):
            spec = BackgroundSpec(clip_path, key_step, first, last, num_keys, "imported")
            rows: list[tuple[Wanted, bytes]] = []
            for wanted in wanted_pictures(spec):
                if wanted.use not in there:
                    continue
                frame = int(frames[wanted.row])
                if (frame, wanted.use) not in row_of:
                    raise TableError(
                        f"{given.path}: lacks the {wanted.use} picture of frame {frame}; import it with --batch, which"
                        " gives its rows the frame numbers of the catalogue"
                    )
                rows.append((wanted, _fit(given.read_picture(row_of[frame, wanted.use]), height, width)))
            yield background_rows(clip, rows)

    metadata = {key: clip.metadata[key] for key in ("clip", "batch", "video", "source_sha256")}
    metadata |= {"key_step": str(key_step), "interpolator": given.metadata.get("interpolator", "imported")}
    write_table("background", folder / f"{name}.parquet", chunks(), metadata)


def _fit(data: bytes, height: int, width: int) -> bytes:
    image = decode_png(data)
    return data if image.shape[:2] == (height, width) else encode_png(resize_picture(image, height, width))
