"""The processes of a data-parallel job, all but the first, as Ray tasks: on any node that has what each asks for.

The first is the stage's own process, which the others find by its node's address and torch's environment variables.
Where one is lost the job ends; run again, it goes on from its last saved state.
"""

import os
import socket
import uuid
from collections.abc import Callable, Mapping

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flows.project import ROOT, STATE
from flows.ray.cluster import RaySettings, connect, describe_loss, forget_on_nodes, start_home
from flows.ray.node import Job, at_work
from flows.ray.shipping import Shipment, Shipper
from tasks.errors import InbetweenError, ToolError
from tasks.items import ItemStore


class RayRanks:
    """num_ranks - 1 processes of a job. master: where they look for the first one, (address, port)."""

    def __init__(self, settings: RaySettings, work: Callable[[], None], num_ranks: int) -> None:
        connect(settings)
        context = ray.get_runtime_context()
        node = context.get_node_id()
        self._check_room(settings, num_ranks, node)
        self._seat = _take_seat(settings, node)
        address = ray.util.get_node_ip_address()
        with socket.socket() as free:
            free.bind((address, 0))
            self.master = (address, free.getsockname()[1])
        self._job = Job(uuid.uuid4().hex, node, ROOT, settings.tools, settings.ffmpeg, settings.cache_bytes)
        self._home = start_home(node, ItemStore(STATE / "items"))
        shipment = Shipper(ROOT).pack(work, [])
        remote = ray.remote(max_calls=1)(run_rank_on_node).options(  # a process of its own: torch keeps its state
            num_cpus=settings.cpus, num_gpus=settings.gpus, max_retries=0, scheduling_strategy="SPREAD"
        )
        self._refs = []
        for rank in range(1, num_ranks):
            environment = {
                "WORLD_SIZE": str(num_ranks),
                "RANK": str(rank),
                "LOCAL_RANK": "0",  # each sees its own GPU alone
                "MASTER_ADDR": address,
                "MASTER_PORT": str(self.master[1]),
            }
            self._refs.append(remote.remote(self._job, self._home, work, environment, shipment))

    def _check_room(self, settings: RaySettings, num_ranks: int, home: str) -> None:
        """Raises: ToolError where the others could not all run at a time: the first would wait for them for ever."""
        room = 0
        for node in ray.nodes():
            if node["Alive"]:
                there = node["Resources"]
                fits = int(there.get("CPU", 0) // settings.cpus)
                if settings.gpus:
                    seats = int(there.get("GPU", 0) // settings.gpus) - (node["NodeID"] == home)
                    fits = min(fits, seats)
                room += max(0, fits)
        if room < num_ranks - 1:
            raise ToolError(
                f"run.resources: {num_ranks} processes of {settings.cpus:g} CPUs and {settings.gpus:g} GPUs do not fit"
                f" on the Ray cluster beside the first; ask for fewer processes, or add a node"
            )

    def find_failure(self) -> InbetweenError | None:
        """Why a process of the job has ended, where one has before its time."""
        done, _ = ray.wait(self._refs, num_returns=len(self._refs), timeout=0)
        for ref in done:
            try:
                ray.get(ref)
            except RayTaskError as error:
                cause = error.cause
                if isinstance(cause, InbetweenError):
                    return cause
                reason = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
                return _failure(self._refs.index(ref) + 1, len(self._refs) + 1, f"failed ({reason[:200]})")
            except RayError as error:
                return _failure(self._refs.index(ref) + 1, len(self._refs) + 1, f"was lost ({describe_loss(error)})")
        return None

    def join(self) -> None:
        ray.wait(self._refs, num_returns=len(self._refs))

    def end(self) -> None:
        """End those that are at work, and leave nothing on the nodes."""
        for ref in self._refs:
            ray.cancel(ref, force=True)
        if self._seat:
            ray.kill(self._seat)
        ray.kill(self._home)
        forget_on_nodes(self._job)


def run_rank_on_node(
    job: Job, home: ActorHandle, work: Callable[[], None], environment: Mapping[str, str], shipment: Shipment
) -> None:
    """One process of the job, with its inputs brought where this is another node than the stage's."""
    os.environ |= environment
    if ray.get_runtime_context().get_node_id() == job.home_node:
        os.chdir(job.root)
        work()
        return
    with at_work(job, home, shipment) as there:
        there(work)()


class Seat:
    """Keeps the first process's share of its node taken."""

    def gpus(self) -> list[int]:
        return list(ray.get_gpu_ids())


def _take_seat(settings: RaySettings, node: str) -> ActorHandle | None:
    """Have Ray know of the first process's GPU, and have it see that one alone."""
    if not settings.gpus:
        return None
    seat = (
        ray.remote(Seat)
        .options(num_gpus=settings.gpus, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
        .remote()
    )
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(str(gpu) for gpu in ray.get(seat.gpus.remote()))
    return seat


def _failure(number: int, num_ranks: int, how: str) -> ToolError:
    return ToolError(
        f"process {number} of {num_ranks} {how}; run the stage again: it goes on from its last saved state"
    )
