"""Downloads a host, trainings a GPU."""

import pytest

from flows.gpus import list_gpus
from flows.unattended.limits import _per_host, list_hosts
from tasks.errors import ParamsError


def test_hosts_are_those_of_the_sources():
    sources = ["youtube:dQw4w9WgXcQ", "https://Videos.Example.org:8443/a.mp4", "http://videos.example.org/b", "file:/x"]
    assert list_hosts([*sources, "pypi:pose2sim==0.10.49#a/b.mp4"]) == [
        "package-index", "videos.example.org", "youtube.com",
    ]  # fmt: skip


def test_limit_that_is_no_number_is_refused(monkeypatch):
    monkeypatch.setenv("INBETWEEN_DOWNLOADS_PER_HOST", "0")
    with pytest.raises(ParamsError, match=r"INBETWEEN_DOWNLOADS_PER_HOST=0: is not a whole number above 0"):
        _per_host()


def test_gpus_are_those_that_are_visible(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    assert list_gpus() == ["3", "5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert list_gpus() == []
