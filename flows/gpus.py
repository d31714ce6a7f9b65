"""GPU work of programs that know nothing of each other: one call at a time on each GPU of run.gpus."""

import fcntl
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flows.progress import say

POLL_S = 0.5


@contextmanager
def hold_gpu(gpus: Sequence[int], locks: Path, what: str) -> Iterator[int | None]:
    """Hold the first GPU that is free, waiting where none is; its number, or None where `gpus` is empty.

    Without a GPU there is one such call at a time all the same: each of them fills the processor.

    Args: locks: the folder of the lock files, which the system frees when a holder dies.
    """
    locks.mkdir(parents=True, exist_ok=True)
    names: dict[str, int | None] = {f"gpu-{gpu}": gpu for gpu in gpus}
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
