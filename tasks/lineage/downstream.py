"""Downstream: what holds or used a thing, in every revision that git still reaches, and where its bytes lie."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from tasks.lineage.graph import Artefact, Folder, Graph, State, batch_of
from tasks.lineage.index import LOCK, RAW, TABLES
from tasks.lineage.joining import METRICS, is_inside, is_made
from tasks.lineage.lock import Entry, FileRef
from tasks.lineage.places import Places
from tasks.lineage.things import Thing

HOLDS, TRAINED, STARTED, USED = "holds it", "trained on it", "its start was trained on it", "made from it"
MAY_HOLD, MAY_BE_TRAINED, NAMES = "may hold it", "may be trained on it", "names it"


@dataclass
class Use:
    """One version of a file, or of a whole output, that holds or used the thing.

    how: one of the words above, or "made with " and the checkpoint that was.  revisions: names, oldest first, the work
    tree last.  places: the cache and the remotes that have its bytes.
    """

    stage: str
    path: str
    md5: str
    how: str
    revisions: list[str]
    places: list[str]


@dataclass
class Downstream:
    """The answer. revisions: all that were looked through, oldest first.  open: what could not be told."""

    thing: str
    revision: str
    uses: list[Use]
    revisions: list[str]
    open: list[str]


@dataclass
class Touch:
    """How an output is touched: files (name, md5, how), or the whole of it (how)."""

    out: FileRef
    files: list[tuple[str, str, str]]
    whole: str = ""


class Search:
    """One search from a thing forward through all entries."""

    def __init__(self, graph: Graph, state: State, thing: Thing) -> None:
        self.graph, self.index, self.thing = graph, graph.index, thing
        self.open: dict[str, None] = dict.fromkeys(self.index.notes)
        self._touches: dict[int, list[Touch]] = {}
        self._under_way: set[int] = set()
        self._unlisted: dict[str, set[str]] = {}
        self._passed: dict[Artefact, str | None] = {}
        self._artefacts_of: dict[tuple[str, str, str], list[Artefact]] = {}
        self._parts: dict[tuple[str, str], list[Artefact]] = {}
        self.clips = frozenset((thing.batch, clip) for clip in thing.clips)
        self.motions = self._same_motions(thing.motions)
        self.outs: set[tuple[str, str]] = set()
        self.raw: list[tuple[str, str]] = []
        self.code = thing.name if thing.kind == "code" else ""
        if not (self.clips or self.motions or thing.video):
            for artefact in thing.artefacts:
                if artefact.entry is None:
                    self.raw.append((artefact.out.path, artefact.below))
                else:
                    self.outs.add((artefact.out.path, artefact.out.md5))
        for revision in self.index.revisions:
            if (lock := revision.files.get(LOCK)) and (problem := self.index.lock_entries(lock)[1]):
                self.open[f"{revision.name}: {problem}; what its stages made stays open"] = None

    def _same_motions(self, ids: Iterable[int]) -> frozenset[int]:
        """With the rows of the same motion under another licence or from other bytes: other versions of it."""
        found = set(ids)
        for sequence in self.index.sequences(sorted(found)):
            where = {"subset": sequence.subset, "subject": sequence.subject, "sequence": sequence.sequence}
            found |= {id_ for id_, _ in self.index.find_sequences(where)}
        return frozenset(found)

    @cached_property
    def _motion_tables(self) -> dict[str, bool]:
        """The md5 of every table and provenance that names one of the motions -> whether only its start does."""
        return self.index.contents_with(self.motions) if self.motions else {}

    @cached_property
    def _relevant(self) -> set[str]:
        """The md5 of every folder with a file that may hold it: the others need no look."""
        files = self.index.file_ids_named(clip for _, clip in self.clips)
        return self.index.folders_with(files | self.index.file_ids_of(self._motion_tables))

    def touches(self, id_: int) -> list[Touch]:
        """What of an entry's outputs holds or used the thing."""
        if id_ in self._touches:
            return self._touches[id_]
        if id_ in self._under_way:  # a circle: only a lock edited by hand has one
            return []
        self._under_way.add(id_)
        entry = self.graph.entries[id_]
        found = self._find(entry)
        self._under_way.discard(id_)
        self._touches[id_] = found
        return found

    def _find(self, entry: Entry) -> list[Touch]:
        if any((out.path, out.md5) in self.outs for out in entry.outs):
            return [Touch(out, [], "is it") for out in entry.outs if (out.path, out.md5) in self.outs]
        reads = self._reads(entry)
        made_with = next((how for how in reads.values() if how), "")
        used = made_with or (USED if reads else "")
        touches, others, by_item = [], [], False
        for out in entry.outs:
            if self._is_of_video(out):
                touches.append(self._video_files(out))
                by_item = True
            elif not (self.clips or self.motions) or not self._is_folder(out):
                others.append(out)
            elif self.index.shapes.get(out.md5) == TABLES and out.md5 not in self._relevant:
                touches.append(Touch(out, [], made_with))
                by_item = True
            elif (folder := self.graph.folder(out, batch_of(entry))) is None:
                if may := made_with or self._may_hold(entry, out, used):
                    touches.append(Touch(out, [], may))
                by_item = True
            elif folder.provenance:
                touches.append(self._checkpoint(out, folder, reads))
                by_item = True
            elif (folder.clips and self.clips) or (folder.motions and self.motions):
                touches.append(self._items(out, folder, made_with))
                by_item = True
            elif folder.clips or folder.motions:  # of the other kind
                touches.append(Touch(out, [], made_with))
                by_item = True
            else:
                others.append(out)
        touches = [touch for touch in touches if touch.files or touch.whole]
        # Means and curves stand beside the tables or the checkpoint that they are of.
        whole = (made_with or touches[0].whole or USED) if touches else ("" if by_item else used)
        return touches + [Touch(out, [], whole) for out in others if whole]

    def _is_folder(self, out: FileRef) -> bool:
        return out.md5.endswith(".dir") and out.path.startswith("data/")

    def _is_of_video(self, out: FileRef) -> bool:
        return self.thing.kind == "video" and out.path == f"data/{self.thing.batch}/videos"

    def _items(self, out: FileRef, folder: Folder, made_with: str) -> Touch:
        if made_with:
            return Touch(out, [], made_with)
        if self.clips:
            held = [file for clip in sorted(self.clips) for file in folder.clips.get(clip, [])]
        else:
            held = [member for member in folder.members if member.md5 in self._motion_tables]
        return Touch(out, [(file.name, file.md5, HOLDS) for file in held])

    def _may_hold(self, entry: Entry, out: FileRef, used: str) -> str:
        """For a folder whose list is in no place."""
        if self.clips and batch_of(entry) != self.thing.batch and not used:
            return ""
        if self.motions and not used and not out.path.startswith("data/joints/"):
            return ""
        self._unlisted.setdefault(out.path, set()).add(out.md5)
        return MAY_BE_TRAINED if out.path.startswith("data/models/") else MAY_HOLD

    def _checkpoint(self, out: FileRef, folder: Folder, reads: dict[str, str]) -> Touch:
        assert folder.provenance is not None
        content = self.index.content(folder.provenance.md5)
        if content is None or content.kind != "checkpoint":
            if not reads:
                return Touch(out, [])
            self.open[f"{out.path} with md5 {out.md5[:8]}: its provenance is in no place; it may be trained on it"] = (
                None
            )
            return Touch(out, [], MAY_BE_TRAINED)
        if self.clips & {(row.get("batch"), row.get("clip")) for row in content.facts.get("clips", [])}:
            return Touch(out, [], TRAINED)
        only_start = self._motion_tables.get(folder.provenance.md5)
        if only_start is not None:
            return Touch(out, [], STARTED if only_start else TRAINED)
        return Touch(out, [], next((how for how in reads.values() if how), ""))

    def _video_files(self, out: FileRef) -> Touch:
        members = self.index.members(out.md5)
        if members is None:
            self._unlisted.setdefault(out.path, set()).add(out.md5)
            return Touch(out, [], MAY_HOLD)
        manifest = next((m for m in members if m.name == "manifest.json"), None)
        content = self.index.content(manifest.md5) if manifest else None
        rows = content.facts.get("rows", []) if content and content.kind == "manifest" else []
        row: dict[str, str] = next((row for row in rows if row.get("video") == self.thing.video), {})
        names = {row.get("file")} if row else {m.name for m in members if m.name.rpartition(".")[0] == self.thing.video}
        files = [(m.name, m.md5, HOLDS) for m in members if m.name in names]
        if manifest and row:
            files.append((manifest.name, manifest.md5, NAMES))
        return Touch(out, files)

    def _reads(self, entry: Entry) -> dict[str, str]:
        """The touched paths that a stage read -> "made with " and a checkpoint, passed on to what is made; or ""."""
        found: dict[str, str] = {}
        for dep in entry.deps:
            if is_made(dep.path):
                for artefact in self._artefacts(dep):
                    if artefact not in self._passed:
                        self._passed[artefact] = self._passes(artefact)
                    how = self._passed[artefact]
                    if how is not None:
                        path = "/".join(filter(None, [artefact.out.path, artefact.below]))
                        found[path] = found.get(path) or how
            elif self.code and self.code == dep.path:
                found[dep.path] = ""
        return found

    def _passes(self, artefact: Artefact) -> str | None:
        """What reading this makes of a stage's outputs, see _reads; None = it has nothing of the thing."""
        path = "/".join(filter(None, [artefact.out.path, artefact.below]))
        if artefact.entry is None:
            is_raw = any(
                out == artefact.out.path
                and (is_inside(path, f"{out}/{below}".rstrip("/")) or is_inside(f"{out}/{below}", path))
                for out, below in self.raw
            )
            if not is_raw and not self._raw_checkpoint(artefact):
                return None
            is_model = self.graph.provenance(artefact.out.md5, artefact.below)[0] is not None
            return f"made with {path}" if is_model else ""
        found: str | None = None
        for touch in self.touches(artefact.entry):
            if touch.out.path == artefact.out.path and (touch.files or touch.whole):
                passed = touch.whole if touch.whole.startswith("made with ") else ""
                found = found or (f"made with {path}" if self._is_model(artefact) else passed)
        return found

    def _is_model(self, artefact: Artefact) -> bool:
        return artefact.out.path.startswith("data/models/") and not artefact.below

    def _raw_checkpoint(self, artefact: Artefact) -> bool:
        """Whether given weights were trained on one of the motions."""
        if not self.motions:
            return False
        member, _ = self.graph.provenance(artefact.out.md5, artefact.below)
        return member is not None and member.md5 in self._motion_tables

    def _artefacts(self, dep: FileRef) -> list[Artefact]:
        ids = self.graph.makers.get((dep.path, dep.md5))
        if ids:
            return [Artefact(dep, id_) for id_ in ids]
        if (dep.path, dep.md5) in self._parts:
            return self._parts[dep.path, dep.md5]
        joined = self.index.joined(dep.path, dep.md5)
        found: list[Artefact] = []
        self._parts[dep.path, dep.md5] = found
        if joined is None:
            return found
        for part in joined.parts:
            if part not in self._artefacts_of:  # most stand in the same folder in every revision
                path, md5, below = part
                makers: Sequence[int | None] = self.graph.makers.get((path, md5), [None])
                self._artefacts_of[part] = [Artefact(FileRef(path, md5), id_, below) for id_ in makers]
            found += self._artefacts_of[part]
        return found

    def answer(self, places: Places) -> Downstream:
        revisions = self._revisions()
        rows: dict[tuple[str, str, str, str], dict[str, None]] = {}
        for id_, entry in self.graph.entries.items():
            for touch in self.touches(id_):
                whole = [("", touch.out.md5, touch.whole)] if touch.whole else []
                for name, md5, how in [*touch.files, *whole]:
                    path = f"{touch.out.path}/{name}" if name else touch.out.path
                    row = rows.setdefault((entry.stage, path, md5, how), {})
                    row |= dict.fromkeys(revisions.get(id_, []))
        order = {revision.name: number for number, revision in enumerate(reversed(self.index.revisions))}
        uses = [
            Use(stage, path, md5, how, sorted(names, key=order.__getitem__), _having(places, path, md5))
            for (stage, path, md5, how), names in rows.items()
        ]
        uses += self._raw_uses(places)
        self.open |= dict.fromkeys(places.problems())
        if self._unlisted:
            number = sum(len(md5s) for md5s in self._unlisted.values())
            self.open[
                f"{number} versions of {len(self._unlisted)} folders are given as such that may hold it: no place has"
                " the list of their files (`dvc fetch --all-commits` may bring them)"
            ] = None
        return Downstream(
            self.thing.label,
            "all",
            sorted(
                uses, key=lambda use: (order.get(use.revisions[-1], 0) if use.revisions else 0, use.path), reverse=True
            ),
            list(order),
            list(self.open),
        )

    def _raw_uses(self, places: Places) -> list[Use]:
        """Given checkpoints that were trained on the motions."""
        if not self.motions:
            return []
        return [
            Use("", f"{path}/{member.name}", member.md5, TRAINED, names, places.having(member.md5))
            for path, outs in self.raw_versions.items()
            for out, names in outs.items()
            for member in self.index.files_in(out.md5, self._motion_tables)
        ]

    @cached_property
    def raw_versions(self) -> dict[str, dict[FileRef, list[str]]]:
        found: dict[str, dict[FileRef, list[str]]] = {}
        for revision in reversed(self.index.revisions):
            if raw := revision.files.get(RAW):
                for out in self.index.raw_outs(raw)[0]:
                    found.setdefault(out.path, {}).setdefault(out, []).append(revision.name)
        return found

    def _revisions(self) -> dict[int, list[str]]:
        """Entry -> the names of the revisions whose lock has it."""
        of_lock: dict[str, list[str]] = {}
        for revision in reversed(self.index.revisions):
            if lock := revision.files.get(LOCK):
                of_lock.setdefault(lock, []).append(revision.name)
        found: dict[int, list[str]] = {}
        for lock, names in of_lock.items():
            for id_ in self.graph.locks.get(lock, []):
                found.setdefault(id_, []).extend(names)
        return found


def _having(places: Places, path: str, md5: str) -> list[str]:
    return ["git"] if path.startswith(METRICS) else places.having(md5)
