"""docs/lineage.md: its commands exist, and the script that fills in their outputs does, on a made-up project."""

import gc
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

import flows.lineage
from docs.lineage_outputs import PAGE, commands_of, fill
from flows.lineage.audit import app
from tasks.errors import InbetweenError
from tests.lineage_project import Clip, Pipeline, Project, motion_rows

ELSEWHERE = {"record", "export", "page"}  # have pages of their own
BYTES = {"verify", "cost", "withdraw", "restore"}  # need DVC and real stages: tests/flows/lineage


def lineage_commands() -> list[list[str]]:
    words = [shlex.split(command)[1:] for command in commands_of(PAGE.read_text())]
    return [rest for first, *rest in words if first == "lineage"]


def make_sample(root: Path) -> Pipeline:
    """The page's project, made up: tags v1 and v2, the second with another batch."""
    pipeline = Pipeline(Project(root))
    pipeline.batches["sample"] = {
        name: Clip(name, name, split, "kicker", 51, 99)
        for name, split in (("kick_front", "test"), ("kick_back", "train"))
    }
    pipeline.run_batch("sample", (4, 8))
    pipeline.motions = {name: motion_rows(name, {name: 2}) for name in ("standin-train", "standin-test")}
    pipeline.run_mocap({"standin-train": "train", "standin-test": "test"})
    pipeline.run_renderer("sample", "sample")
    pipeline.run_render("neural-4", "sample", renderer="sample")
    pipeline.run_render("warp-8", "sample", motion="data/models/motion")
    pipeline.run_report()
    pipeline.declare()
    pipeline.project.commit("the sample")
    pipeline.project.git("tag", "v1")
    pipeline.batches["second"] = {"kick_left": Clip("kick_left", "kick_left", "test", "kicker", 51, 75)}
    pipeline.run_batch("second", (8, 4))
    pipeline.run_render("second-flow-8", "second")
    pipeline.run_report()
    pipeline.declare()
    pipeline.project.commit("a second batch")
    pipeline.project.git("tag", "v2")
    return pipeline


def test_every_command_of_the_page_is_one_with_these_options_and_none_is_left_out():
    commands = typer.main.get_command(app).commands
    found = lineage_commands()
    assert {words[0] for words in found} == commands.keys() - ELSEWHERE
    for name, *words in found:
        commands[name].make_context(name, words)  # raises on an option or argument that it does not take


def test_the_page_is_filled_in_with_what_the_questions_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = tmp_path / "project"
    make_sample(root)
    monkeypatch.setattr(flows.lineage.open_lineage, "__defaults__", (root, root / ".inbetween/lineage.sqlite"))
    codes: dict[str, int] = {}

    def ask(words: Sequence[str]) -> tuple[str, int]:
        if words[0] != "lineage" or words[1] in BYTES:
            return "not asked", 0
        done = CliRunner().invoke(app, list(words[1:]))
        gc.enable()  # a command leaves it off: its process ends
        assert done.exception is None or isinstance(done.exception, InbetweenError | SystemExit), done.exception
        code = 2 if isinstance(done.exception, InbetweenError) else done.exit_code
        codes[" ".join(words[1:])] = code
        return done.output or str(done.exception), code

    page = PAGE.read_text()
    filled = fill(page, ask)
    assert {command for command, code in codes.items() if code} == {
        "upstream kick_front",  # means two things
        "upstream data/renders/warp-8/kick_front.parquet:55",  # the made-up tables have no rows
    }
    assert "kick_front: means 2 things at work tree; write one of clip:sample/kick_front, video:" in filled
    assert " paths differ\n" in filled
    assert "report: 2 versions of report" in filled
    assert "work tree: 0 leaks" not in filled  # one subject stands on both sides
    assert "checkpoint data/models/renderer/sample at work tree: may be used commercially" in filled
    outside = page.split("```")[::2]
    assert filled.split("```")[::2] == outside  # only blocks differ
    assert "\n(exit code 2)\n```" in filled
    assert "\n(exit code 2)\n```" not in fill(filled, lambda words: ("", 0))
