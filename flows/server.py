"""One Prefect server for the lifetime of a run: a child process on a free loopback port, gone when we are gone.

Used where PREFECT_API_URL is not set. Its database stays in .inbetween/prefect, so that the history of runs does.
`python -m flows.server FD` is the server itself: it serves on a socket that it inherits, so no other program can take
the port in between, and a client that comes early waits instead of being refused.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.lifetime import end_with_parent, stop_process
from flows.project import STATE
from tasks.errors import ToolError

API_URL = "PREFECT_API_URL"
READY_TIMEOUT_S = (
    120.0  # 6 s on a free machine, 12 s the first time (the database is made); four busy ones at once: 40 s
)
STOP_TIMEOUT_S = 5.0

HOME = STATE / "prefect"
LOG = HOME / "server.log"

# Nobody schedules, triggers or cleans up on a server that lives as long as one run. What stays on records task runs.
_UNUSED_SERVICES = ("SCHEDULER", "LATE_RUNS", "FOREMAN", "CANCELLATION_CLEANUP", "PAUSE_EXPIRATIONS", "TRIGGERS")


@contextmanager
def serve_prefect() -> Iterator[str]:
    """Start a server, point this process and its children at it, stop it at the end. Call before `import prefect`.

    Yields: the address of its API. It is not waited for yet: see wait_until_ready.
    Raises: ToolError naming the log where it does not come up.
    """
    HOME.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        url = f"http://127.0.0.1:{port}/api"
        before = dict(os.environ)
        process = _start(listener.fileno(), port)
    _use_only({API_URL: url, "PREFECT_HOME": str(HOME), "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false"})
    try:
        _import_client()  # 2 s that the server needs as well
        _wait_until_ready(process, url)
        yield url
    finally:
        stop_process(process, STOP_TIMEOUT_S)
        os.environ.clear()
        os.environ.update(before)


def _start(listener: int, port: int) -> subprocess.Popen[bytes]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    env |= {f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in _UNUSED_SERVICES}
    env |= {
        "PREFECT_HOME": str(HOME),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "1",
    }
    with LOG.open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.server", str(listener)],
            cwd=Path(__file__).resolve().parent.parent,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[listener],
            start_new_session=True,  # Ctrl-C is ours to act on; the server goes last
        )


def _use_only(settings: dict[str, str]) -> None:
    """The user's Prefect settings are for the user's server; on this one only ours hold."""
    for name in [name for name in os.environ if name.startswith("PREFECT_") and not name.startswith("PREFECT_LOGGING")]:
        del os.environ[name]
    os.environ.update(settings)


def _import_client() -> None:
    import prefect.main  # noqa: F401


def _wait_until_ready(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=deadline - time.monotonic()) as answer:  # noqa: S310
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    how = (
        f"ended with {process.returncode}"
        if process.returncode is not None
        else f"gave no answer in {READY_TIMEOUT_S:g} s"
    )
    raise ToolError(f"the Prefect server {how}; {LOG.relative_to(STATE.parent)} says why")


def main() -> None:
    """Serve on the inherited socket until told to stop or the parent is gone."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import uvicorn
    from prefect.server.api.server import create_app

    config = uvicorn.Config(
        create_app(final=True), fd=int(sys.argv[1]), log_level="warning", timeout_graceful_shutdown=1
    )
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
