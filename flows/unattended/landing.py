"""Land what a run made in a clone: data to the DVC remote first, then one commit on origin's branch.

When somebody else landed in between, the tree is brought to their commit, the change is made again and the stages run
again, which DVC restores from its run cache: YAML is never merged. At most MAX_ATTEMPTS times; or the commit is left on
a branch of its own.
"""

import random
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flows.lifetime import hold_lock
from flows.progress import say
from flows.project import STATE
from flows.unattended.clones import Clone, CommandError, UnreachableError
from tasks.errors import InbetweenError, ParamsError

Landing = Literal["push", "branch"]

MAX_ATTEMPTS = 10
# What a run may change for git; everything else in the tree stays uncommitted.
LANDED_PATHS = ("catalog", "params.yaml", "dvc.lock", "metrics", "lineage")
_LOCK = STATE / "locks" / "landing.lock"


class LandingError(InbetweenError):
    """Everything is made and pushed to the remote, and yet nothing landed."""


@dataclass(frozen=True)
class Change:
    """What a run does to the tree, as often as it must be done.

    apply: edits the tree (registers the batch).  repro: brings the stages up to date.
    targets: stages whose data is pushed, with what they need; () = all.
    message: of the commit.  branch: where it is left for review.
    """

    apply: Callable[[Path], None]
    repro: Callable[[], None]
    targets: tuple[str, ...]
    message: str
    branch: str


def make(clone: Clone, change: Change) -> None:
    """Do the change on the clone's base, and have its data on the remote."""
    change.apply(clone.root)
    change.repro()
    push_data(clone, change.targets)


def land(clone: Clone, change: Change, landing: Landing) -> str:
    """Commit and push what `make` left in the tree.

    Returns: the commit, "" where nothing had changed.
    Raises: LandingError; UnreachableError; what the change raises.
    """
    if landing == "branch":
        commit = _commit(clone, change.message)
        if commit:
            _push(clone, change.branch, force=True)
        return commit
    for attempt in range(1, MAX_ATTEMPTS + 1):
        is_first = attempt == 1
        if not is_first:
            time.sleep(random.uniform(0, min(attempt, 5)))  # noqa: S311 # others who were refused come again as well
        # Having been refused once, runs of this machine take turns from then on.
        with hold_lock(_LOCK, "landing") if not is_first else nullcontext():
            if clone.fetch() != clone.base:
                say(f"landing: origin/{clone.branch} has moved; the change is made again on it")
                clone.reset(keeps_record=True)
                make(clone, change)
            with hold_lock(_LOCK, "landing") if is_first else nullcontext():
                commit = _commit(clone, change.message)
                if not commit or _push(clone, clone.branch):
                    return commit
    raise LandingError(
        f"origin refused {MAX_ATTEMPTS} times, because others landed in between; run it again, or let it leave a branch"
    )


def push_data(clone: Clone, targets: tuple[str, ...]) -> None:
    """Have the targets' data, and that of what they need, on the DVC remote.

    Raises: ParamsError where there is no remote; UnreachableError where it gives no answer.
    """
    remote = default_remote(clone.root)
    lines: list[str] = []
    code = clone.dvc("push", "--quiet", *(["--with-deps", *targets] if targets else []), on_line=lines.append)
    if code:
        said = next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "no word")
        raise UnreachableError(f"dvc push to {remote}: {said.removeprefix('ERROR: ')}")


def default_remote(root: Path) -> str:
    """The name of the DVC remote that data is pushed to. Raises: ParamsError where none is set."""
    from dvc.config import Config

    name = Config(str(root / ".dvc"), validate=False).get("core", {}).get("remote")
    if not name:
        raise ParamsError(
            "there is no DVC remote to push the data to; add one in the checkout that the worker was started in:"
            " dvc remote add --local -d store /path/or/bucket"
        )
    return str(name)


def _commit(clone: Clone, message: str) -> str:
    paths = [path for path in LANDED_PATHS if (clone.root / path).exists()]
    clone.git("add", "--all", "--", *paths)
    changed = clone.git("diff", "--cached", "--name-only").stdout.splitlines()
    if all(path.startswith("lineage/") for path in changed):  # a run by itself is nothing to land
        # A refused attempt may have committed already.
        head = clone.git("rev-parse", "HEAD").stdout.strip()
        return head if head != clone.base else ""
    clone.git("commit", "--quiet", "--no-verify", "-m", message)
    return clone.git("rev-parse", "HEAD").stdout.strip()


def _push(clone: Clone, branch: str, *, force: bool = False) -> bool:
    """False where origin refused because its branch has moved. Raises: UnreachableError for any other reason."""
    try:
        clone.git("push", "--quiet", *(["--force"] if force else []), "origin", f"HEAD:refs/heads/{branch}")
    except CommandError as error:
        if not force and clone.fetch() != clone.base:
            return False
        raise UnreachableError(str(error)) from error
    return True
