"""Mend what a verification found missing or corrupt, from another copy, checked while it is copied."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from tasks.lineage.stores import Store, copy_checked
from tasks.lineage.verify import CACHE, CORRUPT, MISSING, WORKSPACE, Finding, Verifier, opener


def repair(verifier: Verifier, findings: Iterable[Finding], replaced: Path) -> list[Finding]:
    """The findings again, those that were mended with the place that the bytes came from.

    The cache is mended first, from a remote or else from the workspace; then the workspace, then the remotes. What no
    good copy is known of stays as it is. A corrupt file of the workspace may be an edit: it is kept below `replaced`.
    """
    rest = list(findings)
    places = [CACHE, WORKSPACE, *(store.name for store in verifier.wanted.stores if store.name != CACHE)]
    for place in places:
        rest = [_mend(verifier, finding, replaced) if finding.place == place else finding for finding in rest]
    return rest


def _mend(verifier: Verifier, finding: Finding, replaced: Path) -> Finding:
    if finding.kind not in (MISSING, CORRUPT):
        return finding
    stores = {store.name: store for store in verifier.wanted.stores}
    copies = verifier.hashes.copies.setdefault(finding.md5, {})
    for store in verifier.wanted.known:  # not verified beforehand
        copies.setdefault(store.name, opener(store, finding.md5))
    for source in _order(finding.place, copies, [*stores.values(), *verifier.wanted.known]):
        if finding.place == WORKSPACE:
            done = _mend_workspace(verifier, finding, source, replaced)
        else:
            done = stores[finding.place].put(finding.md5, copies[source])
        if done:
            if finding.place in stores:
                copies[finding.place] = opener(stores[finding.place], finding.md5)
            return finding._replace(repaired=source)
    return finding


def _order(place: str, copies: Iterable[str], stores: Iterable[Store]) -> Sequence[str]:
    """The cache, the remotes, the workspace last."""
    ranks = [*(store.name for store in stores), WORKSPACE]
    return sorted((copy for copy in copies if copy != place), key=ranks.index)


def _mend_workspace(verifier: Verifier, finding: Finding, source: str, replaced: Path) -> bool:
    path = verifier.root / finding.path
    read = verifier.hashes.copies[finding.md5][source]
    if path.is_symlink():  # into the cache, which is mended by now
        path.unlink()
    elif path.exists():
        kept = replaced / finding.path
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.unlink(missing_ok=True)
        try:
            os.link(path, kept)
        except OSError:
            kept.write_bytes(path.read_bytes())
    return copy_checked(read, path, finding.md5)
