"""Where the project is, and what its processes must have in their environment."""

import os
import shutil
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".inbetween"  # ours, ignored by git and DVC, disposable

RUN_CONTEXT = "INBETWEEN_RUN_CONTEXT"  # file with the Prefect run that a stage's work belongs to
FLOW_RUN = "INBETWEEN_FLOW_RUN"  # that run's id, for the record of lineage
RUNNER = "INBETWEEN_RUNNER"  # one of RUNNERS; takes the place of run.runner
RUNNERS = ("local", "ray")
MIN_FREE_BYTES = 16 * 2**20  # of the project's disk: the databases of DVC, Prefect and lineage grow by a few
FRESH = "INBETWEEN_FRESH"  # "1" = finished items of earlier runs are not used

_QUIET = {
    "DVC_NO_ANALYTICS": "1",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def prepare_environment() -> None:
    """Set what this process and all that it starts rely on; a value the user has set stays."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    # Numeric libraries stay on one thread a process: stages use processes, and some results (OpenCV's DIS flow, sums
    # in BLAS) depend on the thread count, which must not depend on the machine.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    # Where threads are asked for (training), those that wait sleep: spinning, they take a busy machine's cores from
    # the one that they wait for (a step of training took 12 s for 0.3).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # On a full disk Python keeps the first part of a module that it compiles, and takes it for the whole ever after.
    if shutil.disk_usage(ROOT).free < MIN_FREE_BYTES:
        os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
        sys.dont_write_bytecode = True
    scripts = str(Path(sys.executable).parent)  # dvc.yaml calls `inbetween` by name
    path = os.environ.get("PATH", "")
    if scripts not in path.split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([scripts, path])


class _NoPandas(MetaPathFinder, Loader):
    """Answers for pandas, and fails when it is imported."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname == "pandas" else None

    def exec_module(self, module: ModuleType) -> None:
        raise ModuleNotFoundError(f"{module.__name__} is left out of this process", name=module.__name__)


def leave_out_pandas() -> None:
    """Have no pandas in this process. pyarrow imports it, for 0.4 s, to ask whether a list is one of its objects."""
    if not any(isinstance(finder, _NoPandas) for finder in sys.meta_path):
        sys.meta_path.insert(0, _NoPandas())
