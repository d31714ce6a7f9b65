"""Secrets are planted wherever a user may have some; a batch lands and another fails; then every file is searched."""

import subprocess
import uuid

import pytest

from tests.sandbox import needs_footage
from tests.unattended import Machine, describe_batch, make_checkout, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900), needs_footage]

# Other ones each time: this file is in every clone.
PASSWORD, HOOK, STORE, CLOUD_KEY, LINEAGE_KEY = SECRETS = [uuid.uuid4().hex for _ in range(5)]
CONFIG = ".dvc/config.local"  # where DVC keeps them: git ignores it, and clones of ours have it for their owner alone


def test_no_secret_is_written_anywhere_but_where_the_user_put_it(tmp_path):
    sandbox = make_checkout(tmp_path)
    sandbox.env |= {
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "false",
        "PREFECT_SERVER_API_AUTH_STRING": f"admin:{PASSWORD}",
        "PREFECT_API_AUTH_STRING": f"admin:{PASSWORD}",
        "AWS_SECRET_ACCESS_KEY": CLOUD_KEY,
        "OPENLINEAGE_API_KEY": LINEAGE_KEY,
    }
    sandbox.run("dvc", "remote", "add", "-q", "--local", "web", "http://127.0.0.1:9/x")
    sandbox.run("dvc", "remote", "modify", "-q", "--local", "web", "password", STORE)
    machine = Machine(sandbox, hook_path=HOOK)
    machine.start()
    try:
        lost = describe_batch("b2", first=40)
        lost["videos"][0]["source"] = "file:/nowhere/gone.mp4"
        for batch in (describe_batch("b1"), lost):
            machine.register(batch)
        wait_for(lambda: machine.state("render-b1") == "Completed", every=2)
        wait_for(lambda: any(call["run"] == "ingest-b2" for call in machine.calls))
        sandbox.run("inbetween", "doctor", check=False)
        artifacts = str(machine.ask("artifacts/filter", {}))
    finally:
        machine.stop()
    assert not [secret for secret in SECRETS if secret in artifacts]
    found, looked_into = set(), 0
    for path in tmp_path.rglob("*"):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            looked_into += 1
            found |= {(path.relative_to(tmp_path).as_posix(), secret) for secret in SECRETS if secret.encode() in data}
            if path.as_posix().endswith(CONFIG) and ".inbetween/clones" in path.as_posix():
                assert path.stat().st_mode & 0o077 == 0
    assert {secret for name, secret in found if not name.endswith(CONFIG)} == set(), found
    assert ("checkout/" + CONFIG, STORE) in found  # the search finds what is there
    assert looked_into > 100
    history = ["git", "--git-dir", str(tmp_path / "origin.git"), "log", "-p", "--all"]
    text = subprocess.run(history, capture_output=True, check=True).stdout
    assert b"Batch b1: 1 video" in text
    assert not [secret for secret in SECRETS if secret.encode() in text]
