"""What a run leaves about lineage: in time, whatever the record is like."""

import time

import pytest

from flows.lineage import open_lineage
from flows.lineage.summary import describe_run, sum_up
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
    text = sum_up(["render@plain", "train_renderer@first"], root, budget_s=30)
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
    text = sum_up(["render@plain"], pipeline.project.root, budget_s=0.05)
    assert time.monotonic() - start < 2
    assert text.startswith("Not summed up: that takes more than 0.05 s here.")


def test_a_fault_is_a_line(tmp_path):
    text = sum_up(["render@plain"], tmp_path, budget_s=30)
    assert text.startswith("Not summed up: ")
    assert "is in no git repository" in text
    assert text.count("\n") == 1
