"""Hostile clients and hostile programs, with real sockets, a real server and real containers."""

from __future__ import annotations

import json
import random
import re
import socket
import struct
from contextlib import ExitStack
from dataclasses import dataclass

import psutil
import pytest

from tests.e2e.conftest import PATIENCE, Machine, parse, wait_until

APP = """
import modal

app = modal.App("hostile")


@app.function(max_containers=1)
@modal.asgi_app()
def echo():
    import os

    async def web_app(scope, receive, send):
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        seen = [scope["method"], scope["raw_path"].decode(), body.decode(), os.environ["PORTICO_TASK_ID"]]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": __import__("json").dumps(seen).encode()})

    return web_app


@app.function(max_containers=1)
@modal.web_server(8700, startup_timeout=30)
def program():
    import socket, threading

    def talk(connection):
        with connection:
            data = b""
            while b"\\r\\n\\r\\n" not in data:
                more = connection.recv(65536)
                if not more:
                    return
                data += more
            times, text = data.split(b" ")[1].removeprefix(b"/").split(b"-")
            connection.sendall(bytes.fromhex(text.decode()) * int(times))
            connection.recv(65536)

    def serve():
        listener = socket.create_server(("", 8700))
        while True:
            threading.Thread(target=talk, args=[listener.accept()[0]], daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
"""
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass(frozen=True)
class Scene:
    """A server with both endpoints; `echo` has one slot in all."""

    machine: Machine
    echo: str
    program: str

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.machine.port), timeout=PATIENCE)

    def request(self, head: str, headers: str = "", body: bytes = b"") -> bytes:
        host = self.echo.partition("//")[2]
        return f"{head} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n".encode() + body

    def seen(self, *requests: bytes) -> list[list[str]]:
        """What the app has seen of requests on one connection."""
        answers = []
        with self.connect() as connection, connection.makefile("rb") as reader:
            connection.sendall(b"".join(requests))
            for _ in requests:
                head = b"".join(iter(reader.readline, b"\r\n"))
                answer = parse(head + b"\r\n" + read_chunks(reader))
                answers.append(json.loads(answer.body))
        return answers


def read_chunks(reader) -> bytes:
    data = b""
    while not data.endswith(b"\r\n0\r\n\r\n"):
        data += reader.readline()
    return data


@pytest.fixture(scope="module")
def scene(shared: Machine) -> Scene:
    shared.write("hostile.py", APP)
    urls = shared.deploy("hostile.py")
    scene = Scene(shared, urls["echo"], urls["program"])
    assert shared.request(f"{scene.echo}/").status == 200
    assert shared.request(f"{scene.program}/1-{OK.hex()}").text == "ok"
    return scene


def test_the_body_of_a_request_that_offers_http_2_reaches_the_app(scene: Scene) -> None:
    """As Java's client sends its first request; and the next one on the connection is the next one."""
    offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
    chunks = b"5\r\nhello\r\n0\r\n\r\n"
    answers = scene.seen(
        scene.request("POST /one", offer + "Content-Length: 5\r\n", b"hello"),
        scene.request("POST /two", offer + "Transfer-Encoding: chunked\r\n", chunks),
        scene.request("GET /three"),
    )
    assert [answer[:3] for answer in answers] == [
        ["POST", "/one", "hello"],
        ["POST", "/two", "hello"],
        ["GET", "/three", ""],
    ]


def test_a_body_that_looks_like_a_request_is_a_body(scene: Scene) -> None:
    """With a GET, too."""
    inner = scene.request("GET /inner").decode()
    answers = scene.seen(
        scene.request("GET /outer", f"Content-Length: {len(inner)}\r\n", inner.encode()), scene.request("GET /")
    )
    assert [answer[:3] for answer in answers] == [["GET", "/outer", inner], ["GET", "/", ""]]


@pytest.mark.parametrize(
    "lines", ["Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding : chunked\r\n"]
)
def test_what_is_smuggled_is_seen_by_nobody(scene: Scene, lines: str) -> None:
    """One answer, and the end."""
    raw = scene.machine.raw(scene.request("POST /", lines, b"0\r\n\r\n" + scene.request("GET /smuggled")))
    assert raw.startswith(b"HTTP/1.1 400 ")
    assert raw.count(b"HTTP/1.1 4") + raw.count(b"HTTP/1.1 2") == 1


@pytest.mark.parametrize(
    ("times", "response", "statuses"),
    [
        (1, b"220 mail.example ESMTP\r\n", [502]),
        (1, OK.replace(b"2\r\n", b"2\r\nContent-Length: 3\r\n"), [502]),
        (1, OK.replace(b"2\r\n", b"2\r\nTransfer-Encoding: chunked\r\n"), [502]),
        (1, OK.replace(b"OK\r\n", b"OK\r\nX: a\nSet-Cookie: b\r\n"), [502]),
        (1, b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", [502]),
        (1001, b"HTTP/1.1 102 Processing\r\n\r\n", [102] * 1000 + [502]),
        (200_000, b"\r\n", [502]),
        (2, OK, [200]),
        (1, b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nno", [204]),
    ],
    ids=["no HTTP", "two lengths", "both lengths", "split", "switch", "flood", "no end", "two", "204 with a body"],
)
def test_a_hostile_program_harms_only_its_own_answers(
    scene: Scene, times: int, response: bytes, statuses: list[int]
) -> None:
    """A 502 with an id, or what is sound of it; the next request gets its own answer."""
    host = scene.program.partition("//")[2]
    target = f"/{times}-{response.hex()}"
    raw = scene.machine.raw(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert [int(status) for status in re.findall(rb"^HTTP/1.1 (\d+) ", raw, re.MULTILINE)] == statuses
    if statuses[-1] == 502:
        answer = parse(raw[raw.rindex(b"HTTP/1.1 502") :])
        assert answer.headers["x-request-id"] in answer.text
    assert scene.machine.request(f"{scene.program}/1-{OK.hex()}").text == "ok"


def test_clients_that_hang_up_take_no_slot_with_them(scene: Scene) -> None:
    """Two hundred of them, at any byte, with a reset or without; there is one slot, and it is free."""
    rand = random.Random(1)
    stream = scene.request("POST /", "Content-Length: 5\r\n", b"hello") + scene.request("GET /")
    for _ in range(200):
        with scene.connect() as connection:
            connection.sendall(stream[: rand.randrange(len(stream) + 1)])
            if rand.random() < 0.5:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for _ in range(3):
        assert scene.machine.request(f"{scene.echo}/").status == 200


def test_a_thousand_connections_that_do_nothing_are_no_burden(scene: Scene) -> None:
    """Some have said nothing, some have been answered, some are in the middle of a head. Each costs a few kilobytes."""
    (server,) = scene.machine.servers()
    before, files = memory(server), server.num_fds()
    whole = b"GET / HTTP/1.1\r\nHost: nobody.localhost\r\n\r\n"
    with ExitStack() as stack:
        connections = [stack.enter_context(scene.connect()) for _ in range(1000)]
        for number, connection in enumerate(connections):
            connection.sendall((b"", whole, whole[:30])[number % 3])
        for connection in connections[1::3]:
            assert connection.recv(65536).startswith(b"HTTP/1.1 404 ")
        wait_until(lambda: server.num_fds() > 1000, "all are accepted")
        for _ in range(20):
            assert scene.machine.request(f"{scene.echo}/").status == 200
        assert memory(server) - before < 16 * 1024 * 1024
    wait_until(lambda: server.num_fds() <= files + 5, "their descriptors are free")


def memory(process: psutil.Process) -> int:
    used: int = process.memory_full_info().uss
    return used
