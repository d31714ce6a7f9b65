"""One training a GPU: a lock for each, which the system frees when its holder dies."""

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from flows.progress import say
from flows.project import STATE

LOCKS = STATE / "locks"
_POLL_S = 5.0


def list_gpus() -> list[str]:
    """The numbers of the GPUs that this process may use; [] where there is none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [word.strip() for word in visible.split(",") if word.strip() and word.strip() != "-1"]
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout.split() if not done.returncode else []


@contextmanager
def hold_gpu() -> Iterator[dict[str, str]]:
    """Hold one GPU of this machine, waiting until one is free; without a GPU, the machine's one place to train.

    Yields: the environment for what runs on it.
    """
    gpus = list_gpus()
    with ExitStack() as stack:
        held = _take_first(gpus or ["none"], stack)
        yield {"CUDA_VISIBLE_DEVICES": held} if gpus else {}


def _take_first(names: list[str], stack: ExitStack) -> str:
    LOCKS.mkdir(parents=True, exist_ok=True)
    said = False
    while True:
        for name in names:
            file = (LOCKS / f"gpu-{name}.lock").open("a+")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                continue
            stack.callback(file.close)
            return name
        if not said:
            say(f"train: {len(names)} training{'s' if len(names) > 1 else ''} at work; waiting for one to end")
            said = True
        time.sleep(_POLL_S)
