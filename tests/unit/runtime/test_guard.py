"""The guard, with a server below it that writes down what it gets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from portico.runtime.asgi import App, Message, Receive, Scope, Send
from portico.runtime.guard import AlreadyLogged, Guard

HELD = (b"x-portico-held", b"1")
START = {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}


@dataclass
class Below:
    """What the server sees of one request."""

    sent: list[Message] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        self.news.set()

    async def receive(self) -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    @property
    def kinds(self) -> list[str]:
        return [message["type"].rpartition(".")[2] for message in self.sent]

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def held(self) -> bool:
        return HELD in self.sent[0]["headers"]


def a_scope(input_id: str = "in-1", kind: str = "http", client: str = "203.0.113.9 4711 https") -> dict[str, Any]:
    headers = [(b"x-portico-input", f"{input_id} {client}".encode()), (b"host", b"x")]
    return {"type": kind, "method": "GET", "path": "/p", "scheme": "http", "client": None, "headers": headers}


def body(data: bytes = b"", more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def guarded(app: App, **more: Any) -> tuple[Guard, list[str]]:
    done: list[str] = []
    guard = Guard(app, done=done.append, explain=lambda error: (f"{type(error).__name__}: {error}", "TRACE"), **more)
    return guard, done


def sending(*messages: Message, then: Callable[[], Any] | None = None) -> App:
    """An app that sends these messages, and then awaits or raises."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        if then is not None:
            await then()

    return app


async def test_the_ingress_headers_become_what_they_say() -> None:
    """The app sees the client's address, the scheme and the request's id, and not the header that had them."""
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    guard, _ = guarded(app)
    below = Below()
    await guard(a_scope(client="2001:db8::1 80 https"), below.receive, below.send)
    assert seen[0]["client"] == ("2001:db8::1", 80)
    assert seen[0]["scheme"] == "https"
    assert seen[0]["headers"] == [(b"x-request-id", b"in-1"), (b"host", b"x")]


async def test_a_websocket_has_a_scheme_of_its_own() -> None:
    """https becomes wss."""
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["scheme"])

    guard, _ = guarded(app)
    below = Below()
    await guard(a_scope(kind="websocket"), below.receive, below.send)
    assert seen == ["wss"]


async def test_a_request_without_the_headers_is_served_as_it_is() -> None:
    """Only the ingress's own headers, in their places, are taken for them."""
    guard, done = guarded(sending(START, body(b"x", more=True), body()))
    scope = a_scope()
    scope["headers"].reverse()
    below = Below()
    await guard(scope, below.receive, below.send)
    assert len(scope["headers"]) == 2
    assert (below.kinds, done) == (["start", "body", "body"], [])


async def test_an_answer_that_ends_with_its_input_is_not_held() -> None:
    """A plain response passes unchanged, and nothing else is said."""
    guard, done = guarded(sending(START, body(b"hello")))
    below = Below()
    await guard(a_scope(), below.receive, below.send)
    assert below.sent == [START, body(b"hello")]
    assert done == []


async def test_an_app_that_goes_on_after_its_answer_holds_its_input() -> None:
    """The response is on its way as soon as the app waits for something else; Done comes when it returns."""
    release = asyncio.Event()
    guard, done = guarded(sending(START, body(b"hello"), then=release.wait))
    below = Below()
    running = asyncio.create_task(guard(a_scope(), below.receive, below.send))
    await below.news.wait()
    assert below.held
    assert done == []
    release.set()
    await running
    assert below.kinds == ["start", "body"]
    assert done == ["in-1"]


async def test_a_head_does_not_wait_for_its_body() -> None:
    """A streaming response whose first part takes its time is begun at once."""
    release = asyncio.Event()
    guard, done = guarded(sending(START, then=release.wait))
    below = Below()
    running = asyncio.create_task(guard(a_scope(), below.receive, below.send))
    await below.news.wait()
    assert (below.kinds, below.held) == (["start"], True)
    release.set()
    await running
    assert done == ["in-1"]


async def test_a_streaming_answer_is_held_from_its_start() -> None:
    """Its parts pass one by one, in order."""
    guard, done = guarded(sending(START, body(b"1", more=True), body(b"2", more=True), body()))
    below = Below()
    await guard(a_scope(), below.receive, below.send)
    assert below.held
    assert [message["body"] for message in below.sent[1:]] == [b"1", b"2", b""]
    assert done == ["in-1"]


async def test_parts_keep_their_order_behind_a_slow_client() -> None:
    """A part that another task of the app sends while the head still waits for the client comes after it."""
    gate = asyncio.Event()
    below = Below()

    async def slow_send(message: Message) -> None:
        await gate.wait()
        await below.send(message)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def parts() -> None:
            await send(body(b"1", more=True))
            await send(body(b"2"))

        await send(START)
        sending_parts = asyncio.create_task(parts())
        asyncio.get_running_loop().call_soon(gate.set)
        await sending_parts

    guard, _ = guarded(app)
    await guard(a_scope(), below.receive, slow_send)
    assert [message.get("body") for message in below.sent] == [None, b"1", b"2"]


async def test_what_another_task_of_the_app_sends_is_held() -> None:
    """The app has not returned while it waits for its tasks."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.create_task(sending(START, body(b"hello"))(scope, receive, send))

    guard, done = guarded(app)
    below = Below()
    await guard(a_scope(), below.receive, below.send)
    assert (below.held, below.kinds, done) == (True, ["start", "body"], ["in-1"])


async def test_a_send_that_fails_is_the_apps_to_handle() -> None:
    """An error of the server below is raised in the app, as without a guard."""
    handled: list[str] = []

    async def failing_send(message: Message) -> None:
        raise RuntimeError("not a header")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        try:
            await asyncio.Event().wait()
        except RuntimeError as error:
            handled.append(str(error))

    guard, _ = guarded(app)
    below = Below()
    await guard(a_scope(), below.receive, failing_send)
    assert handled == ["not a header"]


async def test_an_exception_is_a_plain_500_and_one_block_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    """The block begins with the request's id."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("no")

    guard, done = guarded(app)
    below = Below()
    await guard(a_scope(), below.receive, below.send)
    assert (below.status, below.sent[1]["body"]) == (500, b"Internal Server Error")
    assert capsys.readouterr().err == "Request in-1: GET /p raised ValueError: no\nTRACE\n"
    assert done == []


async def test_an_exception_after_a_head_that_was_not_sent_is_a_500() -> None:
    """What the app had begun to say is forgotten."""

    async def fail() -> None:
        raise ValueError

    guard, _ = guarded(sending(START, then=fail))
    below = Below()
    await guard(a_scope(), below.receive, below.send)
    assert (below.status, below.kinds) == (500, ["start", "body"])


async def test_an_exception_after_a_whole_answer_leaves_the_answer() -> None:
    """Starlette answers and raises again: the client gets that answer."""

    async def fail() -> None:
        raise ValueError

    guard, _ = guarded(sending({**START, "status": 418}, body(b"teapot"), then=fail))
    below = Below()
    await guard(a_scope(), below.receive, below.send)
    assert (below.status, below.sent[1]["body"]) == (418, b"teapot")


async def test_an_exception_in_the_middle_of_a_stream_cuts_it_off(capsys: pytest.CaptureFixture[str]) -> None:
    """The server below is told to close the connection, and the input has ended."""

    async def fail() -> None:
        raise ValueError("late")

    guard, done = guarded(sending(START, body(b"1", more=True), then=fail))
    below = Below()
    with pytest.raises(AlreadyLogged):
        await guard(a_scope(), below.receive, below.send)
    assert done == ["in-1"]
    assert "ValueError: late" in capsys.readouterr().err


async def test_leaving_the_process_is_an_exception_like_any_other() -> None:
    """sys.exit() in a handler fails the request, not the container."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise SystemExit(3)

    guard, _ = guarded(app)
    below = Below()
    await guard(a_scope(), below.receive, below.send)
    assert below.status == 500


async def test_cancel_interrupts_a_running_input(capsys: pytest.CaptureFixture[str]) -> None:
    """The app sees CancelledError, Done follows, and the log is silent."""
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    guard, done = guarded(app)
    below = Below()
    running = asyncio.create_task(guard(a_scope(), below.receive, below.send))
    await begun.wait()
    guard.cancel("in-1")
    guard.cancel("in-1")  # a second one changes nothing
    await running
    assert cancelled.is_set()
    assert done == ["in-1"]
    assert capsys.readouterr().err == ""


async def test_cancel_leaves_a_working_thread_alone() -> None:
    """An input that waits for a worker thread goes on; Done comes when it has ended by itself."""
    begun, release = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await release.wait()
        await sending(START, body(b"done"))(scope, receive, send)

    below = Below()
    tasks: list[object] = []
    guard, done = guarded(app, in_threads=lambda: tasks)
    running = asyncio.create_task(guard(a_scope(), below.receive, below.send))
    tasks.append(running)
    await begun.wait()
    guard.cancel("in-1")
    assert done == []
    release.set()
    await running
    assert (below.status, done) == (200, ["in-1"])


async def test_cancelling_what_is_not_there_is_answered_at_once() -> None:
    """Done for an unknown input; were its request still on the way, it would not run."""
    guard, done = guarded(sending(START, body(b"ran")))
    guard.cancel("in-1")
    assert done == ["in-1"]
    below = Below()
    await guard(a_scope("in-1"), below.receive, below.send)
    assert (below.status, done) == (408, ["in-1"])
    assert below.sent[1]["body"] == b"Missing request, possibly due to expiry or cancellation"
    guard.cancel("in-2")
    below = Below()
    await guard(a_scope("in-2", kind="websocket"), below.receive, below.send)
    assert (below.sent, done) == ([{"type": "websocket.close", "code": 1011}], ["in-1", "in-2"])


async def test_only_so_many_cancelled_inputs_are_remembered() -> None:
    """The oldest is forgotten first."""
    guard, _ = guarded(sending(START, body(b"ran")))
    for number in range(1_001):
        guard.cancel(f"in-{number}")
    below = Below()
    await guard(a_scope("in-0"), below.receive, below.send)
    assert below.status == 200
    below = Below()
    await guard(a_scope("in-1000"), below.receive, below.send)
    assert below.status == 408


async def test_a_websocket_is_held_until_the_app_returns() -> None:
    """The handshake's answer is marked, and Done comes at the end."""
    guard, done = guarded(sending({"type": "websocket.accept"}, {"type": "websocket.close"}))
    below = Below()
    await guard(a_scope(kind="websocket"), below.receive, below.send)
    assert below.held
    assert done == ["in-1"]


async def test_a_websocket_handler_may_say_goodbye(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has heard of the end of its connection, and ends by itself; only one that does not is interrupted."""
    monkeypatch.setattr("portico.runtime.guard._FAREWELL", 0.05)
    begun, gone, goodbyes = asyncio.Event(), asyncio.Event(), []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await gone.wait()
        await asyncio.sleep(0)
        goodbyes.append("goodbye")

    async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await asyncio.Event().wait()

    for handler, said in ((app, ["goodbye"]), (deaf, [])):
        begun.clear(), goodbyes.clear()
        guard, done = guarded(handler)
        below = Below()
        running = asyncio.create_task(guard(a_scope(kind="websocket"), below.receive, below.send))
        await begun.wait()
        guard.cancel("in-1")
        gone.set()
        with contextlib.suppress(AlreadyLogged):
            await running
        assert (goodbyes, done) == (said, ["in-1"])
