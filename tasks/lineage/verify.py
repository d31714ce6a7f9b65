"""Every byte that DVC tracks against its md5: in the workspace, in the cache and in the remotes."""

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tasks.lineage.errors import LineageError
from tasks.lineage.hashing import Hashed, State, hash_paths, hash_stream
from tasks.lineage.references import Member, Output, Revision, Withdrawal, read_folder, write_folder
from tasks.lineage.stores import Found, Store

WORKSPACE, CACHE = "workspace", "cache"
MISSING, CORRUPT, UNEXPECTED = "missing", "corrupt", "unexpected"
NOT_HERE, NEVER_PUSHED = "not here", "never pushed"
STILL_HERE, WITHDRAWN = "withdrawn, and still here", "withdrawn"
FAULTS = (MISSING, CORRUPT, STILL_HERE)


class Finding(NamedTuple):
    """A file that is not as the lock files say.

    kind: MISSING, no place that was looked into has it, or it is gone from a folder that is here; CORRUPT, its bytes
    are others; UNEXPECTED, nothing refers to it; NOT_HERE, not brought here, and another place has it; NEVER_PUSHED,
    its remote never had it; STILL_HERE; WITHDRAWN, gone as it should be.
    path: in the project, or in the store where nothing of the project is of this name.  found: what its bytes are.
    repaired: the place that it was mended from.
    """

    kind: str
    place: str
    path: str
    md5: str
    size: int = 0
    found: str = ""
    repaired: str = ""

    @property
    def is_fault(self) -> bool:
        return self.kind in FAULTS and not self.repaired


class Count(NamedTuple):
    """What was hashed at a place, and how much of it is as it should be."""

    place: str
    num_files: int
    num_bytes: int
    num_well: int


@dataclass(frozen=True)
class Verification:
    """open: what was not looked into, a line each; where there is one, nothing is proven of it."""

    revisions: list[str]
    counts: list[Count]
    findings: list[Finding]
    notes: list[str]
    open: list[str]

    @property
    def is_well(self) -> bool:
        return not self.open and not any(finding.is_fault for finding in self.findings)


class Wanted(NamedTuple):
    """What is verified.

    revisions: what they refer to.  workspace: the revision that the workspace is held against, None = it is not.
    stores: the cache first, where it is verified; others serve to mend from (`known`).  has_all: objects that no
    revision refers to are hashed as well.
    """

    revisions: Sequence[Revision]
    workspace: Revision | None
    stores: Sequence[Store]
    known: Sequence[Store]
    default_remote: str
    withdrawn: Mapping[str, Withdrawal]
    has_all: bool


@dataclass
class Hashes:
    """What was read.  copies: md5 -> the good ones, by place."""

    workspace: dict[str, Hashed] = field(default_factory=dict)
    stores: dict[str, dict[str, tuple[Found, Hashed | None]]] = field(default_factory=dict)
    foreign: dict[str, list[Found]] = field(default_factory=dict)
    copies: dict[str, dict[str, Callable[[], BinaryIO]]] = field(default_factory=dict)

    def has(self, md5: str, *places: str) -> bool:
        return any(place in self.copies.get(md5, {}) for place in places)


Progress = Callable[[int, bool], None]


class Verifier:
    """One verification: read(), then compare(); tasks/lineage/repair.py mends between the two."""

    def __init__(self, root: Path, wanted: Wanted) -> None:
        self.root, self.wanted = root, wanted
        self.notes: list[str] = []
        self.open = [problem for revision in wanted.revisions for problem in revision.problems]
        self.hashes = Hashes()
        self.outputs = _distinct(output for revision in wanted.revisions for output in revision.outputs)
        self.folders: dict[str, list[Member] | None] = {}
        for output in [*self.outputs, *(wanted.workspace.outputs if wanted.workspace else ())]:
            if output.is_folder and output.md5 not in self.folders:
                self.folders[output.md5] = self._read_folder(output.md5)
        self.known: set[str] = set()
        self.labels: dict[str, str] = {}  # md5 -> a path of that object, for a person
        self._label()

    def _read_folder(self, md5: str) -> list[Member] | None:
        for store in [*self.wanted.stores, *self.wanted.known]:
            with suppress(OSError, LineageError, ValueError, KeyError), store.open(md5) as file:
                if (members := read_folder(file.read(), md5)) is not None:
                    return members
        return None

    def _label(self) -> None:
        for output in self.outputs:
            # DVC's run cache keeps git's outputs as well.
            self.known.update([output.md5], (member.md5 for member in self.folders.get(output.md5) or []))
            if output.is_cached:
                self.labels.setdefault(output.md5, output.path)
                for member in (self.folders.get(output.md5) or []) if output.is_folder else ():
                    self.labels.setdefault(member.md5, f"{output.path}/{member.name}")

    def read(self, state: State, threads: int, start: Callable[[int], Progress]) -> None:
        """Hash everything. Args: start: told the bytes there are; gives the function to tell what is done."""
        workspace = self._list_workspace()
        local: dict[str, tuple[str, str]] = {}  # path -> (store, md5)
        far: list[tuple[Store, Found]] = []
        for store in self.wanted.stores:
            table = self.hashes.stores.setdefault(store.name, {})
            try:
                for found in store.files():
                    if found.md5 is None:
                        self.hashes.foreign.setdefault(store.name, []).append(found)
                        continue
                    table[found.md5] = (found, None)
                    if self.wanted.has_all or found.md5 in self.labels or found.md5 in self.wanted.withdrawn:
                        if found.path:
                            local[str(found.path)] = (store.name, found.md5)
                        else:
                            far.append((store, found))
            except (LineageError, OSError) as error:
                self.open.append(f"{store.name}: cannot be looked into ({' '.join(str(error).split())[:200]})")
        sizes = [_size(path) for path in [*workspace.values(), *local]]
        tell = start(sum(sizes) + sum(found.size for _, found in far))
        hashed = hash_paths(list(dict.fromkeys([*workspace.values(), *local])), state, threads, tell)
        self.hashes.workspace = {path: hashed[full] for path, full in workspace.items()}
        for path, (place, md5) in local.items():
            table = self.hashes.stores[place]
            table[md5] = (table[md5][0], hashed[path])
        self._read_far(far, threads, tell)
        self._find_copies()
        self._fill_folders()

    def _read_far(self, far: Sequence[tuple[Store, Found]], threads: int, tell: Progress) -> None:
        def one(store: Store, found: Found) -> None:
            assert found.md5 is not None
            try:
                with store.open(found.md5) as file:
                    result = Hashed(hash_stream(file), found.size)
            except OSError as error:
                result = Hashed(None, found.size, str(error))
            self.hashes.stores[store.name][found.md5] = (found, result)
            tell(found.size, False)

        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(lambda pair: one(*pair), far):
                pass

    def _list_workspace(self) -> dict[str, str]:
        """Path in the project -> full path, of every file of the outputs that are there."""
        found: dict[str, str] = {}
        for output in self.wanted.workspace.outputs if self.wanted.workspace else ():
            top = self.root / output.path
            if top.is_file():
                found[output.path] = str(top)
            for folder, _, names in os.walk(top) if top.is_dir() else ():
                for name in sorted(names):
                    path = os.path.join(folder, name)  # noqa: PTH118 ten thousands of them
                    found[os.path.relpath(path, self.root).replace(os.sep, "/")] = path
        return found

    def _find_copies(self) -> None:
        for store in self.wanted.stores:
            for md5, (_, hashed) in self.hashes.stores.get(store.name, {}).items():
                if hashed and hashed.md5 == md5.removesuffix(".dir"):
                    self._add_copy(md5, store.name, opener(store, md5))
        for path, hashed in self.hashes.workspace.items():
            if hashed.md5:
                self._add_copy(hashed.md5, WORKSPACE, lambda path=path: (self.root / path).open("rb"))  # type: ignore[misc]

    def _add_copy(self, md5: str, place: str, read: Callable[[], BinaryIO]) -> None:
        self.hashes.copies.setdefault(md5, {}).setdefault(place, read)

    def _fill_folders(self) -> None:
        """A folder whose list is nowhere: from its files in the workspace, where they are those that it names."""
        for output in self.wanted.workspace.outputs if self.wanted.workspace else ():
            if not output.is_folder:
                continue
            members = [
                Member(path.removeprefix(f"{output.path}/"), hashed.md5)
                for path, hashed in self.hashes.workspace.items()
                if path.startswith(f"{output.path}/") and hashed.md5
            ]
            data = write_folder(members)
            if read_folder(data, output.md5) is not None:
                self.folders[output.md5] = self.folders.get(output.md5) or members
                self._add_copy(output.md5, WORKSPACE, lambda data=data: io.BytesIO(data))  # type: ignore[misc]
        self._label()

    # What was read, against what should be.

    def compare(self) -> Verification:
        findings = [finding for store in self.wanted.stores for finding in self._compare_store(store.name)]
        if self.wanted.workspace:
            findings = [*self._compare_workspace(self.wanted.workspace), *findings]
        self._note_unknown_folders()
        self._note_unpushed()
        return Verification(
            [revision.name for revision in self.wanted.revisions],
            self._count(findings),
            findings,
            self.notes,
            self.open,
        )

    def _compare_workspace(self, revision: Revision) -> Iterator[Finding]:
        seen = set()
        for output in revision.outputs:
            expected = {output.path: output.md5}
            if output.is_folder:
                members = self.folders.get(output.md5)
                if members is None:
                    seen.update(self._below(output.path))
                    continue
                expected = {f"{output.path}/{member.name}": member.md5 for member in members}
            is_there = (self.root / output.path).exists()
            for path, md5 in expected.items():
                seen.add(path)
                yield from self._compare_file(path, md5, output, is_there=is_there)
        for path, hashed in self.hashes.workspace.items():
            if path not in seen:
                yield Finding(UNEXPECTED, WORKSPACE, path, "", hashed.size, hashed.md5 or hashed.problem)

    def _compare_file(self, path: str, md5: str, output: Output, *, is_there: bool) -> Iterator[Finding]:
        hashed = self.hashes.workspace.get(path)
        if md5 in self.wanted.withdrawn:
            if hashed and hashed.md5 == md5:
                yield Finding(STILL_HERE, WORKSPACE, path, md5, hashed.size)
            else:
                yield Finding(WITHDRAWN, WORKSPACE, path, md5)
        elif hashed is None:
            others = [store.name for store in self.wanted.stores]
            is_elsewhere = self.hashes.has(md5, *others) or not others
            yield Finding(
                NOT_HERE if not is_there and (is_elsewhere or not output.is_cached) else MISSING, WORKSPACE, path, md5
            )
        elif hashed.md5 != md5:
            yield Finding(CORRUPT, WORKSPACE, path, md5, hashed.size, hashed.md5 or hashed.problem)

    def _below(self, folder: str) -> list[str]:
        return [path for path in self.hashes.workspace if path.startswith(f"{folder}/")]

    def _compare_store(self, place: str) -> Iterator[Finding]:
        table = self.hashes.stores.get(place, {})
        for md5, (found, hashed) in table.items():
            path = self.labels.get(md5, found.name)
            if md5 in self.wanted.withdrawn:
                yield Finding(STILL_HERE, place, self.wanted.withdrawn[md5].path, md5, found.size)
            elif hashed and hashed.md5 != md5.removesuffix(".dir"):
                yield Finding(CORRUPT, place, path, md5, found.size, hashed.md5 or hashed.problem)
            elif md5 not in self.known and self.wanted.has_all:
                yield Finding(UNEXPECTED, place, found.name, md5, found.size)
        for found in self.hashes.foreign.get(place, []):
            yield Finding(UNEXPECTED, place, found.name, "", found.size)
        yield from self._missing(place, table)

    def _missing(self, place: str, table: Mapping[str, object]) -> Iterator[Finding]:
        seen: set[str] = set()
        for output in self.outputs:
            if not output.is_cached or not self._is_meant_for(output, place):
                continue
            members = (self.folders.get(output.md5) or []) if output.is_folder else []
            rows = [(output.md5, output.path), *((member.md5, f"{output.path}/{member.name}") for member in members)]
            for md5, path in rows:
                if md5 in table or md5 in seen:
                    continue
                seen.add(md5)
                if md5 in self.wanted.withdrawn:
                    yield Finding(WITHDRAWN, place, path, md5)
                elif place == CACHE:
                    yield Finding(NOT_HERE if self._remote_has(md5) else MISSING, place, path, md5)
                else:
                    # DVC pushes a folder's files before its list.
                    was_pushed = output.is_folder and output.md5 in table
                    yield Finding(MISSING if was_pushed else NEVER_PUSHED, place, path, md5)

    def _is_meant_for(self, output: Output, place: str) -> bool:
        if place == CACHE:
            return True
        return output.is_pushed and place == (output.remote or self.wanted.default_remote)

    def _remote_has(self, md5: str) -> bool:
        return self.hashes.has(md5, *(store.name for store in self.wanted.stores if store.name != CACHE))

    def _note_unknown_folders(self) -> None:
        for md5, members in self.folders.items():
            if members is None:
                paths = sorted({output.path for output in self.outputs if output.md5 == md5 and output.is_cached})
                if not paths:
                    continue
                self.open.append(
                    f"{', '.join(paths[:2])}: the list of its files ({md5}) is in no place: its files are not known"
                )

    def _note_unpushed(self) -> None:
        remotes = {store.name for store in self.wanted.stores} - {CACHE}
        if not remotes or self.wanted.default_remote:
            return
        alone = {output.md5 for output in self.outputs if output.is_cached and output.is_pushed and not output.remote}
        if alone:
            self.notes.append(
                f"no default remote is set (`dvc remote default NAME`): {len(alone)} outputs are meant"
                " for none and lie in this clone alone"
            )

    def _count(self, findings: Sequence[Finding]) -> list[Count]:
        counts = []
        if self.wanted.workspace:
            bad = {f.path for f in findings if f.place == WORKSPACE and f.kind in (CORRUPT, UNEXPECTED, STILL_HERE)}
            rows = self.hashes.workspace
            size = sum(hashed.size for hashed in rows.values())
            counts.append(Count(WORKSPACE, len(rows), size, len(rows) - len(bad & rows.keys())))
        for place, table in self.hashes.stores.items():
            read = [(md5, hashed) for md5, (_, hashed) in table.items() if hashed]
            well = sum(
                hashed.md5 == md5.removesuffix(".dir") and md5 not in self.wanted.withdrawn for md5, hashed in read
            )
            counts.append(Count(place, len(read), sum(hashed.size for _, hashed in read), well))
        return counts


def opener(store: Store, md5: str) -> Callable[[], BinaryIO]:
    return lambda: store.open(md5)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except OSError:
        return 0


def _distinct(outputs: Iterable[Output]) -> list[Output]:
    return list(dict.fromkeys(outputs))
