"""What running items costs beside the items: a plain loop, this machine's processes, Ray, and either under Prefect.

    .venv/bin/python benchmarks/items.py --items 60 --seconds 1
    .venv/bin/python benchmarks/items.py --items 100000 --seconds 0 --bytes 10000 --ways ray

Items sleep, so that other work on the machine disturbs them little. Each way has a process of its own, as a stage has.
Prints the time from the first call to that process's end, what it is above the plain loop's, the time to the first
item, the largest memory of that process and of Ray's object stores. Under Prefect a flow run around it (a real server,
started for the run) hands it its run context, as `inbetween repro` does; what the flow's process and the server hold is
printed below. RAY_ADDRESS names a cluster; without it Ray is started here.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import psutil
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from flows.mapping import map_groups
from flows.project import RUN_CONTEXT, leave_out_pandas, prepare_environment
from flows.server import serve_prefect
from tasks.items import Item, ItemStore, do_group, group_items, item_key

WAYS = ("plain", "local", "ray", "prefect", "prefect-ray")


class Cost(NamedTuple):
    """first_s: until the first item was there.  store_mb: largest use of Ray's object stores.  around_mb: the largest
    memory of the flow's process and of the server, where there are some.
    """

    wall_s: float
    first_s: float
    memory_mb: float
    store_mb: float
    around_mb: tuple[float, ...] = ()


def sleep_items(items: Sequence[Item]) -> Iterator[tuple[int, pa.Table]]:
    """A Work: each item takes its seconds and leaves its bytes."""
    import time

    import pyarrow as pa

    for index, item in enumerate(items):
        seconds, size = item.args
        time.sleep(seconds)
        yield index, pa.table({"bytes": [bytes(size)]})


class Watch:
    """Looks at memory twice a second."""

    def __init__(self, store: Path, *, with_ray: bool) -> None:
        self.memory_mb = self.store_mb = 0.0
        self.first_s = 0.0
        self._store, self._with_ray = store, with_ray
        self._is_over = threading.Event()
        self._start = time.monotonic()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        process = psutil.Process()
        while not self._is_over.wait(0.1 if not self.first_s else 0.5):
            self.memory_mb = max(self.memory_mb, process.memory_info().rss / 2**20)
            if not self.first_s and next(self._store.glob("*/*.arrow"), None):
                self.first_s = time.monotonic() - self._start
            if self._with_ray and self.first_s:
                self.store_mb = max(self.store_mb, read_object_stores())

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()


def read_object_stores() -> float:
    """MB taken in the object stores of all nodes, as they last told."""
    import ray

    kind = "object_store_memory"
    return float(ray.cluster_resources().get(kind, 0) - ray.available_resources().get(kind, 0)) / 2**20


def run_plain(items: Sequence[Item], store: ItemStore, workers: int) -> None:
    with ThreadPoolExecutor(workers) as threads:
        for _ in threads.map(lambda item: do_group(sleep_items, [item], store), items):
            pass


def run_mapped(items: Sequence[Item], store: ItemStore, workers: int, *, on_ray: bool) -> None:
    settings = None
    if on_ray:
        from flows.ray.cluster import RaySettings, connect, count_slots

        settings = RaySettings("", 1, 0, 2**30, workers, {}, "pinned")
        connect(settings)
        workers = count_slots(settings)
    groups = group_items(items, workers)
    names = [group[0].name for group in groups]
    map_groups(sleep_items, groups, store, workers=workers, names=names, on_done=lambda _: None, ray=settings)


def make_items(way: str, args: argparse.Namespace) -> list[Item]:
    return [Item(f"item {number}", item_key(way, number), (args.seconds, args.bytes)) for number in range(args.items)]


def run_stage(way: str, args: argparse.Namespace, folder: Path) -> None:
    """The process of one way: prints when it began and what it held as JSON."""
    leave_out_pandas()  # as every stage
    store, items = ItemStore(folder / way), make_items(way, args)
    watch = Watch(store.folder, with_ray="ray" in way)
    start = time.monotonic()
    if way == "plain":
        run_plain(items, store, args.workers)
    else:
        run_mapped(items, store, args.workers, on_ray="ray" in way)
    watch.close()
    facts = {"start": start, "first_s": watch.first_s, "memory_mb": watch.memory_mb, "store_mb": watch.store_mb}
    print(json.dumps(facts))


def start_stage(way: str, folder: Path) -> Cost:
    """Run that process; the clock is one for the whole machine. The end of its reports to the server is its own end."""
    command = [sys.executable, *sys.argv, "--stage", way, "--folder", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    end = time.monotonic()
    facts = json.loads(done.stdout)
    wall_s = end - facts["start"]
    return Cost(wall_s, facts["first_s"] or wall_s, facts["memory_mb"], facts["store_mb"])


def run_in_flow(way: str, folder: Path) -> Cost:
    """As `inbetween repro` runs a stage. The server's and the flow's own start are not counted to the items."""
    with serve_prefect():
        from prefect import flow, task

        from flows.logs import flush_reports, keep_prefect_quiet
        from flows.prefect_tasks import write_run_context

        keep_prefect_quiet()
        context = folder / "context"
        costs = []

        @task(name="stage", persist_result=False)
        def stage() -> None:
            write_run_context(context)
            os.environ[RUN_CONTEXT] = str(context)
            costs.append(start_stage(way, folder))

        @flow(name="benchmark", persist_result=False)
        def run() -> None:
            stage()

        family = [psutil.Process(), *psutil.Process().children()]  # the server is the one child so far
        held = [0.0 for _ in family]
        is_over = threading.Event()

        def look() -> None:
            while not is_over.wait(0.5):
                held[:] = [max(a, p.memory_info().rss / 2**20) for a, p in zip(held, family, strict=True)]

        watch = threading.Thread(target=look, daemon=True)
        watch.start()
        try:
            run()
        finally:
            os.environ.pop(RUN_CONTEXT, None)
            is_over.set()
            watch.join()
            flush_reports()
        return costs[0]._replace(around_mb=tuple(held))


def measure(way: str, args: argparse.Namespace, folder: Path) -> Cost:
    cost = run_in_flow(way, folder) if way.startswith("prefect") else start_stage(way, folder)
    store = ItemStore(folder / way)
    assert all(store.has(item.key) for item in make_items(way, args))
    return cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=1.0, help="that an item takes")
    parser.add_argument("--bytes", type=int, default=10_000, help="that an item leaves")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--ways", default="plain,local,ray", help=f"of {', '.join(WAYS)}")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    prepare_environment()
    if args.stage:
        run_stage(args.stage, args, args.folder)
        return
    print(f"{args.items} items of {args.seconds:g} s and {args.bytes} bytes, {args.workers} workers")
    print(f"{'':<12}{'wall s':>9}{'first s':>9}{'above plain':>13}{'ms/item':>9}{'RSS MB':>8}{'store MB':>10}")
    ideal = args.items * args.seconds / args.workers
    plain = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for way in args.ways.split(","):
            cost = measure(way, args, Path(folder))
            plain = cost.wall_s if way == "plain" else plain or ideal
            share = f"{cost.wall_s / plain - 1:+.1%}" if plain else ""
            extra_ms = 1000 * (cost.wall_s - plain) / args.items
            print(
                f"{way:<12}{cost.wall_s:>9.1f}{cost.first_s:>9.2f}{share:>13}{extra_ms:>9.1f}{cost.memory_mb:>8.0f}"
                f"{cost.store_mb:>10.1f}",
                flush=True,
            )
            if cost.around_mb:
                flow_mb, server_mb = cost.around_mb
                print(f"{'':<12}the flow's process held {flow_mb:.0f} MB, the server {server_mb:.0f} MB", flush=True)
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
