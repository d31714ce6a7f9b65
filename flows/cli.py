"""The command line `inbetween`. Each command checks its input, calls one function, and turns our errors into one line.

Exit codes: 0 done; 2 the user's mistake, one line that names the file, row or parameter and the remedy; 1 a fault.
Heavy imports stand inside the commands: `inbetween stage NAME` loads only what that stage needs.
"""

import errno
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.lineage.audit import app as lineage_app
from flows.project import RUNNER, prepare_environment

INTERRUPTED = 130

# Of `render`, for its help; their modules are too heavy to import here.
_Method = Literal["warp", "neural", "rife", "flow", "blend"]
_Motion = Literal["learned", "robust", "cubic", "linear"]
_Base = Literal["rife", "flow"]
_Background = Literal["warp", "base"]
_Device = Literal["auto", "cpu", "cuda"]
_Audio = Literal["keep", "stretch", "drop"]
Missing = Literal["fail", "skip"]
Landing = Literal["push", "branch"]
Runner = Literal["local", "ray"]

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
app.add_typer(lineage_app, name="lineage")


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
    pull: Annotated[
        bool, typer.Option(help="data that is not here is not needed, or comes from the remote (as in a clone)")
    ] = False,
    runner: Annotated[
        Runner | None,
        typer.Option(help="where items run, whatever run.runner says: here, or on a Ray cluster"),
    ] = None,
) -> None:
    """`dvc repro` as a Prefect flow: stages as tasks, their work as tasks of the same run, the same dvc.lock."""
    from flows.repro import plan_repro, run_repro

    if runner:
        os.environ[RUNNER] = runner  # for every stage of the run
    if plan:
        plan_repro(targets or [], pull=pull)
    else:
        run_repro(targets or [], force=force, pull=pull)


@app.command(epilog="Example: inbetween ingest b001 --render warp-8 --missing skip")
def ingest(
    batch: Annotated[str, typer.Argument(help="its name; catalog/BATCH holds videos.csv and clips.csv")],
    render: Annotated[list[str] | None, typer.Option(help="METHOD-STEP of a render to register: warp-8")] = None,
    key_step: Annotated[
        list[int] | None, typer.Option(help="every K-th frame is a key; those of renders by itself")
    ] = None,
    missing: Annotated[Missing, typer.Option(help="a dead video: fail | skip = go on without it")] = "fail",
    landing: Annotated[Landing, typer.Option(help="push = on origin's main; branch = inbetween/ingest-BATCH")] = "push",
    file: Annotated[Path | None, typer.Option(help="the whole batch as JSON or YAML, instead of the catalogue")] = None,
    event: Annotated[bool, typer.Option(help="only tell the server, which starts ingest/new-batch")] = False,
) -> None:
    """Register a batch and run its stages, renders included, in a clone; push its data, land it on origin's main."""
    from flows.unattended.submit import read_request, run_ingest, tell_registered

    request = read_request(batch, file, key_step or [], render or [], missing)
    if event:
        tell_registered(request, landing=landing)
    else:
        run_ingest(request, landing=landing, stages="all")


@app.command(epilog="Example: inbetween server, or: make server")
def server(
    host: Annotated[str, typer.Option(help="loopback, or another where the server has authentication")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 = a free one")] = 4200,
) -> None:
    """Keep a Prefect server running until Ctrl-C: schedules, triggers, the page with the runs."""
    from flows.unattended.standing import keep_server

    keep_server(host, port)


@app.command(epilog="Example: inbetween worker --pool cpu --limit 2")
def worker(
    pool: Annotated[Literal["cpu", "gpu"], typer.Option(help="whose runs it takes")] = "cpu",
    limit: Annotated[int, typer.Option(min=1, max=64, help="runs at a time, each in a clone of its own")] = 2,
) -> None:
    """Keep a Prefect worker running until Ctrl-C."""
    from flows.unattended.standing import keep_worker

    keep_worker(pool, limit)


@app.command(epilog="Example: inbetween deploy")
def deploy() -> None:
    """Make work pools, deployments and automations on the server, or renew them."""
    from flows.unattended.deploy import deploy

    deploy()


@app.command(epilog="Example: inbetween doctor")
def doctor() -> None:
    """What unattended runs need and lack (server, pools, workers, limits, disk, GPU, ffmpeg, remotes), and the remedy.

    Exit 2 where a run would fail.
    """
    from flows.unattended.doctor import run_doctor

    run_doctor()


@app.command(epilog="Example: make demo, which makes the environment and then runs this")
def demo() -> None:
    """The whole pipeline on the sample's real footage by plain `dvc repro`, then the numbers and the page to open."""
    from flows.demo import run_demo

    run_demo()


@app.command(epilog="Example: inbetween render dance.mp4 dance-slow.mp4 --slow 8")
def render(
    source: Annotated[Path, typer.Argument(metavar="IN", help="any video that ffmpeg reads")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="the video to write: .mp4, .m4v, .mov or .mkv")],
    rate: Annotated[
        int | None, typer.Option(min=2, max=256, help="times the frames in the same time; 2 by default")
    ] = None,
    fps: Annotated[str | None, typer.Option(help="frames a second in the same time: 60, 59.94, 60000/1001")] = None,
    slow: Annotated[
        int | None, typer.Option(min=2, max=256, help="slow motion: times the frames at the same rate")
    ] = None,
    method: Annotated[_Method, typer.Option(help="what makes the frames between")] = "warp",
    motion: Annotated[_Motion, typer.Option(help="what the person's joints do between the frames")] = "learned",
    base: Annotated[_Base, typer.Option(help="what warp works over; flow where rife is not installed")] = "rife",
    background: Annotated[
        _Background, typer.Option(help="what neural paints over; base = the frames of --base")
    ] = "warp",
    renderer: Annotated[Path | None, typer.Option(help="folder of a trained renderer, for method neural")] = None,
    motion_model: Annotated[Path | None, typer.Option(help="folder of a motion network, for motion learned")] = None,
    device: Annotated[_Device, typer.Option(help="of RIFE and of neural; auto = a GPU where there is one")] = "auto",
    audio: Annotated[_Audio | None, typer.Option(help="keep by default; with --slow drop, or stretch")] = None,
    frames: Annotated[Path | None, typer.Option(help="folder for every frame as PNG: frame_000000.png on")] = None,
    crf: Annotated[int | None, typer.Option(min=0, max=51, help="H.264 quality, lower is better")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="processes; one a core by default")] = None,
    overwrite: Annotated[bool, typer.Option(help="replace OUT if it exists")] = False,
) -> None:
    """One video in, one at a higher frame rate or in slow motion out, with its sound, and a table of its frames.

    Every frame of IN stays, and the frames between are made. Stopped or killed, the same command goes on where it was.
    """
    from flows.render_options import RenderOptions, read_pace
    from flows.render_video import render_video

    options = RenderOptions(
        pace=read_pace(rate, fps, slow),
        method=method,
        motion=motion,
        base=base,
        background=background,
        device=device,
        motion_model=motion_model,
        renderer=renderer,
        audio=audio,
        frames=frames,
        crf=crf,
        workers=workers,
        overwrite=overwrite,
    )
    render_video(source, target, options)


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


@import_app.command("h5", epilog="Example: inbetween import h5 HumanSlomo.h5 --name humanslomo --batch humanslomo")
def import_h5(
    file: Annotated[Path, typer.Argument(help="HumanSlomo.h5 or AMASS_3D_joints.h5")],
    name: Annotated[str, typer.Option(help="of the folder in data/raw/given/imports")],
    batch: Annotated[str, typer.Option(help="the batch whose catalogue numbers the frames of its clips")] = "",
    fps: Annotated[
        list[str] | None, typer.Option(help="what the file does not tell: 60, or DATASET=120 (may be repeated)")
    ] = None,
    licence: Annotated[str, typer.Option(help="of the motions")] = "AMASS, non-commercial research",
    new_batch: Annotated[str, typer.Option(help="make batches NAME-train and NAME-test of the imported clips")] = "",
) -> None:
    """The 2021 authors' published sets as tables; stopped, the same command goes on where it was."""
    from flows.imports import run_import_h5

    run_import_h5(file, name, batch, fps or [], licence, new_batch)


@import_app.command(
    "poses", epilog="Example: inbetween import poses HumanSlomo/test/poses --name poses --batch humanslomo"
)
def import_poses(
    folder: Annotated[Path, typer.Argument(help="a folder a clip of OpenPose JSON, BODY_25 and hands")],
    name: Annotated[str, typer.Option(help="of the folder in data/raw/given/imports")],
    batch: Annotated[str, typer.Option(help="the batch whose catalogue says which frames its clips have")] = "",
) -> None:
    """Poses that exist already, for `pose: {worker: openpose, source: ...}` of a batch."""
    from flows.imports import run_import_folder

    run_import_folder("poses", folder, name, batch)


@import_app.command("backgrounds", epilog="Example: inbetween import backgrounds HumanSlomo/test/DAIN --name dain")
def import_backgrounds(
    folder: Annotated[Path, typer.Argument(help="a folder a clip of DAIN's pictures, FRAME_TIME.png")],
    name: Annotated[str, typer.Option(help="of the folder in data/raw/given/imports")],
    batch: Annotated[str, typer.Option(help="the batch whose catalogue says which frames its clips have")] = "",
) -> None:
    """Backgrounds that exist already, for `interpolator: imported` of a background set."""
    from flows.imports import run_import_folder

    run_import_folder("backgrounds", folder, name, batch)


@export_app.command("poses", epilog="Example: inbetween export poses sample poses-json --which observed-8")
def export_poses(
    source: Annotated[str, typer.Argument(help="a batch, or a folder of pose tables")],
    folder: Annotated[Path, typer.Argument(help="where a folder a clip is written")],
    which: Annotated[str, typer.Option(help="the pass: truth, or observed-K")] = "truth",
) -> None:
    """Our poses as OpenPose JSON, BODY_25 and hands, as the 2021 scripts read them."""
    from flows.imports import run_export_poses

    run_export_poses(source, folder, which)


def main() -> None:
    """Entry point of the installed command."""
    prepare_environment()
    from flows.disk import AGAIN, describe_full_disk, find_full_disk, remove_cut_module
    from tasks.errors import InbetweenError

    try:
        app(standalone_mode=True)
    except InbetweenError as error:
        _fail(str(error), 2)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # Typer's own way to end on Ctrl-C, without a word
            _fail("stopped; what is finished is kept for the next run", INTERRUPTED)
        if line := remove_cut_module(end):  # Typer takes it for the end of what a user types
            _fail(line, 1)
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
    except Exception as error:
        if line := describe_full_disk(error):
            _fail(line, 1)
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and error.filename:
            _fail(f"{error.filename}: {error.strerror}; change its permissions, or name another place", 2)
        if not (folder := find_full_disk()):
            raise
        traceback.print_exc()  # it may have nothing to do with it
        _fail(f"{folder}: the disk is full; {AGAIN}", 1)


def _fail(line: str, code: int) -> None:
    command = Path(sys.argv[0]).stem.replace("cli", "inbetween")  # python -m flows.cli
    words = " ".join(word for word in sys.argv[1:3] if not word.startswith("-"))
    print(f"{command} {words}: {line}".replace(" :", ":"), file=sys.stderr)  # noqa: T201
    sys.exit(code)


if __name__ == "__main__":
    main()
