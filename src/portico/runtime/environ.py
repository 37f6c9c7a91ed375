"""What a WSGI app gets to know about a request."""

from __future__ import annotations

import io
import sys
from typing import Any
from urllib.parse import unquote_to_bytes

from portico.runtime.asgi import Scope


def make_environ(scope: Scope, body: io.BufferedIOBase, *, multithread: bool) -> dict[str, Any]:
    """The environ of PEP 3333 for an ASGI scope of HTTP. Text in it is bytes, read as Latin-1."""
    query = scope["query_string"].decode("latin-1")
    path = scope["raw_path"].decode("latin-1")
    host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
    name, port = _split_host(host, scope["scheme"])
    client = scope.get("client") or ("", "")
    environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": scope.get("root_path", "").encode().decode("latin-1"),
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "REQUEST_URI": f"{path}?{query}" if query else path,
        "RAW_URI": f"{path}?{query}" if query else path,
        "SERVER_NAME": name,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "SERVER_SOFTWARE": "Portico",
        "REMOTE_ADDR": str(client[0]),
        "REMOTE_PORT": str(client[1]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": multithread,
        "wsgi.multiprocess": True,  # there may be several containers
        "wsgi.run_once": False,
        "wsgi.input": body,
        "wsgi.input_terminated": True,  # so that Flask reads bodies without a Content-Length
    }
    for key, value in scope["headers"]:
        _add_header(environ, key.decode("latin-1"), value.decode("latin-1"))
    return environ


def _add_header(environ: dict[str, Any], name: str, value: str) -> None:
    if "_" in name:
        return  # as HTTP_… it could not be told from the one with a "-", and so forge it
    key = name.upper().replace("-", "_")
    if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        key = f"HTTP_{key}"
    if key in environ:
        separator = "; " if key == "HTTP_COOKIE" else ","
        value = f"{environ[key]}{separator}{value}"
    environ[key] = value


def _split_host(host: str, scheme: str) -> tuple[str, str]:
    """Name and port of a Host header."""
    name, colon, port = host.rpartition(":")
    if not colon or not port.isdecimal():
        name, port = host, "443" if scheme == "https" else "80"
    return name or "localhost", port
