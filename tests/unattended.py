"""A checkout with a bare origin and a DVC remote, as a worker's machine has it, for tests of unattended runs."""

import base64
import json
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import psutil

from tests.render_only import make_project
from tests.sandbox import FOOTAGE, Sandbox, copy_project, set_batches, write_batch

PATIENCE_S = 900


def make_checkout(folder: Path, *, is_whole: bool = False) -> Sandbox:
    """folder/origin.git (bare), folder/store (the DVC remote) and a checkout with one batch `old` beside them.

    Nothing has run: dvc.lock is not there.

    Args: is_whole: True = with every stage; else without those that need a pose estimator.
    """
    clips = [("kick", "kick_front", 60, 83)]
    if is_whole:
        sandbox = copy_project(folder / "checkout")
        write_batch(sandbox, "old", clips)
        set_batches(sandbox, ["old"])
        sandbox.commit("one small batch")
    else:
        sandbox = make_project(folder / "checkout", ["old"], clips={"old": clips})
    sandbox.run("git", "init", "-q", "--bare", "-b", "main", str(folder / "origin.git"))
    sandbox.run("git", "remote", "add", "origin", str(folder / "origin.git"))
    sandbox.run("git", "push", "-q", "-u", "origin", "main")
    sandbox.run("dvc", "remote", "add", "-q", "--local", "-d", "store", str(folder / "store"))
    return sandbox


def describe_batch(name: str, video: str = "kick_back", first: int = 0, **more: object) -> dict[str, object]:
    """The parameters of a batch of one clip of 24 frames, cut from real footage, and a blended render."""
    return {
        "name": name,
        "videos": [{"video": video, "source": f"file:{FOOTAGE / video}.mp4", "licence": "BSD-3-Clause"}],
        "clips": [
            {"clip": "kick", "video": video, "split": "test", "subject": "someone", "first": first,
             "last": first + 23, "width": 180, "height": 320}
        ],
        "key_steps": [8],
        "renders": [{"method": "blend", "key_step": 8}],
        **more,
    }  # fmt: skip


def write_request(sandbox: Sandbox, batch: dict[str, object]) -> str:
    path = sandbox.root.parent / f"{batch['name']}.json"
    path.write_text(json.dumps(batch))
    return str(path)


class Machine:
    """A worker's machine: checkout, bare origin, DVC remote, a kept server and a kept worker."""

    def __init__(self, sandbox: Sandbox, hook_path: str = "") -> None:
        """hook_path: of the address that is called when a run fails."""
        self.sandbox = sandbox
        self._hook_path = hook_path
        self.calls: list[dict[str, str]] = []
        self.keepers: list[subprocess.Popen[str]] = []

    def start(self, say: Callable[[str], None] = lambda _: None) -> None:
        hook = self._listen()
        server = self.sandbox.start("inbetween", "server", "--port", "0")
        self.keepers.append(server)
        line = server.stdout.readline()
        say(f"inbetween server: {line.rstrip()}")
        url = re.match(r"server: (\S+);", line)[1] + "/api"
        self.sandbox.env |= {
            "PREFECT_API_URL": url,
            "INBETWEEN_WEBHOOK_URL": hook,
            "PREFECT_HOME": str(self.sandbox.root / ".inbetween/client"),
        }
        say("inbetween deploy: " + self.sandbox.run("inbetween", "deploy", timeout=PATIENCE_S).stderr.rstrip())
        say("inbetween worker: " + self.start_worker())

    def start_worker(self, pool: str = "cpu") -> str:
        worker = self.sandbox.start("inbetween", "worker", "--pool", pool, "--limit", "2")
        self.keepers.append(worker)
        return worker.stdout.readline().rstrip()

    def logs(self) -> str:
        """What all runs wrote."""
        return "\n".join(path.read_text() for path in (self.sandbox.root / ".inbetween/logs/runs").glob("*.log"))

    def log(self, name: str) -> str:
        """What the runs of a name wrote."""
        return "\n".join(
            path.read_text() for path in (self.sandbox.root / ".inbetween/logs/runs").glob(f"{name}-*.log")
        )

    def worker_log(self) -> str:
        return (self.sandbox.root / ".inbetween/logs/cpu.log").read_text()

    def worker(self) -> psutil.Process:
        return self.processes("prefect", "worker", "start")[0]

    def is_worker_online(self, pool: str) -> bool:
        return any(worker["status"] == "ONLINE" for worker in self.ask(f"work_pools/{pool}/workers/filter", {}))

    def stop(self) -> None:
        for keeper in reversed(self.keepers):
            keeper.send_signal(signal.SIGTERM)
            keeper.wait(100)

    def _listen(self) -> str:
        calls = self.calls

        class Hook(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                calls.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        hook = HTTPServer(("127.0.0.1", 0), Hook)
        Thread(target=hook.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{hook.server_port}/{self._hook_path}"

    def ask(self, path: str, content: dict[str, object]) -> list[dict[str, object]]:
        request = urllib.request.Request(
            f"{self.sandbox.env['PREFECT_API_URL']}/{path}",
            json.dumps(content).encode(),
            {"Content-Type": "application/json"},
        )
        if password := self.sandbox.env.get("PREFECT_API_AUTH_STRING"):
            request.add_header("Authorization", "Basic " + base64.b64encode(password.encode()).decode())
        with urllib.request.urlopen(request, timeout=100) as answer:
            return json.load(answer)

    def runs(self) -> dict[str, dict[str, object]]:
        """Name -> the newest run of that name."""
        found = self.ask("flow_runs/filter", {"sort": "EXPECTED_START_TIME_ASC", "limit": 200})
        return {str(run["name"]): run for run in found}

    def state(self, name: str) -> str:
        return str(self.runs().get(name, {}).get("state_name", "none"))

    def register(self, batch: dict[str, object]) -> None:
        self.sandbox.run(
            "inbetween", "ingest", str(batch["name"]), "--file", write_request(self.sandbox, batch), "--event"
        )

    def retry(self, name: str) -> None:
        self.sandbox.run("python", "-m", "prefect", "flow-run", "retry", str(self.runs()[name]["id"]))

    def landed(self) -> list[str]:
        return (
            self.sandbox.run("git", "ls-remote", "origin", "main").stdout.split()
            and self.sandbox.run(
                "git", "--git-dir", str(self.sandbox.root.parent / "origin.git"), "log", "--format=%s", "main"
            ).stdout.splitlines()
        )

    def show(self, path: str) -> str:
        """A file as it stands on origin's main."""
        origin = str(self.sandbox.root.parent / "origin.git")
        return self.sandbox.run("git", "--git-dir", origin, "show", f"main:{path}").stdout

    def processes(self, *words: str) -> list[psutil.Process]:
        """Those of this machine's clones, or of its worker, whose command line holds the words."""
        found = []
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
                if not all(word in line for word in words):
                    continue
                if process.environ().get("PREFECT_API_URL") == self.sandbox.env["PREFECT_API_URL"]:
                    found.append(process)
            except psutil.Error:
                continue
        return found


def wait_for(what: Callable[[], object], seconds: float = PATIENCE_S, every: float = 0.5) -> object:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(every)
    raise AssertionError(f"{what}: not within {seconds} s")
