"""The command line as a user meets it: help with examples, one line and exit code 2 for a mistake."""

import errno
import re
import subprocess

import pytest

from flows import cli
from tests.sandbox import Sandbox, copy_project

COMMANDS = [
    *("stage", "repro", "render", "demo", "data", "check", "params use"),
    *("catalog add", "catalog check"),
    *("import checkpoint", "import h5", "import poses", "import backgrounds", "export checkpoint", "export poses"),
]


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory) -> Sandbox:
    return copy_project(tmp_path_factory.mktemp("cli") / "project")


def refuse(sandbox: Sandbox, *command: str) -> str:
    """Run what must be refused; the one line it says."""
    done = sandbox.run(*command, check=False)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_every_command_shows_help_with_an_example(sandbox):
    listed = sandbox.run("inbetween", "--help").stdout
    for command in COMMANDS:
        assert command.split()[0] in listed
        shown = sandbox.run("inbetween", *command.split(), "--help").stdout
        assert re.search(r"Example: (inbetween|make)", shown), command


def test_mistakes_are_one_line_that_names_the_remedy(sandbox):
    assert "the stages are download, split" in refuse(sandbox, "inbetween", "stage", "blend")
    assert refuse(sandbox, "inbetween", "stage", "pose", "sampel") == (
        "inbetween stage pose: params.yaml: batches has no 'sampel'; there is sample"
    )
    assert "renders has no ''" in refuse(sandbox, "inbetween", "stage", "render")
    assert "data/sample/videos/manifest.json" in refuse(sandbox, "inbetween", "stage", "split", "sample")
    shown = refuse(sandbox, "inbetween", "stage", "background", "sample-4")
    assert "data/sample/clips: holds no table; run the stage" in shown


def test_a_checkpoint_goes_in_and_out(sandbox, tmp_path):
    import torch

    from models.motion.transformer import MotionTransformer, TransformerConfig, to_authors_state

    config = TransformerConfig(
        width=16, num_heads=1, feedforward=8, num_encoder_layers=1, num_decoder_layers=1, dropout=0.1,
        encoder_mask="exclude",
    )  # fmt: skip
    state = to_authors_state(MotionTransformer(config))
    torch.save({"network": state}, tmp_path / "a.pth")
    options = ("--num-heads", "1", "--encoder-mask", "exclude")
    sandbox.run("inbetween", "import", "checkpoint", str(tmp_path / "a.pth"), str(tmp_path / "m"), *options)
    sandbox.run("inbetween", "export", "checkpoint", str(tmp_path / "m"), str(tmp_path / "b.pth"))
    back = torch.load(tmp_path / "b.pth", weights_only=True)
    assert all(torch.equal(back[name], value) for name, value in state.items())
    wrong = ("inbetween", "import", "checkpoint", str(tmp_path / "m" / "config.json"), str(tmp_path / "n"))
    assert "import checkpoint" in refuse(sandbox, *wrong)
    assert "config.json: not a file of tensors alone" in refuse(sandbox, *wrong)


def test_wrong_params_tools_and_catalogues_are_refused_before_any_work(sandbox):
    def changed(name: str, old: str, new: str) -> str:
        path = sandbox.root / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        try:
            return refuse(sandbox, "inbetween", "stage", "split", "sample")
        finally:
            path.write_text(text)

    assert "params.yaml: render.crff: is not known" in changed("params.yaml", "  crf: 16", "  crf: 16\n  crff: 1")
    assert "tools.yaml: opencv is" in changed("tools.yaml", "opencv: 5", "opencv: 4")
    assert "clips.csv row 2, column last: frame 990" in changed("catalog/sample/clips.csv", "51,99,", "51,990,")


def test_params_use_replaces_on_a_clean_tree_only(sandbox):
    assert "there is no such set; there are paper, pretrain, sample" in refuse(
        sandbox, "inbetween", "params", "use", "nope"
    )
    sandbox.write("CHANGELOG.md", "changed")
    assert "commit them first" in refuse(sandbox, "inbetween", "params", "use", "paper")
    sandbox.run("git", "checkout", "CHANGELOG.md")
    sandbox.run("inbetween", "params", "use", "paper")
    assert (sandbox.root / "params.yaml").read_text() == (sandbox.root / "params/paper.yaml").read_text()
    plan = sandbox.run("inbetween", "repro", "--plan")
    shown = plan.stdout + plan.stderr
    for stage in ("download@humanslomo", "pose@humanslomo", "render@warp-2", "report"):
        assert stage in shown
    assert not (sandbox.root / "data/humanslomo").exists()
    sandbox.run("git", "checkout", "params.yaml")


def test_project_check_holds_and_finds_a_broken_link(sandbox):
    assert "all hold" in sandbox.run("inbetween", "check").stderr
    readme = sandbox.root / "README.md"
    text = readme.read_text()
    readme.write_text(text + "\n[gone](docs/gone.md)\n")
    assert re.search(r"README.md line \d+: links to docs/gone.md", refuse(sandbox, "inbetween", "check"))
    readme.write_text(text)


def test_the_command_finds_its_project_from_anywhere(sandbox, tmp_path):
    done = subprocess.run(
        ["inbetween", "check"], cwd=tmp_path, env=sandbox.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_place_that_may_not_be_written_is_named_in_a_line(monkeypatch, capsys):
    def refuse(**_):
        raise PermissionError(errno.EACCES, "Permission denied", "there/out.mp4")

    monkeypatch.setattr(cli, "prepare_environment", lambda: None)
    monkeypatch.setattr(cli, "app", refuse)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert (
        "there/out.mp4: Permission denied; change its permissions, or name another place\n" in capsys.readouterr().err
    )
