"""The command line `inbetween`. Each command checks its input, calls one function, and turns our errors into one line.

Exit codes: 0 done; 2 the user's mistake, one line that names the file, row or parameter and the remedy; 1 a fault.
Heavy imports stand inside the commands: `inbetween stage NAME` loads only what that stage needs.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.project import prepare_environment

INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Low-frame-rate video of a person in action to high-frame-rate video: a DVC pipeline, run by Prefect.",
)  # fmt: skip
params_app = typer.Typer(no_args_is_help=True, help="The parameter sets of the project.")
app.add_typer(params_app, name="params")
catalog_app = typer.Typer(no_args_is_help=True, help="What batches are made from: start one, check them.")
app.add_typer(catalog_app, name="catalog")
import_app = typer.Typer(no_args_is_help=True, help="The 2021 authors' files to ours.")
app.add_typer(import_app, name="import")
export_app = typer.Typer(no_args_is_help=True, help="Ours to the 2021 authors' files.")
app.add_typer(export_app, name="export")


@app.command(epilog="Example: inbetween stage pose sample")
def stage(
    name: Annotated[str, typer.Argument(help="download, split, pose, background, render, evaluate or report")],
    item: Annotated[str, typer.Argument(help="batch, background set or render; none for report")] = "",
) -> None:
    """Run one stage in this process: what dvc.yaml calls. Use `dvc repro` or `inbetween repro` to run what is due."""
    from flows.stage import run_stage

    run_stage(name, item)


@app.command(epilog="Example: inbetween repro render@warp-8 --plan")
def repro(
    targets: Annotated[
        list[str] | None, typer.Argument(help="stages, such as pose@sample or render; all by default")
    ] = None,
    force: Annotated[bool, typer.Option(help="run the stages even where nothing changed, from nothing")] = False,
    plan: Annotated[bool, typer.Option(help="say what would run, and run nothing")] = False,
) -> None:
    """`dvc repro` as a Prefect flow: stages as tasks, their work as tasks of the same run, the same dvc.lock."""
    from flows.repro import plan_repro, run_repro

    if plan:
        plan_repro(targets or [])
    else:
        run_repro(targets or [], force=force)


@app.command(epilog="Example: make demo, which makes the environment and then runs this")
def demo() -> None:
    """The whole pipeline on the sample's real footage by plain `dvc repro`, then the numbers and the page to open."""
    from flows.demo import run_demo

    run_demo()


@app.command(epilog="Example: inbetween data && dvc repro")
def data() -> None:
    """Bring the embedded raw data on a fresh clone, so that plain `dvc repro` finds it (`make demo` does it too), and
    say what is there of the motions and body models that params.yaml names.
    """
    from flows.raw_data import bring_raw_data, check_raw_data, report_motions

    bring_raw_data()
    check_raw_data()
    report_motions()


@app.command(epilog="Example: inbetween standin data/raw/embedded")
def standin(folder: Annotated[Path, typer.Argument(help="where to write them")]) -> None:
    """Write the stand-ins for AMASS and SMPL-H: bodies, motions and evaluation views of ours, the same bytes each time.

    They are part of the embedded data already; this is how they were made.
    """
    from flows.progress import say
    from tasks.stand_in import write_stand_ins

    write_stand_ins(folder)
    say(f"standin: {folder}/body_models, amass, evaluation_views.npy and no-model are written")


@app.command(epilog="Example: inbetween check")
def check() -> None:
    """Hold what the project's files say: params, tools.yaml, catalogues, links in docs."""
    from flows.check import run_check

    run_check()


@params_app.command("use", epilog="Example: inbetween params use paper")
def params_use(name: Annotated[str, typer.Argument(help="a file of params/: paper or sample")]) -> None:
    """Replace params.yaml by params/NAME.yaml, on a clean work tree."""
    from flows.check import use_params

    use_params(name)


@catalog_app.command("add", epilog="Example: inbetween catalog add parkour https://youtu.be/dQw4w9WgXcQ film.mp4")
def catalog_add(
    batch: Annotated[str, typer.Argument(help="the new batch's name; catalog/BATCH is written")],
    sources: Annotated[
        list[str] | None,
        typer.Argument(help="addresses, files, folders of pictures, or .txt lists; none = the batch's own videos.csv"),
    ] = None,
    fps: Annotated[str, typer.Option(help="pictures per second of folders of pictures, such as 30")] = "",
    force: Annotated[bool, typer.Option(help="replace the files of a batch that is there")] = False,
) -> None:
    """Propose clips of some videos (shots with a person in motion, each once) and write the batch's two files."""
    from flows.catalog_add import add_batch

    add_batch(batch, sources or [], Path.cwd(), fps, force=force)


@catalog_app.command("check", epilog="Example: inbetween catalog check humanslomo")
def catalog_check(batches: Annotated[list[str] | None, typer.Argument(help="batches; all by default")] = None) -> None:
    """Say every fault of a batch's files in a line with its row, then leaks between splits and missing videos."""
    from flows.catalog import check_batches

    check_batches(batches or [])


@import_app.command(
    "checkpoint",
    epilog="Example: inbetween import checkpoint model_epoch399.pth data/raw/given/motion/authors"
    " --mean mean_pose.npy --std std_pose.npy",
)
def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="the authors' .pth or .pt file: motion network, netG or netD")],
    folder: Annotated[Path, typer.Argument(help="the checkpoint folder to write")],
    encoder_mask: Annotated[
        str, typer.Option(help="plus-one: weights the authors published (torch 1.4); exclude: trained in torch >= 1.5")
    ] = "plus-one",
    num_heads: Annotated[int, typer.Option(min=1, help="attention heads, which the file does not tell")] = 8,
    mean: Annotated[Path | None, typer.Option(help="mean_pose.npy of the data it was trained on")] = None,
    std: Annotated[Path | None, typer.Option(help="std_pose.npy of the data it was trained on")] = None,
) -> None:
    """The authors' weights as a checkpoint folder; the network's kind and size are found from names and shapes.

    The options are the motion network's alone.
    """
    from flows.progress import say
    from tasks.authors_checkpoint import import_authors_checkpoint

    say(import_authors_checkpoint(file, folder, encoder_mask=encoder_mask, num_heads=num_heads, mean=mean, std=std))


@export_app.command("checkpoint", epilog="Example: inbetween export checkpoint data/models/motion model.pth")
def export_checkpoint(
    folder: Annotated[Path, typer.Argument(help="a checkpoint folder that holds a transformer")],
    file: Annotated[Path, typer.Argument(help="the file to write, with the authors' names")],
    mean: Annotated[Path | None, typer.Option(help="mean_pose.npy to write beside it")] = None,
    std: Annotated[Path | None, typer.Option(help="std_pose.npy to write beside it")] = None,
) -> None:
    """A motion transformer's weights as a file with the authors' names."""
    from flows.progress import say
    from tasks.authors_checkpoint import export_authors_checkpoint

    say(export_authors_checkpoint(folder, file, mean=mean, std=std))


def main() -> None:
    """Entry point of the installed command."""
    prepare_environment()
    from tasks.errors import InbetweenError

    try:
        app(standalone_mode=True)
    except InbetweenError as error:
        _fail(str(error), 2)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # Typer's own way to end on Ctrl-C, without a word
            _fail("stopped; what is finished is kept for the next run", INTERRUPTED)
        raise
    except ImportError as error:
        # A slim machine lacks the system libraries that OpenCV's wheel links to.
        if ".so" not in str(error):
            raise
        _fail(
            f"{error}; install the system packages (Debian, Ubuntu: apt-get install libgl1 libglib2.0-0 libxcb1)",
            2,
        )
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(line: str, code: int) -> None:
    command = Path(sys.argv[0]).name
    words = " ".join(word for word in sys.argv[1:3] if not word.startswith("-"))
    print(f"{command} {words}: {line}".replace(" :", ":"), file=sys.stderr)  # noqa: T201
    sys.exit(code)


if __name__ == "__main__":
    main()
