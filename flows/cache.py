"""DVC's cache shares its files with outputs and the item store (hard links): one copy on the disk, nothing to move.

What is read-only nobody writes by accident, but root may. DVC trusts what is read-only in its cache, so an output that
was written in place would be "restored" from the very bytes that were written.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from flows.progress import say
from flows.project import ROOT


def share_with_cache(files: Mapping[Path, str]) -> None:
    """Have DVC's cache hold these very files where it holds something under their md5.

    DVC then has nothing to hash or to link, and an object that was written in place is whole again.
    """
    from flows.lineage.places import find_places  # here: what it imports is none of a stage's code

    cache = find_places(ROOT).all[0]
    for path, md5 in files.items():
        held = cache.path_of(md5)
        if held is None or held.samefile(path):
            continue
        temporary = held.with_name(f".{held.name}.{os.getpid()}.tmp")
        with suppress(OSError):  # a cache on another disk shares no file with anyone
            temporary.hardlink_to(path)
            temporary.chmod(0o444)
            temporary.replace(held)
        temporary.unlink(missing_ok=True)


def drop_rewritten(output: Path, md5: str) -> int:
    """Remove those objects of the cache that were written in place through an output that DVC finds modified.

    Args: md5: the output's, as dvc.lock or data.dvc has it.
    Returns: how many there were; DVC makes them anew, or takes them from a remote.
    """
    from flows.lineage.places import find_places
    from tasks.lineage.hashing import hash_file

    cache = find_places(ROOT).all[0]
    files = {"": md5}
    if md5.endswith(".dir"):
        listed = cache.path_of(md5)
        files = {row["relpath"]: row["md5"] for row in json.loads(listed.read_text())} if listed else {}
    number = 0
    for name, wanted in files.items():
        path, held = output / name, cache.path_of(wanted)
        if held and path.exists() and held.samefile(path) and hash_file(str(path), path.stat().st_size) != wanted:
            held.unlink()
            say(f"{path.relative_to(ROOT)}: was written in place, and so was its object in DVC's cache: dropped there")
            number += 1
    return number
