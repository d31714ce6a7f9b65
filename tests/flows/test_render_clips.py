"""Which clips a render takes."""

from types import SimpleNamespace

import pyarrow as pa
import pytest

from flows.stages.render import choose_clips
from tasks.errors import ParamsError
from tasks.tables import CLIP_SCHEMA, list_tables, write_table


def choose(folder, split, videos):
    wanted = SimpleNamespace(split=split, videos=videos)
    stage = SimpleNamespace(item="one", params=SimpleNamespace(renders={"one": wanted}))
    return list(choose_clips(stage, list_tables(folder)))


def test_a_render_takes_the_clips_of_its_split_and_videos(tmp_path):
    for clip, video, split in (("a", "v", "test"), ("b", "w", "test"), ("c", "w", "train")):
        empty = pa.Table.from_pylist([], CLIP_SCHEMA)
        write_table("clip", tmp_path / f"{clip}.parquet", [empty], {"clip": clip, "video": video, "split": split})
    assert choose(tmp_path, "test", []) == ["a", "b"]
    assert choose(tmp_path, "test", ["w"]) == ["b"]
    with pytest.raises(ParamsError, match=r"renders.one.videos: v has no clip of split train; those with one: w"):
        choose(tmp_path, "train", ["v"])
