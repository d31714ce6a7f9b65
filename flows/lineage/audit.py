"""`inbetween lineage verify | cost | withdraw | restore`: the commands that read or change bytes."""

from pathlib import Path
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


@app.command(epilog="Example: inbetween lineage cost --json")
def cost(json: Json = False) -> None:
    """Bytes of each dataset and revision, objects that no revision refers to, and the time each stage took."""
    from flows.lineage import cost as costing

    answer = costing.cost()
    print(costing.to_json(answer) if json else costing.show_cost(answer))  # noqa: T201


@app.command(epilog="Example: inbetween lineage restore v1.0 data/sample/clips --to /tmp/then")
def restore(
    rev: Annotated[str, typer.Argument(help="a tag, branch or commit")],
    path: Annotated[str, typer.Argument(help="a file or folder that DVC tracked then")],
    to: Annotated[Path | None, typer.Option(help="a folder to write below, instead of the project itself")] = None,
    jobs: Annotated[int, typer.Option(min=0, help="threads; 0 = as many as there are cores")] = 0,
    json: Json = False,
) -> None:
    """Bring back a path as it stood in a revision, every file that was not withdrawn, and list those that were.

    What stands in the way is moved to .inbetween/replaced. Exit 1 where a file is in no place.
    """
    from flows.lineage import restore as restoring

    answer = restoring.restore(rev, path, to=to, threads=jobs)
    print(restoring.to_json(answer) if json else restoring.show_restored(answer))  # noqa: T201
    if answer.missing:
        raise typer.Exit(1)


@app.command(epilog='Example: inbetween lineage withdraw sample/kick_back --apply --reason "asked for by the uploader"')
def withdraw(
    video: Annotated[str, typer.Argument(help="BATCH/VIDEO, VIDEO, its source or URL")],
    apply: Annotated[bool, typer.Option("--apply", help="do it; without, the plan alone is shown")] = False,
    reason: Annotated[str, typer.Option(help="why, for catalog/B/withdrawn.csv")] = "",
    retrain: Annotated[bool, typer.Option("--retrain", help="train again what was trained on it")] = False,
    jobs: Annotated[int, typer.Option(min=0, help="threads; 0 = as many as there are cores")] = 0,
    json: Json = False,
) -> None:
    """Take a video and all that was cut or drawn from it out of every place and revision, and prove that it is gone.

    Exit 1 where something is left, open, or could not be rebuilt. Killed half-way, run it again.
    """
    from flows.lineage import withdraw as withdrawing
    from flows.lineage import withdraw_tables as tables
    from tasks.lineage.errors import LineageError

    if apply and not reason.strip():
        raise LineageError('--apply: needs --reason "TEXT", which stands in catalog/B/withdrawn.csv')
    outcome = None
    if apply:
        found, outcome = withdrawing.withdraw(video, reason, is_retraining=retrain, threads=jobs)
    else:
        found = withdrawing.plan(video, is_retraining=retrain)
    if json:
        print(tables.to_json(found, outcome))  # noqa: T201
    else:
        print(tables.show_plan(found, is_applied=apply))  # noqa: T201
        if outcome:
            print(tables.show_outcome(outcome))  # noqa: T201
    if outcome and not outcome.is_done:
        raise typer.Exit(1)
