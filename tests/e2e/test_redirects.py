"""`up --redirect-after`: long requests whose clients are sent to the URL of the result."""

from __future__ import annotations

import json
import re
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.calls import lines
from tests.e2e.conftest import PATIENCE, Answer, Machine, wait_until

APP = """
import asyncio
from pathlib import Path
import modal

app = modal.App("long")

async def opened(gate):
    while not Path(gate).exists():
        await asyncio.sleep(0.01)

@app.function(scaledown_window=2)
@modal.concurrent(max_inputs=20)
@modal.asgi_app()
def web():
    from fastapi import FastAPI, Request, Response
    web = FastAPI()

    @web.post("/made")
    async def made(request: Request, gate: str, journal: str):
        body = await request.body()
        with open(journal, "a") as file:
            file.write("began\\n")
        await opened(gate)
        with open(journal, "a") as file:
            file.write("ended\\n")
        return Response(body[::-1], 201, {"x-mine": "yes"})

    return web

@app.function(scaledown_window=2, timeout=3)
@modal.fastapi_endpoint()
async def slow():
    await asyncio.sleep(60)

@app.cls(scaledown_window=2)
class Model:
    size: str = modal.parameter(default="small")

    @modal.fastapi_endpoint(requires_proxy_auth=True)
    async def guarded(self, gate: str):
        await opened(gate)
        return self.size
"""


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A server that redirects after a second, with the app deployed on it."""
    machine = Machine(tmp_path_factory.mktemp("redirects"))
    machine.write("long.py", APP)
    machine.start("up", "--redirect-after", "1").until("listens on")
    machine.urls = machine.deploy("long.py")  # type: ignore[attr-defined]
    yield machine
    machine.close()
    wait_until(lambda: not machine.leftovers(), f"nothing is left: {machine.leftovers()}")


def sent_to(answer: Answer) -> str:
    """Where this redirection leads."""
    assert (answer.status, answer.headers["content-length"], answer.body) == (303, "0", b"")
    return answer.headers["location"]


def answered(machine: Machine, url: str) -> Answer:
    """What is at the result's URL in the end."""
    while (answer := machine.request(url)).status == 303:
        assert sent_to(answer) == url
    return answer


class Opener(urllib.request.HTTPRedirectHandler):
    """Lets the function go on when its client has been redirected twice."""

    def __init__(self, gate: Path) -> None:
        self._gate = gate
        self.methods: list[str] = []

    def redirect_request(self, request, *args, **kwargs):
        self.methods.append(request.get_method())
        if len(self.methods) == 2:
            self._gate.touch()
        return super().redirect_request(request, *args, **kwargs)


def test_a_client_that_follows_redirects_has_its_answer(laptop: Machine, tmp_path: Path) -> None:
    """The standard library's does it by itself: POST, then GET as often as it takes; the function runs once."""
    journal, gate = tmp_path / "journal", tmp_path / "gate"
    url = f"{laptop.urls['web']}/made?gate={gate}&journal={journal}"  # type: ignore[attr-defined]
    opener = Opener(gate)
    direct = urllib.request.ProxyHandler({"http": f"127.0.0.1:{laptop.port}"})  # nobody is asked what the name means
    with urllib.request.build_opener(direct, opener).open(url, b"hello", PATIENCE) as answer:
        assert (answer.status, answer.read(), answer.headers["x-mine"]) == (201, b"olleh", "yes")
    assert "?__modal_function_call_id=fc-" in answer.url
    assert opener.methods == ["POST", "GET"]
    assert lines(journal) == ["began", "ended"]


def test_a_result_has_a_url_of_its_own(laptop: Machine, tmp_path: Path) -> None:
    """It takes GET only, belongs to its endpoint, waits for its client, and is delivered once."""
    journal, gate = tmp_path / "journal", tmp_path / "gate"
    base = laptop.urls["web"]  # type: ignore[attr-defined]
    url = sent_to(laptop.request(f"{base}/made?gate={gate}&journal={journal}", "POST", body=b"abc"))
    assert re.fullmatch(re.escape(base) + r"/made\?__modal_function_call_id=fc-[0-9A-Z]{26}", url)
    posted = laptop.request(url, "POST", body=b"")
    assert (posted.status, posted.text) == (400, "modal-http: bad redirect method\n")
    assert sent_to(laptop.request(url)) == url
    gate.touch()
    wait_until(lambda: lines(journal) == ["began", "ended"], "the function has ended, and nobody has come yet")
    for label in ("slow", "Model.guarded"):
        other = laptop.request(url.replace(base, laptop.urls[label]))  # type: ignore[attr-defined]
        assert other.status == (404 if label == "slow" else 401)
    answer = answered(laptop, url)
    assert (answer.status, answer.body, answer.headers["x-mine"]) == (201, b"cba", "yes")
    again = laptop.request(url)
    assert (again.status, again.text) == (404, "modal-http: invalid function call")
    old = laptop.request(f"{base}/made?__modal_function_call_id=fc-{'0' * 26}")
    assert (old.status, old.text) == (410, "modal-http: the result of this call is no longer kept")


def test_a_function_that_runs_out_of_time_says_so_at_the_url(laptop: Machine) -> None:
    """The function's own timeout holds."""
    answer = answered(laptop, sent_to(laptop.request(laptop.urls["slow"])))  # type: ignore[attr-defined]
    assert answer.status == 500
    assert answer.text.startswith("modal-http: internal error: function execution timed out")


def test_methods_with_proxy_auth_are_redirected(laptop: Machine, tmp_path: Path) -> None:
    """The result asks for the token, too; a result that is not there is no new input."""
    gate = tmp_path / "gate"
    token = json.loads(laptop.run("proxy-token", "create", "--json").stdout)
    headers = {"Modal-Key": token["id"], "Modal-Secret": token["secret"]}
    base = laptop.urls["Model.guarded"]  # type: ignore[attr-defined]
    url = sent_to(laptop.request(f"{base}/?gate={gate}&size=big", headers=headers))
    assert laptop.request(url).status == 401
    gate.touch()
    answer = laptop.request(url, headers=headers)
    assert (answer.status, answer.json) == (200, "big")
    assert laptop.request(url, headers=headers).text == "modal-http: invalid function call"


def test_a_restart_of_the_server_loses_what_was_redirected(machine: Machine, tmp_path: Path) -> None:
    """Its URL says that there is no such call."""
    journal, gate = tmp_path / "journal", tmp_path / "gate"
    machine.env["PORTICO_REDIRECT_AFTER"] = "1"
    server = machine.up()
    machine.write("long.py", APP)
    base = machine.deploy("long.py")["web"]
    url = sent_to(machine.request(f"{base}/made?gate={gate}&journal={journal}", "POST", body=b""))
    server.popen.send_signal(signal.SIGKILL)
    server.popen.wait(PATIENCE)
    machine.up()
    answer = machine.request(url)
    assert (answer.status, answer.text) == (404, "modal-http: invalid function call")
    assert lines(journal) == ["began"]
