"""Upstream and downstream on a made-up project whose answers are known: item by item, at every revision."""

import json
import shutil

import pytest

from flows.lineage import open_lineage
from tasks.lineage.downstream import HOLDS, MAY_HOLD, NAMES, STARTED, TRAINED
from tasks.lineage.errors import LineageError
from tests.lineage_project import Clip, Pipeline, motion_rows, small_project


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Pipeline:
    return small_project(tmp_path_factory.mktemp("lineage") / "project")


@pytest.fixture
def pipeline(whole, tmp_path) -> Pipeline:
    """A copy that a test may change."""
    import copy

    root = tmp_path / "project"
    shutil.copytree(whole.project.root, root, ignore=shutil.ignore_patterns(".inbetween"))
    own = copy.deepcopy(whole)
    own.project.root, own.project.cache = root, root / ".dvc/cache/files/md5"
    return own


def ask(pipeline: Pipeline):
    root = pipeline.project.root
    return open_lineage(root, root / ".inbetween/lineage.sqlite")


def videos_of(answer) -> dict[str, list[str]]:
    return {f"{v.batch}/{v.video}": v.roles for v in answer.videos}


def used_by(answer) -> dict[str, str]:
    return {use.path: use.how for use in answer.uses}


def test_a_checkpoint_leads_to_exactly_the_videos_it_was_trained_on(whole):
    answer = ask(whole).upstream("renderer/first")
    assert videos_of(answer) == {"one/a-train": [""]}
    (video,) = answer.videos
    assert (video.licence, video.retrieved, video.title) == ("CC-BY-4.0", "2026-01-02T03:04:05Z", "Title of a-train")
    assert video.url == "https://www.youtube.com/watch?v=onea-train"
    assert [(c.clip, c.frames, c.split) for c in video.clips] == [("a1", "10-19", "train"), ("a2", "20-29", "train")]
    assert [s.stage for s in answer.stages] == [
        "background@one-4", "download@one", "pose@one", "samples@first", "split@one", "train_renderer@first",
    ]  # fmt: skip
    trained = answer.stages[-1]
    assert (trained.event, trained.user, trained.seeds) == ("ran", "Ada", {"train_renderer.seed": 1})
    assert trained.tools == {"opencv": "5.0"}
    assert set(answer.code) == {
        f"tasks/{name}.py" for name in ("background", "download", "pose", "samples", "split", "train_renderer")
    }
    assert answer.open == []


def test_a_render_leads_to_its_own_video_and_to_those_of_its_network_apart(whole):
    answer = ask(whole).upstream("data/renders/painted/b3.parquet")
    assert videos_of(answer) == {"two/b-test": [""], "one/a-train": ["data/models/renderer/first"]}
    assert videos_of(ask(whole).upstream("metrics/render/painted.json")) == videos_of(answer)


def test_a_motion_checkpoint_leads_to_the_recordings_of_its_training_side_alone(whole):
    answer = ask(whole).upstream("data/models/motion")
    assert {m.sequence: m.file for m in answer.motions} == {
        f"{name}_0000{n}": f"data/raw/embedded/amass/walks/set/{name}/{name}_0000{n}.npz"
        for name, n in (("kim", 0), ("kim", 1), ("lee", 0))
    }
    assert [(raw.path, raw.kind) for raw in answer.raw] == [("data/raw/embedded/body_models", "body models")]
    assert answer.videos == []


def test_a_render_moved_by_a_network_leads_to_its_recordings(whole):
    answer = ask(whole).upstream("data/renders/moved")
    assert videos_of(answer) == {"one/a-test": [""]}
    assert {m.sequence for m in answer.motions} == {"kim_00000", "kim_00001", "lee_00000"}
    assert all(m.roles == ["data/models/motion"] for m in answer.motions)


def test_a_clip_leads_to_its_video_and_a_video_to_its_source(whole):
    lineage = ask(whole)
    assert videos_of(lineage.upstream("one/a3")) == {"one/a-test": [""]}
    answer = lineage.upstream("video:one/a-test")
    assert videos_of(answer) == {"one/a-test": [""]}
    assert [c.clip for c in answer.videos[0].clips] == []
    assert [s.stage for s in answer.stages] == ["download@one"]


def test_a_training_video_leads_to_all_that_holds_it_and_all_that_its_network_made(whole):
    assert used_by(ask(whole).downstream("video:one/a-train")) == {
        "data/one/videos/a-train.mp4": HOLDS,
        "data/one/videos/manifest.json": NAMES,
        **{f"data/one/{folder}/a{n}.parquet": HOLDS for folder in ("clips", "poses", "backgrounds-4") for n in (1, 2)},
        **{f"data/samples/first/a{n}.parquet": HOLDS for n in (1, 2)},
        "data/models/renderer/first": TRAINED,
        "metrics/train_renderer/first/metrics.json": TRAINED,
        "data/renders/painted": "made with data/models/renderer/first",
        "data/evaluations/painted": "made with data/models/renderer/first",
        "metrics/render/painted.json": "made with data/models/renderer/first",
        "report": "made with data/models/renderer/first",
    }


def test_a_recording_leads_to_its_tables_its_network_and_all_made_with_it(whole):
    found = used_by(ask(whole).downstream("walks/set/kim/kim_00000"))
    assert found["data/joints/walks/kim-000.parquet"] == found["data/views/walks/kim-000.parquet"] == HOLDS
    assert found["data/models/motion"] == TRAINED
    assert found["data/renders/moved"] == "made with data/models/motion"
    assert not any("lee-000" in path or "plain" in path or "jumps" in path for path in found)


def test_a_recording_of_the_test_side_trains_nothing(whole):
    found = used_by(ask(whole).downstream("jumps/set/mo/mo_00001"))
    assert "data/models/motion" not in found
    assert found["metrics/motion.json"] == "made from it"


def test_every_version_in_every_branch_is_found_with_its_revisions_and_places(pipeline):
    project = pipeline.project
    first = project.git("rev-parse", "HEAD")[:9]
    old = project.ran["split@one"].outs["data/one/clips"]
    old_file = project.folders[old]["a3.parquet"]
    project.git("checkout", "-q", "-b", "other")
    pipeline.batches["one"]["a3"].version = 1
    pipeline.run_batch("one")
    pipeline.run_render("plain", "one")
    second = project.commit("a3 again")[:9]
    project.git("checkout", "-q", "main")
    store = project.root.parent / "store"
    project.git("config", "-f", ".dvc/config", "remote.store.url", "unused")
    (project.root / ".dvc/config").write_text("['remote \"store\"']\n    url = ../../store\n")
    target = store / "files/md5" / old_file[:2] / old_file[2:]
    target.parent.mkdir(parents=True)
    shutil.copy(project.object_path(old_file), target)

    answer = ask(pipeline).downstream("clip:one/a3")
    versions = {u.md5: u for u in answer.uses if u.path == "data/one/clips/a3.parquet"}
    assert versions[old_file].revisions == [first, "work tree"]
    assert versions[old_file].places == ["cache", "store"]
    (new,) = [use for md5, use in versions.items() if md5 != old_file]
    assert (new.revisions, new.places) == ([second], ["cache"])
    assert next(u for u in answer.uses if u.path == "metrics/render/plain.json").places == ["git"]


def test_a_revision_answers_what_was_so_then(pipeline):
    project = pipeline.project
    project.git("tag", "before")
    pipeline.batches["one"]["a9"] = Clip("a9", "a-new", "train", "new", 3, 5)
    pipeline.run_batch("one")
    pipeline.run_renderer("first", "one")
    project.commit("one more video")
    lineage = ask(pipeline)
    assert videos_of(lineage.upstream("renderer/first")) == {"one/a-train": [""], "one/a-new": [""]}
    assert videos_of(lineage.upstream("renderer/first", rev="before")) == {"one/a-train": [""]}
    with pytest.raises(LineageError, match="no revision here; there are HEAD, main, before"):
        lineage.upstream("renderer/first", rev="yesterday")


def test_a_start_is_told_from_training(pipeline):
    project = pipeline.project
    provenance = json.loads(
        project.object_path(project.folders[project.md5_at("data/models/motion")]["provenance.json"]).read_text()
    )
    start = {"folder": "data/models/old", "sha256": "1" * 64, "sequences": provenance["sequences"][:1]}
    content = provenance | {"start": start, "sequences": provenance["sequences"][1:]}
    ran = project.ran["train_motion"]
    model = project.folders[ran.outs["data/models/motion"]] | {
        "provenance.json": project.store(json.dumps(content).encode())
    }
    ran.outs["data/models/motion"] = project.store_folder(model)
    project.commit("a start")
    lineage = ask(pipeline)
    assert [m.roles for m in lineage.upstream("motion").motions if m.sequence == "kim_00000"] == [["data/models/old"]]
    found = {u.md5: u.how for u in lineage.downstream("kim_00000").uses if u.path == "data/models/motion"}
    assert found[ran.outs["data/models/motion"]] == STARTED


def test_names_that_mean_several_things_are_listed_and_unknown_ones_answered_with_the_nearest(whole):
    lineage = ask(whole)
    with pytest.raises(LineageError, match=r"data/one: means 4 things .*path:data/one/clips"):
        lineage.upstream("data/one")
    with pytest.raises(
        LineageError, match=r"nothing at work tree has this name; the nearest names are .*renderer/first"
    ):
        lineage.upstream("rendrer/first")
    with pytest.raises(LineageError, match="nearest names are kim_0000"):
        lineage.upstream("kim_00009")


def test_lists_that_are_nowhere_leave_the_answer_open(pipeline):
    project = pipeline.project
    project.drop(project.md5_at("data/samples/first"))
    project.drop(project.folders[project.md5_at("data/models/renderer/first")]["provenance.json"])
    lineage = ask(pipeline)
    answer = lineage.upstream("renderer/first")
    assert any("data/models/renderer/first: its provenance.json is in no place" in line for line in answer.open)
    assert any("data/samples/first" in line and "taken whole" in line for line in answer.open)
    found = lineage.downstream("video:one/a-train")
    assert used_by(found)["data/samples/first"] == MAY_HOLD
    assert used_by(found)["data/models/renderer/first"] == "may be trained on it"
    assert any("may hold it: no place has the list" in line for line in found.open)


def test_what_comes_back_is_read(pipeline):
    project = pipeline.project
    path = project.object_path(project.md5_at("data/samples/first"))
    data = path.read_bytes()
    path.unlink()
    assert ask(pipeline).upstream("renderer/first").open
    path.write_bytes(data)
    assert ask(pipeline).upstream("renderer/first").open == []


def test_a_lock_whose_entries_do_not_fit_is_said(pipeline):
    project = pipeline.project
    text = (project.root / "dvc.lock").read_text()
    wrong = text.replace(project.md5_at("data/one/clips"), "f" * 32 + ".dir", 1)  # the output of split
    (project.root / "dvc.lock").write_text(wrong)
    answer = ask(pipeline).upstream("data/one/poses/a1.parquet")
    assert videos_of(answer) == {"one/a-train": [""]}  # by the entry of the commit, which made what was read
    (project.root / "dvc.lock").write_text(text.replace("  split@one:", "<<<<<<< mine\n  split@one:"))
    answer = ask(pipeline).downstream("video:one/a-train")
    assert any("work tree: dvc.lock line" in line and "unfinished merge" in line for line in answer.open)
    with pytest.raises(LineageError, match=r"nothing at work tree has this name.*unfinished merge; take one side with"):
        ask(pipeline).upstream("data/one/poses")


def test_an_index_that_grew_answers_as_one_made_at_once(pipeline, tmp_path):
    ask(pipeline)
    rows = pipeline.motions["walks"]["kim-000"]
    pipeline.motions["jumps"] = {"kim-000": [rows[0] | {"subset": "jumps"}], **motion_rows("jumps", {"new": 2}, "")}
    pipeline.run_mocap({"walks": "train", "jumps": "test"})
    pipeline.batches["two"]["b9"] = Clip("b9", "b-new", "train", "new", 3, 5)
    pipeline.run_batch("two")
    pipeline.project.commit("more")
    grown, fresh = ask(pipeline), open_lineage(pipeline.project.root, tmp_path / "fresh.sqlite")
    for question in (
        lambda lineage: lineage.leaks(),
        lambda lineage: lineage.coverage(),
        lambda lineage: lineage.upstream("data/models/motion"),
        lambda lineage: lineage.upstream("data/two/clips"),
        lambda lineage: lineage.downstream("walks/set/kim/kim_00000"),
        lambda lineage: lineage.diff("HEAD~1", "HEAD"),
    ):
        assert question(grown) == question(fresh)
    assert {(leak.kind, leak.what) for leak in grown.leaks().leaks} == {
        ("motion", "set/kim/kim_00000"), ("motion subject", "set/kim"),
    }  # fmt: skip
    assert {gap.what for gap in grown.coverage().gaps} == {f"motion jumps/set/new/new_0000{n}" for n in (0, 1)}


def test_a_lock_edited_by_hand_leaves_open_what_nobody_made(pipeline):
    lock = pipeline.project.root / "dvc.lock"
    stage, made = lock.read_text().split("  pose@one:\n")
    md5 = pipeline.project.md5_at("data/one/clips")
    lock.write_text(f"{stage}  pose@one:\n{made.replace(md5, 'f' * 32 + '.dir', 1)}")  # what pose read
    answer = ask(pipeline).upstream("data/one/poses")
    assert not answer.is_complete
    assert (
        f"pose@one: data/one/clips was read with md5 ffffffff, and the lock's output has {md5[:8]}; no revision has the"
        " entry that made what was read: what it was made from stays open"
    ) in answer.open


def test_a_work_tree_with_changes_and_a_remote_that_is_away_are_said(pipeline):
    root = pipeline.project.root
    (root / ".dvc/config").write_text("['remote \"store\"']\n    url = ../../away\n")
    (root / "catalog/one/clips.csv").write_text((root / "catalog/one/clips.csv").read_text().replace("20,29", "20,28"))
    lineage = ask(pipeline)
    dirty = (
        "the work tree differs from HEAD (.dvc/config, catalog/one/clips.csv); what is asked of it is answered as it"
    )
    for answer in (lineage.upstream("renderer/first"), lineage.downstream("clip:one/a2"), lineage.leaks()):
        assert [line for line in answer.open if "differs" in line] == [f"{dirty} stands"]
    away = (root / "../away").resolve()
    (line,) = [line for line in lineage.downstream("clip:one/a2").open if "remote" in line]
    assert line == f"remote store: its folder {away} is not there, what it holds not known"


def test_a_shallow_clone_says_what_it_lacks(pipeline, tmp_path):
    pipeline.project.commit("again") if pipeline.project.git("status", "--porcelain") else None
    pipeline.project.write("note.txt", "x")
    pipeline.project.commit("a note")
    clone = tmp_path / "clone"
    pipeline.project.git("clone", "-q", "--depth", "1", f"file://{pipeline.project.root}", str(clone))
    lineage = open_lineage(clone, tmp_path / "x.sqlite")
    answer = lineage.upstream("data/one/clips")
    assert any("shallow clone" in line and "--unshallow" in line for line in answer.open)
    assert any("data/one/clips" in line and "no place" in line for line in [*answer.open]) or answer.videos


def test_outside_of_git_there_is_no_lineage(tmp_path):
    with pytest.raises(LineageError, match="in no git repository"):
        open_lineage(tmp_path, tmp_path / "x.sqlite")
