"""Small JPEG pictures of clips, from their tables wherever DVC has them."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

LONGEST_PX = 112
_SHARES = (1.0, 0.75, 0.55, 0.4)  # of LONGEST_PX, tried until a picture is small enough
_QUALITY = 60
MAX_BYTES = 4_500  # of one picture; more would show no more


class Thumbnail(NamedTuple):
    jpeg: bytes
    width: int
    height: int


def draw_thumbnails(
    tables: Mapping[int, Path], budget: int, threads: int, on_done: Callable[[], None] = lambda: None
) -> dict[int, Thumbnail]:
    """A JPEG for each clip that can be read.

    Args: tables: number -> a clip's table.  budget: bytes of all pictures together; each has the same share of it, and
    what does not fit into its share, even small, is left out.  on_done: called once a table.
    """
    if not tables:
        return {}
    share = min(MAX_BYTES, budget // len(tables))

    def draw(file: Path) -> Thumbnail | None:
        picture = draw_thumbnail(file, share)
        on_done()
        return picture

    with ThreadPoolExecutor(threads) as pool:
        drawn = zip(tables, pool.map(draw, tables.values()), strict=True)
        return {number: picture for number, picture in drawn if picture}


def draw_thumbnail(file: Path, max_bytes: int) -> Thumbnail | None:
    """A frame of a clip; None where its table has none, cannot be read, or is larger however small it is drawn."""
    import cv2

    from tasks.errors import TableError
    from tasks.tables import decode_png

    try:
        data = _read_frame(file)
        image = decode_png(data) if data else None
    except (TableError, cv2.error):
        return None
    if image is None:
        return None
    height, width = image.shape[:2]
    for share in _SHARES:
        scale = min(1.0, LONGEST_PX * share / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        is_done, encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        if is_done and len(encoded) <= max_bytes:
            return Thumbnail(encoded.tobytes(), *size)
    return None


def _read_frame(file: Path) -> bytes:
    """The PNG of the first frame of the row group in the middle: of a group, its first pages alone are read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            if not table.metadata.num_rows or "image" not in table.schema_arrow.names:
                return b""
            groups = [table.num_row_groups // 2]
            batches: Iterable[pa.RecordBatch] = table.iter_batches(1, row_groups=groups, columns=["image"])
            for batch in batches:
                return bytes(batch.column(0)[0].as_py()["bytes"] or b"")
    except (OSError, pa.ArrowException, TypeError, KeyError):
        return b""
    return b""
