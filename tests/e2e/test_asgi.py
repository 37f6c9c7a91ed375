"""Apps of several frameworks with `@modal.asgi_app`: requests, WebSockets, lifespans, and who the client is."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus

from tests.e2e.calls import Call, ask, chat, lines
from tests.e2e.conftest import PATIENCE, Answer, Machine, parse, wait_until

MIB = 1024 * 1024

APP = """
import asyncio
import os
import modal

image = modal.Image.debian_slim().pip_install("fastapi", "starlette", "python-fasthtml", "django", "quart")
app = modal.App("asgi", image=image)


def note(text):
    with open({journal!r}, "a") as journal:
        print(text, file=journal)


@app.function(max_containers=1)
@modal.concurrent(max_inputs=20)
@modal.asgi_app()
def fastapi_app():
    from fastapi import FastAPI, Request, Response, WebSocket, WebSocketDisconnect
    web_app = FastAPI()

    @web_app.get("/where")
    async def where(request: Request):
        said = [name for name in request.headers if "forwarded" in name or "real" in name]
        return {{"client": request.client.host, "url": str(request.url), "said": said}}

    @web_app.websocket("/where")
    async def where_socket(ws: WebSocket):
        await ws.accept()
        await ws.send_json({{"client": ws.client.host, "url": str(ws.url)}})
        await ws.close()

    @web_app.post("/echo")
    async def echo(request: Request):
        return await request.json()

    @web_app.websocket("/chat")
    async def chat(ws: WebSocket):
        offered = ws.scope["subprotocols"]
        await ws.accept(subprotocol=offered[-1] if offered else None)
        try:
            while (message := await ws.receive())["type"] == "websocket.receive":
                await ws.send(message | {{"type": "websocket.send"}})
            note(f"closed {{message['code']}} {{message.get('reason')}}")
        except Exception as error:
            note(repr(error))

    @web_app.websocket("/room")
    async def room(ws: WebSocket):
        await ws.accept()
        try:
            while True:
                await ws.receive_text()
        except WebSocketDisconnect:
            await asyncio.sleep(0.1)
            note("said goodbye to the room")

    @web_app.websocket("/push")
    async def push(ws: WebSocket):
        await ws.accept()
        try:
            while True:
                await ws.send_text(".")
                await asyncio.sleep(0.001)
        finally:
            note("push over")

    @web_app.websocket("/large/{{size}}")
    async def large(ws: WebSocket, size: int):
        await ws.accept()
        await ws.send_bytes(b"x" * size)
        note(f"large: {{await ws.receive()}}")

    @web_app.websocket("/short")
    async def short(ws: WebSocket):
        await ws.accept()
        await ws.close(4000, "enough")

    @web_app.websocket("/members")
    async def members(ws: WebSocket):
        await ws.send_denial_response(Response("members only", status_code=403, headers={{"x-club": "nuts"}}))

    @web_app.websocket("/fail")
    async def fail(ws: WebSocket):
        await ws.accept()
        raise ValueError("out of nuts")

    return web_app


@app.function(max_containers=1)
@modal.asgi_app()
def starlette_app():
    from contextlib import asynccontextmanager
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route, WebSocketRoute

    @asynccontextmanager
    async def lifespan(app):
        note("starting up")
        if os.path.exists({broken!r}):
            raise ValueError("no database")
        yield {{"database": "ready"}}
        note("shutting down")

    async def home(request):
        return PlainTextResponse(f"database {{request.state.database}}")

    async def echo(ws):
        await ws.accept()
        async for text in ws.iter_text():
            await ws.send_text(text)
        note("chat over")

    return Starlette(routes=[Route("/", home), WebSocketRoute("/chat", echo)], lifespan=lifespan)


@app.function()
@modal.asgi_app()
def fasthtml_app():
    from fasthtml.common import FastHTML, P
    web_app = FastHTML(secret_key="nuts")

    @web_app.route("/hello/{{name}}")
    def get(name: str):
        return P(f"Hello {{name}}")

    @web_app.ws("/chat")
    async def chat(message: str, send):
        await send(P(message))

    return web_app


@app.function()
@modal.concurrent(max_inputs=10)
@modal.asgi_app()
def django_app():
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.http import JsonResponse, StreamingHttpResponse
    from django.urls import path

    async def show(request, name):
        return JsonResponse({{"name": name, "url": request.build_absolute_uri()}})

    def save(request):
        return JsonResponse({{"saved": request.POST["text"]}})

    async def pieces():
        yield "one,"
        yield "two"

    async def stream(request):
        return StreamingHttpResponse(pieces())

    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=(path("show/<str:name>", show), path("save", save), path("stream", stream)),
        SECRET_KEY="nuts",
    )
    return get_asgi_application()


@app.function()
@modal.concurrent(max_inputs=10)
@modal.asgi_app()
def quart_app():
    from quart import Quart, request, websocket
    web_app = Quart("quart_app")
    started = []

    @web_app.before_serving
    async def start():
        started.append("yes")

    @web_app.post("/echo")
    async def echo():
        return {{"started": started, "got": await request.get_json()}}

    @web_app.websocket("/chat")
    async def chat():
        while True:
            await websocket.send(await websocket.receive())

    return web_app
"""


class Site:
    """The deployed app."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.journal = machine.folder / "journal"
        self.broken = machine.folder / "broken"
        machine.write("asgi_site.py", APP.format(journal=str(self.journal), broken=str(self.broken)))
        urls = machine.deploy("asgi_site.py")
        self.fastapi, self.starlette, self.fasthtml = (
            urls[f"{name}_app"] for name in ("fastapi", "starlette", "fasthtml")
        )
        self.django, self.quart = urls["django_app"], urls["quart_app"]

    def get(self, url: str, **headers: str) -> Answer:
        """A GET with these headers."""
        return self.machine.request(url, headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.fixture(scope="module")
def site(shared: Machine) -> Site:
    """Deployed once; its image takes some seconds."""
    return Site(shared)


# -- frameworks -------------------------------------------------------------------------------------------------------
def test_fastapi_answers(site: Site) -> None:
    """JSON in, JSON out; what it does not know is its own 404."""
    answer = site.machine.request(f"{site.fastapi}/echo", "POST", body=b'{"message": "Hello"}')
    assert (answer.status, answer.json) == (200, {"message": "Hello"})
    assert site.get(f"{site.fastapi}/nowhere").json == {"detail": "Not Found"}


def test_starlette_shares_what_its_lifespan_made(site: Site) -> None:
    """The start-up has run before the first request, which sees its state."""
    assert site.get(site.starlette).text == "database ready"
    assert "starting up" in lines(site.journal)


def test_fasthtml_answers(site: Site) -> None:
    """With HTML, and over its WebSocket."""
    assert "<p>Hello Ann</p>" in site.get(f"{site.fasthtml}/hello/Ann").text
    with chat(site.machine, f"{site.fasthtml}/chat") as ws:
        assert "<p>hello</p>" in str(ask(ws, '{"message": "hello"}'))


def test_django_answers(site: Site) -> None:
    """Paths in UTF-8, forms in a view that is not async, streams, and its own 404."""
    url = f"{site.django}/show/caf%C3%A9"
    assert site.get(url).json == {"name": "café", "url": url}
    body = b'--b\r\nContent-Disposition: form-data; name="text"\r\n\r\nnuts\r\n--b--\r\n'
    head = f"POST /save HTTP/1.1\r\nHost: {site.django.removeprefix('http://')}\r\nConnection: close\r\n"
    head += f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(body)}\r\n\r\n"
    assert parse(site.machine.raw(head.encode() + body)).json == {"saved": "nuts"}
    assert site.get(f"{site.django}/stream").text == "one,two"
    assert site.get(f"{site.django}/nowhere").status == 404


def test_quart_answers(site: Site) -> None:
    """What runs before serving has run; JSON, and its WebSocket."""
    answer = site.machine.request(f"{site.quart}/echo", "POST", body=b'{"message": "Hello"}')
    assert answer.json == {"started": ["yes"], "got": {"message": "Hello"}}
    with chat(site.machine, f"{site.quart}/chat") as ws:
        assert ask(ws, "hello") == "hello"


# -- WebSockets -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_a_websocket_echoes(site: Site, compression: str | None) -> None:
    """Text, bytes, fragments, an empty message and one of 2 MiB, pings, packed and not."""
    with chat(site.machine, f"{site.fastapi}/chat", compression=compression) as ws:
        assert bool(ws.protocol.extensions) == bool(compression)
        for message in ("hello", b"\0\1", "", os.urandom(2 * MIB), "x" * 2 * MIB):
            assert ask(ws, message) == message
        assert ask(ws, ["frag", "ments"]) == "fragments"
        assert ws.ping(b"payload").wait(PATIENCE)


def test_the_app_chooses_the_subprotocol(site: Site) -> None:
    """Of those that the client offers."""
    with chat(site.machine, f"{site.fastapi}/chat", subprotocols=["one", "two"]) as ws:
        assert ws.subprotocol == "two"


def test_the_clients_close_reaches_the_app(site: Site) -> None:
    """With code and reason; and the app's answer, the client."""
    with chat(site.machine, f"{site.fastapi}/chat") as ws:
        ws.close(4001, "bye")
    assert (ws.protocol.close_rcvd.code, ws.protocol.close_rcvd.reason) == (4001, "bye")
    wait_until(lambda: "closed 4001 bye" in lines(site.journal), "the app has heard it")


def test_the_apps_close_reaches_the_client(site: Site) -> None:
    """With code and reason."""
    with chat(site.machine, f"{site.fastapi}/short") as ws, pytest.raises(ConnectionClosedError) as closed:
        ws.recv(PATIENCE)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4000, "enough")


def test_an_exception_closes_with_1011(site: Site) -> None:
    """Or at least ends the connection; its traceback is in the logs."""
    with chat(site.machine, f"{site.fastapi}/fail") as ws, pytest.raises(ConnectionClosed):
        ws.recv(PATIENCE)
    wait_until(lambda: "ValueError: out of nuts" in site.machine.run("app", "logs", "asgi").stdout, "it is in the logs")


def test_a_refused_handshake_has_its_status_headers_and_body(site: Site) -> None:
    """What the app says instead of accepting; 403 for a path that has no WebSocket."""
    with pytest.raises(InvalidStatus) as refused, chat(site.machine, f"{site.fastapi}/members"):
        pass
    response = refused.value.response
    assert (response.status_code, response.headers["x-club"], response.body) == (403, "nuts", b"members only")
    with pytest.raises(InvalidStatus) as refused, chat(site.machine, f"{site.fastapi}/echo"):
        pass
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize("whole", [True, False])
def test_a_message_that_is_too_large_closes_with_1009(site: Site, whole: bool) -> None:
    """In one frame or in several; the app hears it too."""
    before = len(lines(site.journal))
    data = b"x" * (2 * MIB + 1)
    with (
        chat(site.machine, f"{site.fastapi}/chat", compression=None) as ws,
        pytest.raises(ConnectionClosedError) as closed,
    ):
        ask(ws, data if whole else [data[:MIB], data[MIB:]])
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009
    wait_until(lambda: lines(site.journal)[before:], "the app has heard it")
    assert lines(site.journal)[before].startswith("closed 1009" if whole else "closed 100")  # uvicorn's word: 1002


def test_a_message_that_is_too_large_when_unpacked_closes_with_1009(site: Site) -> None:
    """However small it is on the wire."""
    with chat(site.machine, f"{site.fastapi}/chat") as ws, pytest.raises(ConnectionClosedError) as closed:
        ask(ws, b"x" * (3 * MIB))
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


def test_a_message_of_the_app_that_is_too_large_closes_with_1009(site: Site) -> None:
    """2 MiB pass; the app hears it too."""
    before = len(lines(site.journal))
    with chat(site.machine, f"{site.fastapi}/large/{2 * MIB}", compression=None) as ws:
        assert len(ws.recv(PATIENCE)) == 2 * MIB
    with (
        chat(site.machine, f"{site.fastapi}/large/{2 * MIB + 1}", compression=None) as ws,
        pytest.raises(ConnectionClosedError) as closed,
    ):
        ws.recv(PATIENCE)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009
    wait_until(lambda: len(lines(site.journal)) >= before + 2, "the app has heard it")
    assert "1009" in lines(site.journal)[-1]


def test_a_handler_that_hears_of_the_end_may_do_what_it_has_to(site: Site) -> None:
    """As in FastAPI's own example of a chat: the others are told."""
    before = len(lines(site.journal))
    with chat(site.machine, f"{site.fastapi}/room") as ws:
        ws.send("hello")
    wait_until(lambda: lines(site.journal)[before:] == ["said goodbye to the room"], "it has said goodbye")


def test_a_handler_that_only_sends_ends_when_its_client_has_left(site: Site) -> None:
    """Without a Close: the connection has just gone."""
    before = len(lines(site.journal))
    with chat(site.machine, f"{site.fastapi}/push") as ws:
        assert ws.recv(PATIENCE) == "."
        ws.socket.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: lines(site.journal)[before:] == ["push over"], "its handler has ended")


def test_a_websocket_is_one_input_for_as_long_as_it_lives(site: Site) -> None:
    """A container that takes one input at a time answers no request meanwhile."""
    with chat(site.machine, f"{site.starlette}/chat") as ws:
        call = Call(site.machine, f"{site.starlette}/")
        assert ask(ws, "still here") == "still here"
        assert "chat over" not in lines(site.journal)
        call.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            call.socket.recv(1)
        call.socket.settimeout(PATIENCE)
    assert call.answer().text == "database ready"
    assert lines(site.journal)[-1] == "chat over"


# -- lifespans --------------------------------------------------------------------------------------------------------
def test_a_container_that_ends_shuts_its_app_down(site: Site) -> None:
    """The lifespan's second half runs; a deploy of other code replaces the container."""
    assert site.get(site.starlette).status == 200
    before = len(lines(site.journal))
    file = site.machine.folder / "asgi_site.py"
    file.write_text(file.read_text() + "\n# another version\n")
    site.machine.deploy("asgi_site.py")
    wait_until(lambda: "shutting down" in lines(site.journal)[before:], "the app was shut down")
    assert site.get(site.starlette).text == "database ready"


def test_a_startup_that_fails_fails_the_container(site: Site) -> None:
    """The deploy says why, and changes nothing; so do the logs. What runs goes on."""
    site.broken.touch()
    file = site.machine.folder / "asgi_site.py"
    file.write_text(file.read_text() + "\n# a broken version\n")
    failed = site.machine.run("deploy", "asgi_site.py", code=1)
    site.broken.unlink()
    assert "ValueError: no database" in failed.stderr
    assert 'raise ValueError("no database")' in failed.stderr
    assert site.get(site.starlette).status == 200


def test_a_startup_that_fails_later_is_a_503_with_its_cause(machine: Machine) -> None:
    """For those who wait; the traceback is in the logs."""
    broken = machine.folder / "broken"
    machine.write("late.py", LATE.format(broken=str(broken)))
    machine.up()
    url = machine.deploy("late.py")["web"]
    assert machine.request(url).status == 200
    broken.touch()
    for container in machine.containers():
        container.kill()
    wait_until(lambda: not machine.containers() or machine.request(url).status == 503, "the container has gone")
    answer = machine.request(url)
    assert answer.status == 503
    assert "a container could not start: ValueError: no database" in answer.text
    logs = machine.run("app", "logs", "late").stdout
    assert 'raise ValueError("no database")' in logs


LATE = """
import os
import modal

app = modal.App("late")


@app.function()
@modal.asgi_app()
def web():
    from contextlib import asynccontextmanager
    from fastapi import FastAPI

    @asynccontextmanager
    async def lifespan(app):
        if os.path.exists({broken!r}):
            raise ValueError("no database")
        yield

    web_app = FastAPI(lifespan=lifespan)

    @web_app.get("/")
    def home():
        return "home"

    return web_app
"""


# -- who the client is ------------------------------------------------------------------------------------------------
SPOOFED = {"X_Forwarded_For": "6.6.6.6", "X_Forwarded_Proto": "https", "X_Forwarded_Host": "x.example"}


def test_the_client_is_who_connects(site: Site) -> None:
    """And the URL what it asked for; whatever it says about others is dropped."""
    url = f"{site.fastapi}/where?q=1"
    answer = site.get(url, **SPOOFED, X_Real_IP="6.6.6.6", Forwarded="for=6.6.6.6;proto=https;host=x.example")
    assert answer.json == {"client": "127.0.0.1", "url": url, "said": []}


WHO = '''
import fastapi
import modal

app = modal.App("who")


@app.function(max_containers=1)
@modal.concurrent(max_inputs=20)
@modal.asgi_app()
def asgi():
    from fastapi import FastAPI, Request, WebSocket
    web_app = FastAPI()

    @web_app.get("/")
    async def where(request: Request):
        return [request.client.host, str(request.url)]

    @web_app.websocket("/")
    async def where_socket(ws: WebSocket):
        await ws.accept()
        await ws.send_json([ws.client.host, str(ws.url)])
        await ws.close()

    return web_app


@app.function(max_containers=1)
@modal.concurrent(max_inputs=20)
@modal.wsgi_app()
def wsgi():
    import json

    def web_app(environ, start_response):
        start_response("200 OK", [("content-type", "application/json")])
        names = ("REMOTE_ADDR", "wsgi.url_scheme", "HTTP_HOST", "HTTP_X_FORWARDED_FOR")
        return [json.dumps([environ.get(name) for name in names]).encode()]

    return web_app


@app.function(max_containers=1)
@modal.concurrent(max_inputs=20)
@modal.fastapi_endpoint()
async def endpoint(request: fastapi.Request):
    return [request.client.host, str(request.url)]


PROGRAM = """
import json
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        names = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "host")
        self.wfile.write(json.dumps([self.headers.get_all(name) for name in names]).encode())

HTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""


@app.function(max_containers=1)
@modal.concurrent(max_inputs=20)
@modal.web_server(8000)
def program():
    import subprocess
    import sys

    subprocess.Popen([sys.executable, "-c", PROGRAM])
'''


@pytest.fixture(scope="module")
def open_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, dict[str, str]]]:
    """A server on all addresses of both families, that believes a proxy at 127.0.0.1 and not one at ::1."""
    machine = Machine(tmp_path_factory.mktemp("open"))
    machine.env["PORTICO_LISTEN"] = f"[::]:{machine.port}"
    machine.write("who.py", WHO)
    server = machine.start("up", "--trusted-proxies", "127.0.0.1,10.0.0.0/8", "--max-websocket-message", "unlimited")
    server.until("listens on")
    yield machine, machine.deploy("who.py")
    machine.close()


def get_from(address: str, machine: Machine, url: str, *headers: str) -> object:
    """The JSON that comes over a connection to this address."""
    lines = ["GET / HTTP/1.1", f"Host: {url.partition('//')[2]}", "Connection: close", *headers]
    with socket.create_connection((address, machine.port), timeout=PATIENCE) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        raw = b""
        while part := connection.recv(65536):
            raw += part
    return parse(raw).json


FORWARDED = ("X-Forwarded-For: 6.6.6.6, 2001:db8::9, 10.1.1.1", "X-Forwarded-Proto: https")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_client_has_an_address_of_its_own_family(open_house: tuple[Machine, dict[str, str]], address: str) -> None:
    """Also where one socket takes both."""
    machine, urls = open_house
    assert get_from(address, machine, urls["asgi"]) == [address, f"{urls['asgi']}/"]
    assert get_from(address, machine, urls["endpoint"]) == [address, f"{urls['endpoint']}/"]
    host = urls["wsgi"].partition("//")[2]
    assert get_from(address, machine, urls["wsgi"]) == [address, "http", host, None]
    host = urls["program"].partition("//")[2]
    assert get_from(address, machine, urls["program"]) == [[address], ["http"], [host], [host]]


def test_a_trusted_proxy_is_believed(open_house: tuple[Machine, dict[str, str]]) -> None:
    """About the client, the scheme and the host; the host leads to the function, too."""
    machine, urls = open_house
    host = urls["asgi"].partition("//")[2]
    said = (*FORWARDED, f"X-Forwarded-Host: {host}")
    assert get_from("127.0.0.1", machine, "http://inner", *said) == ["2001:db8::9", f"https://{host}/"]
    host = urls["wsgi"].partition("//")[2]
    assert get_from("127.0.0.1", machine, urls["wsgi"], *FORWARDED) == ["2001:db8::9", "https", host, None]
    host = urls["endpoint"].partition("//")[2]
    assert get_from("127.0.0.1", machine, urls["endpoint"], *FORWARDED) == ["2001:db8::9", f"https://{host}/"]
    host = urls["program"].partition("//")[2]
    told = get_from("127.0.0.1", machine, urls["program"], *FORWARDED)
    assert told == [["2001:db8::9"], ["https"], [host], [host]]


def test_a_websocket_behind_a_trusted_proxy_is_secure(open_house: tuple[Machine, dict[str, str]]) -> None:
    """Its scheme is wss."""
    machine, urls = open_house
    with chat(machine, urls["asgi"], additional_headers={"X-Forwarded-Proto": "https"}) as ws:
        assert ws.recv(PATIENCE).count("wss://") == 1  # type: ignore[arg-type]


def test_another_sender_is_not_believed(open_house: tuple[Machine, dict[str, str]]) -> None:
    """One that connects from elsewhere."""
    machine, urls = open_house
    assert get_from("::1", machine, urls["asgi"], *FORWARDED) == ["::1", f"{urls['asgi']}/"]
    host = urls["wsgi"].partition("//")[2]
    assert get_from("::1", machine, urls["wsgi"], *FORWARDED) == ["::1", "http", host, None]
    assert get_from("::1", machine, urls["endpoint"], *FORWARDED) == ["::1", f"{urls['endpoint']}/"]
    host = urls["program"].partition("//")[2]
    assert get_from("::1", machine, urls["program"], *FORWARDED) == [["::1"], ["http"], [host], [host]]


def test_a_network_that_is_none_stops_the_start(machine: Machine) -> None:
    """With the setting's name, as it was given, and the value."""
    failed = machine.run("up", "--trusted-proxies", "10.0.0.0/33", code=2)
    assert "Error: --trusted-proxies: '10.0.0.0/33' does not appear" in failed.stderr
    machine.env["PORTICO_TRUSTED_PROXIES"] = "10.0.0.0/33"
    failed = machine.run("up", code=1)
    assert "Error: PORTICO_TRUSTED_PROXIES: '10.0.0.0/33' does not appear" in failed.stderr
