"""Diff, history, coverage, leaks and licences on a made-up project whose answers are known."""

import csv
import shutil

import pytest

from flows.lineage import open_lineage
from tasks.lineage.leaks import Shot, count_shared_frames, find_shared_frames
from tasks.lineage.licences import judge
from tests.lineage_project import Clip, Pipeline, motion_rows, small_project
from tests.sandbox import SHARED


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Pipeline:
    """Tag `before`; then clip a3 is cut anew, a clip comes in, the renderer has another seed and the code of render."""
    pipeline = small_project(tmp_path_factory.mktemp("lineage") / "project")
    project = pipeline.project
    project.git("tag", "before")
    pipeline.batches["one"]["a3"].last = 35
    pipeline.batches["one"]["a3"].version = 1
    pipeline.batches["one"]["a9"] = Clip("a9", "a-train", "train", "atrain", 3, 5)
    project.write("tasks/render.py", "# another\n")
    project.tools["opencv"] = "5.1"
    pipeline.run_batch("one")
    pipeline.run_renderer("first", "one", seed=2)
    pipeline.run_render("plain", "one", crf=17)
    project.commit("after")
    return pipeline


@pytest.fixture
def pipeline(tmp_path) -> Pipeline:
    return small_project(tmp_path / "project")


def ask(pipeline: Pipeline):
    root = pipeline.project.root
    return open_lineage(root, root / ".inbetween/lineage.sqlite")


def test_diff_names_the_items_and_their_reasons(whole):
    changes = {change.path: change for change in ask(whole).diff("before").changes}
    clips = changes["data/one/clips"]
    assert [(i.name, i.how, i.because) for i in clips.items] == [
        ("a3.parquet", "changed", ["catalog/one/clips.csv a3"]),
        ("a9.parquet", "added", ["catalog/one/clips.csv a9"]),
    ]
    assert clips.why.tools == ["opencv: 5.0 -> 5.1"]
    poses = {i.name: i.because for i in changes["data/one/poses"].items}
    assert poses == {name: [f"data/one/clips/{name}"] for name in ("a3.parquet", "a9.parquet")}
    render = changes["data/renders/plain"].why
    assert render.params == ["render.crf: 16 -> 17"]
    assert render.code == ["tasks/render.py"]
    model = changes["data/models/renderer/first"]
    assert {i.name for i in model.items} == {"model.safetensors", "provenance.json"}
    assert model.why.params == ["train_renderer.seed: 1 -> 2"]
    assert [(i.name, i.how) for i in changes["catalog/one/clips.csv"].items] == [("a3", "changed"), ("a9", "added")]
    assert not [path for path in changes if "two" in path or "motion" in path]


def test_diff_of_a_dataset_is_of_it_alone_and_the_same_revision_differs_in_nothing(whole):
    lineage = ask(whole)
    assert [c.path for c in lineage.diff("before", "HEAD", "data/samples").changes] == ["data/samples/first"]
    assert lineage.diff("HEAD").changes == []


def test_history_tells_each_version_with_what_changed_it(whole):
    lineage = ask(whole)
    first, second = lineage.history("renderer/first").versions
    assert (first.subject, first.num_revisions) == ("everything", 1)
    assert (second.subject, second.author, second.num_revisions) == ("after", "Ada", 2)
    assert "train_renderer.seed: 1 -> 2" in second.why
    assert [v.subject for v in lineage.history("clip:one/a1").versions] == ["everything"]
    assert [v.subject for v in lineage.history("clip:one/a3").versions] == ["everything", "after"]


def test_coverage_of_a_whole_record_has_no_gap_and_every_lack_is_one(pipeline):
    assert ask(pipeline).coverage().gaps == []
    project = pipeline.project
    project.record = [line for line in project.record if '"samples@first"' not in line]
    pipeline.licences["b-test"] = ""
    pipeline.run_batch("two")
    project.git("update-ref", "-d", "HEAD")  # the revision that had the line is reached no more
    project.commit("less")
    shutil.rmtree(project.root / ".inbetween")
    gaps = {(gap.kind, gap.what) for gap in ask(pipeline).coverage().gaps}
    assert gaps == {("no producer", "data/samples/first"), ("no licence", "video two/b-test")}


def test_clips_of_a_catalogue_or_a_model_on_both_sides_are_leaks(pipeline):
    assert ask(pipeline).leaks().leaks == []
    clips = pipeline.batches["one"]
    clips["a1"].split = "test"  # after the renderer was trained on it: frames 10-19, every 4th of them a key
    clips["a4"] = Clip("a4", "a-train", "train", "atrain", 15, 17)
    pipeline.run_batch("one")
    pipeline.project.commit("moved")
    found = ask(pipeline).leaks()
    leaks = {(leak.where, leak.kind, leak.what): leak for leak in found.leaks}
    assert leaks["catalogue one", "in-between frames", "youtube:onea-train"].frames == [15, 16, 17]
    assert leaks["data/models/renderer/first", "key frames", "youtube:onea-train"].frames == [10, 14, 18]
    assert leaks["data/models/renderer/first", "in-between frames", "youtube:onea-train"].number == 6
    assert leaks["data/models/renderer/first", "frames after the last key", "youtube:onea-train"].frames == [19]
    assert ("data/models/renderer/first", "clip", "one/a1") in leaks
    assert ("data/models/renderer/first", "subject", "atrain") in leaks
    assert found.num_frames["catalogue one"] == (3, 12, 0, 6)


def test_a_motion_or_its_subject_on_both_sides_is_a_leak(pipeline):
    rows = pipeline.motions["walks"]["kim-000"]
    pipeline.motions["jumps"] = {"kim-000": [rows[0] | {"subset": "jumps"}], **motion_rows("jumps", {"mo": 1})}
    pipeline.run_mocap({"walks": "train", "jumps": "test"})
    pipeline.project.commit("kim jumps")
    found = {(leak.kind, leak.what) for leak in ask(pipeline).leaks().leaks}
    assert found == {("motion", "set/kim/kim_00000"), ("motion subject", "set/kim")}


@pytest.mark.skipif(not (SHARED / "reference/humanslomo").is_dir(), reason="the published lists are not here")
def test_the_published_split_has_its_known_leaks():
    def frames(row: dict[str, str]) -> list[int]:
        if not row["irregular"]:
            return list(range(int(row["first_frame"]), int(row["last_frame"]) + 1, int(row["step"])))
        found: list[int] = []
        for run in row["irregular"].split(";"):
            first, _, last = run.strip().partition("-")
            found += range(int(first), int(last or first) + 1, int(row["step"]))
        return found

    with (SHARED / "reference/humanslomo/clips.csv").open() as file:
        rows = list(csv.DictReader(file))
    sides = {
        split: [Shot(r["clip_id"], r["video"], "", frames(r), 2) for r in rows if r["split"] == split]
        for split in ("train_list", "test_list")
    }
    shared = find_shared_frames(sides["train_list"], sides["test_list"])
    assert sum(map(len, shared.inbetweens.values())) == 106
    assert sum(map(len, shared.keys.values())) == 266
    assert count_shared_frames(sides["train_list"], sides["test_list"]) == (106, 353, 266, 381)


VERDICTS = {
    "yes": ("BSD-3-Clause", "MIT", "Apache-2.0", "CC0-1.0"),
    "yes, with duties": ("CC-BY-4.0", "CC BY-SA 3.0", "CMU"),
    "no": (
        "CC BY-NC 4.0", "CC-BY-NC-SA-3.0", "CC BY-ND 4.0", "all rights with the uploader", "non-commercial research",
    ),
    "unknown": ("AMASS", "", "free", "launch"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("licence", "verdict"), [(name, verdict) for verdict, names in VERDICTS.items() for name in names]
)
def test_licences_are_judged_by_name_and_what_is_not_known_is_no(licence, verdict):
    assert judge(licence)[0] == verdict


def test_the_strictest_parent_wins_over_every_step(pipeline):
    lineage = ask(pipeline)
    answer = lineage.licences("data/renders/painted")
    assert (answer.is_allowed, answer.verdict) == (True, "yes, with duties")
    pipeline.licences["a-train"] = "CC BY-NC 4.0"  # of a video that the render's network was trained on
    pipeline.run_batch("one")
    pipeline.run_renderer("first", "one")
    pipeline.run_render("painted", "two", renderer="first")
    pipeline.project.commit("other licence")
    answer = ask(pipeline).licences("data/renders/painted")
    assert (answer.is_allowed, answer.verdict) == (False, "no")
    assert (answer.parents[0].name, answer.parents[0].licence) == ("one/a-train", "CC BY-NC 4.0")
    assert ask(pipeline).licences("data/renders/painted", rev="HEAD~1").is_allowed


def test_given_data_has_its_licence_from_the_list_in_git(pipeline):
    project = pipeline.project
    project.write_raw("data/raw/given", {"vgg/net.pth": b"weights", "README.md": b"yours"})
    project.ran["train_renderer@first"].deps["data/raw/given/vgg/net.pth"] = project.md5_at(
        "data/raw/given/vgg/net.pth"
    )
    project.commit("given weights")
    answer = ask(pipeline).licences("renderer/first")
    assert (answer.verdict, answer.parents[0].name) == ("unknown", "data/raw/given/vgg/net.pth")
    assert [(gap.kind, gap.what) for gap in ask(pipeline).coverage().gaps] == [
        ("no licence", "data/raw/given/vgg/net.pth")
    ]
    for licence, verdict in (("BSD-3-Clause", "yes, with duties"), ("research only, non-commercial", "no")):
        project.write("lineage/licences.csv", f'path,licence\ndata/raw/given/vgg,"{licence}"\n')
        project.commit(licence)
        answer = ask(pipeline).licences("renderer/first")
        assert answer.verdict == verdict
        assert licence in {parent.licence for parent in answer.parents}
    assert ask(pipeline).coverage().gaps == []
    assert ask(pipeline).licences("renderer/first", rev="HEAD~2").verdict == "unknown"
    project.write("lineage/licences.csv", "folder,licence\ndata/raw/given/vgg,MIT\n")
    project.save()
    answer = ask(pipeline).licences("renderer/first")
    assert answer.verdict == "unknown"
    assert any("lineage/licences.csv: its first row must name the columns path,licence" in line for line in answer.open)


def test_an_answer_with_an_open_end_allows_nothing(pipeline):
    project = pipeline.project
    project.drop(project.md5_at("data/one/videos"))
    answer = ask(pipeline).licences("renderer/first")
    assert (answer.is_allowed, answer.verdict) == (False, "unknown")
    assert any("data/one/videos" in line for line in answer.open)
