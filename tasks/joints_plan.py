"""The plan of stage joints: what a mocap subset's files hold, from their headers, as items and shards.

An item is a run of frames of one npz, or of rows of one parquet row group. A shard holds the sequences of one subject,
in the order of their names, at most MAX_SHARD_BYTES of joints: another file of another subject leaves its bytes as
they are.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from typing import NamedTuple, NoReturn

from models.body import NUM_SMPL_H_JOINTS, check_body_file, check_dmpl_file
from models.resampling import Grid, plan_grid
from tasks.errors import SourceError
from tasks.items import Item, hash_file
from tasks.mocap import (
    BROKEN,
    AmassMotion,
    MotionError,
    PositionRow,
    Reason,
    Reject,
    check_fps,
    choose_subjects,
    describe_amass_place,
    list_motions,
    open_positions,
    read_amass,
    read_position_facts,
    subject_of,
)

FPS = 60.0
FRAME_NUMBERS = NUM_SMPL_H_JOINTS * 3
FRAME_BYTES = FRAME_NUMBERS * 4
MAX_SHARD_BYTES = 64 * 2**20
MAX_SEQUENCE_FRAMES = MAX_SHARD_BYTES // FRAME_BYTES  # half an hour; a longer recording becomes several sequences
ITEM_FRAMES = 8192  # of the grid: 5 MB of joints
ITEM_SOURCE_FRAMES = 32768  # 41 MB of float64 poses


@dataclass(frozen=True)
class Settings:
    """What shapes the joints. gender: "own" = each file's."""

    gender: str
    soft_tissue: bool
    trim_share: float
    min_frames: int


@dataclass(frozen=True)
class BodyFiles:
    """One gender's files and the hash of their bytes. dmpls: None = without soft tissue."""

    model: Path
    dmpls: Path | None
    sha256: str


@dataclass(frozen=True)
class Subset:
    """A mocap subset of params.yaml."""

    name: str
    kind: str
    folder: Path
    licence: str
    only: Sequence[str]
    without: Sequence[str]


@dataclass(frozen=True)
class AmassSpec:
    """Frames start..stop-1 of a motion's grid."""

    path: Path
    body: BodyFiles
    with_dmpls: bool
    grid: Grid
    start: int
    stop: int


@dataclass(frozen=True)
class PositionsSpec:
    """Rows of a row group, with each one's grid; rows ascend."""

    path: Path
    row_group: int
    rows: tuple[int, ...]
    grids: tuple[Grid, ...]


class Piece(NamedTuple):
    """Where a sequence's joints come from: a row of an item's table."""

    item: Item
    row: int


@dataclass(frozen=True)
class Sequence52:
    """One sequence to be written. file: what a reject is called.  source_sha256: "" = the item says it."""

    subject: str
    sequence: str
    licence: str
    file: str
    num_frames: int
    source_sha256: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class ShardPlan:
    name: str
    subset: str
    sequences: list[Sequence52]

    @property
    def items(self) -> list[Item]:
        """Each of its items once."""
        return list({piece.item.key: piece.item for s in self.sequences for piece in s.pieces}.values())

    @property
    def facts(self) -> list[object]:
        """All that the shard's bytes depend on, beside the code."""
        return [
            (s.subject, s.sequence, s.licence, s.file, s.source_sha256, [(p.item.key, p.row) for p in s.pieces])
            for s in self.sequences
        ]


@dataclass
class SubsetPlan:
    """notes: what a person should know, a line each."""

    shards: list[ShardPlan] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    num_motions: int = 0
    notes: list[str] = field(default_factory=list)


def plan_subset(
    subset: Subset, body_models: Path, settings: Settings, key: Callable[..., str], threads: int = 1
) -> SubsetPlan:
    """Look at everything that a subset names, and plan its items and shards; no frame is read.

    Args: key: (params section or None, *parts) -> item key.
    Raises: SourceError where the folder holds no motion or a body is missing or wrong; ParamsError for a name in
        `only` or `without` that fits no subject.
    """
    paths = list_motions(subset.folder, subset.kind)
    plan = SubsetPlan()
    if subset.kind == "amass":
        sequences = _plan_amass(subset, paths, body_models, settings, key, threads, plan)
    else:
        sequences = _plan_positions(subset, paths, settings, key, threads, plan)
    plan.shards = _cut_shards(subset.name, sequences)
    return plan


def _plan_amass(
    subset: Subset,
    paths: Sequence[Path],
    body_models: Path,
    settings: Settings,
    key: Callable[..., str],
    threads: int,
    plan: SubsetPlan,
) -> list[Sequence52]:
    subjects = {path: subject_of(path, subset.folder) for path in paths}
    chosen = choose_subjects(list(subjects.values()), subset.only, subset.without, f"mocap.{subset.name}")
    paths = [path for path in paths if subjects[path] in chosen]
    with ThreadPoolExecutor(threads) as pool:
        motions = dict(zip(paths, pool.map(_try_read_amass, paths), strict=True))
        hashes = dict(zip(paths, pool.map(hash_file, paths), strict=True))
    others = [path for path, motion in motions.items() if motion is None]
    if others:
        first = others[0].relative_to(subset.folder)
        plan.notes.append(f"{len(others)} files are no motions and left out, the first {first}")
    plan.num_motions = len(paths) - len(others)

    usable: list[tuple[Path, AmassMotion, Grid]] = []
    for path, motion in motions.items():
        try:
            if isinstance(motion, MotionError):
                raise motion
            if motion is not None:
                usable.append((path, motion, _check_motion(motion, settings)))
        except MotionError as error:
            plan.rejects.append(Reject(_name(path, subset), error.reason, error.detail))

    wanted = {_gender(motion, settings) for _, motion, _ in usable}
    with_dmpls = settings.soft_tissue and any(motion.num_dmpls for _, motion, _ in usable)
    bodies = find_bodies(body_models, sorted(wanted), with_dmpls=with_dmpls)
    plan.notes += _note_soft_tissue([motion for _, motion, _ in usable], bodies, settings)
    sequences: list[Sequence52] = []
    for path, motion, grid in usable:
        body = bodies[_gender(motion, settings)]
        sequences += _plan_motion(subset, path, hashes[path], motion, grid, body, settings, key)
    return sequences


def _try_read_amass(path: Path) -> AmassMotion | MotionError | None:
    try:
        return read_amass(path)
    except MotionError as error:
        return error


def _check_motion(motion: AmassMotion, settings: Settings) -> Grid:
    if settings.gender == "own" and not motion.gender:
        raise MotionError(Reason.MISSING_KEY, "lacks gender, which joints.gender: own asks for")
    grid = plan_grid(motion.num_frames, motion.fps, FPS, settings.trim_share)
    _check_length(grid, settings)
    return grid


def _check_length(grid: Grid, settings: Settings) -> None:
    if grid.num_frames < settings.min_frames:
        raise MotionError(
            Reason.TOO_SHORT,
            f"{grid.num_frames} frames at {FPS:g} fps after trimming; joints.min_frames is {settings.min_frames}",
        )


def _gender(motion: AmassMotion, settings: Settings) -> str:
    return motion.gender if settings.gender == "own" else settings.gender


def _name(path: Path, subset: Subset) -> str:
    return path.relative_to(subset.folder).as_posix()


def find_bodies(body_models: Path, genders: Sequence[str], *, with_dmpls: bool) -> dict[str, BodyFiles]:
    """The files of each gender, checked. Raises: SourceError where one is missing or not what it should be."""
    bodies = {}
    for gender in genders:
        model, dmpls = body_models / "smplh" / gender / "model.npz", body_models / "dmpls" / gender / "model.npz"
        if not model.is_file():
            raise SourceError(
                f"{model}: is not there, and motions ask for it (or set joints.gender). {describe_amass_place()}"
            )
        has_dmpls = with_dmpls and dmpls.is_file()
        try:
            check_body_file(model)
            if has_dmpls:
                check_dmpl_file(dmpls, model)
        except BROKEN as error:
            text = str(error) if str(body_models) in str(error) else f"{model}: {error}"
            raise SourceError(f"{text}; download it again. {describe_amass_place()}") from error
        digest = hash_file(model) + (hash_file(dmpls) if has_dmpls else "")
        bodies[gender] = BodyFiles(model, dmpls if has_dmpls else None, digest)
    return bodies


def _note_soft_tissue(
    motions: Sequence[AmassMotion], bodies: Mapping[str, BodyFiles], settings: Settings
) -> Iterator[str]:
    if not settings.soft_tissue:
        return
    num_moved = sum(_uses_dmpls(motion, bodies[_gender(motion, settings)], settings) for motion in motions)
    lacking = [gender for gender, body in bodies.items() if body.dmpls is None]
    num_with = sum(motion.num_dmpls > 0 for motion in motions)
    why = f"; no body_models/dmpls for {', '.join(lacking)}" if num_moved < num_with else ""
    yield f"soft tissue moves {num_moved} of {len(motions)} motions ({num_with} have DMPLs{why})"


def _uses_dmpls(motion: AmassMotion, body: BodyFiles, settings: Settings) -> bool:
    return settings.soft_tissue and motion.num_dmpls > 0 and body.dmpls is not None


def _plan_motion(
    subset: Subset,
    path: Path,
    sha256: str,
    motion: AmassMotion,
    grid: Grid,
    body: BodyFiles,
    settings: Settings,
    key: Callable[..., str],
) -> Iterator[Sequence52]:
    """A motion's sequences: one, unless it is longer than a shard may be."""
    with_dmpls = _uses_dmpls(motion, body, settings)
    item_frames = min(ITEM_FRAMES, max(1, int(ITEM_SOURCE_FRAMES / max(1.0, grid.step))))
    parts = _cut(0, grid.num_frames, MAX_SEQUENCE_FRAMES)
    for number, (first, last) in enumerate(parts, start=1):
        name = path.stem if len(parts) == 1 else f"{path.stem}.{number}"
        pieces = []
        for start, stop in _cut(first, last, item_frames):
            facts = (sha256, body.sha256, with_dmpls, grid.first, grid.step, start, stop)
            spec = AmassSpec(path, body, with_dmpls, grid, start, stop)
            pieces.append(Piece(Item(f"{_name(path, subset)} {start}-{stop - 1}", key(None, *facts), spec), 0))
        subject, file = subject_of(path, subset.folder), _name(path, subset)
        yield Sequence52(subject, name, subset.licence, file, last - first, sha256, tuple(pieces))


def _cut(start: int, stop: int, at_most: int) -> list[tuple[int, int]]:
    """start..stop in runs of about the same length, none longer than at_most."""
    num_runs = -(-(stop - start) // at_most)
    bounds = [start + (stop - start) * number // num_runs for number in range(num_runs + 1)]
    return list(pairwise(bounds))


def _plan_positions(
    subset: Subset,
    paths: Sequence[Path],
    settings: Settings,
    key: Callable[..., str],
    threads: int,
    plan: SubsetPlan,
) -> list[Sequence52]:
    with ThreadPoolExecutor(threads) as pool:
        hashes = dict(zip(paths, pool.map(hash_file, paths), strict=True))
    groups: list[tuple[Path, int, list[PositionRow]]] = []
    for path in paths:
        try:
            file = open_positions(path)
            groups += [(path, number, read_position_facts(file, number)) for number in range(file.num_row_groups)]
        except MotionError as error:
            plan.rejects.append(Reject(_name(path, subset), error.reason, error.detail))
            plan.num_motions += 1
    if not groups:
        raise_empty(subset, plan.rejects)
    found = [row.subject for _, _, rows in groups for row in rows]
    chosen = choose_subjects(found, subset.only, subset.without, f"mocap.{subset.name}")
    seen: set[tuple[str, str]] = set()
    sequences: list[Sequence52] = []
    for path, number, facts in groups:
        usable: list[tuple[int, PositionRow, Grid]] = []
        for row, fact in enumerate(facts):
            if fact.subject not in chosen:
                continue
            plan.num_motions += 1
            try:
                if (fact.subject, fact.sequence) in seen:
                    raise MotionError(Reason.DUPLICATE, f"subject {fact.subject} has it already")
                seen.add((fact.subject, fact.sequence))
                usable.append((row, fact, _check_row(fact, settings)))
            except MotionError as error:
                file_name = f"{_name(path, subset)}#{fact.sequence}"
                plan.rejects.append(Reject(file_name, error.reason, error.detail))
        sequences += _plan_rows(subset, path, hashes[path], number, usable, key)
    return sequences


def _check_row(fact: PositionRow, settings: Settings) -> Grid:
    check_fps(fact.fps)
    grid = plan_grid(fact.num_frames, fact.fps, FPS, settings.trim_share)
    _check_length(grid, settings)
    if grid.num_frames > MAX_SEQUENCE_FRAMES:
        raise MotionError(
            Reason.TOO_LONG, f"{grid.num_frames} frames; at most {MAX_SEQUENCE_FRAMES} fit in a row, so cut it"
        )
    return grid


def _plan_rows(
    subset: Subset,
    path: Path,
    sha256: str,
    number: int,
    usable: Sequence[tuple[int, PositionRow, Grid]],
    key: Callable[..., str],
) -> Iterator[Sequence52]:
    """The sequences of a row group, in items of rows that are ITEM_FRAMES together, or one row."""
    runs: list[list[tuple[int, PositionRow, Grid]]] = []
    num_frames = 0
    for entry in usable:
        if not runs or num_frames + entry[1].num_frames > ITEM_FRAMES:
            runs.append([])
            num_frames = 0
        runs[-1].append(entry)
        num_frames += entry[1].num_frames
    for run in runs:
        rows, grids = tuple(row for row, _, _ in run), tuple(grid for _, _, grid in run)
        name = f"{_name(path, subset)} row group {number} rows {rows[0]}-{rows[-1]}"
        facts = (sha256, number, rows, [(grid.first, grid.step, grid.num_frames) for grid in grids])
        # One company: a row group is read once.
        item = Item(name, key(None, *facts), PositionsSpec(path, number, rows, grids), f"{path}#{number}")
        for place, (_, fact, grid) in enumerate(run):
            file = f"{_name(path, subset)}#{fact.sequence}"
            yield Sequence52(
                fact.subject,
                fact.sequence,
                fact.licence or subset.licence,
                file,
                grid.num_frames,
                "",
                (Piece(item, place),),
            )


def _cut_shards(subset: str, sequences: Iterable[Sequence52]) -> list[ShardPlan]:
    """Shards by subject, SUBJECT-000 on, none larger than MAX_SHARD_BYTES."""

    def place(sequence: Sequence52) -> tuple[str, str, str]:
        return _file_name(sequence.subject), sequence.subject, sequence.sequence

    shards = []
    for name, members in groupby(sorted(sequences, key=place), key=lambda sequence: place(sequence)[0]):
        cuts: list[list[Sequence52]] = [[]]
        num_frames = 0
        for member in members:
            if cuts[-1] and num_frames + member.num_frames > MAX_SEQUENCE_FRAMES:
                cuts.append([])
                num_frames = 0
            cuts[-1].append(member)
            num_frames += member.num_frames
        shards += [ShardPlan(f"{name}-{number:03d}", subset, cut) for number, cut in enumerate(cuts)]
    return shards


def _file_name(subject: str) -> str:
    """A subject as a file name; subjects that become the same name share their shards."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", subject).strip("._")[:100] or "subject"


def check_rejects(subset: Subset, rejects: Sequence[Reject], num_motions: int, max_share: float) -> str | None:
    """A line about what was rejected, None = nothing. Raises: SourceError where it is all, or more than the share."""
    if len(rejects) >= num_motions:
        raise_empty(subset, rejects)
    if not rejects:
        return None
    first = min(rejects, key=by_file)
    line = (
        f"{len(rejects)} of {num_motions} motions are rejected, the first {first.file}: {first.reason.value}"
        f" ({first.detail})"
    )
    if len(rejects) > max_share * num_motions:
        raise SourceError(
            f"{subset.folder}: {line}; mend or remove the files, or raise joints.max_reject_share ({max_share:g})"
        )
    return line


def raise_empty(subset: Subset, rejects: Sequence[Reject]) -> NoReturn:
    """Raises: SourceError, with the first reject."""
    first = f"; the first, {min(rejects, key=by_file).file}: {min(rejects, key=by_file).detail}" if rejects else ""
    raise SourceError(f"{subset.folder}: not one motion can be used ({len(rejects)} rejected{first})")


def by_file(reject: Reject) -> tuple[str, str]:
    """The order of rejects."""
    return reject.file, reject.reason.value
