"""Fixtures of more than one test module."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(autouse=True)
def gpu_where_it_is_asked_for(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the tests state to the bit holds on a CPU: a GPU is there for those marked `gpu` alone."""
    torch = sys.modules.get("torch")
    if "gpu" not in request.keywords:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # of the processes that a test starts
        if torch is not None:
            monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        yield
        return
    if torch is None or not torch.cuda.is_available():
        pytest.skip("no GPU that torch can use")
    state = pytest.importorskip("accelerate.state").AcceleratorState
    state._reset_state(reset_partial_state=True)  # it is made once a process, for one device
    yield
    state._reset_state(reset_partial_state=True)


# With `--dist loadfile` a file is one worker's: a long one that is begun last leaves the others with nothing to do.
LONGEST_FIRST = (
    "flows/test_repro.py",
    "test_faults.py",
    "flows/test_train_motion.py",
    "real/test_pose_footage.py",
    "flows/test_incremental.py",
    "real/test_passes.py",
    "flows/test_views.py",
    "flows/test_workers.py",
    "flows/test_samples.py",
    "flows/unattended/test_landing.py",
    "flows/test_raw_data.py",
    "flows/test_joints.py",
    "flows/test_render_video.py",
    "test_report_browser.py",
    "models/motion/test_training.py",
    "models/renderer/test_training.py",
    "test_pipeline.py",
    "real/test_catalog_add.py",
)

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {Path(__file__).parent / name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


def find_chromium() -> str | None:
    return next((path for name in CHROMIUM_NAMES if (path := shutil.which(name))), None)


@pytest.fixture(scope="session")
def chromium() -> str:
    """A real browser's program: the machine's, else Debian's, installed now where that is allowed, else a skip."""
    # The tests run in several processes, and one apt-get at a time can work.
    with (Path(tempfile.gettempdir()) / "inbetween-tests-chromium.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = find_chromium()
        if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
            install = ("apt-get", "-o", "DPkg::Lock::Timeout=60", "install", "-y", "-qq", "--no-install-recommends")
            env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
            for command in (("apt-get", "update", "-qq"), (*install, "chromium")):
                try:
                    subprocess.run(command, env=env, capture_output=True, timeout=240)
                except subprocess.TimeoutExpired:
                    break
            found = find_chromium()
    if found is None:
        pytest.skip("no Chromium here and none could be installed; as root: apt-get install chromium")
    return found


QUIET_CHROMIUM = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")  # Playwright's event loop must not outlive its tests: others run loops of their own
def browser(chromium: str) -> "Iterator[Browser]":
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET_CHROMIUM)
        yield browser
        browser.close()
