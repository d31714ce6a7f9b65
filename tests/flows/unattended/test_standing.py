"""The standing server: loopback or authentication, kept alive; what the deployments' file says."""

import base64
import re
import signal
import urllib.error
import urllib.request

import psutil
import pytest
from ruamel.yaml import YAML

from flows.unattended.doctor import DEPLOYMENTS
from flows.unattended.standing import keep_server
from tasks.errors import ParamsError
from tests.sandbox import ROOT, Sandbox


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "gpu-box"])  # noqa: S104
def test_shared_address_without_authentication_is_refused(host, monkeypatch):
    monkeypatch.delenv("PREFECT_SERVER_API_AUTH_STRING", raising=False)
    with pytest.raises(ParamsError, match=r"set PREFECT_SERVER_API_AUTH_STRING=user:password"):
        keep_server(host, 0)


def ask(url: str, credentials: str = "") -> int:
    request = urllib.request.Request(url)
    if credentials:
        request.add_header("Authorization", "Basic " + base64.b64encode(credentials.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=600) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_server_listens_on_loopback_asks_for_the_password_and_comes_back(tmp_path):
    sandbox = Sandbox(ROOT, {
        "PREFECT_SERVER_API_AUTH_STRING": "admin:s3cret",
        "PREFECT_HOME": str(tmp_path),
        "PYTHONUNBUFFERED": "1",
    })  # fmt: skip
    keeper = sandbox.start("inbetween", "server", "--port", "0")
    try:
        address = re.match(r"server: (http://127\.0\.0\.1:(\d+));", keeper.stdout.readline())
        version, port = f"{address[1]}/api/admin/version", int(address[2])
        # The keeper holds the socket: a client that comes early waits.
        assert ask(version) == 401
        assert ask(version, "admin:wrong") == 401
        assert ask(version, "admin:s3cret") == 200
        server = psutil.Process(keeper.pid).children()[0]
        listening = [c.laddr for c in server.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert [(place.ip, place.port) for place in listening] == [("127.0.0.1", port)]
        assert "s3cret" not in " ".join(server.cmdline())
        server.kill()
        assert keeper.stdout.readline() == "server: ended with -9; again in 2 s\n"
        assert ask(version, "admin:s3cret") == 200
    finally:
        keeper.send_signal(signal.SIGTERM)
        assert keeper.wait(60) == 0
    assert not psutil.pid_exists(server.pid)


def test_deployments_are_those_that_the_doctor_looks_for():
    content = YAML(typ="safe").load((ROOT / "prefect.yaml").read_text())
    found = []
    for one in content["deployments"]:
        module, _, function = one["entrypoint"].rpartition(".")
        source = (ROOT / (module.replace(".", "/") + ".py")).read_text()
        name = re.search(rf'@flow\(name="(\w+)"[^\n]*\ndef {function}\(', source)[1]
        found.append(f"{name}/{one['name']}")
        assert one["enforce_parameter_schema"] is True
    assert tuple(found) == DEPLOYMENTS


def test_wrong_parameter_is_refused_by_the_schema_that_the_server_holds():
    """What the server does with a run's parameters, with its own function."""
    code = (
        "import json\n"
        "from prefect.utilities.schema_tools import validate\n"
        "from prefect.utilities.callables import parameter_schema\n"
        "from flows.unattended.ingest import ingest\n"
        "schema = parameter_schema(ingest.fn).model_dump_for_openapi()\n"
        "clip = {'clip': 'c', 'video': 'v', 'split': 'test', 'first': 0, 'last': 9, 'width': 64, 'height': 64}\n"
        "video = {'video': 'v', 'source': 'file:/v', 'licence': 'L'}\n"
        "good = {'name': 'b', 'videos': [video], 'clips': [clip], 'key_steps': [8]}\n"
        "def ask(**change):\n"
        "    try: validate({'batch': {**good, **change}}, schema, raise_on_error=True)\n"
        "    except Exception as error: return str(error)\n"
        "    return ''\n"
        "print(json.dumps([ask(), ask(videos=[]), ask(name='../b'), ask(clips=[{**clip, 'split': 'x'}]), ask(hue=1)]))"
    )
    import json

    fine, videos, name, split, unknown = json.loads(Sandbox(ROOT).run("python", "-c", code).stdout)
    assert fine == ""
    assert "batch.videos" in videos
    assert "batch.name" in name
    assert "batch.clips" in split and "split" in split  # noqa: PT018
    assert "hue" in unknown
