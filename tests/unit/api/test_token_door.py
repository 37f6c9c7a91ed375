"""What the public door shows of the control API."""

from __future__ import annotations

import http.client
import re
import socket
from pathlib import Path

import msgspec
import pytest
from starlette.routing import Route

from portico.api.app import make_app
from portico.api.fake import FakeServices
from portico.wire.control import Problem, TokenInfo
from tests.unit.api.conftest import INFO

DOUBLE = FakeServices(INFO)
APP = make_app(*[DOUBLE] * 9)
ROUTES = [
    (method, re.sub(r"\{\w+\}", "x", route.path))
    for route in APP.routes
    if isinstance(route, Route)
    for method in sorted(route.methods or ())
]
CALLS = [("POST", "/v1/calls/"), ("GET", "/v1/calls/x")]  # they are no routes of the API, and pass the same door


def test_all_routes_are_known_here() -> None:
    """None of them is of a kind that the list above leaves out."""
    assert len({target for _, target in ROUTES}) == len({route.path for route in APP.routes}) > 20


def connect(path: Path) -> http.client.HTTPConnection:
    """A connection to the Unix socket behind the public door."""
    connection = http.client.HTTPConnection("localhost", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(path))
    return connection


def ask(path: Path, method: str, target: str, authorization: str | None = None) -> http.client.HTTPResponse:
    """One request."""
    connection = connect(path)
    headers = {} if authorization is None else {"Authorization": authorization}
    connection.request(method, target, headers=headers)
    return connection.getresponse()


@pytest.mark.parametrize(("method", "target"), ROUTES + CALLS)
def test_every_route_refuses_without_a_token(
    public_socket: Path, services: FakeServices, method: str, target: str
) -> None:
    """And does nothing."""
    response = ask(public_socket, method, target)
    assert response.status == 401
    assert response.getheader("www-authenticate") == "Bearer"
    if method != "HEAD":
        assert msgspec.json.decode(response.read(), type=Problem).code == "unauthorized"
    assert services.calls == []


@pytest.mark.parametrize(
    ("method", "target"), [(m, t) for m, t in ROUTES if not re.match(r"/v1/(blobs|server$|openapi)", t)]
)
def test_a_token_for_one_environment_opens_none_of_the_others(
    public_socket: Path, services: FakeServices, method: str, target: str
) -> None:
    """What is not about its environment answers 403, and does nothing."""
    services.issued["ak-1"] = TokenInfo(id="ak-1", name="one", environment="staging", created_at=0.0)
    response = ask(public_socket, method, target, "Bearer ak-1.as-ak-1")
    assert response.status == 403
    assert services.calls == []


def test_health_needs_no_token(public_socket: Path) -> None:
    """A monitor may ask."""
    response = ask(public_socket, "GET", "/healthz")
    assert (response.status, response.read()) == (200, b"ok\n")


def test_a_token_opens_the_api(public_socket: Path, services: FakeServices) -> None:
    """What then runs, runs on its behalf."""
    services.issued["ak-1"] = TokenInfo(id="ak-1", name="one", environment=None, created_at=0.0)
    assert ask(public_socket, "GET", "/v1/server", "Bearer ak-1.as-ak-1").status == 200
    assert services.calls == ["used ak-1"]


# -- browsers ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://acme--app-f.localhost"}, 403),
        ({"Origin": "http://localhost:8080"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_pages_of_other_sites_are_refused_with_a_token_too(
    public_socket: Path, services: FakeServices, headers: dict[str, str], status: int
) -> None:
    """Also those that endpoints of this server have made; nothing says that a browser may read the answer."""
    services.issued["ak-1"] = TokenInfo(id="ak-1", name="one", environment=None, created_at=0.0)
    connection = connect(public_socket)
    connection.request("GET", "/v1/server", headers={"Authorization": "Bearer ak-1.as-ak-1", **headers})
    response = connection.getresponse()
    assert response.status == status
    assert response.getheader("access-control-allow-origin") is None


def test_a_preflight_is_refused(public_socket: Path) -> None:
    """So that browsers do not even send what a page of another site asks for."""
    connection = connect(public_socket)
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    connection.request("OPTIONS", "/v1/deployments", headers=asked)
    assert connection.getresponse().status == 403


def test_a_domain_is_registered_on_behalf_of_a_token(public_socket: Path, services: FakeServices) -> None:
    """By its name, which the list then shows."""
    services.issued["ak-1"] = TokenInfo(id="ak-1", name="laptop", environment=None, created_at=0.0)
    connection = connect(public_socket)
    headers = {"Authorization": "Bearer ak-1.as-ak-1"}
    connection.request("POST", "/v1/domains", body=b'{"name": "api.example.com"}', headers=headers)
    assert connection.getresponse().status == 200
    assert services.named["api.example.com"].created_by == "token laptop"
