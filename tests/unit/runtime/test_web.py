"""The builders: from a function with a web decorator to an ASGI app."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from portico.model.errors import InvalidError
from portico.model.spec import FunctionSpec, WebKind, WebSpec
from portico.runtime.asgi import Message
from portico.runtime.calls import Called
from portico.runtime.web import build


def a_spec(kind: WebKind = WebKind.FASTAPI_ENDPOINT, **more: Any) -> FunctionSpec:
    return FunctionSpec(name="f", module="m", qualname="f", web=WebSpec(kind=kind, **more))


async def square(x: int) -> dict[str, int]:
    return {"square": x**2}


async def ask(spec: FunctionSpec, method: str, path: str, query: str = "", **headers: str) -> tuple[int, dict, bytes]:
    """One request straight to the app that `square` becomes."""
    sent: list[Message] = []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        "client": ("203.0.113.9", 1),
        "server": ("x", 80),
        "state": {},
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await build(spec, square).app(scope, receive, send)
    answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], answered, b"".join(message["body"] for message in sent[1:])


async def test_a_function_answers_at_the_root() -> None:
    """The route is "/", with the query as arguments."""
    status, _, body = await ask(a_spec(), "GET", "/", "x=7")
    assert (status, body) == (200, b'{"square":49}')


async def test_only_the_root_and_the_given_method_exist() -> None:
    """Another path is 404, another method is 405."""
    assert (await ask(a_spec(), "GET", "/x"))[0] == 404
    assert (await ask(a_spec(), "POST", "/", "x=1"))[0] == 405
    assert (await ask(a_spec(method="POST"), "POST", "/", "x=1"))[0] == 200


async def test_a_bad_argument_is_fastapis_422() -> None:
    """Validation errors are FastAPI's own."""
    status, _, body = await ask(a_spec(), "GET", "/", "x=seven")
    assert status == 422
    assert b"int_parsing" in body


async def test_cors_is_open_with_credentials() -> None:
    """A browser on any page may call an endpoint, and read its answer."""
    _, headers, _ = await ask(a_spec(), "GET", "/", "x=1", origin="https://example.com", cookie="a=b")
    assert headers["access-control-allow-origin"] == "https://example.com"
    assert headers["access-control-allow-credentials"] == "true"
    asked = {"origin": "https://example.com", "access_control_request_method": "DELETE"}
    status, headers, _ = await ask(a_spec(), "OPTIONS", "/", **asked)
    assert status == 200
    assert "DELETE" in headers["access-control-allow-methods"]


async def test_there_are_docs_only_on_request() -> None:
    """/docs and /openapi.json exist with docs=True, and not otherwise."""
    for path in ("/docs", "/openapi.json"):
        assert (await ask(a_spec(), "GET", path))[0] == 404
        assert (await ask(a_spec(docs=True), "GET", path))[0] == 200


def test_an_image_without_fastapi_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the line to add."""
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(InvalidError, match=r'\.pip_install\("fastapi\[standard\]"\)'):
        build(a_spec(), square)


def test_an_asgi_function_is_called_once_for_its_app() -> None:
    """What it returns is served as it is, with its lifespan."""

    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    endpoint = build(a_spec(WebKind.ASGI_APP), lambda: app)
    assert endpoint.app is app
    assert endpoint.lifespan


def test_an_asgi_function_that_returns_no_app_is_refused() -> None:
    """The error says what came instead."""
    with pytest.raises(InvalidError, match="not NoneType"):
        build(a_spec(WebKind.ASGI_APP), lambda: None)


def test_a_wsgi_function_is_called_once_for_its_app() -> None:
    """What it returns is run below ASGI; it has no lifespan."""
    calls: list[int] = []
    endpoint = build(a_spec(WebKind.WSGI_APP), lambda: calls.append(1) or (lambda environ, start_response: []))
    assert (calls, endpoint.lifespan, endpoint.tunnels) == ([1], False, True)


def test_a_wsgi_function_that_returns_no_app_is_refused() -> None:
    """The error says what came instead."""
    with pytest.raises(InvalidError, match="a WSGI app, not NoneType"):
        build(a_spec(WebKind.WSGI_APP), lambda: None)


def test_a_function_without_a_web_decorator_is_there_to_be_called() -> None:
    """It has no lifespan, and an app that takes calls."""
    endpoint = build(FunctionSpec(name="f", module="m", qualname="f"), square)
    assert isinstance(endpoint.app, Called)
    assert not endpoint.lifespan
