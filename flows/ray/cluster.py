"""A stage's connection to a Ray cluster: groups of items as Ray tasks, with what they need to run and to be run again.

Only imported where params.yaml (or --runner) says `ray`. Under a Prefect flow each group is also a task of the run,
which waits here for its Ray task: nodes need no way to the Prefect server and no credentials of it.
"""

import logging
import os
import random
import threading
import uuid
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Literal, NamedTuple

from flows.progress import say
from flows.project import ROOT
from tasks.errors import InbetweenError, ToolError
from tasks.items import GroupRecord, Item, ItemStore, Work

try:
    import ray
    from ray.actor import ActorHandle
    from ray.exceptions import RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ModuleNotFoundError as missing:
    raise ToolError(f"run.runner: ray needs {missing.name}, which is not installed; run `make env-ray`") from missing

from flows.ray.home import Home
from flows.ray.node import Job, do_group_on_node, forget_job
from flows.ray.shipping import Shipper

MAX_LOSSES = 5  # of one group: a node that dies is bad luck, five of them are the group's doing
BACK_OFF_S = 0.5  # doubled with each loss
WAITING_PER_SLOT = 2  # groups handed to Ray for each that can run: one at work, one ready to follow it
CONNECT_S = 20.0
FORGET_S = 5.0

# What shapes numbers or speed must be the same on every node.
_ENVIRONMENT = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
)


class RaySettings(NamedTuple):
    """address: HOST:PORT of a cluster's head; "" = RAY_ADDRESS, or Ray on this machine for this stage alone.

    cpus, gpus: what one group needs.  workers: processes, where Ray is started here.  tools: as checked here.
    """

    address: str
    cpus: float
    gpus: float
    cache_bytes: int
    workers: int
    tools: dict[str, str]
    ffmpeg: Literal["pinned", "system"]


def connect(settings: RaySettings) -> None:
    """Join the cluster, once a process. Raises: ToolError where none answers, or its Ray or Python is another."""
    if ray.is_initialized():
        return
    address = settings.address or os.environ.get("RAY_ADDRESS", "")
    modules = [str(ROOT / name) for name in ("flows", "tasks", "models")]
    runtime_env = {
        "py_modules": modules,
        "excludes": ["**/__pycache__"],
        "env_vars": {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
    }
    here = {} if address else {"num_cpus": settings.workers, "include_dashboard": False}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(
            address or "local",
            runtime_env=runtime_env,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **here,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ToolError(
            f"run.ray_address: no Ray cluster to join at {address or 'this machine'} ({reason}); start one (`ray start"
            f" --head` there), or set run.runner to local"
        ) from error


def count_slots(settings: RaySettings) -> int:
    """Groups that the cluster can run at a time. Raises: ToolError where no node can run even one."""
    slots = 0
    for node in ray.nodes():
        if node["Alive"]:
            there = node["Resources"]
            by_kind = [
                int(there.get(kind, 0) // amount)
                for kind, amount in (("CPU", settings.cpus), ("GPU", settings.gpus))
                if amount
            ]
            slots += min(by_kind, default=1)
    if not slots:
        raise ToolError(
            f"run.resources: a group needs {settings.cpus:g} CPUs and {settings.gpus:g} GPUs, and no node of the Ray"
            f" cluster has them; ask for less, or add a node"
        )
    return slots


class RayPool:
    """Runs groups of one stage's items as Ray tasks; like an executor, with a thread waiting for each group."""

    def __init__(self, settings: RaySettings, work: Work, store: ItemStore, num_waiting: int) -> None:
        self._work, self._store = work, store
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self._live: set[ray.ObjectRef] = set()
        self._nodes: Counter[str] = Counter()
        self._shipper = Shipper(ROOT)
        self._threads = ThreadPoolExecutor(num_waiting, thread_name_prefix="ray-group")
        home_node = ray.get_runtime_context().get_node_id()
        self._job = Job(uuid.uuid4().hex, home_node, ROOT, settings.tools, settings.ffmpeg, settings.cache_bytes)
        self._home = start_home(home_node, store)
        # Lost groups are ours to repeat: without the items that came home.
        self._remote = ray.remote(do_group_on_node).options(
            num_cpus=settings.cpus, num_gpus=settings.gpus, max_retries=0
        )

    def submit(self, group: Sequence[Item]) -> Future[GroupRecord]:
        return self._threads.submit(self._do, list(group))

    def _do(self, group: list[Item]) -> GroupRecord:
        todo, losses = group, 0
        while todo:
            lost = self._try(todo)
            if lost is None:
                break
            losses += 1
            todo = [item for item in todo if not self._store.path(item.key).is_file()]
            what = f"{group[0].name}: {lost}"
            if losses > MAX_LOSSES:
                raise ToolError(f"{what}; lost {losses} times, the last time for good: look at the nodes' Ray logs")
            say(f"{what}; {len(todo)} of {len(group)} items are done again")
            self._is_over.wait(BACK_OFF_S * 2**losses * random.uniform(0.8, 1.2))  # noqa: S311 not a secret
        return GroupRecord(len(group), 0)

    def _try(self, todo: list[Item]) -> str | None:
        """Run one Ray task to its end. Returns why it was lost, None = it was not. Raises: what it raised."""
        shipment = self._shipper.pack(self._work, todo)
        ref = None
        try:
            with self._lock:
                if self._is_over.is_set():
                    raise ToolError("stopped")
                ref = self._remote.remote(self._job, self._home, self._work, todo, self._store, shipment)
                self._live.add(ref)
            done = ray.get(ref)
        except RayTaskError as error:
            if isinstance(error.cause, InbetweenError):
                raise error.cause from None
            if isinstance(error.cause, RayError) and not self._is_over.is_set():
                return describe_loss(error.cause)
            raise
        except RayError as error:
            if self._is_over.is_set():
                raise
            return describe_loss(error)
        finally:
            with self._lock:
                self._live.discard(ref)
        with self._lock:
            self._nodes[done.node] += 1
        return None

    def close(self) -> None:
        """Wait for what was submitted, and leave nothing on the nodes but their caches."""
        self._threads.shutdown()
        say(f"ray: {sum(self._nodes.values())} groups on {len(self._nodes)} nodes")
        self._forget()

    def cancel(self) -> None:
        """End what is at work, on every node, and drop what waits."""
        self._is_over.set()
        with self._lock:
            live = list(self._live)
        for ref in live:
            with suppress(RayError):
                ray.cancel(ref, force=True)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._forget()

    def _forget(self) -> None:
        ray.kill(self._home)
        forget_on_nodes(self._job)


def start_home(node: str, store: ItemStore) -> ActorHandle:
    """The actor of this machine, the cluster's node `node`, that other nodes read from and write to."""
    at_home = NodeAffinitySchedulingStrategy(node, soft=False)
    options = {"num_cpus": 0, "max_concurrency": 8, "max_restarts": -1, "max_task_retries": -1}
    return ray.remote(Home).options(**options, scheduling_strategy=at_home).remote(ROOT, store)


def forget_on_nodes(job: Job) -> None:
    """Remove the job's working folders; a node that does not answer soon is left alone."""
    away = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != job.home_node]
    refs = [
        ray.remote(forget_job)
        .options(num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
        .remote(job.name)
        for node in away
    ]
    if refs:
        ray.wait(refs, num_returns=len(refs), timeout=FORGET_S)


def describe_loss(error: RayError) -> str:
    """The first line of what Ray says of a loss."""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
