"""What a WSGI app gets to know about a request."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from portico.runtime.environ import make_environ


def environ_of(*headers: tuple[str, str], **more: Any) -> dict[str, Any]:
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "https",
        "raw_path": b"/a%20b",
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        "client": ("203.0.113.9", 4711),
        "server": None,
    } | more
    return make_environ(scope, io.BytesIO(b"x"), multithread=True)


def test_the_request_line_is_there() -> None:
    """Method, path, query and protocol."""
    environ = environ_of(method="POST", query_string=b"q=%C3%A9&x=\xe9")
    assert environ["REQUEST_METHOD"] == "POST"
    assert environ["SCRIPT_NAME"] == ""
    assert environ["PATH_INFO"] == "/a b"
    assert environ["QUERY_STRING"] == "q=%C3%A9&x=\xe9"
    assert environ["REQUEST_URI"] == environ["RAW_URI"] == "/a%20b?q=%C3%A9&x=\xe9"
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.1"


@pytest.mark.parametrize("raw", [b"/caf%C3%A9", b"/%FF%00%2F", b"/%zz"])
def test_a_path_is_bytes_as_latin_1(raw: bytes) -> None:
    """Also one that is not UTF-8, or not well escaped."""
    tunnelled = environ_of(raw_path=raw)["PATH_INFO"]
    assert (
        tunnelled.encode("latin-1")
        == {
            b"/caf%C3%A9": "/café".encode(),
            b"/%FF%00%2F": b"/\xff\x00/",
            b"/%zz": b"/%zz",
        }[raw]
    )


def test_the_client_is_the_real_one() -> None:
    """As the guard has learned it from the ingress."""
    environ = environ_of()
    assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == ("203.0.113.9", "4711")
    assert environ["wsgi.url_scheme"] == "https"


@pytest.mark.parametrize(
    ("host", "scheme", "name", "port"),
    [
        ("x.test", "http", "x.test", "80"),
        ("x.test", "https", "x.test", "443"),
        ("x.test:7777", "http", "x.test", "7777"),
        ("[::1]", "http", "[::1]", "80"),
        ("[::1]:7777", "http", "[::1]", "7777"),
        ("", "http", "localhost", "80"),
    ],
)
def test_the_server_is_who_the_client_asked_for(host: str, scheme: str, name: str, port: str) -> None:
    """Name and port come from the Host header."""
    environ = environ_of(("host", host), scheme=scheme)
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == (name, port)


def test_headers_are_joined() -> None:
    """With commas, and cookies with semicolons; two have names without HTTP_."""
    environ = environ_of(
        ("content-type", "text/plain"),
        ("content-length", "1"),
        ("accept", "a"),
        ("accept", "b"),
        ("cookie", "c=1"),
        ("cookie", "d=2"),
    )
    assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"]) == ("text/plain", "1")
    assert (environ["HTTP_ACCEPT"], environ["HTTP_COOKIE"]) == ("a,b", "c=1; d=2")
    assert "HTTP_CONTENT_TYPE" not in environ


def test_a_header_with_an_underscore_forges_nothing() -> None:
    """It is dropped: in the environ it would look like another one."""
    assert environ_of(("x-user", "ann"), ("x_user", "root"))["HTTP_X_USER"] == "ann"
    assert "HTTP_X_USER" not in environ_of(("x_user", "root"))


def test_the_rest_is_what_the_standard_asks_for() -> None:
    """PEP 3333, and the word that the input ends by itself."""
    environ = environ_of()
    assert environ["wsgi.version"] == (1, 0)
    assert environ["wsgi.errors"] is sys.stderr
    assert environ["wsgi.input"].read() == b"x"
    assert environ["wsgi.input_terminated"] is True
    assert [environ[f"wsgi.{key}"] for key in ("multithread", "multiprocess", "run_once")] == [True, True, False]
