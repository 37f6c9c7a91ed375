"""An input may take as long as its function's `timeout` says, and no longer."""

from __future__ import annotations

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
"""
TIMED_OUT = "modal-http: internal error: function execution timed out"


def test_a_late_input_is_answered_with_the_text_that_clients_know(shared: Machine) -> None:
    """And its slot is free for the next one, in the same container."""
    shared.write("late.py", APP)
    url = shared.deploy("late.py")["patient"]
    before = shared.request(f"{url}/?seconds=0").json
    answer = shared.request(url)
    assert answer.status == 500
    assert answer.text.startswith(TIMED_OUT)
    assert shared.request(f"{url}/?seconds=0").json == before


def test_a_container_that_cannot_end_a_late_input_is_replaced(shared: Machine) -> None:
    """A thread that sleeps hears nothing."""
    shared.write("late.py", APP)
    url = shared.deploy("late.py")["stubborn"]
    before = shared.request(f"{url}/?seconds=0").json
    assert shared.request(url).text.startswith(TIMED_OUT)
    wait_until(lambda: before not in [c.pid for c in shared.containers()], "the container is gone")
    assert shared.request(f"{url}/?seconds=0").json != before
