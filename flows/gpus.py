"""GPU work of programs that know nothing of each other: one call at a time on each GPU of this machine."""

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from flows.progress import say

G = TypeVar("G", int, str)
POLL_S = 0.5


def list_gpus() -> list[str]:
    """The numbers or names of the GPUs that this process may use; [] where there is none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [word.strip() for word in visible.split(",") if word.strip() and word.strip() != "-1"]
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout.split() if not done.returncode else []


@contextmanager
def hold_gpu(gpus: Sequence[G], locks: Path, what: str) -> Iterator[G | None]:
    """Hold the first GPU that is free, waiting where none is; None where `gpus` is empty.

    Without a GPU there is one such call at a time all the same: each of them fills the processor.

    Args: locks: the folder of the lock files, which the system frees when a holder dies.
    """
    locks.mkdir(parents=True, exist_ok=True)
    names: dict[str, G | None] = {f"gpu-{gpu}": gpu for gpu in gpus}
    names = names or {"no-gpu": None}
    with ExitStack() as stack:
        files = {name: stack.enter_context((locks / f"{name}.lock").open("a+")) for name in names}
        is_told = False
        while True:
            for name, gpu in names.items():
                try:
                    fcntl.flock(files[name], fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield gpu
                return
            if not is_told:
                say(f"{what}: {', '.join(names)} at other work; waiting for it to end")
                is_told = True
            time.sleep(POLL_S)
