"""The operator's day, for real: server, deploy, worker, doctor; two batches registered at once by event, one of them
with a dead video; the worker killed in the middle; everything lands.

    python benchmarks/operators_day.py FOLDER

FOLDER gets a checkout of this project, a bare origin and a DVC remote. The clips are 24 frames of the real footage.
"""

import subprocess
import sys
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.sandbox import Sandbox
from tests.unattended import Machine, describe_batch, make_checkout, wait_for, write_request

RUNS = ("ingest-b001", "ingest-b002", "render-b001", "render-b002")


def show(sandbox: Sandbox, *command: str, check: bool = True) -> None:
    shown = " ".join(word.replace(str(sandbox.root.parent), "..") for word in command)
    print(f"$ {shown}", flush=True)
    done = sandbox.run(*command, check=check, timeout=1200)
    print((done.stdout + done.stderr).replace(str(sandbox.root.parent), "..").rstrip(), flush=True)


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True)
    start = time.monotonic()  # again below, when the place is made

    def say(text: str) -> None:
        print(f"[{time.monotonic() - start:5.0f} s] {text}", flush=True)

    sandbox = make_checkout(folder, is_whole=True)
    sandbox.env |= {"PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "false", "PYTHONUNBUFFERED": "1"}
    machine = Machine(sandbox)
    start = time.monotonic()
    machine.start(say)
    wait_for(lambda: machine.is_worker_online("cpu"), every=2)
    show(sandbox, "inbetween", "doctor", check=False)  # no worker of pool gpu today
    batches = [
        describe_batch("b001", renders=[{"method": "flow", "key_step": 8}]),
        describe_batch("b002", first=40, renders=[{"method": "flow", "key_step": 8}], missing="skip"),
    ]
    batches[1]["videos"].append({"video": "gone", "source": "file:/nowhere/gone.mp4", "licence": "CC0"})
    batches[1]["clips"].append({**batches[1]["clips"][0], "clip": "lost", "video": "gone"})
    for batch in batches:
        write_request(sandbox, batch)
    commands = [["inbetween", "ingest", str(b["name"]), "--file", f"../{b['name']}.json", "--event"] for b in batches]
    say("both batches at once: " + " & ".join(" ".join(command) for command in commands))
    for told in [sandbox.start(*command) for command in commands]:
        print(told.communicate()[0].rstrip(), flush=True)
    wait_for(lambda: machine.processes("stage", "split"), every=0.1)
    worker = machine.worker()
    worker.kill()
    say(
        f"kill -9 {worker.pid}: the worker, while {sorted({p.cmdline()[-1] for p in machine.processes('stage')})} split"
    )
    states: dict[str, str] = {}
    while any(states.get(name) not in ("Completed", "Failed", "Crashed") for name in RUNS):
        for name in RUNS:
            if (state := machine.state(name)) != states.get(name, "none"):
                states[name] = state
                say(f"{name}: {state}")
        time.sleep(1)
    show(sandbox, "git", "--git-dir", "../origin.git", "log", "--stat=90", "--format=%n%h %s", "-4", "main")
    show(sandbox, "git", "--git-dir", "../origin.git", "show", "main:catalog/b002/left_out.csv")
    show(sandbox, "git", "status", "--short", "--branch")
    machine.stop()
    left = machine.processes("")
    say(f"everything stopped; {len(left)} processes left")
    subprocess.run(["git", "clone", "-q", folder / "origin.git", folder / "elsewhere"], check=True)
    elsewhere = Sandbox(folder / "elsewhere")
    elsewhere.run("dvc", "remote", "add", "-q", "--local", "-d", "store", str(folder / "store"))
    elsewhere.run("inbetween", "data")
    show(elsewhere, "dvc", "pull", "render@b001-flow-8", "render@b002-flow-8")
    show(elsewhere, "inbetween", "repro", "--plan", "--pull", "evaluate@b001-flow-8", "evaluate@b002-flow-8")
    assert psutil.pid_exists(worker.pid) is False


if __name__ == "__main__":
    main()
