"""DAIN for the items of stage background: which checkout, and one call at a time on each GPU."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from flows.checkouts import find_checkout
from flows.gpus import hold_gpu
from flows.project import STATE
from flows.stage import Stage
from tasks.background_dain import make_by_dain
from tasks.errors import ToolError
from tasks.items import Item
from tasks.workers.dain import DainSettings


def read_settings(stage: Stage) -> DainSettings:
    """Raises: ToolError where the environment does not name a checkout and its Python, or no GPU may be used."""
    home, python = find_checkout("dain")
    if not stage.params.run.gpus:
        raise ToolError("dain: it needs a GPU, and run.gpus names none; name one, or take the interpolator flow")
    return DainSettings(home=home, python=python, **stage.params.dain.model_dump())


def make_on_gpu(
    items: Sequence[Item], settings: DainSettings, gpus: Sequence[int], label: str
) -> Iterator[tuple[int, pa.Table]]:
    """A Work: a group of items as soon as a GPU is free."""
    folder = STATE / "work" / f"{label}-dain"
    folder.mkdir(parents=True, exist_ok=True)
    with hold_gpu(gpus, STATE / "locks", f"{label} dain") as gpu:
        work_dir = Path(tempfile.mkdtemp(dir=folder))
        yield from make_by_dain(items, work_dir / "calls", settings, gpu)
    shutil.rmtree(work_dir)  # not where it failed: its messages lie there
