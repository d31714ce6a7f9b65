"""`inbetween lineage verify | cost | withdraw | restore`: the commands that read or change bytes."""

from typing import Annotated

import typer

from flows.lineage.commands import Json, app

__all__ = ["app"]


@app.command(epilog="Example: inbetween lineage verify --all-revs --repair")
def verify(
    workspace: Annotated[bool, typer.Option("--workspace", help="the work tree's files; all three by default")] = False,
    cache: Annotated[bool, typer.Option("--cache", help="DVC's cache")] = False,
    remotes: Annotated[bool, typer.Option("--remotes", help="every remote of DVC's configuration")] = False,
    rev: Annotated[str | None, typer.Option(help="a tag, branch or commit; the work tree's lock by default")] = None,
    all_revs: Annotated[bool, typer.Option("--all-revs", help="every revision that a branch or tag reaches")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="mend from another place's good copy")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="hash again what a run that was cut off has hashed")] = False,
    threads: Annotated[int, typer.Option(min=0, help="0 = as many as there are cores")] = 0,
    json: Json = False,
) -> None:
    """Hash workspace, cache and remotes against the lock files. Exit 1 where something is missing or corrupt."""
    from flows.lineage import verify as verifying
    from tasks.lineage.errors import LineageError
    from tasks.lineage.verify import CACHE, WORKSPACE

    if rev and all_revs:
        raise LineageError("--rev and --all-revs: give one of the two")
    flags = {WORKSPACE: workspace, CACHE: cache, "remotes": remotes}
    answer = verifying.verify(
        places=tuple(place for place, is_on in flags.items() if is_on) or verifying.PLACES,
        rev=rev,
        all_revs=all_revs,
        is_repairing=repair,
        is_fresh=fresh,
        threads=threads,
    )
    print(verifying.to_json(answer) if json else verifying.show_verification(answer))  # noqa: T201
    if not answer.is_well:
        raise typer.Exit(1)
