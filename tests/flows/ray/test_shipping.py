"""What a group of items names on disk is found, and stands at the same place below another machine's folder."""

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from flows.ray.shipping import Shipper, localise, map_leaves, place_of
from tasks.items import Item


class Pair(NamedTuple):
    left: Path
    right: int


@dataclass(frozen=True)
class Spec:
    clip: Path
    model: str
    method: str
    pairs: tuple[Pair, ...] = ()


def work(items, ffmpeg, work_dir):
    raise NotImplementedError


@pytest.fixture
def root(tmp_path) -> Path:
    root = tmp_path / "project"
    for name in ("data/a.parquet", "data/model/weights", "data/model/config.json", "flow/x", "data/model/.hidden"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "tool").write_text("#!")
    (tmp_path / "tool").chmod(0o755)
    return root


def test_a_path_stands_at_its_place_below_the_project_or_apart(root):
    assert place_of("data/a.parquet", root) == "data/a.parquet"
    assert place_of(root / "data/../data/a.parquet", root) == "data/a.parquet"
    assert place_of("/opt/body/model.npz", root) == ".outside/opt/body/model.npz"
    assert place_of("../tool", root) == f".outside{root.parent}/tool"


def test_files_folders_and_programs_are_found_and_words_that_happen_to_be_folders_are_not(root):
    spec = Spec(Path("data/a.parquet"), "data/model", "flow", (Pair(Path("data/missing"), 1),))
    ffmpeg = str(root.parent / "tool")
    shipment = Shipper(root).pack(partial(work, ffmpeg=ffmpeg, work_dir=root / "scratch"), [Item("a", "k", spec)])
    assert {file.place for file in shipment.files} == {
        "data/a.parquet",
        "data/model/weights",
        "data/model/config.json",
        f".outside{ffmpeg}",
    }
    by_place = {file.place: file for file in shipment.files}
    assert by_place["data/a.parquet"].sha256 == hashlib.sha256(b"data/a.parquet").hexdigest()
    assert by_place["data/a.parquet"].size == len("data/a.parquet")
    assert [file.place for file in shipment.files if file.is_executable] == [f".outside{ffmpeg}"]
    assert shipment.words == {"data/model", ffmpeg}


def test_a_path_that_holds_the_project_is_not_shipped(root):
    assert Shipper(root).pack(print, [Item("a", "k", (Path(), root.parent, Path("/")))]).files == ()


def test_relative_paths_stay_and_absolute_ones_move(root):
    there = Path("/node/job")
    ffmpeg = str(root.parent / "tool")
    moved = localise(partial(work, ffmpeg=ffmpeg, work_dir=root / "scratch"), frozenset([ffmpeg]), root, there)
    assert moved.func is work
    assert moved.keywords == {"ffmpeg": f"/node/job/.outside{ffmpeg}", "work_dir": Path("/node/job/scratch")}
    spec = Spec(Path("data/a.parquet"), "data/model", "flow", (Pair(Path("../tool"), 1),))
    found = localise(spec, frozenset(["data/model"]), root, there)
    assert found == Spec(
        Path("data/a.parquet"), "data/model", "flow", (Pair(Path(f"/node/job/.outside{root.parent}/tool"), 1),)
    )


def test_structure_is_kept():
    value = {"a": [1, (2, Pair(Path("x"), 3))], "b": partial(max, 4, key=abs)}
    doubled = map_leaves(value, lambda leaf: leaf * 2 if isinstance(leaf, int) else leaf)
    assert doubled["a"] == [2, (4, Pair(Path("x"), 6))]
    assert (doubled["b"].args, doubled["b"].keywords) == ((8,), {"key": abs})
