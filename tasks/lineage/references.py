"""Which objects of DVC's a revision refers to: outputs in dvc.lock and in *.dvc files, and the members of folders."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tasks.lineage.errors import LineageError, LockFileError
from tasks.lineage.git import Git
from tasks.lineage.lock import load_yaml, parse_entry, split_lock

WORK_TREE = "work tree"
LOCK, PIPELINE = "dvc.lock", "dvc.yaml"
WITHDRAWN = "lineage/withdrawn.csv"


class Output(NamedTuple):
    """A path that DVC tracks.

    md5: of a folder, it ends in .dir.  stage: "" = of a .dvc file.  is_cached: False = git's (`cache: false`).
    remote: the one it is meant for, "" = the default.  is_pushed: False = meant for none (`push: false`).
    """

    path: str
    md5: str
    size: int
    stage: str
    is_cached: bool = True
    remote: str = ""
    is_pushed: bool = True

    @property
    def is_folder(self) -> bool:
        return self.md5.endswith(".dir")


class Revision(NamedTuple):
    """name: a commit's id, or WORK_TREE.  problems: a line for each file that could not be read."""

    name: str
    outputs: tuple[Output, ...]
    problems: tuple[str, ...]


class References:
    """What revisions refer to, each version of a file parsed once."""

    def __init__(self, root: Path) -> None:
        """Raises: LineageError where the folder is in no git repository."""
        self.git = Git(root)
        self.root = root
        self._locks: dict[str, tuple[tuple[Output, ...], str]] = {}
        self._entries: dict[tuple[str, str], tuple[Output, ...]] = {}

    def work_tree(self) -> Revision:
        files = {name: self.root / name for name in (LOCK, PIPELINE)}
        listed = (self.git.ask("ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.dvc") or "").split(
            "\0"
        )
        files |= {name: self.root / name for name in listed if name}
        texts = {name: path.read_text(errors="replace") for name, path in files.items() if path.is_file()}
        return self._read(WORK_TREE, texts)

    def revision(self, name: str) -> Revision:
        """Raises: LineageError where there is no such revision."""
        return self.revisions([self.git.commit_of(name)])[0]

    def all_revisions(self) -> list[Revision]:
        """Every commit that a branch, tag, stash or HEAD reaches, newest first."""
        return self.revisions([commit.id for commit in self.git.commits()])

    def revisions(self, commits: Iterable[str]) -> list[Revision]:
        found = []
        with self.git.reader() as objects:
            for commit in commits:
                names = [LOCK, PIPELINE]
                listed = self.git.ask("ls-tree", "-r", "-z", "--name-only", commit) or ""
                names += [name for name in listed.split("\0") if name.endswith(".dvc")]
                texts = {}
                for name in names:
                    object_ = objects.get(f"{commit}:./{name}")
                    if object_ is not None and object_.kind == "blob":
                        texts[name] = object_.data.decode(errors="replace")
                found.append(self._read(commit, texts))
        return found

    def _read(self, revision: str, texts: Mapping[str, str]) -> Revision:
        outputs: list[Output] = []
        problems: list[str] = []
        uncached = uncached_paths(texts.get(PIPELINE, ""))
        for name, text in texts.items():
            try:
                if name == LOCK:
                    outputs += self._lock_outputs(text, uncached)
                elif name.endswith(".dvc"):
                    outputs += _file_outputs(name, text)
            except LockFileError as error:
                problems.append(f"{revision[:9]}: {error}")
        return Revision(revision, tuple(outputs), tuple(problems))

    def _lock_outputs(self, text: str, uncached: "re.Pattern[str]") -> list[Output]:
        found: list[Output] = []
        for stage, lines in split_lock(text):
            key = (stage, lines)
            if key not in self._entries:
                entry = parse_entry(stage, lines)
                self._entries[key] = tuple(Output(out.path, out.md5, out.size, stage) for out in entry.outs)
            found += self._entries[key]
        return [out._replace(is_cached=not uncached.fullmatch(out.path)) for out in found]


def uncached_paths(pipeline: str) -> "re.Pattern[str]":
    """dvc.yaml's text to a pattern of the paths that are git's: its outs, metrics and plots with `cache: false`."""
    try:
        stages = (load_yaml(pipeline) or {}).get("stages", {})
    except Exception:  # noqa: BLE001 a library's many errors; then every output is taken for DVC's
        stages = {}
    patterns = []
    for stage in stages.values() if isinstance(stages, Mapping) else ():
        body = stage.get("do", stage) if isinstance(stage, Mapping) else {}
        for section in ("outs", "metrics", "plots"):
            rows = body.get(section) or []
            for row in rows if isinstance(rows, list) else [rows]:
                for path, facts in row.items() if isinstance(row, Mapping) else ():
                    if isinstance(facts, Mapping) and facts.get("cache") is False:
                        parts = re.split(r"\$\{[^}]*\}", str(path))
                        patterns.append("[^/]+".join(map(re.escape, parts)))
    return re.compile("|".join(patterns) or r"(?!)")


def _file_outputs(name: str, text: str) -> list[Output]:
    """Raises: LockFileError naming the .dvc file."""
    folder = Path(name).parent
    try:
        rows: list[dict[str, Any]] = (load_yaml(text) or {}).get("outs", [])
        return [
            Output(
                (folder / row["path"]).as_posix(),
                row["md5"],
                int(row.get("size") or 0),
                "",
                row.get("cache", True) is not False,
                row.get("remote") or "",
                row.get("push", True) is not False,
            )
            for row in rows
        ]
    except Exception as error:  # a library's many errors, all of them "not a .dvc file"
        reason = str(error).splitlines()[0]
        raise LockFileError(f"{name}: cannot be read ({reason}); take it from git: `git checkout {name}`") from error


class Member(NamedTuple):
    """A file of a folder. name: its path in the folder."""

    name: str
    md5: str


def read_folder(data: bytes, md5: str) -> list[Member] | None:
    """The bytes of a .dir object to its members; None where they are not those of this md5."""
    if hashlib.md5(data, usedforsecurity=False).hexdigest() != md5.removesuffix(".dir"):
        return None
    return [Member(row["relpath"], row["md5"]) for row in json.loads(data)]


def write_folder(members: Iterable[Member]) -> bytes:
    """Members to the bytes of their .dir object, as DVC writes them."""
    rows = [{"md5": member.md5, "relpath": member.name} for member in sorted(members)]
    return json.dumps(rows, sort_keys=True).encode()


class Withdrawal(NamedTuple):
    """An object that was removed on purpose; see lineage/withdrawn.csv."""

    md5: str
    path: str
    batch: str
    video: str


def read_withdrawn(root: Path) -> dict[str, Withdrawal]:
    """md5 -> what was withdrawn. Raises: LineageError naming the row that is none."""
    import csv

    path = root / WITHDRAWN
    if not path.is_file():
        return {}
    found = {}
    for number, row in enumerate(csv.reader(path.read_text().splitlines()), start=1):
        if number == 1 or not row:
            continue
        if len(row) != len(Withdrawal._fields):
            raise LineageError(
                f"{WITHDRAWN} row {number}: has {len(row)} cells, not {len(Withdrawal._fields)}; mend it"
            )
        found[row[0]] = Withdrawal(*row)
    return found
