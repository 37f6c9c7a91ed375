"""The control API as strangers find it: on the public port of a real server."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.e2e.conftest import PATIENCE, Machine
from tests.unit.api.test_control_api import SPEC

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
    """Documents of all shapes: no answer is a 5xx. Not here: what ends the server, and what answers without end."""
    command = [str(Path(sys.executable).parent / "st"), "run", f"{base}/v1/openapi.json"]
    command += ["-H", f"Authorization: Bearer {token}", "--checks", "not_a_server_error", "--request-timeout", "10"]
    command += ["--phases", "fuzzing", "--max-examples", "5", "--suppress-health-check", "all", "--warnings", "off"]
    command += ["--exclude-path", "/v1/server/stop", "--exclude-path", "/v1/ephemeral"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=shared.folder, timeout=100, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "operations" in done.stdout.lower()
    assert shared.request(f"{base}/healthz").status == 200


# -- what answers without end -----------------------------------------------------------------------------------------
SERVED = {
    "spec": msgspec.to_builtins(SPEC),
    "bundle": {"files": []},
    "name": "odd",
    "dev_suffix": "dev",
    "rouse": False,
}
STRANGE = (None, True, 0, -1, 2**70, 1e300, "", "x" * 10_000, "\0\ud7ff", "../..", [], [None], {}, {"": {}})


def variants(value: object) -> Iterator[object]:
    """The document with something strange in each place, and without each of its parts."""
    yield from STRANGE
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {other: each for other, each in value.items() if other != key}
            yield from ({**value, key: each} for each in variants(inner))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from ([*value[:at], each, *value[at + 1 :]] for each in variants(inner))


def status(machine: Machine, head: str, body: bytes) -> int:
    """The status of an answer that may have no end."""
    with socket.create_connection(("127.0.0.1", machine.port), timeout=PATIENCE) as connection:
        connection.sendall(f"{head}Host: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        with connection.makefile("rb") as answer:
            return int(answer.readline().split()[1])


@pytest.mark.parametrize("path", ["/v1/ephemeral", "/v1/ephemeral/ap-x/reload"])
def test_an_app_that_is_to_be_served_may_be_described_as_one_likes(shared: Machine, token: str, path: str) -> None:
    """A part that is missing, strange, or of another type: 4xx, or what has been understood."""
    head = f"POST {path} HTTP/1.1\r\nAuthorization: Bearer {token}\r\n"
    bodies = [json.dumps(each).encode() for each in variants(SERVED)]
    assert len(bodies) > 200
    bodies += [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b'"' + b"x" * 100_000, b"1" * 100_000]
    seen = {body[:200]: status(shared, head, body) for body in bodies}
    assert {body: code for body, code in seen.items() if not 200 <= code < 500} == {}
    assert 400 in seen.values()


def test_what_is_too_large_is_refused_before_it_has_come(shared: Machine, token: str) -> None:
    """By what its head says, or when it has gone too far."""
    head = f"POST /v1/ephemeral HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
    declared = shared.raw(f"{head}Content-Length: {1 << 40}\r\n\r\n".encode())
    assert declared.startswith(b"HTTP/1.1 400 ")
    chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    assert shared.raw(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk * 65).startswith(b"HTTP/1.1 400 ")


# -- what ends the server ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("method", "lines", "expected"),
    [
        *((method, "", 405) for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS")),
        ("POST", "Origin: http://evil.example\r\n", 403),
        ("POST", "Sec-Fetch-Site: cross-site\r\n", 403),
    ],
)
def test_what_is_no_proper_wish_for_its_end_leaves_the_server(
    shared: Machine, token: str, method: str, lines: str, expected: int
) -> None:
    """Another method, or another site's page."""
    head = f"{method} /v1/server/stop HTTP/1.1\r\nAuthorization: Bearer {token}\r\n{lines}"
    assert status(shared, head, b"{}") == expected
    assert shared.request(f"http://127.0.0.1:{shared.port}/healthz").status == 200


def test_the_server_ends_in_good_order_whatever_comes_with_the_wish(machine: Machine) -> None:
    """A body of a megabyte that is no document; a token for one environment only may not."""
    server = machine.up()
    for options, expected in ((["--env", "main"], 403), ([], 202)):
        made = json.loads(machine.run("token", "new", "--json", *options).stdout)
        head = f"POST /v1/server/stop HTTP/1.1\r\nAuthorization: Bearer {made['id']}.{made['secret']}\r\n"
        assert status(machine, head, b"\xff" * (1 << 20)) == expected
    assert server.popen.wait(PATIENCE) == 0
