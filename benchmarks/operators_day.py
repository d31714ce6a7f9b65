"""The operator's day, for real: server, deploy, worker, doctor; two batches registered at once by event, one of them
with a dead video; the worker killed in the middle; everything lands.

    python benchmarks/operators_day.py FOLDER [--ray] [--docs]

FOLDER gets a checkout of this project, a bare origin and a DVC remote. The clips are 24 frames of the real footage.
--ray: every stage's items run on a Ray cluster of two nodes on loopback, and the second node is killed as well, while
it is doing some of them (the clips are of 60 frames, so that there is work for two). --docs: what was said replaces the
text of that day in docs/operations.md.
"""

import argparse
import re
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.ray_cluster import Cluster, run_cluster
from tests.sandbox import Sandbox
from tests.unattended import Machine, describe_batch, make_checkout, wait_for, write_request

RUNS = ("ingest-b001", "ingest-b002", "render-b001", "render-b002")
AT_WORK_S = 2.0  # the second node has been doing a group for so long when it is killed

DOCS = Path(__file__).resolve().parent.parent / "docs/operations.md"
PRIVATE = re.compile(r"(?<=[ =(])/\S*?(?=/(?:footage|bin)/)")  # where this machine keeps the project

said: list[str] = []


def tell(text: str) -> None:
    print(text, flush=True)
    said.append(text)


def show(sandbox: Sandbox, *command: str, check: bool = True) -> None:
    shown = " ".join(word.replace(str(sandbox.root.parent), "..") for word in command)
    tell(f"$ {shown}")
    done = sandbox.run(*command, check=check, timeout=1200)
    tell((done.stdout + done.stderr).replace(str(sandbox.root.parent), "..").rstrip())


def spend_day(folder: Path, cluster: Cluster | None) -> None:
    start = time.monotonic()  # again below, when the place is made

    def say(text: str) -> None:
        tell(f"[{time.monotonic() - start:5.0f} s] {text}")

    sandbox = make_checkout(folder, is_whole=True)
    sandbox.env |= {"PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "false", "PYTHONUNBUFFERED": "1"}
    if cluster:
        sandbox.env |= cluster.environment | {"INBETWEEN_RUNNER": "ray", "RAY_ADDRESS": cluster.address}
    machine = Machine(sandbox)
    start = time.monotonic()
    if cluster:
        say("two Ray nodes of one CPU each; the worker has INBETWEEN_RUNNER=ray and RAY_ADDRESS")
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
        if cluster:
            batch["clips"][0]["last"] = batch["clips"][0]["first"] + 59
        write_request(sandbox, batch)
    commands = [["inbetween", "ingest", str(b["name"]), "--file", f"../{b['name']}.json", "--event"] for b in batches]
    say("both batches at once: " + " & ".join(" ".join(command) for command in commands))
    for told in [sandbox.start(*command) for command in commands]:
        tell(told.communicate()[0].rstrip())
    wait_for(lambda: machine.processes("stage", "split"), every=0.1)
    worker = machine.worker()
    worker.kill()
    say(
        f"kill -9 {worker.pid}: the worker, while {sorted({p.cmdline()[-1] for p in machine.processes('stage')})} split"
    )
    if cluster:
        victim = wait_until_at_work(cluster)
        words = [process.cmdline() for process in machine.processes("stage")]
        stages = sorted({"@".join(word[-2:]) for word in words if word[-3:-2] == ["stage"]})
        cluster.kill_node()
        say(f"kill -9 of the second Ray node while its process {victim} did items; at work: {', '.join(stages)}")
        cluster.add_node()
        say("a new second node has joined")
    states: dict[str, str] = {}
    while any(states.get(name) not in ("Completed", "Failed", "Crashed") for name in RUNS):
        for name in RUNS:
            if (state := machine.state(name)) != states.get(name, "none"):
                states[name] = state
                say(f"{name}: {state}")
        time.sleep(1)
    if cluster:
        lines = re.findall(r"\S+ \| ray: \d+ groups on \d+ nodes|\S+ \| .* are done again", machine.logs())
        for line in lines:
            tell(line)
        assert any("are done again" in line for line in lines), "the killed node had no items"
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
    assert not worker.is_running()
    if set(states.values()) != {"Completed"}:
        raise SystemExit(f"not everything landed: {states}")


def wait_until_at_work(cluster: Cluster) -> int:
    """Returns: the process of the second node that has been doing one group for AT_WORK_S."""
    since: dict[int, float] = {}

    def find() -> int:
        nonlocal since
        now = time.monotonic()
        since = {pid: since.get(pid, now) for pid in cluster.at_work()}
        return next((pid for pid, start in since.items() if now - start > AT_WORK_S), 0)

    return int(str(wait_for(find, every=0.05)))


def write_docs(name: str) -> None:
    """Put what was said between the day's two marks in docs/operations.md."""
    text = DOCS.read_text()
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    # Progress lines come in whole paragraphs of their own; the days' paths are this machine's.
    lines = [PRIVATE.sub("", line).rstrip() for block in said for line in block.splitlines()]
    body = "".join(f"    {line}".rstrip() + "\n" for line in lines)
    DOCS.write_text(f"{head}{begin}\n{body}\n{end}{tail}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--docs", action="store_true")
    args = parser.parse_args()
    folder = args.folder.resolve()
    folder.mkdir(parents=True)
    with run_cluster(folder / "cluster") if args.ray else nullcontext() as cluster:
        spend_day(folder, cluster)
    if args.docs:
        write_docs("operators_day on Ray" if args.ray else "operators_day")


if __name__ == "__main__":
    main()
