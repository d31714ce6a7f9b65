import hashlib
import json
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from models.body import compute_joints, load_body, write_stand_in_body, write_stand_in_dmpls
from tasks import joints as joints_module
from tasks import joints_plan as plan_module
from tasks.errors import SourceError
from tasks.items import Item, ItemStore, do_group, group_items, item_key
from tasks.joints import compute_items, read_rejects, write_rejects, write_shard
from tasks.joints_plan import MAX_SHARD_BYTES, Settings, Subset, check_rejects, plan_subset
from tasks.mocap import GENDERS, Reason, Reject
from tasks.tables import Table
from tests.models.test_body import mesh_joints
from tests.tasks.amass_files import amass_arrays, positions, write_amass, write_positions

OWN = Settings("own", soft_tissue=True, trim_share=0.0, min_frames=33)


@pytest.fixture(scope="module")
def bodies(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bodies")
    for number, gender in enumerate(GENDERS):
        write_stand_in_body(folder / f"smplh/{gender}/model.npz", number, scale=0.9 + 0.1 * number)
        write_stand_in_dmpls(folder / f"dmpls/{gender}/model.npz", 10 + number)
    return folder


class Run:
    """The stage's work without the stage: plan, compute, write into a folder."""

    def __init__(self, folder: Path, bodies: Path, out: Path, settings=OWN, **subset):
        given = {"name": "set", "kind": "amass", "folder": folder, "licence": "CC0", "only": [], "without": []}
        self.subset = Subset(**given | subset)
        self.plan = plan_subset(self.subset, bodies, settings, partial(item_key, "joints"), 2)
        self.store, self.folder = ItemStore(out / "items"), out / "joints"
        self.items = list({item.key: item for shard in self.plan.shards for item in shard.items}.values())
        for group in group_items(self.items, 2):
            do_group(compute_items, group, self.store)
        for shard in self.plan.shards:
            write_shard(shard, self.store, self.folder)
        self.rejects = self.plan.rejects + read_rejects([self.folder])

    def rows(self) -> list[dict]:
        found = []
        for path in sorted(self.folder.glob("*.parquet")):
            table = Table("joints", path)
            found += table.read_chunk(0, table.num_rows).to_pylist()
        for row in found:
            row["joints"] = np.array(row["joints"], np.float32).reshape(row["num_frames"], 52, 3)
        return found

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.folder.iterdir())}


@pytest.mark.parametrize("with_dmpls", [False, True])
def test_every_genders_joints_are_the_mesh_routes_on_a_body_of_smpl_hs_size(tmp_path, with_dmpls):
    for number, gender in enumerate(GENDERS):
        model = tmp_path / f"bodies/smplh/{gender}/model.npz"
        write_stand_in_body(model, number, num_vertices=6890, scale=0.9 + 0.1 * number)
        write_stand_in_dmpls(tmp_path / f"bodies/dmpls/{gender}/model.npz", 10 + number, num_vertices=6890)
        write_amass(
            tmp_path / f"set/{gender}/a_poses.npz", num_frames=40, seed=number, gender=gender, fps=60.0,
            num_dmpls=8, num_betas=16 if number else 10,
        )  # fmt: skip
    settings = Settings("own", soft_tissue=with_dmpls, trim_share=0.0, min_frames=33)
    rows = Run(tmp_path / "set", tmp_path / "bodies", tmp_path, settings).rows()
    assert [row["subject"] for row in rows] == [f"set/{gender}" for gender in sorted(GENDERS)]
    for row in rows:
        gender = row["subject"].removeprefix("set/")
        number = GENDERS.index(gender)
        arrays = amass_arrays(40, number, num_dmpls=8, num_betas=16 if number else 10)
        mesh = mesh_joints(
            tmp_path / f"bodies/smplh/{gender}/model.npz", arrays["poses"], arrays["trans"], arrays["betas"],
            arrays["dmpls"] if with_dmpls else None, tmp_path / f"bodies/dmpls/{gender}/model.npz",
        )  # fmt: skip
        np.testing.assert_allclose(row["joints"], mesh, atol=1e-5, rtol=0)


def test_a_row_says_where_it_comes_from(tmp_path, bodies):
    write_amass(tmp_path / "CMU/01/walk_poses.npz", num_frames=200, fps=120.0)
    write_amass(tmp_path / "CMU/01/run_stageii.npz", num_frames=90)
    np.savez(tmp_path / "CMU/01/shape.npz", betas=np.zeros(16))
    run = Run(tmp_path / "CMU", bodies, tmp_path, licence="research only")
    assert [path.name for path in sorted(run.folder.iterdir())] == ["CMU_01-000.parquet"]
    rows = run.rows()
    facts = [(r["subset"], r["subject"], r["sequence"], r["licence"], r["fps"], r["num_frames"]) for r in rows]
    assert facts == [
        ("set", "CMU/01", "run_stageii", "research only", 60.0, 90),
        ("set", "CMU/01", "walk_poses", "research only", 60.0, 100),
    ]
    assert rows[1]["source_sha256"] == hashlib.sha256((tmp_path / "CMU/01/walk_poses.npz").read_bytes()).hexdigest()
    assert run.plan.notes[0] == "1 files are no motions and left out, the first 01/shape.npz"
    assert run.rejects == []


def test_a_faster_capture_is_trimmed_and_taken_to_sixty_frames(tmp_path, bodies):
    arrays = write_amass(tmp_path / "set/s/a_poses.npz", num_frames=400, fps=120.0)
    settings = Settings("male", soft_tissue=False, trim_share=0.1, min_frames=33)
    (row,) = Run(tmp_path / "set", bodies, tmp_path, settings).rows()
    body = load_body(bodies / "smplh/male/model.npz")
    every = compute_joints(body, arrays["poses"], arrays["trans"], arrays["betas"])
    np.testing.assert_array_equal(row["joints"], every[40:360:2])


def test_one_gender_for_all_needs_no_gender_in_the_files(tmp_path, bodies):
    write_amass(tmp_path / "set/s/a_poses.npz", drop=["gender"])
    settings = Settings("male", soft_tissue=True, trim_share=0.0, min_frames=33)
    assert len(Run(tmp_path / "set", bodies, tmp_path / "one", settings).rows()) == 1
    own = Run(tmp_path / "set", bodies, tmp_path / "own")
    assert own.rejects == [
        Reject("s/a_poses.npz", Reason.MISSING_KEY, "lacks gender, which joints.gender: own asks for")
    ]


def test_without_dmpl_files_the_motion_goes_without_and_it_is_said(tmp_path, bodies):
    write_amass(tmp_path / "set/s/a_poses.npz", num_dmpls=8)
    write_amass(tmp_path / "set/s/b_poses.npz")
    with_files = Run(tmp_path / "set", bodies, tmp_path / "with")
    assert with_files.plan.notes == ["soft tissue moves 1 of 2 motions (1 have DMPLs)"]
    few = tmp_path / "few/smplh/female/model.npz"
    few.parent.mkdir(parents=True)
    few.write_bytes((bodies / "smplh/female/model.npz").read_bytes())
    without = Run(tmp_path / "set", tmp_path / "few", tmp_path / "without")
    assert without.plan.notes == ["soft tissue moves 0 of 2 motions (1 have DMPLs; no body_models/dmpls for female)"]
    moved = np.abs(with_files.rows()[0]["joints"] - without.rows()[0]["joints"]).max()
    assert 1e-4 < moved < 0.1
    np.testing.assert_array_equal(with_files.rows()[1]["joints"], without.rows()[1]["joints"])


def test_a_missing_or_wrong_body_is_named_before_any_work(tmp_path, bodies):
    write_amass(tmp_path / "set/s/a_poses.npz", num_dmpls=8)
    with pytest.raises(
        SourceError, match=r"none/smplh/female/model.npz: is not there, and motions ask for it"
    ) as error:
        Run(tmp_path / "set", tmp_path / "none", tmp_path)
    assert "mano.is.tue.mpg.de" in str(error.value)
    wrong = tmp_path / "wrong"
    write_stand_in_body(wrong / "smplh/female/model.npz", 0)
    write_stand_in_dmpls(wrong / "dmpls/female/model.npz", 0, num_vertices=300)
    with pytest.raises(SourceError, match=r"eigvec is \(300, 3, 8\); \(208, 3, 8\) is needed"):
        Run(tmp_path / "set", wrong, tmp_path)
    (wrong / "smplh/female/model.npz").write_bytes(b"no archive")
    with pytest.raises(SourceError, match=r"smplh/female/model.npz.*not a zip file"):
        Run(tmp_path / "set", wrong, tmp_path)


def test_bad_motions_are_rejected_and_the_rest_goes_on(tmp_path, bodies):
    write_amass(tmp_path / "set/s/good_poses.npz")
    write_amass(tmp_path / "set/s/short_poses.npz", num_frames=32)
    arrays = amass_arrays()
    arrays["poses"][77, 5] = np.nan
    write_amass(tmp_path / "set/s/nan_poses.npz", change=arrays)
    (tmp_path / "set/s/cut_poses.npz").write_bytes((tmp_path / "set/s/good_poses.npz").read_bytes()[:5000])
    run = Run(tmp_path / "set", bodies, tmp_path)
    assert [row["sequence"] for row in run.rows()] == ["good_poses"]
    write_rejects(run.folder, run.rejects)
    assert json.loads((run.folder / "rejects.json").read_text()) == [
        {"file": "s/cut_poses.npz", "reason": "unreadable", "detail": "File is not a zip file"},
        {"file": "s/nan_poses.npz", "reason": "not_finite", "detail": "poses: row 77 is not finite"},
        {
            "file": "s/short_poses.npz",
            "reason": "too_short",
            "detail": "32 frames at 60 fps after trimming; joints.min_frames is 33",
        },
    ]
    assert sorted(run.files()) == ["rejects.json", "set_s-000.parquet"]
    line = check_rejects(run.subset, run.rejects, run.plan.num_motions, 0.75)
    assert line == "3 of 4 motions are rejected, the first s/cut_poses.npz: unreadable (File is not a zip file)"
    with pytest.raises(SourceError, match=r"3 of 4 motions are rejected.*raise joints.max_reject_share \(0.74\)"):
        check_rejects(run.subset, run.rejects, run.plan.num_motions, 0.74)


def test_nothing_left_is_a_failure_whatever_the_share(tmp_path, bodies):
    write_amass(tmp_path / "set/s/a_poses.npz", num_frames=10)
    run = Run(tmp_path / "set", bodies, tmp_path)
    with pytest.raises(SourceError, match=r"not one motion can be used \(1 rejected; the first, s/a_poses.npz: 10 fr"):
        check_rejects(run.subset, run.rejects, run.plan.num_motions, 1.0)


def test_a_changed_file_changes_only_its_shard(tmp_path, bodies, monkeypatch):
    for subject in ("a", "b"):
        for number in range(4):
            write_amass(tmp_path / f"set/{subject}/{number}_poses.npz", num_frames=50, seed=number)
    # Two sequences of 50 frames a shard.
    monkeypatch.setattr(plan_module, "MAX_SEQUENCE_FRAMES", 100)
    before = Run(tmp_path / "set", bodies, tmp_path / "before").files()
    assert list(before) == [f"set_{subject}-00{n}.parquet" for subject in "ab" for n in (0, 1)]
    write_amass(tmp_path / "set/b/3_poses.npz", num_frames=50, seed=9)
    after = Run(tmp_path / "set", bodies, tmp_path / "after").files()
    assert {name for name in after if after[name] != before.get(name)} == {"set_b-001.parquet"}


def test_a_shard_holds_at_most_64_mb_of_joints(tmp_path, bodies):
    for number in range(3):  # 26 MB of joints each: two a shard
        write_amass(tmp_path / f"set/s/{number}_poses.npz", change={
            "poses": np.zeros((42_000, 156), np.float16), "trans": np.zeros((42_000, 3), np.float16),
        })  # fmt: skip
    subset = Subset("set", "amass", tmp_path / "set", "CC0", [], [])
    plan = plan_subset(subset, bodies, OWN, partial(item_key, "joints"))
    sizes = [sum(s.num_frames for s in shard.sequences) * 52 * 3 * 4 for shard in plan.shards]
    assert sizes == [2 * 42_000 * 624, 42_000 * 624]
    assert max(sizes) <= MAX_SHARD_BYTES
    pieces = plan.shards[1].sequences[0].pieces
    assert [piece.item.name for piece in pieces][:2] == ["s/2_poses.npz 0-6999", "s/2_poses.npz 7000-13999"]
    assert len(pieces) == 6


@pytest.mark.parametrize("fps", [60.0, 100.0, 120.00004577636719])
def test_a_recording_in_many_items_is_one_row_without_a_seam(tmp_path, bodies, monkeypatch, fps):
    write_amass(tmp_path / "set/s/a_poses.npz", num_frames=700, fps=fps, num_dmpls=8)
    (whole,) = Run(tmp_path / "set", bodies, tmp_path / "whole").rows()
    monkeypatch.setattr(plan_module, "ITEM_FRAMES", 40)
    run = Run(tmp_path / "set", bodies, tmp_path / "cut")
    assert len(run.items) == -(-whole["num_frames"] // 40)
    np.testing.assert_allclose(run.rows()[0]["joints"], whole["joints"], atol=1e-6)


def test_a_recording_longer_than_a_shard_becomes_several_sequences(tmp_path, bodies, monkeypatch):
    write_amass(tmp_path / "set/s/a_poses.npz", num_frames=250)
    (whole,) = Run(tmp_path / "set", bodies, tmp_path / "whole").rows()
    monkeypatch.setattr(plan_module, "MAX_SEQUENCE_FRAMES", 100)
    rows = Run(tmp_path / "set", bodies, tmp_path / "parts").rows()
    assert [row["sequence"] for row in rows] == ["a_poses.1", "a_poses.2", "a_poses.3"]
    parts = np.concatenate([row["joints"] for row in rows])
    np.testing.assert_allclose(parts, whole["joints"], atol=1e-6)


def test_subjects_of_one_file_name_share_their_shards(tmp_path, bodies):
    write_amass(tmp_path / "set/a b/1_poses.npz")
    write_amass(tmp_path / "set/a_b/1_poses.npz")
    run = Run(tmp_path / "set", bodies, tmp_path)
    assert list(run.files()) == ["set_a_b-000.parquet"]
    assert [row["subject"] for row in run.rows()] == ["set/a b", "set/a_b"]


def test_positions_keep_their_own_subject_licence_and_bytes(tmp_path):
    first, second, third = positions(80, 1), positions(60, 2), positions(90, 3)
    write_positions(
        tmp_path / "set/x.parquet",
        [("s2", "zoe", "CC BY-SA 3.0", 60, first), ("s1", "amy", "CMU", 120, second), ("s0", "zoe", "CMU", 60, third)],
        row_group_size=2,
    )
    settings = Settings("own", soft_tissue=True, trim_share=0.1, min_frames=20)
    run = Run(tmp_path / "set", Path("none"), tmp_path, settings, kind="positions")
    rows = run.rows()
    assert [(r["subject"], r["sequence"], r["licence"], r["num_frames"]) for r in rows] == [
        ("amy", "s1", "CMU", 24), ("zoe", "s0", "CMU", 72), ("zoe", "s2", "CC BY-SA 3.0", 64),
    ]  # fmt: skip
    np.testing.assert_array_equal(rows[0]["joints"], second[6:54:2])
    np.testing.assert_array_equal(rows[1]["joints"], third[9:81])
    np.testing.assert_array_equal(rows[2]["joints"], first[8:72])
    assert rows[2]["source_sha256"] == hashlib.sha256(first.tobytes()).hexdigest()


def test_bad_positions_are_rejected_by_row(tmp_path):
    broken = positions(50, 1)
    broken[20] = np.nan
    rows = [
        ("good", "p", "CC0", 60, positions(50)),
        ("nan", "p", "CC0", 60, broken),
        ("slow", "p", "CC0", 0, positions(50)),
        ("short", "p", "CC0", 60, positions(20)),
        ("good", "p", "CC0", 60, positions(50)),
        ("last", "p", "CC0", 60, positions(50, 7)),
    ]
    write_positions(tmp_path / "set/x.parquet", rows)
    write_positions(tmp_path / "set/y.parquet", [("wrong", "p", "CC0", 60, positions(50)[:, :22])])
    run = Run(tmp_path / "set", Path("none"), tmp_path, kind="positions")
    assert [row["sequence"] for row in run.rows()] == ["good", "last"]
    assert {(r.file, r.reason) for r in run.rejects} == {
        ("x.parquet#nan", Reason.NOT_FINITE), ("x.parquet#slow", Reason.WRONG_RATE),
        ("x.parquet#short", Reason.TOO_SHORT), ("x.parquet#good", Reason.DUPLICATE),
        ("y.parquet#wrong", Reason.WRONG_SHAPE),
    }  # fmt: skip


def test_rows_behind_a_damaged_page_are_rejected_and_other_files_go_on(tmp_path):
    noise = [(f"s{n}", "p", "CC0", 60, positions(2000, n)) for n in range(3)]
    write_positions(tmp_path / "set/x.parquet", noise, row_group_size=3)
    write_positions(tmp_path / "set/y.parquet", [("t", "q", "CC0", 60, positions(50))])
    data = bytearray((tmp_path / "set/x.parquet").read_bytes())
    middle = len(data) // 2
    for place in range(1000, middle, 97):  # snappy's lengths and tags among them
        data[place] ^= 0xA5
    (tmp_path / "set/x.parquet").write_bytes(data)
    run = Run(tmp_path / "set", Path("none"), tmp_path, kind="positions")
    assert "t" in [row["sequence"] for row in run.rows()]
    assert len(run.rows()) + len(run.rejects) == 4


def test_thousands_of_short_rows_are_few_items_and_one_reading(tmp_path, monkeypatch):
    rows = [(f"s{n:04d}", f"p{n % 7}", "CC0", 60, positions(40, n % 5)) for n in range(2000)]
    write_positions(tmp_path / "set/x.parquet", rows, row_group_size=1000)
    readings = []
    read = joints_module.iterate_positions
    monkeypatch.setattr(
        joints_module, "iterate_positions", lambda path, group: readings.append(group) or read(path, group)
    )
    run = Run(tmp_path / "set", Path("none"), tmp_path, kind="positions")
    assert len(run.items) == 10  # 1000 rows of 40 frames, 8,192 frames an item: 5 a row group
    assert readings == [0, 1]
    assert len(run.rows()) == 2000
    assert len(run.files()) == 7


def test_items_of_a_row_group_may_be_asked_for_in_any_order(tmp_path):
    rows = [(f"s{n}", "p", "CC0", 60, positions(5000, n)) for n in range(4)]
    write_positions(tmp_path / "set/x.parquet", rows)
    run = Run(tmp_path / "set", Path("none"), tmp_path, kind="positions")
    forward: dict[int, pa.Table] = dict(compute_items(run.items))
    backward: dict[int, pa.Table] = dict(compute_items(run.items[::-1]))
    assert all(forward[n].equals(backward[len(run.items) - 1 - n]) for n in range(len(run.items)))
    assert isinstance(run.items[0], Item)
    assert len(run.items) == 4


def test_the_same_files_give_the_same_bytes_whatever_was_done_first(tmp_path, bodies):
    for number in range(3):
        write_amass(tmp_path / f"set/{number}/a_poses.npz", seed=number, fps=100.0)
    first = Run(tmp_path / "set", bodies, tmp_path / "one")
    second = Run(tmp_path / "set", bodies, tmp_path / "two")
    assert first.files() == second.files()
    assert [item.key for item in first.items] == [item.key for item in second.items]
