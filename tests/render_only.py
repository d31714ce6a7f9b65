"""A project copy whose renders read no poses, so that tests of the orchestration need no estimator."""

import re
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.sandbox import Sandbox, copy_project, set_batches, write_batch

# Two views of one kick: real footage, 24 frames each.
CLIPS = {
    "a": [("kick", "kick_front", 0, 23)],
    "b": [("kick", "kick_back", 0, 23)],
}


STAGES = ("download", "split", "background", "render")


def make_project(
    root: Path,
    batches: Sequence[str] = ("a", "b"),
    stages: Sequence[str] = STAGES,
    clips: Mapping[str, Sequence[tuple[str, str, int, int]]] = CLIPS,
) -> Sandbox:
    """Batches with one clip and one blended render each, and only these stages; raw data in place, nothing run."""
    sandbox = copy_project(root, has_raw_data=True)
    for batch in batches:
        write_batch(sandbox, batch, clips[batch])
    set_batches(sandbox, batches, methods=["blend"])
    head, *blocks = re.split(r"^(?=  \w+:\n)", (root / "dvc.yaml").read_text(), flags=re.MULTILINE)
    kept = [block for block in blocks if block.split(":")[0].strip() in stages]
    sandbox.write(
        "dvc.yaml", head + "".join(block.replace("        - data/${item.batch}/poses\n", "") for block in kept)
    )
    sandbox.commit("render only")
    return sandbox


class TaskRun:
    """A row of the server's task runs."""

    def __init__(self, name: str, state: str, parents: str) -> None:
        self.name, self.state, self.parents = name, state, parents


def read_last_run(sandbox: Sandbox) -> tuple[str, dict[str, TaskRun]]:
    """The state of the newest flow run in the embedded server's database, and its task runs by name."""
    path = sandbox.root / ".inbetween/prefect/prefect.db"
    with sqlite3.connect(path) as database:
        run, state = database.execute("SELECT id, state_name FROM flow_run ORDER BY created DESC LIMIT 1").fetchone()
        rows = database.execute(
            "SELECT id, name, state_name, task_inputs FROM task_run WHERE flow_run_id = ?", (run,)
        ).fetchall()
    names = {row[0].replace("-", ""): row[1] for row in rows}
    found = {}
    for _, name, task_state, inputs in rows:
        parents = [
            other for number, other in names.items() if "__parents__" in inputs and number in inputs.replace("-", "")
        ]
        found[name] = TaskRun(name, task_state, ", ".join(parents))
    return state, found
