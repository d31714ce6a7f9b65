"""A Ray cluster of two nodes as processes on loopback: the second has a disk, code and working folder of its own.

Its folder is empty and elsewhere; nothing tells it where the project is. Skipped where the extra is not installed.
"""

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the extra is not installed: make env-ray"
)
STORE_BYTES = 200 * 2**20


@dataclass
class Cluster:
    """address: of the head.  away: the second node's folder.  environment: of everybody who talks to the cluster."""

    address: str
    away: Path
    environment: dict[str, str]
    away_raylet: int = 0

    @property
    def away_cache(self) -> Path:
        return self.away / "cache"

    def add_node(self, num_cpus: int = 1, cache: str = "cache") -> None:
        """Start the second node. cache: its cache's folder, by its path or below its own."""
        before = _raylets(self.address)
        environment = self.environment | {"INBETWEEN_NODE_CACHE": str(self.away / cache)}
        _start(["--address", self.address, "--num-cpus", str(num_cpus)], self.away, environment)
        (self.away_raylet,) = _raylets(self.address) - before

    def at_work(self, *, is_anywhere: bool = False) -> set[int]:
        """The second node's processes that are doing a group of items now: Ray gives them the title of their task.

        Args: is_anywhere: True = those of the head as well.
        """
        found = set()
        for raylet in _raylets(self.address) if is_anywhere else {self.away_raylet}:
            for process in psutil.Process(raylet).children(recursive=True):
                with suppress(psutil.Error):
                    if " ".join(process.cmdline()).startswith("ray::do_group_on_node"):
                        found.add(process.pid)
        return found

    def kill_node(self) -> None:
        """kill -9 of the second node: its raylet and all of its workers, at once."""
        raylet = psutil.Process(self.away_raylet)
        for process in [raylet, *raylet.children(recursive=True)]:
            with suppress(psutil.Error):
                process.kill()


def _raylets(address: str) -> set[int]:
    """Of this cluster: another one may be at work on the machine."""
    found = set()
    head = re.compile(rf"--gcs-address=.*:{address.rpartition(':')[2]}")
    for process in psutil.process_iter(["name"]):
        with suppress(psutil.Error):
            if process.info["name"] == "raylet" and any(head.fullmatch(word) for word in process.cmdline()):
                found.add(process.pid)
    return found


# `ray start` gives a node half a minute to begin, which is too short where other work takes the processors.
_PATIENT_START = """
import sys, time
from ray._private import services
from ray.scripts.scripts import main
ask = services.get_node
def get_node(*words):
    end = time.monotonic() + 300
    while True:
        try:
            return ask(*words)
        except RuntimeError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)
services.get_node = get_node
main()
"""


def _start(words: list[str], folder: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-c", _PATIENT_START, "start", *words, "--disable-usage-stats"]
    command += ["--object-store-memory", str(STORE_BYTES), "--include-log-monitor=false"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=360)
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def run_cluster(folder: Path, *, head_cpus: int = 1, away_cpus: int = 1) -> Iterator[Cluster]:
    """A head and, where away_cpus is not 0, a second node. Ray's own files are below /tmp: socket paths are short."""
    for name in ("head", "away"):
        (folder / name).mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = ("PATH", "HOME", "LANG", "TMPDIR")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_agent_register_timeout_ms": "300000",
    }
    temporary = f"/tmp/ib-ray-{port}"  # noqa: S108 of this run alone
    before = {process.pid for process in psutil.process_iter()}
    cluster = Cluster(f"127.0.0.1:{port}", folder / "away", environment)
    try:
        _start(
            [
                "--head",
                "--no-monitor",
                "--include-dashboard=false",
                "--port",
                str(port),
                "--num-cpus",
                str(head_cpus),
                "--temp-dir",
                temporary,
            ],
            folder / "head",
            environment,
        )
        if away_cpus:
            cluster.add_node(away_cpus)
        yield cluster
    finally:
        _end(before, temporary)
        subprocess.run(["rm", "-rf", temporary], check=False)


def _end(before: set[int], temporary: str) -> None:
    """End what this cluster started, and nothing else (`ray stop` ends every Ray of the machine)."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        ours = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.pid not in before and any(temporary in word for word in process.cmdline()):
                    ours.append(process)
        families = {child for process in ours for child in _family(process)}
        if not families:
            return
        for process in families:
            with suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        time.sleep(0.2)


def _family(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return [process, *process.children(recursive=True)]
    return []
