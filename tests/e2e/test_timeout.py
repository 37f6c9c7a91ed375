"""An input may take as long as its function's `timeout` says, and no longer."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.calls import Call
from tests.e2e.conftest import Machine, wait_until

APP = """
import asyncio, os, time
import modal

app = modal.App("late")


@app.function(timeout=1)
@modal.fastapi_endpoint()
async def patient(seconds: float = 30):
    await asyncio.sleep(seconds)
    return os.getpid()


@app.function(timeout=1)
@modal.fastapi_endpoint()
def stubborn(seconds: float = 60):
    time.sleep(seconds)
    return os.getpid()


@app.function(timeout=1, startup_timeout=30, max_containers=1)
@modal.concurrent(max_inputs=5)
@modal.fastapi_endpoint()
async def blocks(begun: str = ""):
    if begun:
        open(begun, "w").close()
        time.sleep(60)
    return os.getpid()


@app.function(timeout=1)
@modal.asgi_app()
def asgi():
    async def application(scope, receive, send):
        if scope["type"] != "http":
            return
        more = True
        while more:
            more = (await receive()).get("more_body")
        streamed = scope["path"] == "/stream"
        if not streamed and scope["path"] != "/pid":
            await asyncio.sleep(30)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(os.getpid()).encode(), "more_body": streamed})
        if streamed:
            await asyncio.sleep(30)
    return application


@app.function(timeout=1)
@modal.wsgi_app()
def wsgi():
    def application(environ, start_response):
        def more():
            yield str(os.getpid()).encode()
            time.sleep(60)
        if environ["PATH_INFO"] == "/wait":
            time.sleep(60)
        environ["wsgi.input"].read()
        start_response("200 OK", [])
        return more() if environ["PATH_INFO"] == "/stream" else [str(os.getpid()).encode()]
    return application
"""
TIMED_OUT = "modal-http: internal error: function execution timed out"


@pytest.fixture(scope="module")
def urls(shared: Machine) -> dict[str, str]:
    """The app's URLs."""
    shared.write("late.py", APP)
    return shared.deploy("late.py")


def test_a_late_input_is_answered_with_the_text_that_clients_know(shared: Machine, urls: dict[str, str]) -> None:
    """And its slot is free for the next one, in the same container."""
    url = urls["patient"]
    before = shared.request(f"{url}/?seconds=0").json
    answer = shared.request(url)
    assert answer.status == 500
    assert answer.text.startswith(TIMED_OUT)
    assert shared.request(f"{url}/?seconds=0").json == before


def test_a_container_that_cannot_end_a_late_input_is_replaced(shared: Machine, urls: dict[str, str]) -> None:
    """A thread that sleeps hears nothing."""
    url = urls["stubborn"]
    before = shared.request(f"{url}/?seconds=0").json
    assert shared.request(url).text.startswith(TIMED_OUT)
    wait_until(lambda: before not in [c.pid for c in shared.containers()], "the container is gone")
    assert shared.request(f"{url}/?seconds=0").json != before


def test_a_function_that_blocks_the_loop_harms_its_own_container_only(
    shared: Machine, urls: dict[str, str], tmp_path: Path
) -> None:
    """What else is in there is answered in time, if not well, and the container is replaced; others notice nothing."""
    url = urls["blocks"]
    before = shared.request(url).json
    blocked = Call(shared, f"{url}/?begun={tmp_path / 'begun'}")
    wait_until((tmp_path / "begun").exists, "it blocks")
    beside = [Call(shared, url) for _ in range(4)]
    waiting = Call(shared, url)  # for a slot: there are no more
    slowest = 0.0
    while before in [container.pid for container in shared.containers()]:
        began = time.monotonic()
        assert shared.request(f"{urls['patient']}/?seconds=0").status == 200
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 3
    for call in (blocked, *beside):
        answer = call.answer()
        assert (answer.status, answer.text.partition(" (")[0]) == (500, TIMED_OUT)
    assert waiting.answer().json == shared.request(url).json != before


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_apps_have_the_same_deadline(shared: Machine, urls: dict[str, str], kind: str) -> None:
    """Whatever they are made of."""
    answer = shared.request(f"{urls[kind]}/wait")
    assert answer.status == 500
    assert answer.text.startswith(TIMED_OUT)


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_a_stream_that_takes_too_long_is_cut(shared: Machine, urls: dict[str, str], kind: str) -> None:
    """What has come stays; nobody takes it for the whole."""
    call = Call(shared, f"{urls[kind]}/stream")
    call.until(b"200 OK")
    assert not call.rest().endswith(b"0\r\n\r\n")
    assert shared.request(f"{urls[kind]}/pid").status == 200


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_the_time_of_a_slow_body_counts(shared: Machine, urls: dict[str, str], kind: str) -> None:
    """A client that never sends the rest has its slot for no longer than others."""
    answer = Call(shared, f"{urls[kind]}/pid", "POST", body=b"{", length=100).answer()
    assert answer.status == 500
    assert answer.text.startswith(TIMED_OUT)
