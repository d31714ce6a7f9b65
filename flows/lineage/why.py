"""Why a stage is due: its entry in dvc.lock against dvc.yaml, params, code, catalogue and data as they stand now.

DVC says which path changed; this says which item of it, and why the stages before it are due. Data is taken as dvc.lock
has it: whether the files under data/ still are those bytes is `inbetween lineage verify`'s question.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tasks.lineage.changes import flatten
from tasks.lineage.errors import LineageError
from tasks.lineage.graph import State, is_code
from tasks.lineage.joining import Joiner, is_inside, is_made, md5_below
from tasks.lineage.lineage import Lineage
from tasks.lineage.lock import Entry, load_yaml

PARAMS = "params.yaml"
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
_NAME = re.compile(r"\$\{([^}]+)\}")


@dataclass
class Reason:
    """stage: the one asked for, or one before it.  kind: new, command, param, tool, code, catalogue, data, output."""

    stage: str
    kind: str
    what: str
    detail: str


@dataclass
class Why:
    """reasons: none = up to date."""

    stage: str
    reasons: list[Reason]
    open: list[str]


@dataclass
class Declared:
    """A stage of dvc.yaml with its names filled in. params: file -> keys."""

    cmd: str
    deps: list[str]
    outs: list[str]
    params: dict[str, list[str]]


class Project:
    """dvc.yaml and the files that it names, as they stand in the work tree."""

    def __init__(self, root: Path, parse: Callable[[str], Any] = load_yaml) -> None:
        """parse: YAML text to its content."""
        self.root, self._parse = root, parse
        self._values: dict[str, Any] = {}
        self._md5s: dict[str, str] = {}

    def file(self, name: str) -> Any:  # noqa: ANN401 any YAML
        """A YAML file's content. Raises: LineageError where it cannot be read."""
        if name not in self._values:
            try:
                self._values[name] = self._parse((self.root / name).read_text())
            except Exception as error:
                raise LineageError(f"{name}: cannot be read ({str(error).splitlines()[0]})") from error
        return self._values[name]

    @cached_property
    def stages(self) -> dict[str, Declared]:
        """Stage -> its declaration, every foreach expanded."""
        found = {}
        for name, stage in self.file("dvc.yaml")["stages"].items():
            if "foreach" not in stage:
                found[name] = self._declare(stage, {})
                continue
            items = self._value(_NAME.fullmatch(stage["foreach"]))
            pairs = items.items() if isinstance(items, Mapping) else [(item, item) for item in items]
            for key, item in pairs:
                values = {"key": key, "item": item}
                found[f"{name}@{key}"] = self._declare(stage["do"], values)
        return found

    def _declare(self, stage: Mapping[str, Any], values: Mapping[str, Any]) -> Declared:
        def fill(text: str) -> str:
            return _NAME.sub(lambda match: str(self._value(match, values)), text)

        def path(row: str | Mapping[str, Any]) -> str:
            return fill(row if isinstance(row, str) else next(iter(row)))

        params: dict[str, list[str]] = {}
        for row in stage.get("params", []):
            if isinstance(row, str):
                params.setdefault(PARAMS, []).append(fill(row))
            else:
                for file, keys in row.items():
                    params.setdefault(fill(file), []).extend(fill(key) for key in keys)
        outs = [path(row) for kind in ("outs", "metrics", "plots") for row in stage.get(kind, [])]
        return Declared(fill(stage["cmd"]), [path(row) for row in stage.get("deps", [])], outs, params)

    def _value(self, match: re.Match[str] | None, values: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401
        assert match is not None
        found: Any = dict(self.file(PARAMS)) | dict(values or {})
        for name in match[1].split("."):
            found = found[name]
        return found

    def params(self, declared: Declared) -> dict[str, dict[str, Any]]:
        """File -> key -> its value now; a key that is not there is left out."""
        found: dict[str, dict[str, Any]] = {}
        for file, keys in declared.params.items():
            for key in keys:
                value: Any = self.file(file)
                for name in key.split("."):
                    value = value.get(name, _Missing) if isinstance(value, Mapping) else _Missing
                if value is not _Missing:
                    found.setdefault(file, {})[key] = value
        return found

    def md5(self, path: str) -> str:
        """Of a file in git; "" = it is not there."""
        if path not in self._md5s:
            file = self.root / path
            data = file.read_bytes() if file.is_file() else None
            self._md5s[path] = "" if data is None else hashlib.md5(data, usedforsecurity=False).hexdigest()
        return self._md5s[path]


class _Missing:
    pass


def explain_stage(lineage: Lineage, stage: str) -> Why:
    """Raises: LineageError for a stage that dvc.yaml does not have."""
    state, project = lineage.state(), Project(lineage.git.root, lineage.index.yaml)
    if stage not in project.stages:
        import difflib

        near = difflib.get_close_matches(stage, project.stages, n=4)
        offered = f"; the nearest names are {', '.join(near)}" if near else ""
        raise LineageError(f"{stage}: is no stage of dvc.yaml{offered}")
    asked = _Asked(state, project)
    reasons = asked.reasons(stage)
    notes = [*state.notes, *asked.open]
    notes.append("data is taken as dvc.lock has it: files changed under data/ by hand are not looked at")
    return Why(stage, reasons, notes)


def explain_all(lineage: Lineage) -> tuple[dict[str, list[str]], list[str]]:
    """Stage -> why it is due, a line a reason, of all that are; and what stays open.

    Raises: LineageError where dvc.yaml or what it names cannot be read.
    """
    state, project = lineage.state(), Project(lineage.git.root, lineage.index.yaml)
    asked = _Asked(state, project)
    due = {stage: reasons for stage in project.stages if (reasons := asked.reasons(stage))}
    lines = {}
    for stage, reasons in due.items():
        lines[stage] = [f"{r.kind} {r.what}: {r.detail}" for r in reasons if r.stage == stage]
        before = list(dict.fromkeys(r.stage for r in reasons if r.stage != stage))
        if before:
            more = f" and {len(before) - 4} more" if before[4:] else ""
            lines[stage].append(f"after {', '.join(before[:4])}{more}, due before it")
    return lines, list(dict.fromkeys(asked.open))


class _Asked:
    def __init__(self, state: State, project: Project) -> None:
        self.state, self.project = state, project
        self._found: dict[str, list[Reason]] = {}
        self._joiner = Joiner(state.index)
        self.open: list[str] = []

    def reasons(self, stage: str) -> list[Reason]:
        """Those of a stage, then those of the stages before it that are due."""
        if stage in self._found:
            return self._found[stage]
        self._found[stage] = []
        declared = self.project.stages[stage]
        own = list(self._own(stage, declared))
        before: dict[str, Reason] = {}
        for dep in filter(is_made, declared.deps):
            for other in self._makers_of(dep):
                before |= {f"{r.stage} {r.kind} {r.what}": r for r in self.reasons(other)}
        self._found[stage] = [*own, *before.values()]
        return self._found[stage]

    def _makers_of(self, path: str) -> list[str]:
        """The stages that make a path, what it is in, or what is in it, in the order of dvc.yaml."""
        parts = path.split("/")
        found = set(self._makers[1].get(path, ()))
        for number in range(1, len(parts) + 1):
            found.update(self._makers[0].get("/".join(parts[:number]), ()))
        return sorted(found, key=self._order.__getitem__)

    @cached_property
    def _order(self) -> dict[str, int]:
        return {stage: number for number, stage in enumerate(self.project.stages)}

    @cached_property
    def _makers(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """Output -> the stages that make it; a folder above outputs -> theirs."""
        at: dict[str, list[str]] = {}
        below: dict[str, list[str]] = {}
        for stage, declared in self.project.stages.items():
            for out in declared.outs:
                at.setdefault(out, []).append(stage)
                parts = out.split("/")
                for number in range(1, len(parts)):
                    below.setdefault("/".join(parts[:number]), []).append(stage)
        return at, below

    def _own(self, stage: str, declared: Declared) -> Iterator[Reason]:
        entry = self.state.entries.get(stage)
        if entry is None:
            yield Reason(stage, "new", stage, "it has no entry in dvc.lock: it never ran")
            return
        if entry.cmd != declared.cmd:
            yield Reason(stage, "command", declared.cmd, f"was {entry.cmd}")
        yield from self._params(stage, entry, declared)
        read = {dep.path: dep.md5 for dep in entry.deps}
        for path in dict.fromkeys([*declared.deps, *read]):
            kind = "data" if is_made(path) else "code" if is_code(path) else "catalogue"
            if path not in read:
                yield Reason(stage, kind, path, "is a dependency that it had not when it last ran")
            elif path not in declared.deps:
                yield Reason(stage, kind, path, "is no dependency any more")
            elif kind == "data":
                yield from self._data(stage, path, read[path])
            elif (now := self.project.md5(path)) != read[path]:
                detail = self._rows(path, read[path]) if kind == "catalogue" and now else ""
                yield Reason(stage, kind, path, detail or ("differs" if now else "is not there"))
        made = {out.path for out in entry.outs}
        for path in made ^ set(declared.outs):
            yield Reason(stage, "output", path, "is not declared any more" if path in made else "is declared anew")

    def _params(self, stage: str, entry: Entry, declared: Declared) -> Iterator[Reason]:
        before, now = entry.params(), self.project.params(declared)
        for file in dict.fromkeys([*before, *now]):
            old, new = flatten(before.get(file, {})), flatten(now.get(file, {}))
            for key in dict.fromkeys([*old, *new]):
                left, right = _plain(old.get(key, "none")), _plain(new.get(key, "none"))
                if left != right:
                    kind = "tool" if file == "tools.yaml" else "param"
                    yield Reason(stage, kind, f"{file} {key}", f"{left} -> {right}")

    def _data(self, stage: str, path: str, md5: str) -> Iterator[Reason]:
        now = self._md5_now(path)
        if now is None:
            self.open.append(f"{stage}: whether {path} changed stays open: a list of its files is in no place")
        elif not now:
            yield Reason(stage, "data", path, "nothing in dvc.lock or data.dvc makes it now")
        elif now != md5:
            rows = self._items(path, md5, now)
            if rows is None:
                self.open.append(f"{path}: which of its items changed stays open: a list of its files is in no place")
                rows = [(path, f"{md5[:8]} -> {now[:8]}")]
            for what, detail in rows:
                yield Reason(stage, "data", what, detail)

    def _md5_now(self, path: str) -> str | None:
        """By dvc.lock and data.dvc; "" = nothing makes it; None = it cannot be told."""
        outs = {name: out.md5 for name, (_, out) in self.state.outs.items()} | {o.path: o.md5 for o in self.state.raw}
        if path in outs:
            return outs[path]
        for out, md5 in outs.items():
            if is_inside(path, out):
                members = self.state.index.members_below(md5, path[len(out) + 1 :])
                return md5_below(members, path[len(out) + 1 :]) if members is not None else None
        return self._joiner.md5_of(path, outs)

    def _items(self, path: str, old: str, new: str) -> list[tuple[str, str]] | None:
        if not (old.endswith(".dir") and new.endswith(".dir")):
            return [(path, f"{old[:8]} -> {new[:8]}")]
        sides = []
        for md5 in (old, new):
            members = self.state.index.members(md5)
            if members is None:
                return None
            sides.append({member.name: member.md5 for member in members})
        before, after = sides
        rows = [(f"{path}/{name}", "added") for name in after if name not in before]
        rows += [(f"{path}/{name}", "dropped") for name in before if name not in after]
        return rows + [(f"{path}/{name}", "changed") for name in after if before.get(name, after[name]) != after[name]]

    def _rows(self, path: str, md5: str) -> str:
        """The rows of a catalogue that differ from those it had."""
        before = self.state.index.catalogue(md5=md5)
        after = self.state.index.catalogue(id_=self.state.revision.files.get(path, ""))
        if before is None or after is None:
            return ""
        key = path.rpartition("/")[2].removesuffix("s.csv")
        old, new = ({row.get(key, ""): row for row in rows.rows} for rows in (before, after))
        words = [f"{name} added" for name in new if name not in old]
        words += [f"{name} dropped" for name in old if name not in new]
        for name in new:
            if name in old and old[name] != new[name]:
                cells = [c for c in new[name] if old[name].get(c) != new[name][c]]
                words += [f"{name}: {c} {old[name].get(c)} -> {new[name][c]}" for c in cells]
        return ", ".join(words)


def _plain(value: object) -> object:
    """Numbers such as 1e-4, which one YAML takes for text and another for a number, as numbers."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
