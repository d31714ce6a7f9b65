"""A git repository's objects, read through one `git cat-file` process however many they are. Read only."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tasks.lineage.errors import LineageError


class Commit(NamedTuple):
    """time: seconds since 1970, of the commit."""

    id: str
    time: int
    author: str
    subject: str


class Object(NamedTuple):
    id: str
    kind: str
    data: bytes


class Git:
    """The repository that a folder belongs to."""

    def __init__(self, root: Path) -> None:
        """Raises: LineageError where the folder is in no repository."""
        self.root = root
        self._env = os.environ | {"GIT_NO_LAZY_FETCH": "1", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
        if self.ask("rev-parse", "--git-dir") is None:
            raise LineageError(
                f"{root}: is in no git repository; lineage is read from git's history: clone the project"
            )

    def ask(self, *words: str) -> str | None:
        """What a git command prints; None where it fails."""
        done = subprocess.run(
            ["git", *words], cwd=self.root, capture_output=True, check=False, env=self._env, stdin=subprocess.DEVNULL
        )
        return None if done.returncode else done.stdout.decode(errors="replace")

    def commits(self) -> list[Commit]:
        """Every commit that a branch, tag, stash or HEAD still reaches, newest first; none before the first commit."""
        wanted = ["--all", *(["HEAD"] if self.ask("rev-parse", "--verify", "-q", "HEAD") else [])]
        text = self.ask("log", "--format=%H%x1f%ct%x1f%an%x1f%s", *wanted) or ""
        rows = [line.split("\x1f", 3) for line in text.splitlines()]
        return [Commit(row[0], int(row[1]), row[2], row[3]) for row in rows if len(row) == 4]

    def commit_of(self, name: str) -> str:
        """The commit that a tag, branch or id names. Raises: LineageError with some names there are."""
        found = self.ask("rev-parse", "--verify", "-q", "--end-of-options", f"{name}^{{commit}}")
        if found is None:
            names = (self.ask("for-each-ref", "--format=%(refname:short)", "--count=8") or "").split()
            raise LineageError(f"--rev {name}: is no revision here; there are {', '.join(['HEAD', *names])}")
        return found.strip()

    def is_shallow(self) -> bool:
        return (self.ask("rev-parse", "--is-shallow-repository") or "").strip() == "true"

    def changed_files(self) -> list[str]:
        """Paths that differ from HEAD, and new ones that are not ignored; relative to the repository's top."""
        text = self.ask("status", "--porcelain", "-z") or ""
        return [entry[3:] for entry in text.split("\0") if len(entry) > 3 and entry[2] == " "]

    @contextmanager
    def reader(self, *, contents: bool = True) -> Iterator["Reader"]:
        """Objects by id or by REVISION:./PATH, one after the other."""
        process = subprocess.Popen(
            ["git", "cat-file", "--batch" if contents else "--batch-check"],
            cwd=self.root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._env,
        )
        try:
            yield Reader(process, contents)
        finally:
            process.communicate()


class Reader:
    """See Git.reader."""

    def __init__(self, process: subprocess.Popen[bytes], contents: bool) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._write, self._read, self._contents = process.stdin, process.stdout, contents

    def get(self, name: str) -> Object | None:
        """None where there is no such object (data is empty where only names were asked for)."""
        self._write.write(name.encode() + b"\n")
        self._write.flush()
        words = self._read.readline().split()
        if len(words) != 3 or not words[2].isdigit():
            return None
        data = b""
        if self._contents:
            data = self._read.read(int(words[2]) + 1)[:-1]
        return Object(words[0].decode(), words[1].decode(), data)

    def tree(self, id_: str) -> dict[str, str]:
        """Path -> object id of every file of a tree."""
        found = self.get(id_)
        files: dict[str, str] = {}
        if found is None or found.kind != "tree":
            return files
        width, data, at = len(found.id) // 2, found.data, 0
        while at < len(data):
            end = data.index(b"\0", at)
            mode, _, name = data[at:end].partition(b" ")
            child = data[end + 1 : end + 1 + width].hex()
            at = end + 1 + width
            path = name.decode(errors="replace")
            if mode in (b"40000", b"040000"):
                files |= {f"{path}/{below}": below_id for below, below_id in self.tree(child).items()}
            else:
                files[path] = child
        return files


def blob_id(data: bytes) -> str:
    """The id that git would give to a file of these bytes (SHA-1)."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
