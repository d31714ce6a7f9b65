"""Downloads a host, trainings a GPU."""

import json

import pytest

from flows.gpus import list_gpus
from flows.unattended.limits import _per_host, list_hosts
from tasks.errors import ParamsError
from tests.sandbox import copy_project


def test_hosts_are_those_of_the_sources():
    sources = ["youtube:dQw4w9WgXcQ", "https://Videos.Example.org:8443/a.mp4", "http://videos.example.org/b", "file:/x"]
    assert list_hosts([*sources, "pypi:pose2sim==0.10.49#a/b.mp4"]) == [
        "package-index", "videos.example.org", "youtube.com",
    ]  # fmt: skip


def test_limit_that_is_no_number_is_refused(monkeypatch):
    monkeypatch.setenv("INBETWEEN_DOWNLOADS_PER_HOST", "0")
    with pytest.raises(ParamsError, match=r"INBETWEEN_DOWNLOADS_PER_HOST=0: is not a whole number above 0"):
        _per_host()


HOLD = """
import time
from flows.unattended.limits import hold_hosts
with hold_hosts("web"):
    start = time.monotonic()
    time.sleep(2)
    print(start, time.monotonic())
"""
THREE = f"""
import json, subprocess, sys
from flows.server import serve_prefect
with serve_prefect():
    runs = [subprocess.Popen([sys.executable, "-c", {HOLD!r}], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    print(json.dumps([[float(word) for word in run.communicate()[0].split()] for run in runs]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("per_host", [1, 2])
def test_no_more_batches_download_from_a_host_than_the_server_has_places(tmp_path, per_host):
    sandbox = copy_project(tmp_path / "project")
    sandbox.write("catalog/web/videos.csv", "video,source,licence\nv,https://videos.example.org/a.mp4,CC0\n")
    sandbox.write(
        "catalog/web/clips.csv",
        "clip,video,split,subject,first,last,width,height\nc,v,test,someone,0,9,64,64\n",
    )
    sandbox.env["INBETWEEN_DOWNLOADS_PER_HOST"] = str(per_host)
    spans = json.loads(sandbox.run("python", "-c", THREE).stdout.splitlines()[-1])
    assert len(spans) == 3
    most = max(sum(start <= moment < end for start, end in spans) for moment, _ in spans)
    assert most <= per_host


def test_gpus_are_those_that_are_visible(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    assert list_gpus() == ["3", "5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert list_gpus() == []
