"""What a run leaves about lineage: in time, whatever the record is like."""

import time

import pytest

from flows.lineage import open_lineage
from flows.lineage.summary import Summary, describe_run
from flows.lineage.survey import survey
from tests.lineage_project import Pipeline, small_project


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Pipeline:
    pipeline = small_project(tmp_path_factory.mktemp("summary") / "project")
    pipeline.licences["a-test"] = "CC BY | NC <script>"
    pipeline.run_batch("one")
    pipeline.run_render("plain", "one")
    pipeline.project.commit("no sale")
    return pipeline


def test_it_names_sources_licences_what_is_due_and_gaps(pipeline):
    root = pipeline.project.root
    text = Summary(root).finish(["render@plain", "train_renderer@first"], budget_s=30)
    made, sources, *_ = text.split("\n\n")[1:]
    first, second = made.splitlines()[2:]
    assert first.startswith("| `train_renderer@first` | 1 video")
    assert first.endswith("| **yes, with duties** | one/a-train: CC-BY-4.0 |")
    assert second.startswith("| `render@plain` | 1 video")
    assert second.endswith("| **no** | one/a-test: CC BY &#124; NC &lt;script&gt; |")
    assert "| `data/one/videos/a-test.mp4` | CC BY &#124; NC &lt;script&gt; | youtube:onea-test |" in sources
    assert "stages are due" in text
    assert "Coverage: " in text
    assert "<" not in text


def test_a_run_that_made_nothing_says_so(pipeline):
    root = pipeline.project.root
    text = describe_run(survey(open_lineage(root, root / ".inbetween/lineage.sqlite")), [])
    assert text.startswith("# Lineage\n\nThis run made nothing new.\n")


def test_it_takes_no_longer_than_it_may_and_says_so(pipeline):
    start = time.monotonic()
    text = Summary(pipeline.project.root).finish(["render@plain"], budget_s=0.02)
    assert time.monotonic() - start < 2
    assert text.startswith("Not summed up: that takes more than 0.02 s here.")


def test_a_fault_is_a_line(tmp_path):
    text = Summary(tmp_path).finish(["render@plain"], budget_s=30)
    assert text.startswith("Not summed up: ")
    assert "is in no git repository" in text
    assert text.count("\n") == 1


def test_it_ends_with_the_run_that_does_not_ask(pipeline):
    summary = Summary(pipeline.project.root)
    process = summary._process
    summary.close()
    assert process.poll() is not None
    orphan = Summary(pipeline.project.root)._process
    orphan.stdin.close()  # as where the run was killed
    assert orphan.wait(timeout=60) == 0
    assert orphan.stdout.read() == ""
