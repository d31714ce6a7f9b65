"""`inbetween lineage ...`: each question as a table for a person, or with --json for a program."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

if TYPE_CHECKING:
    from tasks.lineage.lineage import Lineage

T = TypeVar("T")
Rev = Annotated[
    str | None, typer.Option("--rev", help="a tag, branch or commit; the work tree as it stands by default")
]
Json = Annotated[bool, typer.Option("--json", help="the whole answer as JSON, every item")]
Name = Annotated[
    str,
    typer.Argument(
        metavar="THING",
        help="a path, stage, checkpoint, metric, clip, video (id, source or URL), motion, subject, frame (CLIP:N) or"
        " hash; KIND:NAME where a name means several things",
    ),
]

app = typer.Typer(no_args_is_help=True, help="Where data and checkpoints come from, and what was made from what.")


def _answer(ask: Callable[["Lineage"], T], show: str, as_json: bool) -> T:
    """Ask, print, and give the answer back. show: the function of flows/lineage/tables.py that prints it."""
    import gc

    from flows.lineage import open_lineage, tables

    gc.disable()  # a process of a second with a million small things: looking for circles takes a third of it
    answer = ask(open_lineage())
    print(tables.to_json(answer) if as_json else getattr(tables, show)(answer))  # noqa: T201
    return answer


@app.command(epilog="Example: inbetween lineage upstream data/models/motion")
def upstream(thing: Name, rev: Rev = None, json: Json = False) -> None:
    """What a thing was made from: videos, recordings, body models, weights, code, params, who and when."""
    _answer(lambda lineage: lineage.upstream(thing, rev), "show_upstream", json)


@app.command(epilog="Example: inbetween lineage downstream video:sample/kick_back")
def downstream(thing: Name, rev: Rev = None, json: Json = False) -> None:
    """What holds or used a thing, in every revision that git still reaches, and where its bytes lie."""
    _answer(lambda lineage: lineage.downstream(thing, rev), "show_downstream", json)


@app.command(epilog="Example: inbetween lineage diff v1 HEAD --path data/samples/sample")
def diff(
    before: Annotated[str, typer.Argument(help="a tag, branch or commit")],
    after: Annotated[str | None, typer.Argument(help="another; the work tree by default")] = None,
    path: Annotated[str, typer.Option(help="a dataset or folder alone")] = "",
    json: Json = False,
) -> None:
    """What changed between two revisions: items added, dropped, changed, and why (data, params, code, tools)."""
    _answer(lambda lineage: lineage.diff(before, after, path), "show_diff", json)


@app.command(epilog="Example: inbetween lineage history data/models/motion")
def history(thing: Name, rev: Rev = None, json: Json = False) -> None:
    """A thing's versions over all revisions, and what made each differ from the one before."""
    _answer(lambda lineage: lineage.history(thing, rev), "show_history", json)


@app.command(epilog="Example: inbetween lineage why render@warp-8")
def why(stage: Annotated[str, typer.Argument(help="a stage: pose@sample")], json: Json = False) -> None:
    """Why a stage is due: the items, parameters and code files that are not what they were when it last ran."""
    from flows.lineage.why import explain_stage

    _answer(lambda lineage: explain_stage(lineage, stage), "show_why", json)


@app.command(epilog="Example: inbetween lineage coverage --rev v1")
def coverage(rev: Rev = None, json: Json = False) -> None:
    """Outputs that nobody is recorded to have made; sources without licence, hash or date."""
    _answer(lambda lineage: lineage.coverage(rev), "show_coverage", json)


@app.command(epilog="Example: inbetween lineage leaks")
def leaks(rev: Rev = None, json: Json = False) -> None:
    """Frames, clips, videos and subjects that stand in both training and test, of every model and catalogue."""
    _answer(lambda lineage: lineage.leaks(rev), "show_leaks", json)


@app.command(epilog="Example: inbetween lineage licences data/models/motion && echo may be sold")
def licences(thing: Name, rev: Rev = None, json: Json = False) -> None:
    """May it be used commercially? The strictest parent wins, unknown is no. Exit code: 0 yes, 1 no."""
    if not _answer(lambda lineage: lineage.licences(thing, rev), "show_licences", json).is_allowed:
        raise typer.Exit(1)


@app.command(epilog="Example: inbetween lineage record && git add lineage/runs.jsonl")
def record() -> None:
    """Note in lineage/runs.jsonl the stages that DVC restored from its cache since the last time."""
    from flows.lineage.record import record_restored
    from flows.progress import say

    say(f"lineage: {record_restored()} restored stages noted in lineage/runs.jsonl")


@app.command(epilog="Example: inbetween lineage export data/models/motion --format cyclonedx --out motion.cdx.json")
def export(
    thing: Annotated[
        str,
        typer.Argument(
            metavar="[THING]",
            help="a data folder (croissant), a checkpoint (cyclonedx), or what to send the runs of (openlineage; all by"
            " default)",
        ),
    ] = "",
    form: Annotated[
        Literal["openlineage", "croissant", "cyclonedx"], typer.Option("--format", help="of the document")
    ] = "openlineage",
    out: Annotated[Path | None, typer.Option(help="a file; the terminal by default")] = None,
    url: Annotated[
        str, typer.Option(help="post the events to an OpenLineage server; OPENLINEAGE_API_KEY is its key")
    ] = "",
    rev: Rev = None,
    repository: Annotated[
        str, typer.Option(help="git URL to give; by default what pyproject.toml declares, else remote origin's")
    ] = "",
    namespace: Annotated[str, typer.Option(help="of jobs and datasets in the events")] = "",
) -> None:
    """For other tools: OpenLineage events, a data folder's Croissant card, a checkpoint's CycloneDX bill."""
    from flows.lineage import open_lineage
    from flows.lineage.export import export as write

    write(open_lineage(), form, thing, rev, out=out, url=url, repository=repository, namespace=namespace)


@app.command(epilog="Example: inbetween lineage page, then open lineage.html; of a release: page v1.html --rev v1")
def page(
    out: Annotated[Path, typer.Argument(metavar="[OUT.html]", help="the file to write")] = Path("lineage.html"),
    rev: Rev = None,
    pictures: Annotated[
        float, typer.Option(min=0, max=50, help="MB of all clips' pictures together, at most; 0 = none")
    ] = 1.5,
) -> None:
    """One HTML file to look at: everything from sources to report, each thing's path, with search, filters and marks.

    It needs no server and no network, and can be sent to somebody: it holds small pictures of the clips.
    """
    import gc

    from flows.lineage.page import write_page

    gc.disable()  # as in _answer
    write_page(out, rev, pictures_mb=pictures)
