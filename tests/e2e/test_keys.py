"""Keys in front of every kind of endpoint: who has none is refused, and no user code ever sees one."""

from __future__ import annotations

import json

import pytest

from tests.e2e.access import INVALID, MISSING, a_token, bearer
from tests.e2e.conftest import Answer, Machine, parse

APP = """
import json
import modal
from fastapi import Request

app = modal.App("kinds")


async def asgi_app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    seen = [(name.decode(), value.decode()) for name, value in scope["headers"]]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(seen).encode()})


def wsgi_app(environ, start_response):
    seen = [(name[5:].replace("_", "-"), value) for name, value in environ.items() if name.startswith("HTTP_")]
    start_response("200 OK", [])
    return [json.dumps(seen).encode()]


def start_program():
    import http.server, threading

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(list(self.headers.items())).encode())

    server = http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Handler)
    threading.Thread(target=server.serve_forever).start()


@app.function()
@modal.fastapi_endpoint(requires_proxy_auth=True)
def endpoint(request: Request):
    return list(request.headers.items())


@app.function()
@modal.asgi_app(requires_proxy_auth=True)
def asgi():
    return asgi_app


@app.function()
@modal.wsgi_app(requires_proxy_auth=True)
def wsgi():
    return wsgi_app


@app.function()
@modal.web_server(8000, startup_timeout=30, requires_proxy_auth=True)
def program():
    start_program()


@app.cls()
class Methods:
    @modal.fastapi_endpoint(requires_proxy_auth=True)
    def endpoint(self, request: Request):
        return list(request.headers.items())

    @modal.asgi_app(requires_proxy_auth=True)
    def asgi(self):
        return asgi_app

    @modal.wsgi_app(requires_proxy_auth=True)
    def wsgi(self):
        return wsgi_app


@app.cls()
class Program:
    @modal.web_server(8000, startup_timeout=30, requires_proxy_auth=True)
    def program(self):
        start_program()
"""
KINDS = (
    *("endpoint", "asgi", "wsgi", "program"),
    *("Methods.endpoint", "Methods.asgi", "Methods.wsgi", "Program.program"),
)
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.fixture(scope="module")
def urls(shared: Machine) -> dict[str, str]:
    """The URL of an endpoint of each kind."""
    shared.write("kinds.py", APP)
    return shared.deploy("kinds.py")


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_asks_for_a_token(shared: Machine, urls: dict[str, str], kind: str) -> None:
    """A request, and one that wants to become a WebSocket."""
    for headers, refusal in (({}, MISSING), ({"Modal-Key": "wk-x", "Modal-Secret": "ws-x"}, INVALID)):
        refused = shared.request(urls[kind], headers=headers)
        assert (refused.status, refused.text) == refusal
        assert open_socket(shared, urls[kind], headers).status == 401


@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_sees_the_token(shared: Machine, urls: dict[str, str], kind: str) -> None:
    """In either form, both at once, or in whatever case; what else the client says arrives."""
    token = a_token(shared)
    forms = [
        token | {"Authorization": "Basic b3du"},
        bearer(token),
        token | bearer(token),
        {name.upper(): value for name, value in token.items()},
    ]
    for form in forms:
        answer = shared.request(urls[kind], headers=form | {"X-Own": "stays"})
        assert answer.status == 200
        assert not [part for part in ("wk-", "ws-", *token.values()) if part in answer.text]
        seen = {name.lower(): value for name, value in json.loads(answer.text)}
        assert seen["x-own"] == "stays"
        assert not {"modal-key", "modal-secret"} & set(seen)
        assert seen.get("authorization") == ("Basic b3du" if form is forms[0] else None)


def open_socket(machine: Machine, url: str, headers: dict[str, str]) -> Answer:
    """What a client hears that wants to open a WebSocket and is refused."""
    lines = [f"{name}: {value}" for name, value in (UPGRADE | headers | {"Host": url.partition("//")[2]}).items()]
    return parse(machine.raw("\r\n".join(["GET / HTTP/1.1", *lines, "", ""]).encode()))
