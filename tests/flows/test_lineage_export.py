"""`inbetween lineage export`: to a file, to a real HTTP server, and what it says where it cannot."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from flows.lineage import open_lineage
from flows.lineage.export import export, repository_of
from flows.project import ROOT
from tasks.lineage.errors import LineageError
from tests.flows.test_lineage import run
from tests.lineage_project import Pipeline, small_project
from tests.openlineage_schema import errors_of


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Pipeline:
    return small_project(tmp_path_factory.mktemp("export") / "project")


@pytest.fixture
def lineage(pipeline):
    root = pipeline.project.root
    return open_lineage(root, root / ".inbetween/lineage.sqlite")


class Server(ThreadingHTTPServer):
    """Takes events; refuses from a given number on."""

    def __init__(self, accepts: int = 10_000) -> None:
        self.accepts = accepts
        self.got: list[tuple[str, str | None, dict]] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_taken = len(self.server.got) < self.server.accepts
        if is_taken:
            self.server.got.append((self.path, self.headers["Authorization"], body))
        self.send_response(201 if is_taken else 422)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *words: object) -> None:
        pass


def test_command_writes_a_file_with_an_event_a_line(pipeline, tmp_path):
    out = tmp_path / "new/events.jsonl"
    done = run(pipeline, "export", "--format", "openlineage", "--out", str(out))
    assert (done.returncode, done.stdout) == (0, "")
    events = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(events) == 2 * len(pipeline.project.record)
    assert [path.name for path in out.parent.iterdir()] == ["events.jsonl"]
    done = run(pipeline, "export", "--format", "croissant")
    assert (done.returncode, done.stderr.strip()) == (
        2, "inbetween lineage export: --format croissant: name a data folder",
    )  # fmt: skip


def test_a_server_gets_every_event_with_the_key(lineage, pipeline, monkeypatch):
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "secret")
    server = Server()
    export(lineage, "openlineage", url=server.url)
    server.shutdown()
    assert {(path, key) for path, key, _ in server.got} == {("/api/v1/lineage", "Bearer secret")}
    assert len(server.got) == 2 * len(pipeline.project.record)
    assert [error for _, _, event in server.got for error in errors_of(event)] == []
    assert server.got[0][2]["eventType"] == "START"


def test_an_address_with_a_path_is_the_endpoint(lineage):
    server = Server()
    export(lineage, "openlineage", "download@one", url=f"{server.url}/lineage/in?team=a")
    server.shutdown()
    assert {path for path, _, _ in server.got} == {"/lineage/in?team=a"}
    assert len(server.got) == 2


def test_a_server_that_refuses_or_is_not_there_is_told_in_a_line(lineage):
    server = Server(accepts=3)
    with pytest.raises(LineageError, match=r"took 3 of \d+ events, then failed \(status 422\); run it again"):
        export(lineage, "openlineage", url=server.url.replace("//", "//me:pass@"))
    server.shutdown()
    server.server_close()
    with pytest.raises(LineageError, match=r"took 0 of 2 events, then failed \(no answer\)") as caught:
        export(lineage, "openlineage", "download@one", url=server.url.replace("//", "//me:pass@"))
    assert "pass" not in str(caught.value)
    with pytest.raises(LineageError, match="is no http address"):
        export(lineage, "openlineage", url="localhost:5000")
    with pytest.raises(LineageError, match="takes the events of --format openlineage"):
        export(lineage, "croissant", "data/one/clips", url=server.url)


def test_repository_is_the_declared_url_else_origins_and_never_a_path_or_password(lineage, pipeline):
    project = pipeline.project
    assert repository_of(lineage) == ""
    for origin, wanted in (
        ("/some/where", ""),
        ("https://me:secret@example.org/p.git", "https://example.org/p.git"),
        ("git@example.org:team/p.git", "ssh://example.org/team/p.git"),
    ):
        project.git("remote", "add", "origin", origin)
        assert repository_of(lineage) == wanted
        project.git("remote", "remove", "origin")
    declared = project.root / "pyproject.toml"
    declared.write_text('[project]\nurls = {Repository = "https://example.org/declared"}\n')
    assert repository_of(lineage) == "https://example.org/declared"
    declared.unlink()


def test_asking_other_questions_does_not_load_the_client():
    code = (
        "import sys, flows.cli; print([m for m in sys.modules if m.startswith(('openlineage', 'requests', 'pyarrow'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=dict(os.environ), check=True
    )
    assert done.stdout.strip() == "[]"
