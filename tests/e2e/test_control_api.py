"""The control API as strangers find it: on the public port of a real server."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.e2e.conftest import Machine

ANYTHING = "x"


@pytest.fixture(scope="module")
def token(shared: Machine) -> str:
    """A token for all of it."""
    made = json.loads(shared.run("token", "new", "--name", "all", "--json").stdout)
    return f"{made['id']}.{made['secret']}"


@pytest.fixture(scope="module")
def base(shared: Machine) -> str:
    return f"http://127.0.0.1:{shared.port}"


@pytest.fixture(scope="module")
def document(shared: Machine, token: str, base: str) -> dict:
    """What the server says of its API."""
    answer = shared.request(f"{base}/v1/openapi.json", headers={"Authorization": f"Bearer {token}"})
    assert answer.status == 200
    return msgspec.json.decode(answer.body)


def operations(document: dict) -> Iterator[tuple[str, str]]:
    for path, item in document["paths"].items():
        for method in item:
            yield method.upper(), re.sub(r"{\w+}", ANYTHING, path)


@pytest.mark.parametrize("authorization", [None, "Bearer ak-x.as-x", "Bearer", "Basic YTpi", "Bearer wk-1.ws-1"])
def test_no_operation_works_without_a_token(
    shared: Machine, base: str, document: dict, authorization: str | None
) -> None:
    """Not one of all, and the server goes on."""
    headers = {} if authorization is None else {"Authorization": authorization}
    seen = {
        (method, path, shared.request(f"{base}{path}", method, body=b"{}", headers=headers).status)
        for method, path in operations(document)
    }
    assert len(seen) > 25
    assert {status for _, _, status in seen} == {401}
    assert shared.request(f"{base}/v1/calls/", headers=headers).status == 401


@pytest.mark.parametrize("host", ["rebound.example", "127.0.0.1.evil.example", "localhost.evil.example"])
def test_a_name_that_somebody_else_owns_does_not_lead_to_it(shared: Machine, host: str, token: str) -> None:
    """A page whose name begins to mean this machine (DNS rebinding) finds nothing here."""
    head = f"GET /v1/server HTTP/1.1\r\nHost: {host}:{shared.port}\r\nAuthorization: Bearer {token}\r\n"
    assert shared.raw(f"{head}Connection: close\r\n\r\n".encode()).startswith(b"HTTP/1.1 404 ")


def test_whatever_is_asked_within_its_schema_or_outside_it_never_fails(shared: Machine, base: str, token: str) -> None:
    """Documents of all shapes: no answer is a 5xx. Not asked: what ends the server, and what answers without end."""
    command = [str(Path(sys.executable).parent / "st"), "run", f"{base}/v1/openapi.json"]
    command += ["-H", f"Authorization: Bearer {token}", "--checks", "not_a_server_error", "--request-timeout", "10"]
    command += ["--phases", "fuzzing", "--max-examples", "5", "--suppress-health-check", "all", "--warnings", "off"]
    command += ["--exclude-path", "/v1/server/stop", "--exclude-path", "/v1/ephemeral"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=shared.folder, timeout=100, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "operations" in done.stdout.lower()
    assert shared.request(f"{base}/healthz").status == 200
