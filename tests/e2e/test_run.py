"""`portico run`: an app for the time of one of its functions."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import Machine, wait_until

APP = """
import datetime, sys, time
import modal

app = modal.App("runner")

@app.function()
def square(x: int, verbose: bool = False):
    print("computing", x)
    return x * x

@app.function()
def word(what="egg"):
    return what

@app.function()
def bad():
    raise ValueError("no egg")

@app.function()
def count(n: int):
    for i in range(n):
        print("yields", i)
        yield i

@app.function()
def forever():
    print("it has begun")
    time.sleep(1000)

@app.function()
@modal.fastapi_endpoint()
def web():
    return 1

@app.local_entrypoint()
def main(n: int, who_is: str = "Ann", when: datetime.datetime = None, loud: bool = False):
    "Squares some numbers."
    print(f"{who_is} {when} {loud} {list(square.map(range(n)))} {modal.is_local()}")
    return f"result {n}"

@app.local_entrypoint()
def raw(*words):
    print("words", words)

@app.local_entrypoint()
async def asynchronous():
    print("awaited", await square.remote.aio(7))

@app.local_entrypoint()
def fails():
    bad.remote()

@app.local_entrypoint()
def leaves():
    sys.exit(3)

@app.local_entrypoint()
def reads():
    print("read", input())
"""

ONE = """
import modal
app = modal.App()

@app.function()
def only(x: int = 3):
    print("got", x)
"""


@pytest.fixture(scope="module")
def laptop(shared: Machine) -> Machine:
    """A machine with the app's file."""
    shared.write("runner.py", APP)
    shared.write("one.py", ONE)
    return shared


def test_a_local_entrypoint_runs_here_and_calls_functions_there(laptop: Machine) -> None:
    """Its options are those of its signature; what containers print is shown."""
    done = laptop.run("run", "runner.py::main", "--n", "3", "--who-is", "Bo", "--when", "2026-01-02", "--loud")
    assert "Bo 2026-01-02 00:00:00 True [0, 1, 4] True" in done.stdout
    assert "[square] computing 2" in done.stdout


def test_nothing_is_left_of_the_app(laptop: Machine) -> None:
    """It lives as long as the run."""
    laptop.run("run", "runner.py::square", "--x", "2")
    apps = json.loads(laptop.run("app", "list", "--json").stdout)
    assert not [app for app in apps if app["name"] == "runner" and app["state"] == "ephemeral"]


def test_a_function_runs_in_a_container(laptop: Machine) -> None:
    """Named behind the file."""
    assert "[square] computing 5" in laptop.run("run", "runner.py::square", "--x", "5", "--verbose").stdout


def test_the_only_function_needs_no_name(laptop: Machine) -> None:
    """Its defaults hold."""
    assert "[only] got 3" in laptop.run("run", "one.py").stdout


def test_a_generator_runs_to_its_end(laptop: Machine) -> None:
    """Also one."""
    assert "[count] yields 2" in laptop.run("run", "runner.py::count", "--n", "3").stdout


def test_words_go_to_an_entrypoint_that_takes_them(laptop: Machine) -> None:
    """As they are."""
    assert "words ('a', '--b', '-c')" in laptop.run("run", "runner.py::raw", "a", "--b", "-c").stdout


def test_an_async_entrypoint_is_awaited(laptop: Machine) -> None:
    """On a loop of its own."""
    assert "awaited 49" in laptop.run("run", "runner.py::asynchronous").stdout


def test_the_entrypoint_has_the_terminal(laptop: Machine) -> None:
    """It can ask."""
    assert "read an egg" in laptop.run("run", "runner.py::reads", stdin="an egg\n").stdout


@pytest.mark.parametrize("name", ["bad", "fails"])
def test_what_is_raised_ends_the_run_with_1(laptop: Machine, name: str) -> None:
    """With the lines of the function that raised."""
    done = laptop.run("run", f"runner.py::{name}", code=1)
    assert 'raise ValueError("no egg")' in done.stderr
    assert "ValueError: no egg" in done.stderr


def test_an_exit_code_is_passed_on(laptop: Machine) -> None:
    """Of sys.exit() in the entrypoint."""
    laptop.run("run", "runner.py::leaves", code=3)


def test_a_result_is_written(laptop: Machine) -> None:
    """A str or bytes; anything else is an error."""
    laptop.run("run", "-w", "out.txt", "runner.py::word", "--what", "ham")
    assert (laptop.folder / "out.txt").read_text() == "ham"
    assert (
        "must return str or bytes" in laptop.run("run", "-w", "out.txt", "runner.py::square", "--x", "1", code=1).stderr
    )


def test_quiet_shows_only_the_local_side(laptop: Machine) -> None:
    """No logs of containers."""
    assert "computing" not in laptop.run("run", "-q", "runner.py::main", "--n", "2").stdout


def test_help_shows_the_options(laptop: Machine) -> None:
    """And the docstring; nothing is run."""
    shown = laptop.run("run", "runner.py::main", "--help").stdout
    assert "Squares some numbers." in shown
    assert "--who-is" in shown


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["runner.py"], 1, "Say which"),
        (["runner.py::nope"], 1, "no function or entrypoint 'nope'"),
        (["runner.py::web"], 1, "a web endpoint"),
        (["runner.py::square"], 2, "Missing option '--x'"),
        (["runner.py::square", "--x", "egg"], 2, "not a valid integer"),
        (["runner.py::square", "--y", "1"], 2, "No such option"),
    ],
)
def test_what_cannot_be_run_is_said(laptop: Machine, words: list[str], code: int, text: str) -> None:
    """Before anything is started."""
    assert text in laptop.run("run", *words, code=code).stderr


def test_ctrl_c_ends_the_run_and_its_containers(laptop: Machine) -> None:
    """Nothing goes on."""
    process = laptop.start("run", "runner.py::forever")
    process.until("it has begun")
    assert process.interrupt() == 130
    wait_until(
        lambda: (
            not [
                app
                for app in json.loads(laptop.run("app", "list", "--json").stdout)
                if app["name"] == "runner" and app["state"] == "ephemeral"
            ]
        ),
        "the app is gone",
    )


def test_without_a_server_a_run_brings_its_own(machine: Machine) -> None:
    """And takes it away again."""
    machine.write("one.py", ONE)
    assert "[only] got 4" in machine.run("run", "one.py", "--x", "4").stdout
    wait_until(lambda: not machine.servers(), "the server is gone")
