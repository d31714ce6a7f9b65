"""The overview says of every thing what the questions say of it."""

import pytest

from flows.lineage import open_lineage
from tasks.lineage.overview import CLIP, GAP, RAW, STALE, SUBJECT, VIDEO, WITHDRAWN, Overview, Thing, look_over
from tests.lineage_project import Clip, small_project


@pytest.fixture(scope="module")
def lineage(tmp_path_factory):
    root = tmp_path_factory.mktemp("overview") / "project"
    pipeline = small_project(root)
    # More than the small project has: a second checkpoint that a render takes beside the first, and a batch alone.
    pipeline.run_renderer("second", "two")
    pipeline.run_render("both", "one", renderer="second", motion="data/models/motion")
    pipeline.batches["three"] = {"c1": Clip("c1", "c-train", "train", "ctrain", 0, 9)}
    pipeline.licences["c-train"] = "CC-BY-NC-4.0"
    pipeline.run_batch("three")
    pipeline.run_report()
    pipeline.declare()
    pipeline.project.commit("more")
    return open_lineage(root, root / ".inbetween/lineage.sqlite")


@pytest.fixture(scope="module")
def overview(lineage) -> Overview:
    return look_over(lineage)


def keys(overview: Overview, numbers, *kinds: str) -> set[str]:
    """Of the things of some kinds; "stage" = those that a stage made."""
    chosen = (overview.things[number] for number in numbers)
    return {t.key for t in chosen if t.kind in kinds or ("stage" in kinds and t.outs)}


def named(overview: Overview, *, but: tuple[str, ...] = ()) -> list[tuple[int, Thing]]:
    return [(n, t) for n, t in enumerate(overview.things) if t.kind not in but and not t.key.startswith("recordings:")]


def test_what_a_thing_was_made_from_is_upstreams_answer(lineage, overview):
    for number, thing in named(overview, but=(SUBJECT,)):
        answer = lineage.upstream(thing.ask)
        reached = {number, thing.parent}.union(*thing.up.values()) - {-1}
        assert keys(overview, reached, "stage") == {stage.stage for stage in answer.stages}, thing.key
        videos = {f"video:{v.batch}/{v.video}" for v in answer.videos}
        assert keys(overview, reached, VIDEO) == videos, thing.key
        clips = {f"clip:{v.batch}/{c.clip}" for v in answer.videos for c in v.clips}
        if thing.kind != VIDEO:  # its clips are made from it
            assert keys(overview, reached, CLIP) == clips, thing.key
        assert keys(overview, reached, SUBJECT) == {f"subject:{m.subset}/{m.subject}" for m in answer.motions}
        raw = {key for key in keys(overview, reached, RAW) if not key.startswith("recordings:")}
        assert raw == {row.path for row in answer.raw}, thing.key


def test_through_which_checkpoint_is_upstreams_answer(lineage, overview):
    thing = overview.things[overview.find("render@both")]
    answer = lineage.upstream(thing.key)
    for role, numbers in thing.up.items():
        path = overview.things[role].outs[0].path if role >= 0 else ""
        assert keys(overview, numbers, VIDEO) == {
            f"video:{v.batch}/{v.video}" for v in answer.videos if path in v.roles
        }
        stages = {stage.stage for stage in answer.stages if path in stage.roles}
        assert keys(overview, {*numbers, *({overview.find(thing.key)} if role < 0 else ())}, "stage") == stages
    assert len(thing.up) == 3


def test_what_was_made_from_a_thing_is_downstreams_answer(lineage, overview):
    state = lineage.state()
    now = {(path, out.md5) for path, (_, out) in state.outs.items()}
    for path, (_, out) in state.outs.items():
        now |= {(f"{path}/{member.name}", member.md5) for member in lineage.index.members(out.md5) or []}
    for number, thing in named(overview):
        uses = lineage.downstream(thing.key).uses
        stages = {use.stage for use in uses if (use.path, use.md5) in now and use.stage}
        parent = {thing.parent} if thing.parent >= 0 and overview.things[thing.parent].outs else set()
        own = {number} if thing.outs else set()
        assert keys(overview, thing.down | parent | own, "stage") == stages, thing.key


def test_licences_are_the_questions_answer(lineage, overview):
    for _, thing in named(overview, but=(SUBJECT,)):
        assert thing.licences.verdict == lineage.licences(thing.ask).verdict, thing.key
    assert "non-commercial" in overview.things[overview.find("split@three")].marks
    assert "non-commercial" not in overview.things[overview.find("split@one")].marks


def test_an_items_files_are_those_of_the_folders_that_hold_it(lineage, overview):
    clip = overview.things[overview.find("clip:one/a3")]
    assert {(file.path, file.md5) for file in clip.files} == {
        (use.path, use.md5) for use in lineage.downstream("clip:one/a3").uses if use.how == "holds it"
    }
    assert len(clip.files) == 12  # clip, pose, background, and of three renders a table, a film and the measures


def test_marks_of_stages_that_are_due_and_of_gaps(lineage):
    found = look_over(lineage, due={"render@plain": ["params.yaml render.crf: 16 -> 18"]})
    assert found.things[found.find("render@plain")].marks[STALE] == ["params.yaml render.crf: 16 -> 18"]
    assert [t.key for t in found.things if STALE in t.marks] == ["render@plain"]
    assert [t.key for t in found.things if GAP in t.marks] == []


def test_a_withdrawn_video_marks_what_still_holds_it_and_what_was_made_with_it(tmp_path):
    root = tmp_path / "project"
    pipeline = small_project(root)
    clips = pipeline.batches["one"]
    gone = {name: clips.pop(name) for name in ("a1", "a2")}  # a renderer was trained on them
    pipeline.run_batch("one")
    pipeline.project.commit("withdrawn")
    row = {"source": "youtube:x", "licence": "CC-BY-4.0", "withdrawn": "2026-02-03", "reason": "asked for"}
    found = look_over(open_lineage(root, root / ".inbetween/lineage.sqlite"), withdrawn={("one", "a-train"): row})
    marked = {thing.key for thing in found.things if WITHDRAWN in thing.marks}
    assert {f"clip:one/{name}" for name in gone} <= marked
    assert {"video:one/a-train", "samples@first", "train_renderer@first", "render@painted"} <= marked
    assert not {"split@one", "pose@one", "render@plain", "video:one/a-test"} & marked
    assert found.things[found.find("video:one/a-train")].marks[WITHDRAWN] == ["2026-02-03: asked for"]


def test_lists_that_are_in_no_place_leave_it_open(tmp_path):
    root = tmp_path / "project"
    pipeline = small_project(root)
    for path in ("data/one/clips", "data/models/renderer/first"):
        pipeline.project.drop(pipeline.project.md5_at(path))
    lineage = open_lineage(root, root / ".inbetween/lineage.sqlite")
    found = look_over(lineage)
    assert any("data/one/clips" in line and "taken whole" in line for line in found.open)
    for key in ("render@painted", "render@plain", "report"):
        thing = found.things[found.find(key)]
        answer = lineage.upstream(key)
        reached = {found.find(key)}.union(*thing.up.values())
        assert keys(found, reached, "stage") == {stage.stage for stage in answer.stages}
        assert keys(found, reached, VIDEO) == {f"video:{v.batch}/{v.video}" for v in answer.videos}
        assert thing.licences.verdict == lineage.licences(key).verdict
