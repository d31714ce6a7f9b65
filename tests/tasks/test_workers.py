"""The worker contract, against a stand-in worker; what the environment's error messages say."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from tasks.errors import ToolError
from tasks.workers import environment
from tasks.workers.contract import run_worker, write_request

# Does what `settings.do` says; "copy" is what a good worker does.
STAND_IN = """
import json, os, subprocess, sys, time
from pathlib import Path
request = json.loads(Path(sys.argv[1]).read_text())
do = request["settings"]["do"]
total = sum(len(each["frames"]) for each in request["sequences"])
print(f"progress 0 {total}", flush=True)
if do == "refuse":
    sys.exit((print("a first line", file=sys.stderr), print("00.png: not a picture", file=sys.stderr), 2)[-1])
if do == "crash":
    raise RuntimeError("out of luck")
if do == "abort":
    os.abort()
if do in ("hang", "hang deaf"):
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(request["settings"]["pids"]).write_text(f"{os.getpid()} {helper.pid}")
    if do == "hang":
        sys.stdin.read()  # as the contract asks: end with the caller
        helper.kill()
        sys.exit(1)
    time.sleep(600)
done = 0
for each in request["sequences"]:
    for name in each["frames"]:
        Path(each["results"], name).write_bytes(Path(each["folder"], name).read_bytes())
        done += 1
        print("loading", flush=True)
        print(f"progress {done} {total}", flush=True)
    if do == "forget":
        Path(each["results"], each["frames"][0]).unlink()
    if do == "litter":
        Path(each["results"], "core.123").touch()
Path(request["settings"]["pids"]).write_text(os.environ.get("PYTHONPATH", "") + os.environ.get("VIRTUAL_ENV", ""))
"""


@pytest.fixture
def stand_in(tmp_path):
    """(command, request path, expected results) for a stand-in that does as told."""
    script = tmp_path / "worker.py"
    script.write_text(STAND_IN)
    frames = tmp_path / "frames"
    frames.mkdir()
    names = ["00.png", "01.png"]
    for name in names:
        (frames / name).write_bytes(name.encode())

    def prepare(do):
        results = tmp_path / "results"
        sequence = {"folder": str(frames), "results": str(results), "frames": names, "mode": "any"}
        request = tmp_path / "request.json"
        write_request(request, [sequence], {"do": do, "pids": str(tmp_path / "pids")})
        return [sys.executable, str(script)], request, {results: names}

    return prepare


def wait_until(is_true, timeout_s):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and not is_true():
        time.sleep(0.02)
    return is_true()


def is_running(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_worker_writes_results_and_reports_progress(stand_in, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("VIRTUAL_ENV", "/elsewhere")
    seen = []
    command, request, expected = stand_in("copy")
    run_worker(command, request, expected, 20, lambda done, total: seen.append((done, total)))
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert (tmp_path / "results" / "01.png").read_bytes() == b"01.png"
    assert (tmp_path / "pids").read_text() == ""  # neither variable reached it


@pytest.mark.parametrize(
    ("do", "message"),
    [
        ("refuse", r"^pose: 00\.png: not a picture$"),
        ("crash", r"^pose: failed with exit code 1: RuntimeError: out of luck \(all its messages: .*request\.log\)$"),
        ("abort", r"^pose: was killed by SIGABRT: it said nothing"),
        ("forget", r"^pose: it left out 1 of its results in .*results: 00\.png$"),
        ("litter", r"^pose: it wrote unasked 1 of its results in .*results: core\.123$"),
    ],
)
def test_worker_faults_are_one_line(stand_in, do, message):
    command, request, expected = stand_in(do)
    with pytest.raises(ToolError, match=message) as caught:
        run_worker(command, request, expected, 20, name="pose")
    assert "\n" not in str(caught.value)


def test_command_that_does_not_exist_is_named(stand_in):
    _, request, expected = stand_in("copy")
    with pytest.raises(ToolError, match="cannot start no-such-estimator: No such file or directory"):
        run_worker(["no-such-estimator"], request, expected, 20)


def test_silent_worker_is_stopped_with_its_helpers(stand_in, tmp_path):
    command, request, expected = stand_in("hang deaf")
    with pytest.raises(ToolError, match=r"no progress for 1\.5 s, so it was stopped"):
        run_worker(command, request, expected, 1.5)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert wait_until(lambda: not any(map(is_running, pids)), 2)


def test_exception_in_progress_callback_stops_worker(stand_in, tmp_path):
    command, request, expected = stand_in("hang deaf")

    def interrupt(done, total):
        wait_until((tmp_path / "pids").exists, 10)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_worker(command, request, expected, 20, interrupt)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert wait_until(lambda: not any(map(is_running, pids)), 2)


@pytest.mark.parametrize("do", ["hang", pytest.param("hang deaf", marks=pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux ends a child that does not watch its stdin"))])  # fmt: skip
def test_killed_caller_leaves_no_worker(stand_in, tmp_path, do):
    command, request, expected = stand_in(do)
    code = (
        "import json, sys; from pathlib import Path; from tasks.workers.contract import run_worker\n"
        "command, request, expected = json.loads(sys.argv[1])\n"
        "run_worker(command, Path(request), {Path(key): value for key, value in expected.items()}, 60)"
    )
    arguments = json.dumps([command, str(request), {str(key): value for key, value in expected.items()}])
    caller = subprocess.Popen([sys.executable, "-c", code, arguments], cwd=Path(__file__).parents[2])
    assert wait_until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text().count(" "), 20)
    worker, helper = (int(pid) for pid in (tmp_path / "pids").read_text().split())
    assert is_running(worker)
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    try:
        assert wait_until(lambda: not is_running(worker), 2)
    finally:
        if is_running(helper):  # a worker's own helpers are the worker's to end
            os.kill(helper, signal.SIGKILL)


def test_request_refuses_results_of_an_earlier_run(tmp_path):
    sequence = {"folder": "frames", "results": str(tmp_path / "results"), "frames": [], "mode": "both"}
    write_request(tmp_path / "request.json", [sequence], {})
    with pytest.raises(FileExistsError):
        write_request(tmp_path / "request.json", [sequence], {})


@pytest.fixture
def prepared():
    """The mediapipe worker's command; skips where its packages are neither cached nor to be had."""
    try:
        return environment.prepare_mediapipe()
    except ToolError as error:
        pytest.skip(str(error))


def test_prepared_command_is_the_environments_python(prepared):
    python, *options, script = prepared
    assert Path(python).is_file()
    assert options == ["-I"]
    assert Path(script) == environment.MEDIAPIPE_SCRIPT


def test_prepared_environment_is_reused_without_network(prepared, monkeypatch):
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setattr(environment, "_try_imports", lambda *_: pytest.fail("tried once already"))
    assert environment.prepare_mediapipe() == prepared


def test_unreached_index_is_one_line_with_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.delenv("UV_FIND_LINKS", raising=False)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(ToolError, match=r"package index was not reached.*connect this machine once") as caught:
        environment.prepare_mediapipe()
    assert "\n" not in str(caught.value)


def test_missing_system_library_names_debian_package(tmp_path):
    package = tmp_path / "fake-python"
    said = "ImportError: libGL.so.1: cannot open shared object file: No such file or directory"
    package.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    package.chmod(0o755)
    with pytest.raises(ToolError, match=r"needs the system library libGL\.so\.1: .*apt-get install libgl1\)"):
        environment._try_imports(Path("worker.py"), str(package), ["cv2"])


def test_mediapipe_worker_refuses_what_is_no_picture(prepared, tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    (frames / "0.png").write_bytes(b"no picture")
    results = tmp_path / "results"
    sequence = {"folder": str(frames), "results": str(results), "frames": ["0.png"], "mode": "static"}
    write_request(tmp_path / "request.json", [sequence], {"upscale": 1, "model_complexity": 1})
    with pytest.raises(ToolError, match=r"^mediapipe: .*0\.png: not a readable picture$"):
        run_worker(prepared, tmp_path / "request.json", {results: ["0.png"]}, 60, name="mediapipe")


def test_mediapipe_worker_ends_when_its_stdin_does(prepared, tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    cv2.imwrite(str(frames / "0.png"), np.zeros((64, 64, 3), np.uint8))
    sequence = {
        "folder": str(frames),
        "results": str(tmp_path / "results"),
        "frames": ["0.png"] * 5000,
        "mode": "static",
    }
    write_request(tmp_path / "request.json", [sequence], {"upscale": 1, "model_complexity": 1})
    worker = subprocess.Popen(
        [*prepared, str(tmp_path / "request.json")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    while b"progress 2 " not in worker.stdout.readline():
        assert worker.poll() is None
    worker.stdin.close()
    assert worker.wait(timeout=2) == 1
    worker.stdout.close()
