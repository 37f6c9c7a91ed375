"""Whoever is no page of another site gets what Starlette would say, by a shorter way."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.middleware.cors import CORSMiddleware

from portico.runtime.asgi import App, Message, Receive, Scope, Send
from portico.runtime.cors import Cors


async def sent(app: App, method: str, headers: list[tuple[bytes, bytes]]) -> list[Any]:
    """What comes of one request; headers by their names, since their order means nothing."""
    messages: list[Any] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if "headers" in message:
            message = {**message, "headers": sorted(message["headers"])}
        messages.append(message)

    await app({"type": "http", "method": method, "path": "/", "headers": headers}, receive, send)
    return messages


def answering(headers: list[tuple[bytes, bytes]]) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
        await send({"type": "http.response.body", "body": b"x"})

    return app


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
@pytest.mark.parametrize(
    "asked",
    [
        [],
        [(b"origin", b"https://a.test")],
        [(b"origin", b"https://a.test"), (b"access-control-request-method", b"PUT")],
        [(b"access-control-request-method", b"PUT")],
        [(b"cookie", b"a=b")],
    ],
)
@pytest.mark.parametrize("answered", [[], [(b"vary", b"Accept")], [(b"vary", b"A"), (b"b", b"c"), (b"vary", b"D")]])
async def test_the_answer_is_starlettes(method: str, asked: Any, answered: Any) -> None:
    """With Origin and without, for preflights, and for responses that vary already."""
    app = answering(answered)
    starlettes = CORSMiddleware(
        app, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"], allow_credentials=True
    )
    assert await sent(Cors(app), method, asked) == await sent(starlettes, method, asked)


async def test_a_response_that_is_sent_again_stays_as_it_is() -> None:
    """Its headers are its own."""
    headers: list[tuple[bytes, bytes]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body"})

    for _ in range(2):
        assert (await sent(Cors(app), "GET", []))[0]["headers"] == [(b"vary", b"Origin")]
    assert headers == []
