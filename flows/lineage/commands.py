"""`inbetween lineage ...`: each question as a table for a person, or with --json for a program."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from flows.lineage.tables import Answer
    from tasks.lineage.lineage import Lineage

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


def _answer(ask: Callable[["Lineage"], "Answer"], show: str, as_json: bool) -> "Answer":
    """Ask, print, and give the answer back. show: the function of flows/lineage/tables.py that prints it."""
    from flows.lineage import open_lineage, tables

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


@app.command(epilog="Example: inbetween lineage record && git add lineage/runs.jsonl")
def record() -> None:
    """Note in lineage/runs.jsonl the stages that DVC restored from its cache since the last time."""
    from flows.lineage.record import record_restored
    from flows.progress import say

    say(f"lineage: {record_restored()} restored stages noted in lineage/runs.jsonl")
