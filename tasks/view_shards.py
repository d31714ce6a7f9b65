"""The 2D shards that stage views writes, as training and evaluation read them: row group by row group.

Files are opened once; sizes and what a shard was made with come from its footer, without reading data.
Axes: T frames, J joints (19), E entries of a network row (19), 2 = (u, v) projected units.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.motion.views import BORDER, DEPTH_M, FOCAL, JITTER, NEAR_M, Moments, Normalisation, merge_moments
from models.skeleton import NUM_JOINTS, Joint
from tasks.errors import TableError
from tasks.tables import Table, list_tables

POINTS_FRAME_BYTES = NUM_JOINTS * 2 * 4
NORMALISATION = "normalisation"  # a shard's fact; with .json, a subset's file

# The camera and the joints that shards are made with, a shard's facts: those of another program are refused.
SETTINGS: Mapping[str, str] = {
    "focal": repr(FOCAL),
    "depth_m": repr(DEPTH_M),
    "jitter": repr(JITTER),
    "near_m": repr(NEAR_M),
    "border": repr(BORDER),
    "num_joints": str(NUM_JOINTS),
    "joint_order": " ".join(joint.name.lower() for joint in Joint),
}


class Sequence2D(NamedTuple):
    """One motion as one camera sees it. points_TJ2: (T, 19, 2) float32, read-only."""

    subset: str
    subject: str
    sequence: str
    view: int
    licence: str
    source_sha256: str
    points_TJ2: npt.NDArray[np.float32]


class SequenceFacts(NamedTuple):
    """One motion, however many cameras see it: what provenance and checks need."""

    subset: str
    subject: str
    sequence: str
    licence: str
    source_sha256: str
    num_frames: int


class GroupSize(NamedTuple):
    """num_sequences: rows of the group.  num_frames: of all of them."""

    num_sequences: int
    num_frames: int

    @property
    def num_bytes(self) -> int:
        """Of the points, decoded."""
        return self.num_frames * POINTS_FRAME_BYTES


class ViewShards:
    """The shards of some subsets as one list of row groups. To be used by one thread at a time.

    Attributes: sizes: of every row group.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        """Open them. Args: folders: data/views/SUBSET, in the order that their row groups shall have.

        Raises: TableError where a folder has no shard, or a shard is damaged or made with other settings.
        """
        self._tables = [open_shard(path) for folder in folders for path in list_tables(folder)]
        self._groups: list[tuple[Table, int]] = []
        self.sizes: list[GroupSize] = []
        for table in self._tables:
            for group, (num_rows, num_values) in enumerate(
                zip(table.group_rows, table.group_values("points"), strict=True)
            ):
                self._groups.append((table, group))
                self.sizes.append(GroupSize(num_rows, num_values // (NUM_JOINTS * 2)))

    def __len__(self) -> int:
        """Number of row groups."""
        return len(self._groups)

    def read_group(self, number: int) -> list[Sequence2D]:
        """The sequences of a row group. Their points share one array, which lives as long as any of them.

        Raises: TableError where the group is damaged.
        """
        table, group = self._groups[number]
        names = [name for name in Sequence2D._fields if name != "points_TJ2"]
        columns = table.read_group(group, [*names, "num_frames", "points"])
        points = columns["points"].combine_chunks()
        values, ends = points.values.to_numpy(), points.offsets.to_numpy()
        sequences = []
        for row, cells in enumerate(columns.drop_columns("points").to_pylist()):
            num_frames, of_row = cells.pop("num_frames"), values[ends[row] : ends[row + 1]]
            if of_row.size != num_frames * NUM_JOINTS * 2:
                raise TableError(
                    f"{table.path}: row group {group} row {row} has {of_row.size} numbers, where {num_frames} frames"
                    f" of {NUM_JOINTS} x 2 are needed; run stage views again"
                )
            sequences.append(Sequence2D(**cells, points_TJ2=of_row.reshape(num_frames, NUM_JOINTS, 2)))
        return sequences

    def index(self) -> list[SequenceFacts]:
        """Every motion once, sorted; reads no points."""
        facts = {
            SequenceFacts(*cells)
            for table in self._tables
            for cells in zip(*(table.column(name).tolist() for name in SequenceFacts._fields), strict=True)
        }
        return sorted(facts)

    def __iter__(self) -> Iterator[Sequence2D]:
        """Every row, in order; holds one row group."""
        for number in range(len(self)):
            yield from self.read_group(number)

    def close(self) -> None:
        for table in self._tables:
            table.close()


def open_shard(path: Path) -> Table:
    """Raises: TableError where it is no views table, or was made with another camera or other joints."""
    table = Table("views", path)
    for name, needed in SETTINGS.items():
        found = table.metadata.get(name)
        if found != needed:
            raise TableError(
                f"{path}: was made with {name} {found or 'not told'}, where {needed} is needed; run stage views again"
            )
    return table


def check_leaks(train: Iterable[SequenceFacts], test: Iterable[SequenceFacts]) -> None:
    """Refuse a test set that training knows.

    Raises: TableError where both sides have a subject, a subject's sequence in another folder (a copy of a data set:
        DATASET/SUBJECT without DATASET; different people may well have sequences of one name), or the same recording
        under another name.
    """
    train, test = list(train), list(test)
    for called, what_is in _LEAKS.items():
        known = {what_is(facts): facts for facts in reversed(train)}
        for facts in test:
            other = known.get(what_is(facts))
            if other is None:
                continue
            what = facts.subject if called == "subject" else f"{facts.subject}/{facts.sequence}"
            also = "" if called == "subject" else f" as {other.subject}/{other.sequence}"
            raise TableError(
                f"{called} {what} of {facts.subset} (test) is also in {other.subset} (train){also}; write"
                f" {facts.subject} into mocap.{facts.subset}.without, or {other.subject} into"
                f" mocap.{other.subset}.without"
            )


_LEAKS: Mapping[str, Callable[[SequenceFacts], object]] = {
    "subject": lambda facts: facts.subject,
    "sequence": lambda facts: (facts.subject.rpartition("/")[2], facts.sequence),
    "recording": lambda facts: facts.source_sha256,
}


def moments_to_json(moments: Moments) -> str:
    """In full precision: what is read back is the same."""
    facts = {"count": moments.num_frames, "mean_E2": moments.mean_E2.tolist(), "std_E2": moments.std_E2.tolist()}
    return json.dumps(facts)


def moments_from_json(text: str, path: Path) -> Moments:
    """Raises: TableError naming `path` where the text is anything else."""
    try:
        facts = json.loads(text)
        count = int(facts["count"])
        mean_E2, std_E2 = (np.array(facts[name], np.float64) for name in ("mean_E2", "std_E2"))
        is_whole = all(values.shape == (NUM_JOINTS, 2) and np.isfinite(values).all() for values in (mean_E2, std_E2))
    except (ValueError, KeyError, TypeError):
        is_whole = False
    if not is_whole or count < 1 or not (std_E2 >= 0).all():
        raise TableError(f"{path}: its normalisation is damaged; run stage views again")
    return Moments(count, mean_E2, std_E2)


def read_normalisation(folders: Sequence[Path]) -> Normalisation:
    """What the rows of all these subsets together are measured by. Args: folders: data/views/SUBSET.

    Raises: TableError where a subset's file is missing or damaged, or a point never moves in any of them.
    """
    parts = []
    for folder in folders:
        path = folder / f"{NORMALISATION}.json"
        if not path.is_file():
            raise TableError(f"{path}: there is no such file; run stage views, or `dvc checkout {folder}`")
        parts.append(moments_from_json(path.read_text(), path))
    try:
        moments = merge_moments(parts)
        return Normalisation(moments.mean_E2, moments.std_E2)
    except ValueError as error:
        raise TableError(f"{', '.join(map(str, folders)) or 'no subset'}: {error}") from error
