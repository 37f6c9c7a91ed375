"""`portico serve`, as a user sees it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Machine, Process, wait_until

HELLO = """
import modal

app = modal.App("{name}")


@app.function()
@modal.fastapi_endpoint()
def hello():
    print("said hello", flush=True)
    return "{word}"
"""

MANY = """
import asyncio
from urllib.request import Request

import modal
from kept.words import GREETING
from pydantic import BaseModel
from shapes import area

app = modal.App("many", image=modal.Image.debian_slim().env({"WORD": "from the image"}))


class Item(BaseModel):
    name: str
    qty: int = 42


@app.function()
@modal.fastapi_endpoint()
def square(x: int):
    return {"square": x**2}


@app.function()
@modal.fastapi_endpoint(method="POST")
def cube(item: dict):
    return {"cube": item["x"] ** 3}


@app.function()
@modal.fastapi_endpoint(method="POST")
def process(item: Item):
    return {"processed": item.name, "quantity": item.qty}


@app.function()
@modal.fastapi_endpoint()
async def asynchronous():
    await asyncio.sleep(0)
    return {"running": asyncio.get_running_loop().is_running()}


@app.function()
@modal.fastapi_endpoint(label="api", docs=True)
def labelled():
    return "by label"


@app.function()
@modal.fastapi_endpoint()
def my_endpoint():
    return {"url": my_endpoint.get_web_url()}


@app.function()
@modal.fastapi_endpoint()
def surroundings():
    import os
    return {"word": os.environ.get("WORD"), "area": area(2, 3), "greeting": GREETING}


@app.function()
@modal.fastapi_endpoint()
def broken():
    raise ValueError("no such luck")
"""


@pytest.fixture(scope="module")
def many(shared: Machine) -> Iterator[tuple[Process, dict[str, str]]]:
    """One served app with a function of each kind; the URL of each, by function."""
    shared.write("many/app.py", MANY)
    shared.write("many/shapes.py", "def area(a, b):\n    return a * b\n")
    shared.write("many/kept/__init__.py", "")
    shared.write("many/kept/words.py", 'GREETING = "Hello"\n')
    process = shared.start("serve", "many/app.py")
    process.until("Serving many")
    yield process, {f["name"]: f["url"] for f in shared.app("many")["functions"]}
    process.interrupt()


@pytest.fixture
def starting(shared: Machine) -> Iterator[list[Process]]:
    """Commands that the test has started on the shared machine; they are ended after it."""
    processes: list[Process] = []
    yield processes
    for process in processes:
        process.end()


def serve(machine: Machine, name: str, word: str = "hello", *options: str) -> tuple[Process, str]:
    """Serve an app of this name; the command, and the URL of its one function."""
    machine.write(f"{name}/app.py", HELLO.format(name=name, word=word))
    process = machine.start("serve", f"{name}/app.py", *options)
    return process, process.until(f"^http://acme--{name}-hello-dev")[0] + process.seen[-1].partition("-dev")[2]


def sockets(machine: Machine) -> list[str]:
    """The socket files in the home."""
    return [str(path) for path in machine.home.rglob("*") if path.is_socket()]


# -- what it prints ---------------------------------------------------------------------------------------------------
def test_each_url_is_a_line_of_its_own_on_stdout(shared: Machine) -> None:
    """Which scripts may read; all else that is said goes to stderr."""
    shared.write(
        "lines.py",
        HELLO.format(name="lines", word="x") + "\n\n@app.function()\n@modal.fastapi_endpoint()\n"
        "def second():\n    return 2\n",
    )
    command = subprocess.Popen(
        [sys.executable, "-m", "portico", "serve", "lines.py"],
        cwd=shared.folder,
        env=shared.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert command.stdout is not None
    lines = [command.stdout.readline(), command.stdout.readline()]
    command.send_signal(signal.SIGINT)
    rest = command.stdout.read()
    assert command.wait() == 0
    assert lines == [f"http://acme--lines-{name}-dev.localhost:{shared.port}\n" for name in ("hello", "second")]
    assert rest == ""


def test_container_logs_come_through(shared: Machine, starting: list[Process]) -> None:
    """With the name of the function."""
    process, url = serve(shared, "talks")
    starting.append(process)
    assert shared.request(url).json == "hello"
    process.until(r"^\[hello\] said hello$")


def test_an_exception_is_a_500_with_its_traceback_and_request_id_in_the_logs(
    shared: Machine, many: tuple[Process, dict[str, str]]
) -> None:
    """The text of the exception stays on the machine."""
    process, urls = many
    answer = shared.request(urls["broken"])
    assert answer.status == 500
    assert "no such luck" not in answer.text
    process.until(rf"^\[broken\] .*{answer.headers['x-request-id']}")
    process.until("ValueError: no such luck")
    assert any("app.py" in line for line in process.seen)


# -- what it serves ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("function", "method", "path", "body", "expected"),
    [
        ("square", "GET", "?x=7", None, {"square": 49}),
        ("cube", "POST", "", b'{"x": 3}', {"cube": 27}),
        ("process", "POST", "", b'{"name": "nut"}', {"processed": "nut", "quantity": 42}),
        ("asynchronous", "GET", "", None, {"running": True}),
        ("labelled", "GET", "", None, "by label"),
        ("surroundings", "GET", "", None, {"word": "from the image", "area": 6, "greeting": "Hello"}),
    ],
)
def test_functions_answer(
    shared: Machine,
    many: tuple[Process, dict[str, str]],
    function: str,
    method: str,
    path: str,
    body: bytes | None,
    expected: object,
) -> None:
    """Query parameters, bodies, async functions, labels, an app's image, siblings of the file."""
    answer = shared.request(f"{many[1][function]}/{path}", method, body=body)
    assert (answer.status, answer.json) == (200, expected)


def test_an_endpoint_knows_its_url(shared: Machine, many: tuple[Process, dict[str, str]]) -> None:
    """The one that is printed."""
    url = many[1]["my_endpoint"]
    assert shared.request(url).json == {"url": url}


def test_a_label_takes_the_place_of_app_and_function(shared: Machine, many: tuple[Process, dict[str, str]]) -> None:
    """The workspace in front and -dev behind stay."""
    assert many[1]["labelled"] == f"http://acme--api-dev.localhost:{shared.port}"


@pytest.mark.parametrize(("function", "status"), [("labelled", 200), ("square", 404)])
@pytest.mark.parametrize("path", ["docs", "openapi.json"])
def test_documentation_is_there_where_it_is_asked_for(
    shared: Machine, many: tuple[Process, dict[str, str]], function: str, status: int, path: str
) -> None:
    """docs=True; off otherwise."""
    assert shared.request(f"{many[1][function]}/{path}").status == status


def test_the_schema_describes_the_function(shared: Machine, many: tuple[Process, dict[str, str]]) -> None:
    """At its one path."""
    schema = shared.request(f"{many[1]['labelled']}/openapi.json").json
    assert isinstance(schema, dict)
    assert list(schema["paths"]) == ["/"]


def test_the_route_is_the_root_only(shared: Machine, many: tuple[Process, dict[str, str]]) -> None:
    """Every other path is FastAPI's 404."""
    answer = shared.request(f"{many[1]['square']}/other?x=1")
    assert (answer.status, answer.json) == (404, {"detail": "Not Found"})


def test_another_method_is_not_allowed(shared: Machine, many: tuple[Process, dict[str, str]]) -> None:
    """As FastAPI says it."""
    answer = shared.request(many[1]["cube"])
    assert (answer.status, answer.json) == (405, {"detail": "Method Not Allowed"})


@pytest.mark.parametrize(
    ("function", "method", "path", "body", "kind", "place"),
    [
        ("square", "GET", "", None, "missing", ["query", "x"]),
        ("square", "GET", "?x=seven", None, "int_parsing", ["query", "x"]),
        ("process", "POST", "", b"{}", "missing", ["body", "name"]),
        ("process", "POST", "", b"{", "json_invalid", ["body", 1]),
    ],
)
def test_what_does_not_fit_is_fastapis_422(
    shared: Machine,
    many: tuple[Process, dict[str, str]],
    function: str,
    method: str,
    path: str,
    body: bytes | None,
    kind: str,
    place: list[object],
) -> None:
    """With the place and the kind of the fault."""
    answer = shared.request(f"{many[1][function]}/{path}", method, body=body)
    assert answer.status == 422
    assert isinstance(answer.json, dict)
    assert [(fault["type"], fault["loc"]) for fault in answer.json["detail"]] == [(kind, place)]


def test_a_preflight_is_answered(shared: Machine, many: tuple[Process, dict[str, str]]) -> None:
    """Any origin, method and header."""
    answer = shared.request(
        many[1]["cube"],
        "OPTIONS",
        headers={
            "Origin": "https://example.com",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "x-special",
        },
    )
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] in ("*", "https://example.com")
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "x-special" in answer.headers["access-control-allow-headers"]


@pytest.mark.parametrize("path", ["?x=2", "?x=two", "other"])
def test_answers_may_be_read_from_any_origin(shared: Machine, many: tuple[Process, dict[str, str]], path: str) -> None:
    """Good ones and bad ones."""
    answer = shared.request(f"{many[1]['square']}/{path}", headers={"Origin": "https://example.com"})
    assert answer.headers["access-control-allow-origin"] in ("*", "https://example.com")
    assert answer.headers["access-control-allow-credentials"] == "true"


def test_every_answer_has_a_request_id(shared: Machine, many: tuple[Process, dict[str, str]]) -> None:
    """A new one for each."""
    answers = [shared.request(f"{many[1]['square']}/?x=2") for _ in range(2)]
    assert len({answer.headers["x-request-id"] for answer in answers}) == 2


# -- what may be named ------------------------------------------------------------------------------------------------
def test_one_of_two_apps_in_a_file(shared: Machine, starting: list[Process]) -> None:
    """file.py::app."""
    both = HELLO.format(name="first", word="one") + HELLO.format(name="second", word="two").replace(
        "app = ", "other = "
    ).replace("@app", "@other").replace("import modal", "").replace("def hello", "def hello2")
    shared.write("both.py", both)
    process = shared.start("serve", "both.py::other")
    starting.append(process)
    url = process.until("^http://acme--second-hello2-dev.*")[0]
    assert shared.request(url).json == "two"


def test_a_module_of_a_package(shared: Machine, starting: list[Process]) -> None:
    """-m pkg.mod, with relative imports."""
    shared.write("pkg/__init__.py", "")
    shared.write("pkg/words.py", "WORD = 'relative'\n")
    shared.write(
        "pkg/mod.py", "from .words import WORD\n" + HELLO.format(name="module", word="x").replace('"x"', "WORD")
    )
    process = shared.start("serve", "-m", "pkg.mod")
    starting.append(process)
    url = process.until("^http://acme--module-hello-dev.*")[0]
    assert shared.request(url).json == "relative"


# -- its end ----------------------------------------------------------------------------------------------------------
def test_ctrl_c_ends_everything(machine: Machine) -> None:
    """Also the server that serve has started: no process, no socket file, exit code 0."""
    process, url = serve(machine, "brief")
    assert machine.request(url).json == "hello"
    assert len(machine.containers()) == 1
    assert process.interrupt() == 0
    assert machine.leftovers() == []
    assert sockets(machine) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_served_app_ends_with_its_command(shared: Machine, number: signal.Signals) -> None:
    """On a server that goes on: its containers are gone, its URL says that it is stopped."""
    name = f"ends-{number.name.lower()}"
    process, url = serve(shared, name)
    assert shared.request(url).json == "hello"
    process.popen.send_signal(number)
    assert process.popen.wait(30) == 0
    answer = shared.request(url)
    assert (answer.status, answer.text) == (404, "modal-http: app for invoked web endpoint is stopped")
    assert name not in shared.run("app", "list").stdout


def test_containers_and_their_sockets_end_with_the_app(machine: Machine) -> None:
    """The server that goes on keeps its own only."""
    server = machine.up()
    before = sockets(machine)
    process, url = serve(machine, "contained")
    assert machine.request(url).json == "hello"
    assert len(machine.containers()) == 1
    assert process.interrupt() == 0
    wait_until(lambda: not machine.containers(), "the containers have ended")
    wait_until(lambda: sockets(machine) == before, "their sockets are gone")
    assert server.interrupt() == 0
    assert sockets(machine) == []


def test_a_killed_serve_ends_its_app(shared: Machine) -> None:
    """kill -9."""
    process, url = serve(shared, "killed")
    assert shared.request(url).json == "hello"
    process.popen.kill()
    wait_until(lambda: shared.request(url).status == 404, "the app has ended")


def test_a_killed_serve_ends_the_server_that_it_started(machine: Machine) -> None:
    """kill -9 leaves no process either, and no socket."""
    process, url = serve(machine, "killed")
    assert machine.request(url).json == "hello"
    process.popen.kill()
    wait_until(lambda: not machine.leftovers(), "everything has ended")
    assert sockets(machine) == []


def test_a_timeout_ends_it(shared: Machine) -> None:
    """--timeout, in seconds; a clean end."""
    process, url = serve(shared, "timed", "hello", "--timeout", "0.5")
    assert process.popen.wait(30) == 0
    assert shared.request(url).status == 404


def test_serve_says_so_when_its_app_is_stopped(shared: Machine) -> None:
    """By `portico app stop`."""
    process, _ = serve(shared, "stoppable")
    shared.run("app", "stop", "stoppable", "--yes")
    process.until("The app was stopped")
    assert process.popen.wait(30) == 0


def test_serve_says_so_when_its_server_ends(machine: Machine) -> None:
    """It cannot go on, and that is a failure."""
    server = machine.up()
    process, _ = serve(machine, "alone")
    assert server.interrupt() == 0
    process.until("The server has ended|The server has gone away")
    assert process.popen.wait(30) == 1


# -- beside others ----------------------------------------------------------------------------------------------------
def test_serve_and_deploy_live_side_by_side(shared: Machine, starting: list[Process]) -> None:
    """The same app, at two URLs."""
    shared.write("twice/app.py", HELLO.format(name="twice", word="deployed"))
    deployed = shared.deploy("twice/app.py")["hello"]
    process, served = serve(shared, "twice", "served")
    starting.append(process)
    assert deployed.replace("twice-hello", "twice-hello-dev") == served
    assert (shared.request(deployed).json, shared.request(served).json) == ("deployed", "served")
    assert process.interrupt() == 0
    assert shared.request(deployed).json == "deployed"
    shared.run("app", "stop", "twice", "--yes")


def test_two_files_are_served_at_once_by_one_server(machine: Machine) -> None:
    """The second command uses the server of the first; each ends its own app only."""
    first, first_url = serve(machine, "one", "1")
    second, second_url = serve(machine, "two", "2")
    assert (machine.request(first_url).json, machine.request(second_url).json) == ("1", "2")
    assert len(machine.servers()) == 1
    assert second.interrupt() == 0
    assert (machine.request(first_url).status, machine.request(second_url).status) == (200, 404)
    assert first.interrupt() == 0


def test_the_newer_of_two_serves_takes_the_label(shared: Machine, starting: list[Process]) -> None:
    """And says so. When it ends, the older one has the label again."""
    older, url = serve(shared, "rivals", "older", "--no-reload")
    starting.append(older)
    newer, same = serve(shared, "rivals", "newer", "--no-reload")
    starting.append(newer)
    assert url == same
    assert any("Took over" in line for line in newer.seen)
    assert shared.request(url).json == "newer"
    assert newer.interrupt() == 0
    older.until("the app that had taken over a URL of this one has ended")
    assert shared.request(url).json == "older"


def test_a_deploy_survives_the_serve_that_started_the_server(machine: Machine) -> None:
    """The server goes on, and serve says so."""
    process, served = serve(machine, "passing")
    machine.write("lasting/app.py", HELLO.format(name="lasting", word="still here"))
    deployed = machine.deploy("lasting/app.py")["hello"]
    assert process.interrupt() == 0
    assert any("goes on" in line for line in process.rest())
    assert machine.request(deployed).json == "still here"
    assert machine.request(served).status == 404


def test_a_deploy_survives_a_killed_serve_that_started_the_server(machine: Machine) -> None:
    """kill -9 as well."""
    process, served = serve(machine, "passing")
    machine.write("lasting/app.py", HELLO.format(name="lasting", word="still here"))
    deployed = machine.deploy("lasting/app.py")["hello"]
    process.popen.kill()
    wait_until(lambda: machine.request(served).status == 404, "the served app has ended")
    assert machine.request(deployed).json == "still here"


def test_serve_takes_the_next_free_port_where_none_is_asked_for(machine: Machine) -> None:
    """And names who has the usual one."""
    del machine.env["PORTICO_LISTEN"]
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind(("127.0.0.1", 7777))
            other.listen()
        except OSError:
            pass  # somebody else has it, which is as good
        machine.write("roams.py", HELLO.format(name="roams", word="here"))
        process = machine.start("serve", "roams.py")
        process.until(r"Port 7777 is in use by .*; taking \d+")
        machine.port = int(process.until(r"^http://acme--roams-hello-dev.localhost:(\d+)")[1])
        assert machine.port != 7777
        assert machine.request(f"http://acme--roams-hello-dev.localhost:{machine.port}").json == "here"
        assert process.interrupt() == 0
