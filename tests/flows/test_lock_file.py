"""dvc.lock updated entry by entry has the bytes that DVC's own writer gives it."""

import shutil
from collections import OrderedDict

import pytest
from dvc.utils.serialize import modify_yaml, parse_yaml

from flows.lock_file import modify_lock
from tests.sandbox import ROOT


def update(writer, path, change) -> bytes:
    """The calls that dvc.dvcfile.Lockfile.dump_stages makes."""
    with writer(str(path)) as data:
        if not data:
            data.update({"schema": "2.0"})
        data["stages"] = data.get("stages", {})
        data["stages"].update(change)
    return path.read_bytes()


@pytest.fixture
def locks(tmp_path):
    """Two copies of the project's own dvc.lock, and its entries."""
    paths = [tmp_path / name / "dvc.lock" for name in ("ours", "dvcs")]
    for path in paths:
        path.parent.mkdir()
        shutil.copyfile(ROOT / "dvc.lock", path)
    return *paths, parse_yaml((ROOT / "dvc.lock").read_text(), "dvc.lock")["stages"]


def test_every_entry_written_again_changed_and_new_is_dvcs_to_the_byte(locks):
    ours, dvcs, entries = locks
    before = ours.read_bytes()
    assert update(modify_lock, ours, entries) == before
    changed = {
        name: OrderedDict({**entry, "cmd": f"{entry['cmd']} --of {'words ' * 30}"})
        for name, entry in list(entries.items())[1::3]
    }
    values = {"x": None, "y": [1.5, "no", True, "1e3", "\u00e9"], "z": {}}
    new = {"render@new-1.5": {"cmd": "a", "params": {"p.yaml": values}}}
    for change in (changed, new, {"split@plain": {"cmd": ["a", "b"], "outs": []}}):
        assert update(modify_lock, ours, change) == update(modify_yaml, dvcs, change)
    with modify_lock(ours) as mine, modify_yaml(str(dvcs)) as theirs:
        for name in (*entries, *changed, "split@plain", "nobody"):
            assert mine["stages"].get(name, {}) == theirs["stages"].get(name, {})


@pytest.mark.parametrize(
    "text", ["", "schema: '2.0'\nstages: {}\n", "schema: '2.0'\nstages:\n  a:\n    cmd: b\ndatasets: []\n"]
)
def test_file_of_another_form_is_left_to_dvc(locks, text):
    ours, dvcs, _ = locks
    for path in (ours, dvcs):
        path.write_text(text)
        if not text:
            path.unlink()
    change = {"split@a": {"cmd": "b"}}
    assert update(modify_lock, ours, change) == update(modify_yaml, dvcs, change)


def test_update_that_fails_leaves_the_file(locks):
    ours, _, _ = locks
    before = ours.read_bytes()
    with pytest.raises(AttributeError):
        update(modify_lock, ours, "no entries")
    assert ours.read_bytes() == before
    assert [path.name for path in ours.parent.iterdir()] == ["dvc.lock"]
