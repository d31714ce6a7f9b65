"""The standing server and the workers of unattended runs, each kept alive by the process that started it.

The server listens on loopback unless it has an authentication string. Its socket belongs to the keeper, so that while a
server that died is started again, clients wait instead of being refused.
"""

import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Literal

from flows.lifetime import stop_process
from flows.progress import say
from flows.project import ROOT, STATE
from flows.server import API_URL
from tasks.errors import ParamsError, ToolError

PORT = 4200
LOCAL_URL = f"http://127.0.0.1:{PORT}/api"
SERVER_AUTH = "PREFECT_SERVER_API_AUTH_STRING"
CLIENT_AUTH = "PREFECT_API_AUTH_STRING"
HOME = STATE / "server"
LOGS = STATE / "logs"

STOP_TIMEOUT_S = 40.0  # a worker hands the signal to its runs and waits for them
STEADY_S = 60.0  # a process that lived as long is started again at once
MAX_WAIT_S = 60.0
MAX_LOG_BYTES = 50 * 2**20

# What a client of the standing server needs: a beat that tells living runs from dead, and patience at a restart.
CLIENT_SETTINGS = {
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_CLIENT_MAX_RETRIES": "8",
    "PREFECT_WORKER_QUERY_SECONDS": "5",
}


def use_standing_server() -> str:
    """Point this process at the standing server: PREFECT_API_URL, else this machine's. Call before `import prefect`."""
    url = os.environ.setdefault(API_URL, LOCAL_URL)
    for name, value in CLIENT_SETTINGS.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("PREFECT_HOME", str(STATE / "client"))
    return url


def keep_server(host: str, port: int) -> None:
    """Serve until told to stop. Raises: ParamsError for a shared address without authentication; ToolError."""
    if not _is_loopback(host) and not os.environ.get(SERVER_AUTH):
        raise ParamsError(
            f"--host {host}: others could run code through this server; set {SERVER_AUTH}=user:password (and the same"
            f" in {CLIENT_AUTH} of every client), or leave the host out"
        )
    try:
        listener = socket.create_server((host, port))
    except OSError as error:
        raise ToolError(f"{host}:{port}: {error.strerror}; is a server running already? give another --port") from error
    with listener:
        port = listener.getsockname()[1]
        environment = _server_environment(host, port)
        say(f"server: http://{host}:{port}; its log is {_shown(LOGS / 'server.log')}")
        command = [sys.executable, "-m", "flows.server", str(listener.fileno())]
        _keep("server", command, environment, pass_fds=[listener.fileno()])


def keep_worker(pool: Literal["cpu", "gpu"], limit: int) -> None:
    """Take runs from a pool until told to stop."""
    url = use_standing_server()
    say(f"worker: pool {pool}, at most {limit} runs at a time, from {url}; its log is {_shown(LOGS / f'{pool}.log')}")
    name = f"{socket.gethostname()}-{pool}"
    command = [sys.executable, "-m", "prefect", "worker", "start", "--type", "process", "--pool", pool]
    command += ["--name", name, "--limit", str(limit)]
    _keep(pool, command, {**os.environ, "PYTHONPATH": python_path()})


def _server_environment(host: str, port: int) -> dict[str, str]:
    address = f"http://{host}:{port}"
    return {
        "PREFECT_HOME": str(HOME),
        # A page of another site that the operator's browser has open must not be able to use the server.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join([address, f"http://localhost:{port}"]),
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_UI_API_URL": f"{address}/api",
        **os.environ,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_API_HOST": host,
        "PREFECT_SERVER_API_PORT": str(port),
        "PYTHONPATH": python_path(),
    }


def _keep(name: str, command: Sequence[str], environment: dict[str, str], pass_fds: Sequence[int] = ()) -> None:
    """Run a command again and again, its output in a log, until this process is told to stop."""
    LOGS.mkdir(parents=True, exist_ok=True)
    stop = _catch_signals()
    wait_s = 1.0
    while not stop():
        start = time.monotonic()
        log = _open_log(LOGS / f"{name}.log")
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        os.close(log)
        while process.poll() is None and not stop():
            time.sleep(0.2)
        if stop():
            stop_process(process, STOP_TIMEOUT_S)
            return
        wait_s = 1.0 if time.monotonic() - start > STEADY_S else min(2 * wait_s, MAX_WAIT_S)
        say(f"{name}: ended with {process.returncode}; again in {wait_s:.0f} s")
        end = time.monotonic() + wait_s
        while time.monotonic() < end and not stop():
            time.sleep(0.2)


def _catch_signals() -> Callable[[], bool]:
    told: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        told.append(number)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return lambda: bool(told)


def _open_log(path: Path) -> int:
    if path.is_file() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_suffix(".old.log"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def python_path() -> str:
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))


def _shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()
