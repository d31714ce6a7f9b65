"""Diff and history: what changed between two revisions, item by item, and why; and a thing's versions over time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tasks.lineage.graph import CATALOGUE, Graph, State, is_code
from tasks.lineage.index import LOCK, Revision
from tasks.lineage.joining import is_inside
from tasks.lineage.lock import Entry, FileRef

TOOLS_FILE = "tools.yaml"


@dataclass
class Reasons:
    """Why an entry gave other bytes: each a list of "what: before -> after" or names."""

    params: list[str] = field(default_factory=list)
    tools: list[str] = field(default_factory=list)
    code: list[str] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    def words(self) -> str:
        parts = [f"{name} {', '.join(rows)}" for name, rows in vars(self).items() if rows]
        return "; ".join(parts)


@dataclass
class ItemChange:
    """how: added, dropped or changed.  because: its own inputs that changed; none = the stage's reasons."""

    name: str
    how: str
    because: list[str] = field(default_factory=list)


@dataclass
class PathChange:
    """An output, catalogue or raw data that differs. how: added, dropped or changed.  items: None = cannot be told."""

    path: str
    how: str
    stage: str
    before: str | None
    after: str | None
    items: list[ItemChange] | None
    why: Reasons


@dataclass
class Diff:
    before: str
    after: str
    changes: list[PathChange]
    open: list[str]


@dataclass
class Version:
    """A version of a thing. revision: the first that has it, in the order of time.  num_revisions: that have it."""

    revision: str
    date: str
    author: str
    subject: str
    md5: str
    why: str
    num_revisions: int = 1


@dataclass
class History:
    thing: str
    path: str
    versions: list[Version]
    open: list[str]


def compare(before: State, after: State, only: str = "") -> Diff:
    """What differs, below a path or everywhere."""
    changes = []
    for path in sorted({*before.outs, *after.outs}):
        if not only or is_inside(path, only) or is_inside(only, path):
            changes += _compare_output(before, after, path)
    names = {path for state in (before, after) for path in state.revision.files if path.startswith(CATALOGUE)}
    for path in sorted(names):
        if (not only or is_inside(path, only)) and before.revision.files.get(path) != after.revision.files.get(path):
            changes.append(_compare_catalogue(before, after, path))
    olds, news = {out.path: out for out in before.raw}, {out.path: out for out in after.raw}
    for path in sorted({*olds, *news}):
        old, new = olds.get(path), news.get(path)
        if (old and old.md5) != (new and new.md5) and (not only or is_inside(path, only) or is_inside(only, path)):
            items = _compare_members(before, old, new)
            changes.append(PathChange(path, _how(old, new), "", old and old.md5, new and new.md5, items, Reasons()))
    open_ = dict.fromkeys([*after.index.notes, *before.notes, *after.notes])
    for change in changes:
        if change.items is None:
            open_[f"{change.path}: which items changed stays open: a list of its files is in no place"] = None
    return Diff(before.revision.name, after.revision.name, changes, list(open_))


def _compare_output(before: State, after: State, path: str) -> list[PathChange]:
    """None or one."""
    old, new = before.outs.get(path), after.outs.get(path)
    if old and new and old[1].md5 == new[1].md5:
        return []
    stage = (new or old or ("", None))[0]
    why = explain(before.entries[old[0]] if old else None, after.entries[new[0]] if new else None)
    items: list[ItemChange] | None = []
    if path.startswith("data/"):
        items = _compare_members(before, old and old[1], new and new[1])
        if items and old and new:
            inputs = _changed_inputs(before, after, before.entries[old[0]], after.entries[new[0]])
            for item in items:
                item.because = sorted(inputs.get(item.name.rpartition(".")[0] or item.name, []))
    return [PathChange(path, _how(old, new), stage, old and old[1].md5, new and new[1].md5, items, why)]


def _changed_inputs(before: State, after: State, old: Entry, new: Entry) -> dict[str, set[str]]:
    """Name of an item -> the folders in which its input of that name changed."""
    found: dict[str, set[str]] = {}
    md5s = {dep.path: dep for dep in old.deps}
    for dep in new.deps:
        earlier = md5s.get(dep.path)
        if earlier and earlier.md5 != dep.md5 and dep.md5.endswith(".dir"):
            for item in _compare_members(before, earlier, dep) or []:
                found.setdefault(item.name.rpartition(".")[0] or item.name, set()).add(f"{dep.path}/{item.name}")
        elif earlier and earlier.md5 != dep.md5 and dep.path.startswith(CATALOGUE):
            for item in _compare_catalogue(before, after, dep.path).items or []:
                found.setdefault(item.name, set()).add(f"{dep.path} {item.name}")
    return found


def _compare_members(state: State, old: FileRef | None, new: FileRef | None) -> list[ItemChange] | None:
    sides: list[dict[str, str]] = []
    for ref in (old, new):
        if ref is None:
            sides.append({})
        elif not ref.md5.endswith(".dir"):
            sides.append({"": ref.md5})
        else:
            members = state.index.members(ref.md5)
            if members is None:
                return None
            sides.append({member.name: member.md5 for member in members})
    return _compare_maps(*sides)


def _compare_maps(old: Mapping[str, object], new: Mapping[str, object]) -> list[ItemChange]:
    items = [ItemChange(name, "added") for name in new if name not in old]
    items += [ItemChange(name, "dropped") for name in old if name not in new]
    items += [ItemChange(name, "changed") for name in new if name in old and old[name] != new[name]]
    return sorted(items, key=lambda item: item.name)


def _compare_catalogue(before: State, after: State, path: str) -> PathChange:
    sides = []
    for state in (before, after):
        id_ = state.revision.files.get(path)
        catalogue = state.index.catalogue(id_=id_) if id_ else None
        key = path.rpartition("/")[2].removesuffix("s.csv")
        sides.append({row.get(key, ""): row for row in catalogue.rows} if catalogue else {})
    ids = [state.revision.files.get(path) for state in (before, after)]
    return PathChange(path, _how(*ids), "", ids[0], ids[1], _compare_maps(*sides), Reasons())


def _how(old: object, new: object) -> str:
    return "added" if old is None else "dropped" if new is None else "changed"


def explain(old: Entry | None, new: Entry | None) -> Reasons:
    """Why a stage's outputs differ between two of its entries."""
    why = Reasons()
    if old is None or new is None:
        why.other.append("the stage is new" if old is None else "the stage is gone")
        return why
    if old.cmd != new.cmd:
        why.other.append(f"command: {old.cmd} -> {new.cmd}")
    before, after = {dep.path: dep.md5 for dep in old.deps}, {dep.path: dep.md5 for dep in new.deps}
    for item in _compare_maps(before, after):
        row = item.name if item.how == "changed" else f"{item.name} {item.how}"
        (why.code if is_code(item.name) else why.data).append(row)
    olds, news = old.params(), new.params()
    for file in dict.fromkeys([*olds, *news]):
        left, right = flatten(olds.get(file, {})), flatten(news.get(file, {}))
        rows = why.tools if file == TOOLS_FILE else why.params
        rows += [
            f"{item.name}: {left.get(item.name, 'none')} -> {right.get(item.name, 'none')}"
            for item in _compare_maps(left, right)
        ]
    return why


def flatten(values: Mapping[str, object], path: str = "") -> dict[str, object]:
    """Nested keys as dotted ones."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        name = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, name)
        else:
            flat[name] = value
    return flat


def trace(graph: Graph, path: str, name: str, below: str = "") -> History:
    """The versions of an output, or of a file in it, over all revisions, oldest first."""
    index = graph.index
    versions: list[Version] = []
    entries: list[Entry | None] = []
    notes: dict[str, None] = dict.fromkeys(index.notes)
    outs_of: dict[str, tuple[Entry, FileRef] | None] = {}
    for revision in reversed(index.revisions):
        lock = revision.files.get(LOCK, "")
        if lock not in outs_of:
            outs_of[lock] = _output_in(graph, lock, path)
            if lock and (problem := index.lock_entries(lock)[1]):
                notes[f"{revision.name}: {problem}; what stood there stays open"] = None
        found = outs_of[lock]
        md5 = _md5_below(graph, found[1], below, notes) if found else None
        if not md5:
            continue
        if versions and versions[-1].md5 == md5:
            versions[-1].num_revisions += 1
            continue
        entry = found[0] if found else None
        why = explain(entries[-1] if entries else None, entry).words() if entry else ""
        versions.append(_version(revision, md5, why))
        entries.append(entry)
    return History(name, f"{path}/{below}" if below else path, versions, list(notes))


def _output_in(graph: Graph, lock: str, path: str) -> tuple[Entry, FileRef] | None:
    for id_ in graph.locks.get(lock, []):
        entry = graph.entries[id_]
        for out in entry.outs:
            if out.path == path:
                return entry, out
    return None


def _md5_below(graph: Graph, out: FileRef, below: str, notes: dict[str, None]) -> str | None:
    if not below:
        return out.md5
    members = graph.index.members(out.md5)
    if members is None:
        words = f"the list of its files is in no place: whether {below} changed stays open"
        notes[f"{out.path} with md5 {out.md5[:8]}: {words}"] = None
        return None
    return next((member.md5 for member in members if member.name == below), None)


def _version(revision: Revision, md5: str, why: str) -> Version:
    date = datetime.fromtimestamp(revision.time, UTC).strftime("%Y-%m-%d %H:%M") if revision.time else ""
    return Version(revision.name, date, revision.author, revision.subject, md5, why)
