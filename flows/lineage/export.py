"""`inbetween lineage export`: the record in the forms that other tools read, to a file, the terminal or a server."""

import os
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from flows.progress import say
from tasks.lineage.errors import LineageError
from tasks.lineage.lineage import Lineage

API_KEY = "OPENLINEAGE_API_KEY"  # as the OpenLineage client names it


def export(
    lineage: Lineage,
    form: str,
    thing: str = "",
    rev: str | None = None,
    *,
    out: Path | None = None,
    url: str = "",
    repository: str = "",
    namespace: str = "",
) -> None:
    """Write a document; what it leaves open is said on stderr.

    Args: form: openlineage, croissant or cyclonedx.  out, url: where to; neither = the terminal.
    repository: the git repository's URL; "" = as pyproject.toml declares it, else that of remote `origin` if it is one.
    Raises: LineageError.
    """
    if url and (out or form != "openlineage"):
        raise LineageError("--url: takes the events of --format openlineage, and no --out beside it")
    if not thing and form != "openlineage":
        raise LineageError(f"--format {form}: name a {'checkpoint' if form == 'cyclonedx' else 'data folder'}")
    repository = repository or repository_of(lineage)
    if form == "openlineage":
        try:
            from tasks.lineage.openlineage_events import NAMESPACE, make_events, send, to_lines
        except ModuleNotFoundError as error:
            raise LineageError(
                f"--format openlineage: package {error.name} is missing; `make env` installs it"
            ) from error

        found = make_events(lineage, rev, thing, repository=repository, namespace=namespace or NAMESPACE)
        _tell(found.notes)
        if url:
            send(found.events, url, api_key=os.environ.get(API_KEY, ""))
            say(f"lineage: {len(found.events)} events sent to {urlsplit(url).netloc.rpartition('@')[2]}")
        else:
            _write("".join(f"{line}\n" for line in to_lines(found.events)), out)
        return
    from tasks.lineage.bill_of_materials import make_bill
    from tasks.lineage.croissant import make_card
    from tasks.lineage.sources import to_text

    make = make_card if form == "croissant" else make_bill
    document, notes = make(lineage, thing, rev, repository=repository)
    _tell(notes)
    _write(to_text(document), out)


def repository_of(lineage: Lineage) -> str:
    """The URL that pyproject.toml declares, else that of remote `origin` where it is no path; never with a password."""
    try:
        urls = tomllib.loads((lineage.git.root / "pyproject.toml").read_text())["project"]["urls"]
        declared = {str(name).lower(): str(url) for name, url in urls.items()}
    except (OSError, KeyError, ValueError, AttributeError):
        declared = {}
    found = declared.get("repository") or declared.get("source") or declared.get("homepage")
    return _public(found or (lineage.git.ask("remote", "get-url", "origin") or "").strip())


def _public(url: str) -> str:
    """Without user and password; git@HOST:PATH as ssh://HOST/PATH; "" for a path."""
    if "://" not in url:
        host, colon, path = url.partition(":")
        if not colon or "/" in host:
            return ""
        url = f"ssh://{host}/{path}"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https", "ssh", "git") or not parts.hostname:
        return ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _tell(notes: list[str]) -> None:
    for note in notes:
        say(f"left open: {note}")


def _write(text: str, out: Path | None) -> None:
    if out is None:
        sys.stdout.write(text)
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = out.with_name(f".{out.name}.tmp")
        temporary.write_text(text)
        temporary.replace(out)
    except OSError as error:
        raise LineageError(f"--out {out}: cannot be written ({error.strerror}); name another place") from error
    say(f"lineage: {out} written")
