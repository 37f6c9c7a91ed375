"""An app with a door that asks for keys, and what clients do in front of it."""

from __future__ import annotations

import json
from typing import BinaryIO

from tests.e2e.conftest import Answer, Machine, parse

APP = """
import modal
from fastapi import Request

app = modal.App("{name}")

@app.function()
@modal.fastapi_endpoint(method="POST"{closed})
async def closed(request: Request):
    size = 0
    async for piece in request.stream():
        size += len(piece)
    return {{"size": size, "headers": dict(request.headers), "client": request.client.host}}

@app.function()
@modal.asgi_app()
def opened():
    from fastapi import FastAPI
    web = FastAPI()

    @web.get("/")
    def hello():
        return "hello"

    return web
"""
MISSING = (401, "modal-http: missing credentials for proxy authorization\n")
INVALID = (401, "modal-http: invalid credentials for proxy authorization\n")


def deploy(machine: Machine, name: str, *options: str, closed: bool = True) -> dict[str, str]:
    machine.write(f"{name}.py", APP.format(name=name, closed=", requires_proxy_auth=True" if closed else ""))
    return machine.deploy(f"{name}.py", *options)


def a_token(machine: Machine, *options: str) -> dict[str, str]:
    """A new proxy token, as the headers of a request."""
    made = json.loads(machine.run("proxy-token", "create", "--json", *options).stdout)
    assert set(made) == {"id", "secret"}
    assert made["id"].startswith("wk-")
    assert made["secret"].startswith("ws-")
    return {"Modal-Key": made["id"], "Modal-Secret": made["secret"]}


def bearer(token: dict[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {token['Modal-Key']}.{token['Modal-Secret']}"}


def post(machine: Machine, url: str, headers: dict[str, str] | None = None, body: bytes = b"{}") -> tuple[int, object]:
    answer = machine.request(url, "POST", body=body, headers=headers)
    return answer.status, answer.json if answer.status == 200 else answer.text


def read_answer(stream: BinaryIO) -> Answer:
    """One response with a Content-Length, from a connection that stays."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += stream.readline()
    body = stream.read(int(parse(head).headers["content-length"]))
    return parse(head + body)
