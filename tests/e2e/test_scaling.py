"""How many containers there are: as many as requests ask for, within bounds, and none when nobody asks."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.e2e.calls import Call, ask_at_once, lines
from tests.e2e.conftest import Machine, wait_until

ELASTIC = '''
import os
import time

import modal

app = modal.App("elastic")


def work(journal, gate, name):
    """Says when it begins and ends, and waits in between until the test lets it go."""
    with open(journal, "a") as file:
        file.write(f"begin {name}\\n")
    while not os.path.exists(gate):
        time.sleep(0.005)
    with open(journal, "a") as file:
        file.write(f"end {name}\\n")
    return os.getpid()


@app.function(scaledown_window=2)
@modal.fastapi_endpoint()
def free(journal: str, gate: str = "/", name: str = ""):
    return work(journal, gate, name)


@app.function(max_containers=1, scaledown_window=2)
@modal.fastapi_endpoint()
def single(journal: str, gate: str = "/", name: str = ""):
    return work(journal, gate, name)


@app.function(max_containers=2, scaledown_window=2)
@modal.fastapi_endpoint()
def pair(journal: str, name: str = ""):
    return work(journal, "/", name)


@app.function(min_containers=1, scaledown_window=2)
@modal.fastapi_endpoint()
def kept(journal: str, gate: str = "/", name: str = ""):
    return work(journal, gate, name)


@app.function(buffer_containers=1, scaledown_window=2)
@modal.fastapi_endpoint()
def buffered(journal: str, gate: str = "/", name: str = ""):
    return work(journal, gate, name)
'''


@pytest.fixture(scope="module")
def urls(shared: Machine) -> dict[str, str]:
    """The elastic app's URLs."""
    shared.write("elastic.py", ELASTIC)
    return shared.deploy("elastic.py")


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Where functions write when they begin and end."""
    return tmp_path / "journal"


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """Functions end when it exists."""
    return tmp_path / "gate"


def counts(machine: Machine, name: str) -> tuple[int, int, int]:
    """Containers, running and queued requests of a function."""
    found = next(function for function in machine.app("elastic")["functions"] if function["name"] == name)
    return found["containers"], found["running"], found["queued"]


def is_gone(pid: object) -> bool:
    """Whether there is no such process."""
    assert isinstance(pid, int)
    return not psutil.pid_exists(pid)


# -- up ---------------------------------------------------------------------------------------------------------------
def test_request_number_two_starts_a_second_container(
    shared: Machine, urls: dict[str, str], journal: Path, gate: Path
) -> None:
    """When it finds the only one busy."""
    calls = [Call(shared, f"{urls['free']}/?journal={journal}&gate={gate}&name={name}") for name in "ab"]
    wait_until(lambda: len(lines(journal)) == 2, "both have begun")
    gate.touch()
    assert len({call.answer().text for call in calls}) == 2


def test_later_requests_wait_in_line_for_max_containers(
    shared: Machine, urls: dict[str, str], journal: Path, gate: Path
) -> None:
    """First come, first served, and all are answered."""
    calls = []
    for number, name in enumerate("abcde"):
        calls.append(Call(shared, f"{urls['single']}/?journal={journal}&gate={gate}&name={name}"))
        if number:
            wait_until(lambda number=number: counts(shared, "single") == (1, 1, number), f"{name} is in line")
        else:
            wait_until(lambda: lines(journal) == ["begin a"], "a has begun")
    gate.touch()
    assert len({call.answer().text for call in calls}) == 1
    assert lines(journal) == [f"{verb} {name}" for name in "abcde" for verb in ("begin", "end")]


def test_a_client_that_leaves_the_line_is_never_run(
    shared: Machine, urls: dict[str, str], journal: Path, gate: Path
) -> None:
    """Nobody wants the answer."""
    first = Call(shared, f"{urls['single']}/?journal={journal}&gate={gate}&name=first")
    wait_until(lambda: lines(journal), "it has begun")
    impatient = Call(shared, f"{urls['single']}/?journal={journal}&name=impatient")
    wait_until(lambda: counts(shared, "single")[2] == 1, "it is in line")
    last = Call(shared, f"{urls['single']}/?journal={journal}&name=last")
    wait_until(lambda: counts(shared, "single")[2] == 2, "so is the last")
    impatient.leave()
    wait_until(lambda: counts(shared, "single")[2] == 1, "it has left")
    gate.touch()
    assert first.answer().status == last.answer().status == 200
    assert lines(journal) == ["begin first", "end first", "begin last", "end last"]


def test_sixty_clients_share_two_containers(shared: Machine, urls: dict[str, str], journal: Path) -> None:
    """All are answered, and no more than two run at a time."""
    answers = ask_at_once(shared, [f"{urls['pair']}/?journal={journal}&name={number}" for number in range(60)])
    assert [answer.status for answer in answers] == [200] * 60
    running = 0
    for line in lines(journal):
        running += 1 if line.startswith("begin") else -1
        assert 0 <= running <= 2
    assert len(lines(journal)) == 120
    assert len({answer.text for answer in answers}) <= 2


def test_a_buffer_stands_ready_while_there_are_requests(
    shared: Machine, urls: dict[str, str], journal: Path, gate: Path
) -> None:
    """One idle container more than what runs."""
    call = Call(shared, f"{urls['buffered']}/?journal={journal}&gate={gate}")
    wait_until(lambda: counts(shared, "buffered") == (2, 1, 0), "there is one to spare")
    gate.touch()
    assert call.answer().status == 200


# -- down -------------------------------------------------------------------------------------------------------------
def test_idle_containers_go_after_the_window_and_come_back_with_the_next_request(
    shared: Machine, urls: dict[str, str], journal: Path
) -> None:
    """Down to zero and up again, under the same URL."""
    first = shared.request(f"{urls['free']}/?journal={journal}").json
    wait_until(lambda: is_gone(first), "it is gone")
    assert counts(shared, "free") == (0, 0, 0)
    again = shared.request(f"{urls['free']}/?journal={journal}")
    assert again.status == 200
    assert again.json != first


def test_min_containers_stay(shared: Machine, urls: dict[str, str], journal: Path, gate: Path) -> None:
    """What a crowd has started beyond them goes."""
    calls = [Call(shared, f"{urls['kept']}/?journal={journal}&gate={gate}&name={name}") for name in "ab"]
    wait_until(lambda: len(lines(journal)) == 2, "both have begun")
    gate.touch()
    pids = [call.answer().json for call in calls]
    wait_until(lambda: any(map(is_gone, pids)), "one of them is gone")
    wait_until(lambda: counts(shared, "kept")[0] == 1, "one is left")
    left = next(pid for pid in pids if not is_gone(pid))
    assert shared.request(f"{urls['kept']}/?journal={journal}").json == left


def test_a_buffer_goes_when_there_are_no_requests(
    shared: Machine, urls: dict[str, str], journal: Path, gate: Path
) -> None:
    """Down to zero."""
    shared.request(f"{urls['buffered']}/?journal={journal}")
    wait_until(lambda: counts(shared, "buffered") == (0, 0, 0), "all are gone")
