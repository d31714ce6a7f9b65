import json
from pathlib import Path

from flows.lineage.cost import cost, show_cost
from tests.dvc_project import object_of

A, OLD_B, B, C = "clip a\n" * 20, "clip b\n" * 20, "clip b, another\n" * 20, "clip c\n" * 20


def list_bytes(names: int) -> int:
    """Of a folder's list as DVC writes it: 63 bytes a file x.txt, two between files, two around them."""
    return 63 * names + 2 * (names - 1) + 2


def test_bytes_are_counted_a_dataset_and_revision_what_versions_share_once(project: Path) -> None:
    answer = cost(project)
    clips = next(row for row in answer.datasets if row.path == "data/clips")
    now, old = len(A + B + C) + list_bytes(3), len(A + OLD_B) + list_bytes(2)
    assert (clips.now, clips.versions) == (now, 2)
    assert clips.all == clips.own == now + len(OLD_B) + list_bytes(2)
    raw = sum(row.now for row in answer.datasets if row.path.startswith("data/raw"))
    assert [row.num_bytes - raw for row in answer.revisions] == [now, now, old]
    assert answer.revisions[-1].new == old + raw
    assert answer.revisions[-2].new == now - len(A)
    assert answer.revisions[0].new == 0


def test_an_object_that_nobody_refers_to_is_an_orphan(project: Path) -> None:
    assert all(row.objects == 0 for row in cost(project).orphans)
    lost = object_of(project, "nobody's\n", "store")
    lost.parent.mkdir(parents=True, exist_ok=True)
    lost.write_text("nobody's\n")
    row = next(row for row in cost(project).orphans if row.place == "store")
    assert (row.objects, row.num_bytes) == (1, 9)
    assert "nobody's" in show_cost(cost(project))


def test_the_time_of_each_stage_is_that_of_the_record(project: Path) -> None:
    lines = [
        {"stage": "copy", "event": "ran", "outs": {"a": "1"}, "seconds": 2.5},
        {"stage": "copy", "event": "ran", "outs": {"a": "2"}, "seconds": 4.0},
        {"stage": "copy", "event": "restored", "outs": {"a": "1"}},
    ]
    (project / "lineage").mkdir()
    (project / "lineage/runs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "{half\n")
    answer = cost(project)
    assert answer.stages[0] == ("copy", 2, 1, 6.5, 4.0)
    assert any("line 4" in line for line in answer.open)
