"""Requests to endpoints that are answered later, at the URL of their result."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.e2e.calls import lines
from tests.e2e.conftest import PATIENCE, Answer, Machine, wait_until

APP = """
import asyncio
from pathlib import Path
import modal

app = modal.App("later")

@app.function(scaledown_window=2)
@modal.concurrent(max_inputs=20)
@modal.asgi_app()
def web():
    from fastapi import FastAPI, Request, Response
    web = FastAPI()

    @web.api_route("/echo/{rest:path}", methods=["GET", "POST"])
    async def echo(request: Request, rest: str):
        body = await request.body()
        headers = {"x-seen": request.headers.get("x-mine", ""), "x-host": request.headers["host"],
                   "x-from": f"{request.client.host} {request.url.scheme}", "x-length": str(len(body))}
        return Response(body[::-1][:100_000], 201, headers, "text/x-echo")

    @web.get("/held")
    async def held(journal: str, gate: str):
        with open(journal, "a") as file:
            file.write("began\\n")
        try:
            while not Path(gate).exists():
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            with open(journal, "a") as file:
                file.write("cancelled\\n")
            raise
        return {"held": True}

    @web.get("/breaks")
    async def breaks():
        raise RuntimeError

    return web

@app.function(scaledown_window=2)
@modal.concurrent(max_inputs=5)
@modal.web_server(8000)
def program():
    import subprocess
    Path("said.txt").write_text("hello of a file")
    subprocess.Popen("exec python -m http.server 8000", shell=True)

@app.function(scaledown_window=2, timeout=1)
@modal.fastapi_endpoint()
async def slow():
    await asyncio.sleep(20)
"""

LATER = {"Prefer": "respond-async"}


@pytest.fixture(scope="module")
def laptop(shared: Machine) -> Machine:
    """A server with the app deployed on it."""
    shared.write("later.py", APP)
    shared.urls = shared.deploy("later.py")  # type: ignore[attr-defined]
    return shared


def later(machine: Machine, url: str, method: str = "GET", **more: object) -> str:
    """Ask to be answered later; the URL of the result."""
    answer = machine.request(url, method, headers=LATER | more.pop("headers", {}), **more)  # type: ignore[arg-type,operator]
    assert answer.status == 202, answer
    document = json.loads(answer.body)
    assert document["result_url"] == answer.headers["location"]
    return str(document["result_url"])


def result(machine: Machine, url: str) -> Answer:
    """The answer, as soon as it is there."""
    wait_until(lambda: machine.request(url).status != 202, "the result is there")
    return machine.request(url)


def test_a_request_is_answered_later(laptop: Machine) -> None:
    """Method, path, query, headers and body arrive; status, headers and body come back, as often as one asks."""
    base = laptop.urls["web"]  # type: ignore[attr-defined]
    url = later(laptop, base + "/echo/a/b?x=1", "POST", body=b"hello", headers={"X-Mine": "yes"})
    assert url.startswith(base + "/echo/a/b?__modal_function_call_id=fc-")
    for _ in range(2):
        answer = result(laptop, url)
        assert (answer.status, answer.body) == (201, b"olleh")
        seen = [answer.headers[name] for name in ("x-seen", "x-host", "x-from", "content-type", "x-length")]
        assert seen == ["yes", base.partition("//")[2], "127.0.0.1 http", "text/x-echo; charset=utf-8", "5"]


def test_programs_that_listen_are_asked_later_too(laptop: Machine) -> None:
    """They get the headers that they know."""
    answer = result(laptop, later(laptop, laptop.urls["program"] + "/said.txt"))  # type: ignore[attr-defined]
    assert (answer.status, answer.text) == (200, "hello of a file")
    missing = result(laptop, later(laptop, laptop.urls["program"] + "/missing.txt"))  # type: ignore[attr-defined]
    assert missing.status == 404


def test_large_bodies_pass(laptop: Machine) -> None:
    """Through files, both ways; what is too large is refused, and says how much may be."""
    base = laptop.urls["web"]  # type: ignore[attr-defined]
    answer = result(laptop, later(laptop, base + "/echo/", "POST", body=b"ab" * 500_000))
    assert (answer.headers["x-length"], answer.body) == ("1000000", b"ba" * 50_000)
    head = f"POST /echo/ HTTP/1.1\r\nHost: {base.partition('//')[2]}\r\nPrefer: respond-async\r\n"
    refused = laptop.raw(f"{head}Content-Length: 200000000\r\nConnection: close\r\n\r\nx".encode())
    assert b" 413 " in refused.partition(b"\r\n")[0] + b" "
    assert b"modal-http: bad request: a request that is answered later has at most 100 MiB" in refused


def test_the_result_is_not_there_at_first(laptop: Machine, tmp_path: Path) -> None:
    """Its URL answers 202 until then, and takes GET only."""
    base = laptop.urls["web"]  # type: ignore[attr-defined]
    url = later(laptop, f"{base}/held?journal={tmp_path / 'j'}&gate={tmp_path / 'gate'}")
    waiting = laptop.request(url)
    assert (waiting.status, waiting.json) == (202, {"result_url": url})
    posted = laptop.request(url, "POST", body=b"")
    assert (posted.status, posted.text) == (400, "modal-http: bad redirect method")
    (tmp_path / "gate").touch()
    assert result(laptop, url).json == {"held": True}
    assert lines(tmp_path / "j") == ["began"]


@pytest.mark.parametrize(
    ("function", "path", "status", "text"),
    [
        ("web", "/breaks", 500, "Internal Server Error"),
        ("slow", "/", 500, "modal-http: internal error: function execution timed out"),
    ],
)
def test_what_fails_is_told_later(laptop: Machine, function: str, path: str, status: int, text: str) -> None:
    """As it would have been at once."""
    answer = result(laptop, later(laptop, laptop.urls[function] + path))  # type: ignore[attr-defined]
    assert (answer.status, answer.text) == (status, text)


def test_a_result_belongs_to_its_endpoint(laptop: Machine) -> None:
    """An id that is unknown, or another function's, is no function call."""
    urls = laptop.urls  # type: ignore[attr-defined]
    query = later(laptop, urls["web"] + "/echo/").partition("?")[2]
    for url in (f"{urls['slow']}/?{query}", f"{urls['web']}/?__modal_function_call_id=fc-{'7' * 26}"):
        answer = laptop.request(url)
        assert (answer.status, answer.text) == (404, "modal-http: invalid function call")
    assert laptop.request(f"{urls['web']}/?__modal_function_call_id=fc-{'0' * 26}").status == 410


def test_a_request_that_was_accepted_survives_the_end_of_the_server(machine: Machine, tmp_path: Path) -> None:
    """Done, or waiting while nothing could run it: its result URL answers after the restart, from the first moment."""
    server = machine.up()
    machine.write("later.py", APP)
    base = machine.deploy("later.py")["web"]
    done = later(machine, base + "/echo/", "POST", body=b"abc")
    assert result(machine, done).body == b"cba"
    running = later(machine, f"{base}/held?journal={tmp_path / 'j'}&gate={tmp_path / 'gate'}")
    wait_until(lambda: lines(tmp_path / "j") == ["began"], "it runs")
    server.popen.send_signal(signal.SIGKILL)
    server.popen.wait(PATIENCE)
    machine.up()
    assert machine.request(done).body == b"cba"
    answer = result(machine, running)
    assert (answer.status, answer.text) == (
        500,
        "modal-http: internal error: the server was restarted while the call ran",
    )
    assert lines(tmp_path / "j") == ["began"]
