"""docs/lineage.md: its commands exist, and the script that fills in their outputs does."""

import shlex
import sys

import typer.main

from docs.lineage_outputs import PAGE, commands_of, fill
from flows.lineage.commands import app
from flows.project import ROOT
from tests.flows.test_lineage import RUN
from tests.lineage_project import small_project


def test_every_command_of_the_page_is_one_with_these_options():
    commands = typer.main.get_command(app).commands
    found = [shlex.split(command)[2:] for command in commands_of(PAGE.read_text())]
    others = {"record", "export", "page"}  # export is told of elsewhere, page writes a file
    assert {words[0] for words in found} == commands.keys() - others
    for name, *words in found:
        commands[name].make_context(name, words)  # raises on an option or argument that it does not take


def test_blocks_are_filled_with_what_the_commands_print_or_say(tmp_path):
    root = tmp_path / "project"
    small_project(root)
    page = "# A\n\n```text\n$ inbetween lineage leaks\nold\n```\n\nB\n\n```text\n$ inbetween lineage history x\n```\n"
    run = [sys.executable, "-c", RUN.replace("sys.argv[2:]", "sys.argv[3:]"), str(root)]
    filled = fill(page, run, ROOT)
    assert "$ inbetween lineage leaks\nwork tree: 0 leaks\n" in filled
    assert "old" not in filled
    assert "x: nothing at work tree has this name" in filled
    assert "(exit code 2)" in filled
    assert filled.startswith("# A\n\n```text")
    assert "\n```\n\nB\n\n```text\n" in filled
