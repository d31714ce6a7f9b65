"""What the data costs: bytes a dataset and revision, objects that nobody refers to, and time a stage."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tasks.lineage.references import Member, Output, Revision
from tasks.lineage.runs import Run


class DatasetCost(NamedTuple):
    """A path that DVC tracks.

    now: bytes in the work tree's version.  versions: how many different there are.  all: bytes of all of them, what
    they share counted once.  own: bytes that no other dataset has.
    """

    path: str
    now: int
    versions: int
    all: int
    own: int


class RevisionCost(NamedTuple):
    """num_bytes: of all it refers to.  new: of those that no older revision refers to."""

    name: str
    num_bytes: int
    new: int


class StageCost(NamedTuple):
    """seconds: of all its runs.  last: of the last."""

    stage: str
    runs: int
    restored: int
    seconds: float
    last: float


class OrphanCost(NamedTuple):
    """Objects of a place that no revision refers to."""

    place: str
    objects: int
    num_bytes: int
    all_objects: int
    all_bytes: int
    md5s: list[str]


@dataclass(frozen=True)
class Cost:
    """revisions: newest first, the work tree before them.  open: what could not be told."""

    datasets: list[DatasetCost]
    revisions: list[RevisionCost]
    orphans: list[OrphanCost]
    stages: list[StageCost]
    open: list[str]


def count_cost(
    revisions: Sequence[Revision],
    members: Callable[[str], list[Member] | None],
    places: Sequence[tuple[str, dict[str, int]]],
    runs: Iterable[Run],
) -> Cost:
    """Args: revisions: the work tree, then the commits, newest first.  members: of a folder's md5.  places: name, and
    md5 -> bytes of its objects.
    """
    sizes: dict[str, int] = {}
    for _, table in places:
        sizes.update(table)
    counter = _Counter(members, sizes)
    datasets = _datasets(revisions, counter)
    rows: list[RevisionCost] = []
    older: set[str] = set()
    uncached: set[str] = set()
    for revision in reversed(revisions):
        objects = set().union(*(counter.objects(output) for output in revision.outputs if output.is_cached))
        rows.append(RevisionCost(revision.name, counter.size(objects), counter.size(objects - older)))
        older |= objects
        # DVC's run cache keeps git's outputs as well.
        uncached.update(
            *(counter.objects(output, is_listed=False) for output in revision.outputs if not output.is_cached)
        )
    orphans = []
    for name, table in places:
        lost = sorted(table.keys() - older - uncached)
        total = sum(table[md5] for md5 in lost)
        orphans.append(OrphanCost(name, len(lost), total, len(table), sum(table.values()), lost))
    problems = [problem for revision in revisions for problem in revision.problems]
    return Cost(datasets, rows[::-1], orphans, _stages(runs), list(dict.fromkeys([*problems, *counter.notes()])))


class _Counter:
    """The objects of an output: its files', and its list."""

    def __init__(self, members: Callable[[str], list[Member] | None], sizes: dict[str, int]) -> None:
        self._members, self._sizes = members, sizes
        self._objects: dict[str, frozenset[str]] = {}
        self._unlisted: dict[str, str] = {}

    def objects(self, output: Output, *, is_listed: bool = True) -> frozenset[str]:
        """Args: is_listed: a folder's list should be in some place."""
        if output.md5 not in self._objects:
            found = {output.md5}
            if output.is_folder:
                listed = self._members(output.md5)
                if listed is None and is_listed:
                    self._unlisted[output.md5] = output.path
                found |= {member.md5 for member in listed or []}
            if output.md5 not in self._sizes and (not output.is_folder or output.md5 in self._unlisted):
                self._sizes[output.md5] = output.size  # as the lock file says
            self._objects[output.md5] = frozenset(found)
        return self._objects[output.md5]

    def size(self, objects: Iterable[str]) -> int:
        return sum(self._sizes.get(md5, 0) for md5 in objects)

    def notes(self) -> list[str]:
        if not self._unlisted:
            return []
        paths = sorted(set(self._unlisted.values()))
        line = f"{len(self._unlisted)} versions of {', '.join(paths[:3])}: the list of their files is in no place;"
        return [f"{line} counted by the size in the lock file, with nothing shared"]


def _datasets(revisions: Sequence[Revision], counter: _Counter) -> list[DatasetCost]:
    versions: dict[str, dict[str, Output]] = {}
    for revision in revisions:
        for output in revision.outputs:
            if output.is_cached:
                versions.setdefault(output.path, {}).setdefault(output.md5, output)
    now = {output.path: output for output in revisions[0].outputs if output.is_cached} if revisions else {}
    objects = {
        path: frozenset().union(*(counter.objects(output) for output in outputs.values()))
        for path, outputs in versions.items()
    }
    owners: dict[str, int] = {}
    for own in objects.values():
        for md5 in own:
            owners[md5] = owners.get(md5, 0) + 1
    rows = [
        DatasetCost(
            path,
            counter.size(counter.objects(now[path])) if path in now else 0,
            len(versions[path]),
            counter.size(own),
            counter.size(md5 for md5 in own if owners[md5] == 1),
        )
        for path, own in objects.items()
    ]
    return sorted(rows, key=lambda row: (-row.all, row.path))


def _stages(runs: Iterable[Run]) -> list[StageCost]:
    found: dict[str, StageCost] = {}
    for run in runs:
        row = found.get(run.stage, StageCost(run.stage, 0, 0, 0.0, 0.0))
        if run.event == "restored":
            found[run.stage] = row._replace(restored=row.restored + 1)
        else:
            seconds = run.seconds or 0.0
            found[run.stage] = row._replace(runs=row.runs + 1, seconds=row.seconds + seconds, last=seconds)
    return sorted(found.values(), key=lambda row: (-row.seconds, row.stage))
