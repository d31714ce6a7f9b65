import pytest

from tasks.errors import CatalogError
from tasks.lineage.marks import MARK_COLUMNS, Candidate, describe_withdrawn, read_marks, refuse_withdrawn

SHA = "a" * 64


@pytest.fixture
def root(tmp_path):
    (tmp_path / "catalog/one").mkdir(parents=True)
    (tmp_path / "catalog/one/withdrawn.csv").write_text(
        f'{",".join(MARK_COLUMNS)}\nkick,youtube:aaaaaaaaaaa,CC0,{SHA},2026-11-26,"asked for, by letter"\n'
    )
    return tmp_path


@pytest.mark.parametrize(
    ("batch", "candidate", "what"),
    [
        ("two", Candidate("other", "youtube:aaaaaaaaaaa"), "its source youtube:aaaaaaaaaaa"),
        ("two", Candidate("other", "https://youtu.be/aaaaaaaaaaa"), "its source https://youtu.be/aaaaaaaaaaa"),
        ("two", Candidate("other", "file:elsewhere.mp4", SHA), "the same file"),
        ("one", Candidate("kick", "file:elsewhere.mp4"), "this id"),
    ],
)
def test_a_withdrawn_video_is_refused_by_source_bytes_and_id(root, batch, candidate, what):
    with pytest.raises(CatalogError) as caught:
        refuse_withdrawn(root, batch, [Candidate("fine", "file:fine.mp4", "b" * 64), candidate])
    assert str(caught.value) == (
        f"catalog/{batch}/videos.csv: {candidate.video}: {what} was withdrawn on 2026-11-26 as one/kick (asked for, by"
        " letter); leave it out, or, if it may come back, delete its rows in catalog/one/withdrawn.csv and"
        " lineage/withdrawn.csv first"
    )


def test_an_id_may_stand_in_another_batch_and_a_deleted_row_overrules(root):
    assert describe_withdrawn(root, "two", [Candidate("kick", "file:elsewhere.mp4")]) == []
    (root / "catalog/one/withdrawn.csv").write_text(",".join(MARK_COLUMNS) + "\n")
    refuse_withdrawn(root, "one", [Candidate("kick", "youtube:aaaaaaaaaaa", SHA)])


def test_a_damaged_list_of_marks_lets_nothing_through(root):
    with (root / "catalog/one/withdrawn.csv").open("a") as file:
        file.write("kick2,youtube:bbbbbbbbbbb\n")
    with pytest.raises(CatalogError, match=r"catalog/one/withdrawn.csv: 1 rows have another number of cells"):
        read_marks(root)
