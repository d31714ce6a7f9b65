from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.errors import TableError
from tasks.tables import (
    CLIP_SCHEMA,
    POSE_SCHEMA,
    Table,
    decode_png,
    encode_png,
    frames_per_chunk,
    hash_rows,
    picture_column,
    write_table,
)

FACTS = {"clip": "c", "fps": "60"}


def picture(frame: int) -> np.ndarray:
    return np.full((4, 6, 3), frame, np.uint8)


def chunk(*frames: int) -> pa.Table:
    columns = [
        pa.array(frames, pa.int32()),
        pa.array([f / 60 for f in frames]),
        picture_column((encode_png(picture(f)) for f in frames), (f"{f}.png" for f in frames)),
    ]
    return pa.Table.from_arrays(columns, schema=CLIP_SCHEMA)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "c.parquet"
    write_table("clip", path, iter([chunk(0, 1, 2), chunk(3, 4)]), FACTS)
    return path


def test_rows_and_facts_come_back_across_row_groups(path):
    table = Table("clip", path)
    assert table.metadata == FACTS
    assert table.frames.tolist() == [0, 1, 2, 3, 4]
    for row in (4, 0, 2, 3, 1):
        np.testing.assert_array_equal(table.read_image(row), picture(row))
    assert table.read_chunk(1, 4)["frame"].to_pylist() == [1, 2, 3]
    assert pq.ParquetFile(path).num_row_groups == 2


def test_all_but_encoded_pictures_is_compressed(path, tmp_path):
    def codecs(path):
        group = pq.ParquetFile(path).metadata.row_group(0)
        columns = (group.column(index) for index in range(group.num_columns))
        return {column.path_in_schema: (column.compression, column.encodings[-1]) for column in columns}

    assert codecs(path) == {
        "frame": ("ZSTD", "PLAIN"),
        "time": ("ZSTD", "PLAIN"),
        "image.bytes": ("UNCOMPRESSED", "PLAIN"),
        "image.path": ("ZSTD", "PLAIN"),
    }
    row = {"frame": 0, "pass": "truth", "joints": [0.5] * 57, "keypoints": [0.25], "matte": b"png"}
    write_table("pose", tmp_path / "p.parquet", [pa.Table.from_pylist([row], schema=POSE_SCHEMA)], {})
    found = codecs(tmp_path / "p.parquet")
    assert found["joints.list.element"] == found["keypoints.list.element"] == ("ZSTD", "BYTE_STREAM_SPLIT")
    assert found["matte"] == ("ZSTD", "PLAIN")


def test_pictures_are_lossless():
    image = np.random.default_rng(0).integers(0, 256, (31, 17, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode_png(encode_png(image)), image)
    np.testing.assert_array_equal(decode_png(encode_png(image[..., 0]), grey=True), image[..., 0])


def test_same_rows_give_the_same_bytes(path, tmp_path):
    write_table("clip", tmp_path / "again.parquet", iter([chunk(0, 1, 2), chunk(3, 4)]), dict(reversed(FACTS.items())))
    assert (tmp_path / "again.parquet").read_bytes() == path.read_bytes()


def test_pandas_and_datasets_read_it_without_our_code(path):
    assert pd.read_parquet(path)["frame"].tolist() == [0, 1, 2, 3, 4]
    rows = datasets.Dataset.from_parquet(str(path), cache_dir=str(path.parent / "cache"))
    assert isinstance(rows.features["image"], datasets.Image)
    np.testing.assert_array_equal(np.asarray(rows[3]["image"]), picture(3)[..., ::-1])


def test_a_failed_write_leaves_the_old_table_and_no_rest(path):
    old = path.read_bytes()

    def chunks():
        yield chunk(9)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_table("clip", path, chunks(), FACTS)
    assert path.read_bytes() == old
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_missing_damaged_and_foreign_tables_are_named(path, tmp_path):
    with pytest.raises(TableError, match=r"none.parquet: there is no such table"):
        Table("clip", tmp_path / "none.parquet")
    with pytest.raises(TableError, match=r"holds clip, where a pose table is needed"):
        Table("pose", path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(TableError, match=r"c.parquet: not a readable parquet file"):
        Table("clip", path)
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "foreign.parquet")
    with pytest.raises(TableError, match=r"holds no table of ours"):
        Table("clip", tmp_path / "foreign.parquet")


def test_row_hash_sees_the_rows_asked_for_and_no_others(path, tmp_path):
    other = tmp_path / "other.parquet"
    write_table("clip", other, iter([chunk(0, 1, 2), chunk(3, 7)]), FACTS)
    first, second = Table("clip", path), Table("clip", other)
    columns = ("frame", "image")
    assert hash_rows(first, [0, 2], columns) == hash_rows(second, [0, 2], columns)
    assert hash_rows(first, [0, 4], columns) != hash_rows(second, [0, 4], columns)


def test_chunks_are_bounded_by_frames_and_by_bytes():
    assert frames_per_chunk(64, 64) == 256
    assert frames_per_chunk(1080, 1920) == 64 * 2**20 // (1080 * 1920 * 3)
    assert frames_per_chunk(100_000, 100_000) == 1
