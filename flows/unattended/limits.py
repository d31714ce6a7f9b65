"""At most so many downloads at a time from one host, over all workers of a server."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists

from flows.project import ROOT
from tasks.catalog import read_catalog
from tasks.errors import ParamsError
from tasks.sources import parse_source

PER_HOST = "INBETWEEN_DOWNLOADS_PER_HOST"
DEFAULT_PER_HOST = 2


@contextmanager
def hold_hosts(batch: str) -> Iterator[None]:
    """Hold a place at every host that the batch's videos come from, waiting until there is one.

    The server gives a place back by itself, minutes after its holder died.
    """
    hosts = list_hosts([row.source for row in read_catalog(ROOT, batch).videos.values()])
    if not hosts:
        yield
        return
    names = [f"download-{host}" for host in hosts]
    with get_client(sync_client=True) as client:
        for name in names:
            with suppress(ObjectAlreadyExists):  # another batch has made it since this call looked
                client.upsert_global_concurrency_limit_by_name(name, _per_host())
    with concurrency(names, occupy=1, raise_on_lease_renewal_failure=False):
        yield


def list_hosts(sources: Sequence[str]) -> list[str]:
    """The hosts of sources, sorted; files have none."""
    hosts = set()
    for uri in sources:
        source = parse_source(uri)
        match source.scheme:
            case "http":
                hosts.add(str(urlsplit(source.place).hostname).lower())
            case "youtube":
                hosts.add("youtube.com")
            case "gdrive":
                hosts.add("drive.google.com")
            case "pypi":
                hosts.add("package-index")
            case "file":
                pass
    return sorted(hosts)


def _per_host() -> int:
    text = os.environ.get(PER_HOST, str(DEFAULT_PER_HOST))
    if not text.isascii() or not text.isdigit() or not int(text):
        raise ParamsError(f"{PER_HOST}={text}: is not a whole number above 0")
    return int(text)
