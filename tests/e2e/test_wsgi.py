"""Flask and Django apps with `@modal.wsgi_app`: streams, threads, WebSockets, and clients that leave."""

from __future__ import annotations

import os
import socket
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection

from tests.e2e.calls import Call, ask, ask_at_once, chat, lines
from tests.e2e.conftest import PATIENCE, Machine, parse, wait_until

MIB = 1024 * 1024

APP = """
import threading, time
import modal

app = modal.App("wsgi", image=modal.Image.debian_slim().pip_install("flask", "flask-sock", "django"))


def note(text):
    with open({journal!r}, "a") as journal:
        print(text, file=journal)


@app.function(max_containers=1)
@modal.concurrent(max_inputs=8)
@modal.wsgi_app()
def flask_app():
    from flask import Flask, Response, request
    from flask_sock import Sock
    from simple_websocket import ConnectionClosed
    web_app, going, all_here = Flask(__name__), threading.Event(), threading.Barrier(8)
    web_app.config["SOCK_SERVER_OPTIONS"] = {{"subprotocols": ["one", "two"]}}
    sock = Sock(web_app)

    @web_app.post("/echo")
    def echo():
        return request.json

    @web_app.post("/size")
    def size():
        total = 0
        while piece := request.stream.read(65536):
            total += len(piece)
        return str(total)

    @web_app.get("/environ")
    def environ():
        return {{key: value for key, value in request.environ.items() if isinstance(value, str)}}

    @web_app.get("/stream")
    def stream():
        def pieces():
            yield "first,"
            going.wait(30)
            yield "second"
        return Response(pieces(), mimetype="text/plain")

    @web_app.get("/go")
    def go():
        going.set()
        return "gone"

    @web_app.get("/together")
    def together():
        all_here.wait(30)
        return "together"

    @web_app.get("/fail")
    def fail():
        raise ValueError("out of nuts")

    @sock.route("/chat")
    def chat(ws):
        while True:
            ws.send(ws.receive())

    @sock.route("/ends")
    def ends(ws):
        try:
            ws.receive()
        except ConnectionClosed as closed:
            note(f"closed {{closed.reason}} {{closed.message}}")

    @sock.route("/large")
    def large(ws):
        ws.send(b"x" * int(ws.receive()))
        ws.receive()

    @sock.route("/short")
    def short(ws):
        ws.close(4000, "enough")

    return web_app


@app.function(max_containers=1)
@modal.wsgi_app()
def alone():
    from flask import Flask, Response
    from flask_sock import Sock
    web_app = Flask(__name__)
    sock = Sock(web_app)

    @web_app.get("/once")
    def once():
        note("enter")
        time.sleep(0.01)
        note("leave")
        return "done"

    @web_app.get("/endless")
    def endless():
        def pieces():
            try:
                while True:
                    yield "."
                    time.sleep(0.001)
            except GeneratorExit:
                note("generator closed")
                raise
        return Response(pieces())

    @sock.route("/chat")
    def chat(ws):
        try:
            while True:
                ws.send(ws.receive())
        finally:
            note("chat over")

    return web_app


@app.function()
@modal.concurrent(max_inputs=10)
@modal.wsgi_app()
def django_app():
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import JsonResponse, StreamingHttpResponse
    from django.urls import path

    def show(request, name):
        return JsonResponse({{"name": name, "q": request.GET.get("q"), "url": request.build_absolute_uri()}})

    def save(request):
        return JsonResponse({{"saved": request.POST["text"]}})

    def stream(request):
        return StreamingHttpResponse(iter(["one,", "two"]))

    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=(path("show/<str:name>", show), path("save", save), path("stream", stream)),
        SECRET_KEY="nuts",
    )
    return get_wsgi_application()
"""


class Site:
    """The deployed app."""

    def __init__(self, machine: Machine, journal: Path) -> None:
        self.machine = machine
        self.journal = journal
        machine.write("wsgi_site.py", APP.format(journal=str(journal)))
        self.urls = machine.deploy("wsgi_site.py")
        self.flask, self.alone, self.django = (self.urls[name] for name in ("flask_app", "alone", "django_app"))

    def chat(self, url: str, **more: Any) -> AbstractContextManager[ClientConnection]:
        """A WebSocket."""
        return chat(self.machine, url, **more)


@pytest.fixture(scope="module")
def site(shared: Machine) -> Site:
    """Deployed once; its image takes some seconds."""
    return Site(shared, shared.folder / "journal")


# -- Flask ------------------------------------------------------------------------------------------------------------
def test_flask_answers(site: Site) -> None:
    """The example of the documentation."""
    answer = site.machine.request(f"{site.flask}/echo", "POST", body=b'{"message": "Hello"}')
    assert (answer.status, answer.json) == (200, {"message": "Hello"})


def test_a_flask_app_knows_its_request(site: Site) -> None:
    """Who asked, for what, and on which host."""
    url = f"{site.flask}/environ?q=%C3%A9"
    environ = site.machine.request(url, headers={"X-Forwarded-For": "6.6.6.6", "X-Nut": "wal"}).json
    host = site.flask.removeprefix("http://").partition(":")[0]
    expected = {
        "REMOTE_ADDR": "127.0.0.1",
        "SERVER_NAME": host,
        "SERVER_PORT": str(site.machine.port),
        "PATH_INFO": "/environ",
        "SCRIPT_NAME": "",
        "QUERY_STRING": "q=%C3%A9",
        "HTTP_X_NUT": "wal",
        "wsgi.url_scheme": "http",
    }
    assert isinstance(environ, dict)
    assert {key: environ.get(key) for key in expected} == expected
    assert not [key for key in environ if "FORWARDED" in key or "PORTICO" in key]


def test_an_exception_is_a_500_with_its_traceback_in_the_logs(site: Site) -> None:
    """Flask's own words."""
    assert site.machine.request(f"{site.flask}/fail").status == 500
    wait_until(lambda: "ValueError: out of nuts" in site.machine.run("app", "logs", "wsgi").stdout, "it is in the logs")


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_body_of_any_size_and_framing_arrives(site: Site, framing: str) -> None:
    """With a Content-Length, and without."""
    data, size = b"x" * 65536, 64 * 65536
    host = site.flask.removeprefix("http://")
    line = f"Content-Length: {size}" if framing == "length" else "Transfer-Encoding: chunked"
    head = f"POST /size HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{line}\r\n\r\n".encode()
    body = data * 64 if framing == "length" else b"10000\r\n%b\r\n" % data * 64 + b"0\r\n\r\n"
    assert site.machine.raw(head + body).endswith(b"\r\n\r\n%d" % size)


# -- streams ----------------------------------------------------------------------------------------------------------
def test_each_piece_arrives_when_it_is_yielded(site: Site) -> None:
    """The second one is made only after the client has asked for it, with the first one in its hands."""
    call = Call(site.machine, f"{site.flask}/stream")
    call.until(b"first,")
    assert site.machine.request(f"{site.flask}/go").text == "gone"
    assert call.answer().text == "first,second"


def test_a_client_that_leaves_closes_the_generator_and_frees_its_slot(site: Site) -> None:
    """The container's only one: another request gets it."""
    call = Call(site.machine, f"{site.alone}/endless")
    call.until(b".")
    before = len(lines(site.journal))
    call.leave()
    assert site.machine.request(f"{site.alone}/once").text == "done"
    assert lines(site.journal)[before:] == ["generator closed", "enter", "leave"]


# -- threads ----------------------------------------------------------------------------------------------------------
def test_without_concurrent_there_is_one_input_at_a_time(site: Site) -> None:
    """Exactly: each leaves before the next one enters."""
    before = len(lines(site.journal))
    answers = ask_at_once(site.machine, [f"{site.alone}/once"] * 10)
    assert [answer.text for answer in answers] == ["done"] * 10
    assert lines(site.journal)[before:] == ["enter", "leave"] * 10


def test_max_inputs_requests_run_in_one_container(site: Site) -> None:
    """Each waits until all eight are there."""
    answers = ask_at_once(site.machine, [f"{site.flask}/together"] * 8)
    assert [answer.text for answer in answers] == ["together"] * 8


# -- WebSockets -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_flask_sock_echoes(site: Site, compression: str | None) -> None:
    """Text, bytes, fragments, an empty message and one of 2 MiB."""
    with site.chat(f"{site.flask}/chat", compression=compression) as ws:
        assert bool(ws.protocol.extensions) == bool(compression)
        for message in ("hello", b"\0\1", "", os.urandom(2 * MIB)):
            assert ask(ws, message) == message
        assert ask(ws, ["frag", "ments"]) == "fragments"
        ws.ping().wait(PATIENCE)


def test_the_app_chooses_the_subprotocol(site: Site) -> None:
    """Of those that the client offers."""
    with site.chat(f"{site.flask}/chat", subprotocols=["three", "two"]) as ws:
        assert ws.subprotocol == "two"


def test_the_clients_close_reaches_the_app(site: Site) -> None:
    """With code and reason; and the app's answer, the client."""
    with site.chat(f"{site.flask}/ends") as ws:
        ws.close(4001, "bye")
    assert ws.protocol.close_rcvd is not None
    assert ws.protocol.close_rcvd.code == 4001
    wait_until(lambda: "closed 4001 bye" in lines(site.journal), "the app has heard it")


def test_websockets_are_side_by_side(site: Site) -> None:
    """Seven at once, and a request besides."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(site.chat(f"{site.flask}/chat")) for _ in range(7)]
        for number, ws in enumerate(sockets):
            ws.send(str(number))
        assert [ws.recv(PATIENCE) for ws in sockets] == [str(number) for number in range(7)]
        assert site.machine.request(f"{site.flask}/environ").status == 200


@pytest.mark.parametrize("whole", [True, False])
def test_a_message_that_is_too_large_closes_with_1009(site: Site, whole: bool) -> None:
    """In one frame or in several; the app hears it too."""
    before = len(lines(site.journal))
    data = b"x" * (2 * MIB + 1)
    with site.chat(f"{site.flask}/ends", compression=None) as ws, pytest.raises(ConnectionClosedError) as closed:
        ask(ws, data if whole else [data[:MIB], data[MIB:]])
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009
    wait_until(lambda: lines(site.journal)[before:], "the app has heard it")
    assert lines(site.journal)[before].startswith("closed 100")


def test_a_message_of_the_app_that_is_too_large_closes_with_1009(site: Site) -> None:
    """2 MiB pass."""
    with site.chat(f"{site.flask}/large", compression=None) as ws:
        assert len(ask(ws, str(2 * MIB))) == 2 * MIB
    with site.chat(f"{site.flask}/large", compression=None) as ws, pytest.raises(ConnectionClosedError) as closed:
        ask(ws, str(2 * MIB + 1))
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


def test_an_app_closes_with_its_own_code(site: Site) -> None:
    """And its reason."""
    with site.chat(f"{site.flask}/short") as ws, pytest.raises(ConnectionClosedError) as closed:
        ws.recv(PATIENCE)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4000, "enough")


def test_a_path_without_a_websocket_refuses_the_handshake(site: Site) -> None:
    """With Flask's own answer."""
    with pytest.raises(InvalidStatus) as refused, site.chat(f"{site.flask}/nowhere"):
        pass
    assert refused.value.response.status_code == 404


@pytest.mark.parametrize("polite", [True, False])
def test_a_websocket_is_one_input_for_as_long_as_it_lives(site: Site, polite: bool) -> None:
    """A request waits until it is closed, or its client has left, and its function has ended."""
    before = len(lines(site.journal))
    with site.chat(f"{site.alone}/chat") as ws:
        call = Call(site.machine, f"{site.alone}/once")
        assert ask(ws, "still here") == "still here"
        assert lines(site.journal)[before:] == []
        if not polite:
            ws.socket.shutdown(socket.SHUT_RDWR)
    assert call.answer().text == "done"
    assert lines(site.journal)[before:] == ["chat over", "enter", "leave"]


# -- Django -----------------------------------------------------------------------------------------------------------
def test_django_answers(site: Site) -> None:
    """Paths and queries in UTF-8, forms, streams, and its own 404."""
    url = f"{site.django}/show/caf%C3%A9?q=%E2%82%AC"
    assert site.machine.request(url).json == {"name": "café", "q": "€", "url": url}
    body = b'--b\r\nContent-Disposition: form-data; name="text"\r\n\r\nnuts\r\n--b--\r\n'
    head = f"POST /save HTTP/1.1\r\nHost: {site.django.removeprefix('http://')}\r\nConnection: close\r\n"
    head += f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(body)}\r\n\r\n"
    assert parse(site.machine.raw(head.encode() + body)).json == {"saved": "nuts"}
    assert site.machine.request(f"{site.django}/stream").text == "one,two"
    assert site.machine.request(f"{site.django}/nowhere").status == 404
