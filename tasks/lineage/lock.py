"""dvc.lock's text to its entries: what each stage read, with which params, and what it wrote.

A repository of hundreds of revisions and stages has the same entry in most of its locks, so the text is first cut into
entries, and each different one is parsed once. An entry as DVC writes it is read by one expression, ten times as fast
as by a YAML library in C; any other text goes through the library, with the same result (tests hold them equal).
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from tasks.lineage.errors import LockFileError

_CONFLICT = re.compile(r"^(<{7}|={7}|>{7}|\|{7})( |$)", re.MULTILINE)
_MARKS = ("<<<<<<<", "=======", ">>>>>>>", "|||||||")
_START = re.compile(r"\n  (?=[^ #\n-])")
_NAME = re.compile(r"[\w@.+-]+")
_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
# One path of an entry, as DVC writes it: no quotes, nothing folded.
_FILE = re.compile(
    r"    - path: (?P<path>[\w./@+-][\w ./@+-]*)\n"
    r"(?:      hash: md5\n)?"
    r"      md5: (?P<md5>[0-9a-f]{32}(?:\.dir)?)\n"
    r"(?:      size: (?P<size>\d+)\n)?"
    r"(?:      nfiles: (?P<nfiles>\d+)\n)?"
)
_ENTRY = re.compile(
    r"    cmd: (?P<cmd>[a-z][\w ./@+-]*)\n"
    rf"(?:    deps:\n(?P<deps>(?:{re.sub(r'[?]P<[a-z0-9]+>', '?:', _FILE.pattern)})+))?"
    r"(?:    params:\n(?P<params>(?:      .*\n)+))?"
    rf"(?:    outs:\n(?P<outs>(?:{re.sub(r'[?]P<[a-z0-9]+>', '?:', _FILE.pattern)})+))?"
)
_REMEDY = "take one side with `git checkout --ours dvc.lock` (or --theirs), then `dvc repro`"


class FileRef(NamedTuple):
    """A path that a stage read or wrote. md5: of a folder, it ends in .dir.  num_files: of a folder; 0 = not told."""

    path: str
    md5: str
    size: int = 0
    num_files: int = 0


class Entry(NamedTuple):
    """One stage of a dvc.lock.  params_text: YAML, file -> key -> value; parsed by params()."""

    stage: str
    cmd: str
    deps: tuple[FileRef, ...]
    outs: tuple[FileRef, ...]
    params_text: str

    def params(self) -> dict[str, dict[str, Any]]:
        """File -> dotted key -> value, of the parameters that the stage reads."""
        return _parse_params(self.params_text)

    def to_json(self) -> str:
        return json.dumps([self.cmd, self.deps, self.outs], separators=(",", ":"))

    @classmethod
    def from_json(cls, stage: str, text: str, params_text: str) -> "Entry":
        cmd, deps, outs = json.loads(text)
        return cls(stage, cmd, tuple(FileRef(*row) for row in deps), tuple(FileRef(*row) for row in outs), params_text)


def split_lock(text: str) -> list[tuple[str, str]]:
    """(stage, text of its entry) of every entry, in the order of the file.

    Raises: LockFileError naming the line where it is not a dvc.lock, or holds the marks of a merge.
    """
    head, found, body = text.partition("stages:\n")
    if not text.strip():
        return []
    blocks = _START.split(f"\n{body}") if found and head.startswith("schema:") else ["more"]
    if blocks[0] or len(blocks) == 1 or any(mark in head for mark in _MARKS):
        return _split_with_care(text)
    entries = []
    for block in [*(f"{block}\n" for block in blocks[1:-1]), blocks[-1]]:
        entry = _cut_block(block)
        if entry is None:
            return _split_with_care(text)
        entries.append(entry)
    _refuse_twice([name for name, _ in entries])
    return entries


@lru_cache(maxsize=8192)
def _cut_block(block: str) -> tuple[str, str] | None:
    """(stage, its lines); None where it is not as DVC writes it. Kept: most of a lock stood in the one before."""
    name, _, lines = block.partition(":\n")
    is_plain = _NAME.fullmatch(name.strip()) and "\n\n" not in lines and "#" not in lines
    return (name.strip(), lines) if is_plain and not any(mark in block for mark in _MARKS) else None


def _split_with_care(text: str) -> list[tuple[str, str]]:
    if match := _CONFLICT.search(text):
        line = text.count("\n", 0, match.start()) + 1
        raise LockFileError(f"dvc.lock line {line}: holds the marks of an unfinished merge; {_REMEDY}")
    return _split_by_yaml(text)


def parse_entry(stage: str, text: str) -> Entry:
    """The text of one entry, as split_lock gives it. Raises: LockFileError naming the stage and what is wrong."""
    match = _ENTRY.fullmatch(text)
    if match is None:
        return _parse_by_yaml(stage, text)
    return Entry(stage, match["cmd"], _files(match["deps"]), _files(match["outs"]), match["params"] or "")


def parse_lock(text: str) -> dict[str, Entry]:
    """Stage -> entry. Raises: LockFileError."""
    return {name: parse_entry(name, lines) for name, lines in split_lock(text)}


def _files(text: str | None) -> tuple[FileRef, ...]:
    return tuple(
        FileRef(match["path"], match["md5"], int(match["size"] or 0), int(match["nfiles"] or 0))
        for match in _FILE.finditer(text or "")
    )


def load_yaml(text: str) -> Any:  # noqa: ANN401 any YAML
    """YAML to plain values, by the C library where it is there."""
    import yaml

    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 a safe loader


def _split_by_yaml(text: str) -> list[tuple[str, str]]:
    import yaml

    try:
        content = load_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise LockFileError(f"dvc.lock{where}: is not YAML ({reason}); {_REMEDY}") from error
    stages = content.get("stages", None if set(content) - {"schema"} else {}) if isinstance(content, Mapping) else None
    if not isinstance(stages, Mapping):
        raise LockFileError(f"dvc.lock: has no `stages`; {_REMEDY}")
    # YAML keeps the last of two keys in silence: counted in the text.
    _refuse_twice(re.findall(r"^  ['\"]?([\w@.+-]+)['\"]?:\s*$", text, re.MULTILINE))
    dump = yaml.SafeDumper
    return [
        (str(name), yaml.dump(entry, Dumper=dump, sort_keys=False, default_flow_style=False))
        for name, entry in stages.items()
    ]


def _refuse_twice(names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise LockFileError(f"dvc.lock: stage {twice} stands twice; keep one of the two, then `dvc repro`")


def _parse_by_yaml(stage: str, text: str) -> Entry:
    import yaml

    try:
        content = load_yaml(text)
    except yaml.YAMLError as error:
        raise LockFileError(f"dvc.lock: stage {stage}: is not YAML; {_REMEDY}") from error
    if not isinstance(content, Mapping):
        raise LockFileError(f"dvc.lock: stage {stage}: is no entry; {_REMEDY}")
    params = content.get("params") or {}
    cmd = content.get("cmd", "")
    return Entry(
        stage,
        cmd if isinstance(cmd, str) else " && ".join(map(str, cmd)),
        _check_files(stage, content.get("deps")),
        _check_files(stage, content.get("outs")),
        yaml.dump(params, Dumper=yaml.SafeDumper, sort_keys=False) if params else "",
    )


def _check_files(stage: str, rows: Iterable[object] | None) -> tuple[FileRef, ...]:
    found = []
    for row in rows or ():
        if not isinstance(row, Mapping) or not isinstance(row.get("path"), str):
            raise LockFileError(f"dvc.lock: stage {stage}: an entry names no path; {_REMEDY}")
        md5 = row.get("md5")
        if not isinstance(md5, str) or not _MD5.fullmatch(md5):
            raise LockFileError(f"dvc.lock: stage {stage}: {row['path']} has no md5 ({md5!r}); {_REMEDY}")
        found.append(FileRef(row["path"], md5, int(row.get("size") or 0), int(row.get("nfiles") or 0)))
    return tuple(found)


@lru_cache(maxsize=512)
def _parse_params(text: str) -> dict[str, dict[str, Any]]:
    if not text:
        return {}
    content = load_yaml(text)
    return {str(file): dict(values or {}) for file, values in content.items()} if isinstance(content, Mapping) else {}
