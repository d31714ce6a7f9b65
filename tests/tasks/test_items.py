import shutil
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from tasks.items import Item, ItemStore, do_group, each, group_items, identify, item_key


def make_item(name: str, group: str = "") -> Item:
    return Item(name, item_key("stage", name), name, group)


def double(args: str) -> pa.Table:
    return pa.table({"text": [args * 2]})


def test_an_item_is_kept_under_its_key_and_comes_back(tmp_path):
    store = ItemStore(tmp_path)
    items = [make_item("a"), make_item("b")]
    record = do_group(partial(each, double), items, store)
    assert record.num_items == 2
    assert store.get(items[1].key)["text"].to_pylist() == ["bb"]
    assert store.has(items[0].key)


def test_a_fresh_store_uses_nothing_that_is_there(tmp_path):
    item = make_item("a")
    do_group(partial(each, double), [item], ItemStore(tmp_path))
    assert not ItemStore(tmp_path, is_fresh=True).has(item.key)


def test_items_finished_before_an_error_are_kept_whole(tmp_path):
    def work(items):
        yield 0, double("a")
        raise OSError("disk full")

    store = ItemStore(tmp_path)
    items = [make_item("a"), make_item("b")]
    with pytest.raises(OSError, match="disk full"):
        do_group(work, items, store)
    assert store.has(items[0].key)
    assert not store.has(items[1].key)
    assert not list(tmp_path.rglob("*.tmp"))


def test_work_that_forgets_an_item_is_a_fault(tmp_path):
    with pytest.raises(RuntimeError, match="no output for b"):
        do_group(lambda items: iter([(0, double("a"))]), [make_item("a"), make_item("b")], ItemStore(tmp_path))


def test_the_key_depends_on_every_part_and_on_nothing_else():
    assert item_key("s", {"a": 1, "b": 2}, [1.5]) == item_key("s", {"b": 2, "a": 1}, [1.5])
    assert len({item_key("s", 1), item_key("s", 2), item_key("t", 1), item_key("s", [1])}) == 4


def test_groups_keep_named_company_and_stay_few():
    items = [make_item(str(i), group="v" if i % 3 == 0 else "") for i in range(3000)]
    groups = group_items(items, num_workers=100)
    assert [len(groups[0]), len(groups)] == [1000, 201]
    assert sorted(int(i.name) for g in groups for i in g) == list(range(3000))
    assert group_items([], 2) == []
    assert [len(g) for g in group_items(items[1:3], 2)] == [1, 1]


def write_pair(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.txt").write_text("one")
    (folder / "b.txt").write_text("two")


def test_an_output_is_kept_whole_and_linked_read_only(tmp_path):
    store = ItemStore(tmp_path / "store")
    assert not store.has_output("key")
    store.put_output("key", write_pair)
    assert store.has_output("key")
    assert not ItemStore(tmp_path / "store", is_fresh=True).has_output("key")
    (tmp_path / "out").mkdir()
    md5s = store.link_output("key", tmp_path / "out")
    assert (tmp_path / "out/b.txt").read_text() == "two"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.txt", "b.txt"]
    assert md5s[identify(tmp_path / "out/b.txt")] == "b8a9f715dbb64fd5c56e7783c6820a61"  # printf two | md5sum
    assert (tmp_path / "out/a.txt").stat().st_mode & 0o222 == 0
    store.put_output("key", write_pair)  # a rebuild from nothing replaces it


def test_an_output_whose_file_was_changed_through_a_link_is_none(tmp_path):
    store = ItemStore(tmp_path / "store")
    store.put_output("key", write_pair)
    (tmp_path / "out").mkdir()
    store.link_output("key", tmp_path / "out")
    path = tmp_path / "out/a.txt"
    path.chmod(0o644)
    path.write_text("ONE")
    assert not store.has_output("key")
    store.put_output("key", write_pair)
    assert store.has_output("key")
    assert path.read_text() == "ONE"


def test_a_store_may_be_moved_to_another_disk(tmp_path):
    ItemStore(tmp_path / "store").put_output("key", write_pair)
    shutil.copytree(tmp_path / "store", tmp_path / "moved", copy_function=shutil.copyfile)  # other inodes and times
    assert ItemStore(tmp_path / "moved").has_output("key")


def test_an_output_that_fails_half_way_leaves_nothing(tmp_path):
    def write(folder: Path) -> None:
        write_pair(folder)
        raise OSError("disk full")

    store = ItemStore(tmp_path)
    with pytest.raises(OSError, match="disk full"):
        store.put_output("key", write)
    assert not store.has_output("key")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
