"""Two processes of a data-parallel training on the CPU, as torch's launcher would start them."""

import os
import socket
import subprocess
import sys


def start_ranks(code: str) -> list[subprocess.Popen]:
    """Python's `code` as rank 0 and rank 1; what each prints is for `communicate`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    return [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
