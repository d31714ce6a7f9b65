"""This clone's stores of objects: DVC's cache and remotes. What is no folder is reached through DVC's file systems."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from tasks.lineage.errors import LineageError
from tasks.lineage.hashing import hash_stream
from tasks.lineage.stores import FolderStore, Found, Store


class Stores(NamedTuple):
    """default_remote: "" = none.  open: a line for each remote that cannot be looked into."""

    cache: FolderStore
    remotes: list[Store]
    default_remote: str
    open: list[str]


def find_stores(root: Path) -> Stores:
    """The cache, and every remote of DVC's configuration."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        cache = FolderStore("cache", Path(repo.cache.legacy.path), is_read_only=True)
        default = repo.config["core"].get("remote") or ""
        remotes: list[Store] = []
        problems = []
        for name in repo.config["remote"]:
            try:
                odb = repo.cloud.get_remote_odb(name)
            except (DvcException, ImportError) as error:
                problems.append(f"remote {name}: cannot be looked into ({' '.join(str(error).split())[:200]})")
                continue
            if odb.fs.protocol in ("local", "file"):
                folder = Path(odb.path).parent.parent  # without files/md5
                if not folder.is_dir():
                    problems.append(f"remote {name}: its folder {folder} is not there; connect it, or mend its url")
                    continue
                remotes.append(FolderStore(name, folder))
            else:
                remotes.append(FarStore(name, odb))
    return Stores(cache, remotes, default, problems)


class FarStore:
    """A remote that is no folder of this machine. odb: DVC's object database."""

    def __init__(self, name: str, odb: Any) -> None:  # noqa: ANN401 DVC has no types
        self.name, self._odb = name, odb

    def files(self) -> Iterator[Found]:
        try:
            for md5 in self._odb.all():
                path = self._odb.oid_to_path(md5)
                yield Found(md5, path, int(self._odb.fs.size(path) or 0), None)
        except Exception as error:  # each file system has errors of its own
            raise LineageError(f"{type(error).__name__}: {error}") from error

    def open(self, md5: str) -> BinaryIO:
        try:
            return cast("BinaryIO", self._odb.fs.open(self._odb.oid_to_path(md5), "rb"))
        except Exception as error:  # each file system has errors of its own
            raise OSError(f"{type(error).__name__}: {error}") from error

    def put(self, md5: str, read: Callable[[], BinaryIO]) -> bool:
        with read() as source:
            data = source.read()
        if hash_stream(io.BytesIO(data)) != md5.removesuffix(".dir"):
            return False
        path = self._odb.oid_to_path(md5)
        self._odb.fs.makedirs(self._odb.fs.parent(path), exist_ok=True)
        self._odb.fs.put_file(io.BytesIO(data), path, size=len(data))
        return True

    def remove(self, md5: str) -> bool:
        path = self._odb.oid_to_path(md5)
        try:
            if not self._odb.fs.exists(path):
                return False
            self._odb.fs.remove(path)
        except Exception as error:  # each file system has errors of its own
            raise OSError(f"{type(error).__name__}: {error}") from error
        return True
