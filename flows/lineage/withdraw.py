"""`inbetween lineage withdraw VIDEO`: what it takes, and with --apply, doing it.

What is to be removed is written to a journal before anything is touched, and each step may be done again: after a kill
the same command goes on.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.dvc_process import DvcProcesses
from flows.lifetime import hold_lock
from flows.lineage import open_lineage
from flows.lineage.page import remove_pages
from flows.lineage.stores import Stores, find_stores
from flows.lineage.verify import PLACES, verify
from flows.params import Params, load_params
from flows.pipeline import read_plan
from flows.progress import Progress, say
from flows.project import ROOT, STATE
from tasks.lineage.content_search import Fingerprints, Hit, count_bytes, search_content, take_fingerprints
from tasks.lineage.downstream import Use
from tasks.lineage.errors import LineageError
from tasks.lineage.git import Git
from tasks.lineage.index import WORK_TREE
from tasks.lineage.lineage import Lineage
from tasks.lineage.marks import VideoName
from tasks.lineage.references import References, Withdrawal
from tasks.lineage.removal import clear_artifacts, clear_items, mark_withdrawn, note_withdrawn, remove_runs
from tasks.lineage.stores import FolderStore
from tasks.lineage.verify import STILL_HERE
from tasks.lineage.withdrawal import Plan, plan_withdrawal

JOURNALS = STATE / "withdrawals"
_NOT_SEARCHED = {".venv", ".git", "__pycache__", JOURNALS.name, "node_modules"}
_TRAINING = "train_"


@dataclass
class Withdrawing:
    """A plan with what the pipeline says of it.

    rebuild: the stages to run afterwards, in order.  blocked: those that cannot be, and why.  retrain: the stages of
    the checkpoints to be trained again.
    """

    plan: Plan
    rebuild: list[str] = field(default_factory=list)
    blocked: dict[str, str] = field(default_factory=dict)
    retrain: list[str] = field(default_factory=list)


@dataclass
class Outcome:
    """removed: place -> how many files.  left: what still holds it.  failed: stages that could not be rebuilt."""

    removed: dict[str, int] = field(default_factory=dict)
    marked: list[str] = field(default_factory=list)
    rebuilt: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    in_git: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    searched: str = ""
    verified: str = ""

    @property
    def is_done(self) -> bool:
        return not (self.left or self.failed or self.open)


def plan(name: str, *, is_retraining: bool = False) -> Withdrawing:
    """Look, and change nothing. Raises: LineageError where there is no such video."""
    os.chdir(ROOT)
    found = Withdrawing(plan_withdrawal(open_lineage(), name))
    stages = read_plan()
    batches = {video.batch for video in found.plan.videos}
    touched: set[str] = {f"{stage}@{batch}" for stage in ("download", "split") for batch in batches}
    trained = {use.stage for use in found.plan.trained if WORK_TREE in use.revisions}
    for stage in stages:
        if touched.intersection(stage.needs):
            touched.add(stage.name)
    found.blocked = _find_blocked(load_params(ROOT / "params.yaml"), found.plan)
    for stage in stages:
        if stage.name not in touched:
            continue
        if stage.name.startswith(_TRAINING):
            if stage.name in trained:
                found.retrain.append(stage.name)
            if not is_retraining or stage.name not in trained:
                continue
        if stage.name not in found.blocked:
            found.rebuild.append(stage.name)
    return found


def _find_blocked(params: Params, plan: Plan) -> dict[str, str]:
    """Stages that have nothing left to work on, or name the video."""
    from tasks.lineage.catalogues import parse_catalogue

    blocked: dict[str, str] = {}
    for batch in {video.batch for video in plan.videos} & params.batches.keys():
        gone = {video.video for video in plan.videos if video.batch == batch}
        text = (ROOT / "catalog" / batch / "clips.csv").read_text()
        rows = [row for row in parse_catalogue(text).rows if row.get("video") not in gone]
        for kind, sets in (("render", params.renders), ("samples", params.renderers)):
            for name, one in sets.items():
                if one.batch != batch:
                    continue
                named = sorted(gone.intersection(getattr(one, "videos", [])))
                splits = {row.get("split") for row in rows}
                why = ""
                if named:
                    why = f"params.yaml names {named[0]} in {kind}s.{name}.videos: take it out".replace(
                        "sampless", "renderers"
                    )
                elif one.split not in splits | ({"all", "clean"} if splits else set()):
                    why = f"batch {batch} has no clip of split {one.split} left: take it out of params.yaml"
                if why:
                    both = (
                        (f"render@{name}", f"evaluate@{name}")
                        if kind == "render"
                        else (f"samples@{name}", f"train_renderer@{name}")
                    )
                    blocked |= dict.fromkeys(both, why)
        if not rows:
            why = f"batch {batch} has no clip left: take it out of params.yaml"
            steps = [name for name, one in params.backgrounds.items() if one.batch == batch]
            names = [f"{stage}@{batch}" for stage in ("download", "split", "pose")]
            blocked |= dict.fromkeys([*names, *(f"background@{name}" for name in steps)], why)
    return blocked


def withdraw(name: str, reason: str, *, is_retraining: bool = False, threads: int = 0) -> tuple[Withdrawing, Outcome]:
    """Plan and do it; gone on with where an earlier run was killed.

    Raises: LineageError where there is no such video, or raw data of the user's holds it.
    """
    with hold_lock(STATE / "locks" / "repro.lock", "withdraw"):
        found = plan(name, is_retraining=is_retraining)
        if found.plan.raw:
            raise LineageError(
                f"{found.plan.raw[0]}: is the same file, and yours: delete it, `dvc commit -f data.dvc`, commit"
                " data.dvc with git, then run this again"
            )
        lineage = open_lineage()
        journal = _open_journal(found.plan, reason, lineage)
        outcome = Outcome(open=list(found.plan.open))
        stores = find_stores(ROOT)
        outcome.open += stores.open
        _mark(found.plan, journal, outcome)
        _remove(found.plan, stores, outcome)
        prints = Fingerprints.from_json(journal["fingerprints"])
        for stage in _sweep(found.plan, stores, prints, threads, outcome):
            if stage not in found.rebuild and stage not in found.blocked:
                found.rebuild.append(stage)
        _rebuild(found.rebuild, outcome)
        outcome.failed |= {stage: why for stage, why in found.blocked.items() if stage in _known_stages()}
        _prove(found.plan, stores, prints, threads, outcome)
        _write_journal(found.plan, journal | {"is_done": outcome.is_done})
    return found, outcome


def _known_stages() -> set[str]:
    return {stage.name for stage in read_plan()}


# The journal: what is to be gone, before it is.


def _journal_path(plan: Plan) -> Path:
    return JOURNALS / f"{plan.videos[0].batch}-{plan.videos[0].video}.json"


def _open_journal(plan: Plan, reason: str, lineage: Lineage) -> dict[str, Any]:
    """Take what an earlier run knew into the plan, and write down what is known now."""
    path = _journal_path(plan)
    old: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    known = {(use.path, use.md5) for use in plan.held}
    plan.held += [use for use in (Use(**row) for row in old.get("held", [])) if (use.path, use.md5) not in known]
    plan.clips = sorted({*plan.clips, *((batch, clip) for batch, clip in old.get("clips", []))})
    plan.folders |= set(old.get("folders", []))
    shared = {(use.path, use.md5) for use in plan.shared}
    plan.shared += [use for use in (Use(**row) for row in old.get("shared", [])) if (use.path, use.md5) not in shared]
    plan.pictures = sorted({*plan.pictures, *old.get("pictures", [])})
    say(f"withdraw: taking the hashes of {len(plan.held)} files and of the pictures in them")
    paths = [path for use in plan.held for path in (lineage.places.find(use.md5), ROOT / use.path) if path]
    prints = take_fingerprints(path for path in dict.fromkeys(paths) if _is_one_of(path, plan))
    if old:
        before = Fingerprints.from_json(old["fingerprints"])
        prints.files |= before.files
        prints.pictures |= before.pictures
    prints.files |= {use.md5 for use in plan.held}
    journal = {
        "videos": [list(video) for video in plan.videos],
        "clips": [list(clip) for clip in plan.clips],
        "reason": old.get("reason") or reason,
        "date": old.get("date") or f"{datetime.now(UTC):%Y-%m-%d}",
        "held": [dataclasses.asdict(use) for use in plan.held],
        "shared": [dataclasses.asdict(use) for use in plan.shared],
        "folders": sorted(plan.folders),
        "pictures": plan.pictures,
        "fingerprints": prints.to_json(),
        "is_done": False,
    }
    _write_journal(plan, journal)
    return journal


def _is_one_of(path: Path, plan: Plan) -> bool:
    """An object of a store; of the workspace, a file that is what the work tree's lock says it is, or should be."""
    if not path.is_relative_to(ROOT / "data"):
        return True
    name = path.relative_to(ROOT).as_posix()
    return any(use.path == name and WORK_TREE in use.revisions for use in plan.held)


def _write_journal(plan: Plan, journal: dict[str, Any]) -> None:
    path = _journal_path(plan)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(journal))
    temporary.replace(path)


# The steps.


def _mark(plan: Plan, journal: dict[str, Any], outcome: Outcome) -> None:
    outcome.marked = mark_withdrawn(ROOT, plan.rows, journal["date"], journal["reason"], plan.sha256)
    first = plan.videos[0]
    batches = {video.batch: video for video in plan.videos}

    def owner(path: str) -> VideoName:
        return next((video for batch, video in batches.items() if f"/{batch}/" in f"/{path}"), first)

    note_withdrawn(ROOT, [Withdrawal(use.md5, use.path, *owner(use.path)) for use in plan.held])
    say(f"withdraw: marked in the catalogue: {', '.join(outcome.marked) or 'it was already'}")


def _remove(plan: Plan, stores: Stores, outcome: Outcome) -> None:
    """From the workspace, every store, the run cache and what is ours to throw away."""
    md5s = {use.md5 for use in plan.held}
    clips = {clip for _, clip in plan.clips}
    number = 0
    for use in plan.held:
        path = ROOT / use.path
        if WORK_TREE in use.revisions and path.is_file():
            path.unlink()
            number += 1
    for name in plan.pictures:  # in git: its history keeps them
        (ROOT / name).unlink(missing_ok=True)
    for folder in (ROOT / "report", STATE / "work"):
        if folder.is_dir():
            shutil.rmtree(folder)
            number += 1
    for page in remove_pages(ROOT):  # they have pictures of the clips
        number += 1
        say(f"withdraw: {page} removed; `inbetween lineage page` makes it anew")
    for video in plan.videos:
        for path in (ROOT / "data" / video.batch / "videos/.partial").glob(f"{video.video}-*"):
            shutil.rmtree(path)
    outcome.removed["workspace"] = number
    say(f"withdraw: removed from the workspace: {number}")
    for store in [stores.cache, *stores.remotes]:
        number = 0
        for md5 in sorted(md5s | {use.md5 for use in plan.shared}):
            try:
                number += store.remove(md5)
            except OSError as error:
                outcome.open.append(f"{store.name}: {md5} could not be removed ({error}); run this again")
        outcome.removed[store.name] = number
        say(f"withdraw: removed from {store.name}: {number}")
    wanted = md5s | plan.folders
    outcome.removed["run cache"] = sum(
        remove_runs(store.folder / "runs", wanted)
        for store in [stores.cache, *stores.remotes]
        if isinstance(store, FolderStore)
    )
    outcome.removed["item store"] = clear_items(STATE / "items", clips, md5s)
    words = md5s | {use.path for use in plan.held} | plan.folders
    outcome.removed["Prefect artifacts"] = clear_artifacts(STATE / "prefect/prefect.db", words)
    if url := os.environ.get("PREFECT_API_URL"):
        outcome.open.append(f"the Prefect server at {url} is not looked into: delete its artifacts of these clips")
    say(f"withdraw: removed from run cache, item store and Prefect: {sum(list(outcome.removed.values())[-3:])}")


def _folders(stores: Stores) -> list[Path]:
    """Where bytes may lie: the project, and the stores that are folders outside of it."""
    others = [store.folder for store in [stores.cache, *stores.remotes] if isinstance(store, FolderStore)]
    return [ROOT, *(folder for folder in others if not folder.resolve().is_relative_to(ROOT))]


def _search(stores: Stores, prints: Fingerprints, threads: int, outcome: Outcome) -> list[Hit]:
    def skip(path: Path) -> bool:
        return path.name in _NOT_SEARCHED

    folders = _folders(stores)
    size = count_bytes(folders, skip)
    number = [0]
    with Progress("withdraw: search by content", round(size / 1e6, 1), "MB") as progress:

        def on_file(num_bytes: int) -> None:
            number[0] += 1
            progress.advance(num_bytes / 1e6)

        hits = search_content(folders, prints, threads or os.cpu_count() or 1, skip, on_file)
    outcome.searched = (
        f"{number[0]} files, {size / 1e6:.1f} MB, for {len(prints.files)} files and {len(prints.pictures)} pictures"
    )
    return hits


def _sweep(plan: Plan, stores: Stores, prints: Fingerprints, threads: int, outcome: Outcome) -> list[str]:
    """Remove what only the search finds: copies under other names, files that hold rows of several clips.

    Returns the stages whose outputs lost a file by it.
    """
    producers = {output.path: output.stage for output in References(ROOT).work_tree().outputs if output.stage}
    stages: list[str] = []
    found: list[Withdrawal] = []
    for hit in _search(stores, prints, threads, outcome):
        path = hit.path
        name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)
        if _object_md5(path, stores):
            path.unlink()
            found.append(Withdrawal(_object_md5(path, stores), name, *plan.videos[0]))
        elif path.is_relative_to(STATE):
            path.unlink()
        elif name.startswith("data/") and not name.startswith("data/raw/"):
            path.unlink()
            stages += [stage for out, stage in producers.items() if name == out or name.startswith(f"{out}/")]
        else:
            continue  # the proof says that it is there
        say(f"withdraw: {name} held it ({hit.what}): removed")
        outcome.removed["found by content"] = outcome.removed.get("found by content", 0) + 1
    note_withdrawn(ROOT, found)
    return list(dict.fromkeys(stages))


def _object_md5(path: Path, stores: Stores) -> str:
    """The md5 of a store's object, "" for another file."""
    for store in [stores.cache, *stores.remotes]:
        if isinstance(store, FolderStore) and path.is_relative_to(store.folder / "files/md5"):
            return path.parent.name + path.name
    return ""


def _rebuild(stages: Iterable[str], outcome: Outcome) -> None:
    processes = DvcProcesses()
    try:
        for stage in stages:
            say(f"withdraw: rebuilding {stage}")
            end = processes.repro(stage, environment={}, on_line=say)
            if end.error:
                outcome.failed[stage] = end.error
            else:
                outcome.rebuilt.append(stage)
    finally:
        processes.stop()


def _prove(plan: Plan, stores: Stores, prints: Fingerprints, threads: int, outcome: Outcome) -> None:
    verified = verify(ROOT, places=PLACES, all_revs=True, threads=threads)
    for finding in verified.findings:
        if finding.kind == STILL_HERE:
            outcome.left.append(f"{finding.place}: {finding.path}")
    outcome.open += [line for line in verified.open if line not in outcome.open]
    gone = sum(finding.kind == "withdrawn" for finding in verified.findings)
    others = sum(finding.is_fault and finding.kind != STILL_HERE for finding in verified.findings)
    outcome.verified = (
        f"{sum(count.num_files for count in verified.counts)} files of {len(verified.revisions)} revisions;"
        f" {gone} withdrawn and gone, {len(outcome.left)} still here, {others} other faults"
    )
    for hit in _search(stores, prints, threads, outcome):
        outcome.left.append(f"{hit.path}: {hit.what}")
    objects = {f"files/md5/{use.md5[:2]}/{use.md5[2:]}" for use in plan.held}
    listed = (Git(ROOT).ask("rev-list", "--objects", "--all") or "").splitlines()
    names = [line.partition(" ")[2] for line in listed]
    outcome.in_git = sorted({name for name in names if name in plan.pictures or name.endswith(tuple(objects))})
