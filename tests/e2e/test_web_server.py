"""Programs that listen on a port, behind `web_server`: in Python, Node and C."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import socket
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import ClientConnection, connect

from tests.e2e.calls import Call, ask_at_once, lines
from tests.e2e.conftest import PATIENCE, Machine, Process, free_port, parse, wait_until

# A program of the standard library, in one file that needs nothing else.
PROGRAM = """
import gzip, json, os, socket, subprocess, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

host, port, journal = sys.argv[1], int(sys.argv[2]), sys.argv[3]


def note(text):
    with open(journal, "a") as file:
        print(text, file=file)


def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.002)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body, status=200, **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def chunk(self, data):
        self.wfile.write(b"%x\\r\\n%b\\r\\n" % (len(data), data))

    def do_GET(self):
        url = urlsplit(self.path)
        getattr(self, url.path[1:] or "facts")(**{key: value[0] for key, value in parse_qs(url.query).items()})

    do_HEAD = do_POST = do_GET

    def facts(self):
        self.answer({"pid": os.getpid(), "peer": self.client_address[1], "headers": self.headers.items()})

    def meet(self, mine, others):
        open(mine, "w").close()
        wait_for(others)
        self.answer({"pid": os.getpid()})

    def once(self):
        note("enter")
        time.sleep(0.01)
        note("leave")
        self.answer("done")

    def hold(self, gate):
        note("enter")
        wait_for(gate)
        note("leave")
        self.answer("done")

    def moved(self):
        self.answer("elsewhere", 302, Location="/facts")

    def packed(self):
        self.answer(gzip.compress(b"nuts", mtime=0), Content_Encoding="gzip")

    def nothing(self):
        self.send_response(204)
        self.end_headers()

    def same(self):
        self.send_response(304)
        self.send_header("ETag", '"1"')
        self.end_headers()

    def forge(self):
        self.answer("held", X_Portico_Held="1")

    def stream(self, gate):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.chunk(b"first,")
        wait_for(gate)
        self.chunk(b"second")
        self.chunk(b"")

    def endless(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            while True:
                self.chunk(b"again")
                time.sleep(0.001)
        except OSError:
            note("stream ended")
            self.close_connection = True

    def upload(self):
        total, first = 0, True
        while size := int(self.rfile.readline(), 16):
            total += len(self.rfile.read(size))
            self.rfile.readline()
            if first:
                note("first piece")
            first = False
        self.rfile.readline()
        self.answer(total)

    def reach(self, port):
        with socket.create_connection(("127.0.0.1", int(port))) as outside:
            outside.sendall(b"GET /healthz HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n")
            status = outside.recv(65536).split()[1].decode()
        with socket.create_connection(("localhost", self.server.wanted)) as own:
            own.sendall(b"GET /facts HTTP/1.0\\r\\n\\r\\n")
            text = own.makefile().read()
        self.answer({"outside": status, "own": json.loads(text[text.index("{"):])["pid"], "pid": os.getpid()})

    def close(self):
        self.close_connection = True

    def die(self):
        os._exit(3)

    def log_message(self, *args):
        print("served", self.path.partition("?")[0], flush=True)


ThreadingHTTPServer.wanted = port
ThreadingHTTPServer((host, port), Handler).serve_forever()
"""

APP = """
import subprocess
import sys

import modal

app = modal.App({name!r})


def start(host, port=8000, **more):
    return subprocess.Popen([sys.executable, {program!r}, host, str(port), {journal!r}], **more)


@app.function(max_containers=1)
@modal.concurrent(max_inputs=20)
@modal.web_server(8000)
def many():
    start("0.0.0.0")


@app.function(max_containers=2)
@modal.web_server(8000)
def alone():
    start("", start_new_session=True)


@app.function(max_containers=1)
@modal.web_server(80)
def single():
    start("0.0.0.0", 80)


@app.function(max_containers=1, timeout=1, startup_timeout=60)
@modal.web_server(8000)
def hasty():
    start("0.0.0.0")


@app.function(max_containers=1)
@modal.web_server(8000)
def becomes():
    import os
    os.execv(sys.executable, [sys.executable, {program!r}, "0.0.0.0", "8000", {journal!r}])
"""


class Site:
    """The deployed app."""

    def __init__(self, machine: Machine, name: str = "programs") -> None:
        self.machine = machine
        self.name = name
        self.journal = machine.folder / f"{name}.journal"
        program = machine.write("program.txt", PROGRAM)
        machine.write(f"{name}.py", APP.format(name=name, program=str(program), journal=str(self.journal)))
        self.urls = machine.deploy(f"{name}.py")
        self.many, self.alone, self.single = (self.urls[function] for function in ("many", "alone", "single"))

    def get(self, url: str, **more: Any) -> Any:
        answer = self.machine.request(url, **more)
        assert answer.status == 200, answer
        return answer.json

    def logs(self) -> str:
        return self.machine.run("app", "logs", self.name).stdout


@pytest.fixture(scope="module")
def site(shared: Machine) -> Site:
    """Deployed once."""
    return Site(shared)


def chat(machine: Machine, url: str, **more: Any) -> ClientConnection:
    """A WebSocket."""
    connection = socket.create_connection(("127.0.0.1", machine.port), timeout=PATIENCE)
    return connect(url.replace("http", "ws", 1), sock=connection, max_size=None, **more)


# -- ports ------------------------------------------------------------------------------------------------------------
def test_two_containers_have_the_same_port(site: Site, tmp_path: Path) -> None:
    """Each of the two requests is answered only while the other one runs."""
    one, two = tmp_path / "one", tmp_path / "two"
    answers = ask_at_once(
        site.machine, [f"{site.alone}/meet?mine={one}&others={two}", f"{site.alone}/meet?mine={two}&others={one}"]
    )
    assert len({answer.json["pid"] for answer in answers}) == 2  # type: ignore[index]


def test_two_apps_have_the_same_port(shared: Machine) -> None:
    """`python -m http.server` in both, at once; each has its own files."""
    for name in ("left", "right"):
        (shared.folder / name).mkdir()
        (shared.folder / name / "nuts").write_text(name)
        shared.write(
            f"{name}.py",
            f"import modal, subprocess\napp = modal.App({name!r})\n\n\n@app.function(min_containers=1)\n"
            "@modal.concurrent(max_inputs=10)\n@modal.web_server(8000)\ndef files():\n"
            f"    subprocess.Popen('python -m http.server -d {shared.folder / name} 8000', shell=True)\n",
        )
        shared.deploy(f"{name}.py")
    for name in ("left", "right", "left"):
        assert shared.request(f"http://acme--{name}-files.localhost:{shared.port}/nuts").text == name


def test_a_port_of_the_machine_is_nobodys_hindrance(site: Site) -> None:
    """A program of somebody else listens on it; the container does not care."""
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with closing(taken):
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        site.machine.write(
            "hindered.py",
            "import modal, subprocess\napp = modal.App('hindered')\n\n\n@app.function()\n"
            f"@modal.web_server({port})\ndef files():\n"
            f"    subprocess.Popen('python -m http.server {port}', shell=True)\n",
        )
        url = site.machine.deploy("hindered.py")["files"]
        assert "Directory listing" in site.machine.request(url).text


def test_a_program_reaches_the_machine_and_itself(site: Site) -> None:
    """The machine's other ports are on its localhost, and so is its own port."""
    facts = site.get(f"{site.single}/reach?port={site.machine.port}")
    assert facts["outside"] == "200"
    assert facts["own"] == facts["pid"]


def test_a_function_may_become_the_program(site: Site) -> None:
    """By exec."""
    assert site.get(site.urls["becomes"])["pid"]


# -- HTTP -------------------------------------------------------------------------------------------------------------
def test_a_program_sees_the_standard_headers_and_none_of_ours(site: Site) -> None:
    """Where the client is, and what it asked for; not what it claims."""
    forged = {"X-Forwarded-For": "6.6.6.6", "X-Real-IP": "6.6.6.6", "X-Portico-Input": "x", "X-Nut": "wal"}
    headers = {name.lower(): value for name, value in site.get(site.many, headers=forged)["headers"]}
    host = site.many.removeprefix("http://")
    assert headers.pop("x-request-id")
    assert headers == {
        "host": host,
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "http",
        "x-forwarded-host": host,
        "x-nut": "wal",
    }


def test_answers_pass_as_they_are(site: Site) -> None:
    """Redirects are not followed, what is compressed stays so, and what has no body has none."""
    moved = site.machine.request(f"{site.many}/moved")
    assert (moved.status, moved.headers["location"]) == (302, "/facts")
    packed = site.machine.request(f"{site.many}/packed")
    assert (packed.headers["content-encoding"], packed.body[:2]) == ("gzip", b"\x1f\x8b")
    head = site.machine.request(f"{site.many}/packed", "HEAD")
    assert (head.headers["content-length"], head.body) == (packed.headers["content-length"], b"")
    for path, status in (("nothing", 204), ("same", 304)):
        answer = site.machine.request(f"{site.many}/{path}")
        assert (answer.status, answer.body) == (status, b"")
        assert "transfer-encoding" not in answer.headers


def test_connections_to_the_program_are_kept(site: Site) -> None:
    """Clients that come one after the other share one."""
    assert len({site.get(site.single)["peer"] for _ in range(5)}) == 1


def test_a_stream_arrives_piece_by_piece(site: Site, tmp_path: Path) -> None:
    """The second piece is made only after the client has seen the first."""
    call = Call(site.machine, f"{site.many}/stream?gate={tmp_path / 'gate'}")
    call.until(b"first,")
    (tmp_path / "gate").touch()
    assert call.answer().text == "first,second"


def test_a_chunked_upload_arrives_piece_by_piece(site: Site) -> None:
    """The program has the first piece while the rest is still to come."""
    before = len(lines(site.journal))
    with socket.create_connection(("127.0.0.1", site.machine.port), timeout=PATIENCE) as client:
        host = site.single.removeprefix("http://")
        head = f"POST /upload HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.sendall(head.encode())
        client.sendall(b"5\r\nfirst\r\n")
        wait_until(lambda: lines(site.journal)[before:] == ["first piece"], "the first piece is there")
        client.sendall(b"6\r\nsecond\r\n0\r\n\r\n")
        with client.makefile("rb") as answer:
            assert parse(answer.read()).json == 11


def test_what_a_program_prints_is_in_the_logs(site: Site) -> None:
    """Like what a function prints."""
    site.get(f"{site.many}/forge")
    wait_until(lambda: "[many] served /forge" in site.logs(), "the line is there")


# -- inputs -----------------------------------------------------------------------------------------------------------
def test_without_concurrent_there_is_one_input_at_a_time(site: Site) -> None:
    """Exactly: each leaves before the next one enters."""
    before = len(lines(site.journal))
    answers = ask_at_once(site.machine, [f"{site.single}/once"] * 10)
    assert [answer.json for answer in answers] == ["done"] * 10
    assert lines(site.journal)[before:] == ["enter", "leave"] * 10


def test_the_input_of_a_client_that_left_keeps_its_slot_until_it_has_ended(site: Site, tmp_path: Path) -> None:
    """The program goes on with it; the next input waits."""
    before = len(lines(site.journal))
    call = Call(site.machine, f"{site.single}/hold?gate={tmp_path / 'gate'}")
    wait_until(lambda: lines(site.journal)[before:] == ["enter"], "the input runs")
    call.leave()
    following = Call(site.machine, f"{site.single}/once")
    wait_until(lambda: site.machine.app("programs")["functions"], "the server answers")
    assert lines(site.journal)[before:] == ["enter"]
    (tmp_path / "gate").touch()
    assert following.answer().json == "done"
    assert lines(site.journal)[before:] == ["enter", "leave", "enter", "leave"]


def test_a_client_that_leaves_ends_a_stream(site: Site) -> None:
    """The program's connection ends, and the container's only slot is another request's."""
    before = len(lines(site.journal))
    call = Call(site.machine, f"{site.single}/endless")
    call.until(b"again")
    call.leave()
    assert site.get(f"{site.single}/once") == "done"
    wait_until(lambda: "stream ended" in lines(site.journal)[before:], "the program has heard it")


def test_max_inputs_requests_run_in_one_container(site: Site, tmp_path: Path) -> None:
    """Twenty, of which each waits for the next."""
    paths = [tmp_path / str(number) for number in range(20)]
    urls = [f"{site.many}/meet?mine={paths[n]}&others={paths[(n + 1) % 20]}" for n in range(20)]
    assert len({answer.json["pid"] for answer in ask_at_once(site.machine, urls)}) == 1  # type: ignore[index]


def test_a_program_cannot_keep_a_slot_with_a_header_of_ours(site: Site) -> None:
    """It means nothing from there, and does not pass."""
    assert "x-portico-held" not in site.machine.request(f"{site.single}/forge").headers
    assert site.machine.request(f"{site.single}/forge").status == 200


def test_an_input_that_takes_too_long_is_answered_and_its_container_replaced(site: Site, tmp_path: Path) -> None:
    """The program pays no attention; the next input gets another one."""
    url = site.urls["hasty"]
    first = site.get(url)["pid"]
    late = site.machine.request(f"{url}/hold?gate={tmp_path / 'never'}")
    assert (late.status, "function execution timed out" in late.text) == (500, True)
    assert site.get(url)["pid"] != first


# -- ends -------------------------------------------------------------------------------------------------------------
def test_a_program_that_dies_is_replaced(site: Site) -> None:
    """The request that runs gets 502, the next one a fresh container; the log says what has happened."""
    first = site.get(site.single)["pid"]
    assert site.machine.request(f"{site.single}/die", "POST").status == 502
    assert site.get(site.single)["pid"] != first
    wait_until(lambda: "Nothing listens on port 80 any more." in site.logs(), "the log says so")


def test_a_program_that_dies_while_idle_is_replaced(site: Site) -> None:
    """Nobody has to notice."""
    first = site.get(site.single)["pid"]
    os.kill(first, signal.SIGKILL)
    assert site.get(site.single)["pid"] != first


def test_a_connection_that_the_program_closes_is_no_reason_to_replace_it(site: Site) -> None:
    """The request gets 502; the program answers the next one."""
    first = site.get(site.single)["pid"]
    assert site.machine.request(f"{site.single}/close", "POST").status == 502
    assert site.get(site.single)["pid"] == first


def test_nothing_of_a_program_is_left(shared: Machine) -> None:
    """Also where it has made a session of its own."""
    site = Site(shared, "leaving")
    pids = [site.get(site.urls[name])["pid"] for name in ("many", "alone", "single")]
    assert all(psutil.pid_exists(pid) for pid in pids)
    shared.run("app", "stop", "leaving", "--yes")
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), "all are gone")


# -- starts that fail -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "known"),
    [
        ("subprocess.Popen(['python', '-m', 'http.server', '-b', '127.0.0.1', '8000'])", "127.0.0.1:8000"),
        ("subprocess.Popen(['python', '-m', 'http.server', '8001'])", "port 8001"),
        ("pass", "no port"),
    ],
)
def test_a_program_that_does_not_come_up_fails_the_deploy(shared: Machine, body: str, known: str) -> None:
    """With the text that users know, and what it listens on instead."""
    shared.write(
        "absent.py",
        "import modal, subprocess\napp = modal.App('absent')\n\n\n@app.function()\n"
        f"@modal.web_server(8000, startup_timeout=2)\ndef absent():\n    {body}\n",
    )
    said = " ".join(shared.run("deploy", "absent.py", code=1).stderr.split())
    assert said.count("Waited too long for port 8000 to start accepting connections. Make sure the web server is") == 1
    assert f"After 2 s it listens on {known}." in said


def test_a_deploy_that_fails_shows_what_its_container_printed(shared: Machine) -> None:
    """Nobody could look them up: of a first deploy there is no app. None of the old version's lines are among them."""
    text = (
        "import modal, subprocess\napp = modal.App('mute')\n\n\n@app.function(min_containers=1)\n"
        "@modal.web_server(8000, startup_timeout=1)\ndef mute():\n    subprocess.Popen({words}, shell=True)\n"
    )
    shared.write("mute.py", text.format(words=repr("echo the old one; exec python -m http.server 8000")))
    shared.run("deploy", "mute.py")
    shared.write("mute.py", text.format(words=repr("echo no such model >&2; exit 3")))
    failed = shared.run("deploy", "mute.py", code=1)
    assert "[mute] no such model\nAfter 1 s it listens on no port.\nError: A container of mute" in failed.stderr
    assert "the old one" not in failed.stderr
    shared.run("app", "stop", "mute", "--yes")


def test_a_function_that_raises_fails_the_deploy(shared: Machine) -> None:
    """With its traceback."""
    shared.write(
        "raising.py",
        "import modal\napp = modal.App('raising')\n\n\n@app.function()\n@modal.web_server(8000)\n"
        "def raising():\n    raise ValueError('out of nuts')\n",
    )
    assert "ValueError: out of nuts" in shared.run("deploy", "raising.py", code=1).stderr


# -- other languages --------------------------------------------------------------------------------------------------
def test_an_aiohttp_server(shared: Machine) -> None:
    """Requests, a stream and a WebSocket with its limits; it runs in a thread of the function's own process."""
    shared.write(
        "with_aiohttp.py",
        """
import asyncio
import threading

import modal

app = modal.App("with-aiohttp")


def serve():
    from aiohttp import web

    async def echo(request):
        return web.Response(body=await request.read(), content_type="text/plain")

    async def stream(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in (b"one,", b"two"):
            await response.write(piece)
        return response

    async def chat(request):
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            await ws.send_str(message.data)
        return ws

    site = web.Application()
    site.add_routes([web.post("/echo", echo), web.get("/stream", stream), web.get("/chat", chat)])
    web.run_app(site, host="0.0.0.0", port=8000, handle_signals=False)


@app.function(image=modal.Image.debian_slim().pip_install("aiohttp"))
@modal.concurrent(max_inputs=10)
@modal.web_server(8000)
def aio():
    threading.Thread(target=serve, daemon=True).start()
""",
    )
    url = shared.deploy("with_aiohttp.py")["aio"]
    assert shared.request(f"{url}/echo", "POST", body=b"nuts").text == "nuts"
    assert shared.request(f"{url}/stream").text == "one,two"
    with chat(shared, f"{url}/chat") as ws:
        ws.send("hello")
        assert ws.recv(PATIENCE) == "hello"
    with chat(shared, f"{url}/chat", compression=None) as ws:
        ws.send("x" * (2 * 1024 * 1024 + 1))
        with pytest.raises(ConnectionClosedError) as closed:
            ws.recv(PATIENCE)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


NODE = """
const http = require("http"), crypto = require("crypto");
const server = http.createServer((request, response) => {
  let size = 0;
  request.on("data", piece => { size += piece.length; });
  const ip = request.headers["x-forwarded-for"];
  request.on("end", () => response.end(JSON.stringify({method: request.method, size, ip})));
});
server.on("upgrade", (request, socket) => {
  const key = request.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
  const accept = crypto.createHash("sha1").update(key).digest("base64");
  socket.write("HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n" +
    "Sec-WebSocket-Accept: " + accept + "\\r\\n\\r\\n");
  socket.on("data", frame => {
    const length = frame[1] & 127, mask = frame.subarray(2, 6);
    const text = Buffer.from(frame.subarray(6, 6 + length).map((byte, i) => byte ^ mask[i % 4]));
    socket.write(Buffer.concat([Buffer.from([frame[0], length]), text]));
    if ((frame[0] & 15) === 8) socket.end();
  });
});
server.listen(3000);
"""


def test_a_node_server(shared: Machine) -> None:
    """Of its standard library, on its default address; requests and a WebSocket."""
    script = shared.write("server.js.txt", NODE)
    shared.write(
        "with_node.py",
        "import modal, subprocess\napp = modal.App('with-node')\n\n\n@app.function()\n"
        "@modal.concurrent(max_inputs=10)\n@modal.web_server(3000)\ndef node():\n"
        f"    subprocess.Popen(['node', {str(script)!r}])\n",
    )
    url = shared.deploy("with_node.py")["node"]
    for size in (0, 1_000_000):
        expected = {"method": "POST", "size": size, "ip": "127.0.0.1"}
        assert shared.request(url, "POST", body=b"x" * size).json == expected
    with chat(shared, url) as ws:
        for text in ("hello", "again"):
            ws.send(text)
            assert ws.recv(PATIENCE) == text


NGINX = """
user {user} {group};
worker_processes 2;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
  access_log /dev/stdout;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 8080;
    listen [::]:8080;
    location / {{ root {folder}/files; }}
    location /inner/ {{ proxy_pass http://127.0.0.1:9000/; }}
  }}
  server {{
    listen 127.0.0.1:9000;
    return 200 "from within";
  }}
}}
"""


def test_an_nginx(shared: Machine, tmp_path: Path) -> None:
    """As a daemon, with two processes that share its sockets, and a port of its own behind the one that is served."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "nuts").write_bytes(b"n" * 100_000)
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX.format(folder=tmp_path, user=tmp_path.owner(), group=tmp_path.group()))
    shared.write(
        "with_nginx.py",
        "import modal, subprocess\napp = modal.App('with-nginx')\n\n\n@app.function(max_containers=1)\n"
        "@modal.concurrent(max_inputs=10)\n@modal.web_server(8080)\ndef nginx():\n"
        f"    subprocess.Popen([{nginx!r}, '-c', {str(config)!r}])\n",
    )
    url = shared.deploy("with_nginx.py")["nginx"]
    assert shared.request(f"{url}/nuts").body == b"n" * 100_000
    assert shared.request(f"{url}/nuts", headers={"Range": "bytes=0-3"}).status == 206
    assert shared.request(f"{url}/inner/").text == "from within"
    master = int((tmp_path / "nginx.pid").read_text())
    shared.run("app", "stop", "with-nginx", "--yes")
    wait_until(lambda: not psutil.pid_exists(master), "it is gone")


# -- where the kernel gives containers no ports of their own ----------------------------------------------------------
REFUSE = """
import ctypes, os, struct, sys
load, equal, leave, allow, refuse = 0x20, 0x15, 0x06, 0x7FFF0000, 0x00050001
lines = [(load, 0, 0, 0), (equal, 0, 1, int(sys.argv[1])), (leave, 0, 0, refuse), (leave, 0, 0, allow)]
code = b"".join(struct.pack("=HBBI", *line) for line in lines)
buffer = ctypes.create_string_buffer(code, len(code))
program = ctypes.create_string_buffer(struct.pack("HL", len(lines), ctypes.addressof(buffer)))
libc = ctypes.CDLL(None)
libc.prctl(38, 1, 0, 0, 0)
assert libc.prctl(22, 2, program) == 0
os.execv(sys.executable, [sys.executable, "-m", "portico", "up"])
"""
FILES = """
import modal, subprocess
app = modal.App({name!r})


@app.function(max_containers=1)
@modal.web_server({port}, startup_timeout=2)
def files():
    subprocess.Popen(["python", "-m", "http.server", "-b", {host!r}, "{port}"])
"""


@pytest.mark.parametrize("missing", ["seccomp", "pidfd_getfd"])
def test_where_ports_are_shared_a_taken_one_is_a_clear_error(machine: Machine, missing: str) -> None:
    """The kernel refuses the system call (EPERM): one program has the port, the next one hears that."""
    number = 438 if missing == "pidfd_getfd" else {"x86_64": 317, "aarch64": 277}[platform.machine()]
    script = machine.write("refuse.txt", REFUSE)
    server = Process([sys.executable, str(script), str(number)], machine.env, machine.folder)
    try:
        server.until("listens on")
        port = free_port()
        machine.write("first.py", FILES.format(name="first", port=port, host="0.0.0.0"))
        machine.write("second.py", FILES.format(name="second", port=port, host="0.0.0.0"))
        machine.write("inner.py", FILES.format(name="inner", port=free_port(), host="127.0.0.1"))
        url = machine.deploy("first.py")["files"]
        assert "Directory listing" in machine.request(url).text
        said = " ".join(machine.run("deploy", "second.py", code=1).stderr.split())
        assert f"Port {port} is taken by the function 'files' of the app 'first'; the kernel gives" in said
        assert "After 2 s it listens on 127.0.0.1:" in machine.run("deploy", "inner.py", code=1).stderr
        machine.run("app", "stop", "first", "--yes")
        wait_until(lambda: not machine.containers(), "the port is free")
        assert machine.deploy("second.py")
    finally:
        server.end()
