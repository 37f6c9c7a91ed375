"""Classes whose methods are called and answer requests: their life, their parameters, their versions."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.e2e.calls import Call, ask_at_once, lines
from tests.e2e.conftest import PATIENCE, Machine, wait_until

APP = """
import asyncio, os, time
import modal

app = modal.App("zoo")


def note(text):
    with open({journal!r}, "a") as journal:
        print(text, file=journal)


class Animal:
    legs: int = modal.parameter(default=4)

    @modal.enter()
    def wake(self):
        self.inputs = []
        note(f"wake {{self.name}}")

    @modal.method()
    def tell(self, x=0):
        self.inputs.append(x)
        return self.name, self.legs, os.getpid()


@app.cls(scaledown_window=2)
@modal.concurrent(max_inputs=20)
class Cat(Animal):
    name: str = modal.parameter()

    @modal.enter()
    async def aopen(self):
        self.queue = asyncio.Queue()
        self.pump = asyncio.create_task(self.work())
        note(f"open {{self.name}}")

    async def work(self):
        while True:
            x, done = await self.queue.get()
            done.set_result(x * x)

    @modal.method()
    async def square(self, x):
        done = asyncio.get_running_loop().create_future()
        await self.queue.put((x, done))
        return await done

    @modal.method()
    def count(self, n):
        yield from range(n)

    @modal.method()
    def others(self):
        return self.tell.local("local"), self.tell("plain"), self.tell.remote("remote"), list(self.count.remote_gen(2))

    @modal.method()
    def heard(self):
        return self.inputs

    @modal.method()
    def fail(self):
        raise ValueError("no " + self.name)

    @modal.fastapi_endpoint()
    def web(self, x: int = 0):
        self.inputs.append(x)
        return {{"x": x, "name": self.name, "legs": self.legs, "pid": os.getpid()}}

    @modal.fastapi_endpoint(method="POST")
    async def post(self, body: dict):
        return {{"body": body, "name": self.name, "square": await self.square.local(3)}}

    @modal.exit()
    async def aclose(self):
        done = asyncio.get_running_loop().create_future()
        await self.queue.put((4, done))
        note(f"close {{self.name}} {{await done}}")

    @modal.exit()
    def sleep(self):
        raise RuntimeError("cannot sleep")


@app.cls(scaledown_window=2, max_containers=1, retries=modal.Retries(max_retries=2, initial_delay=0.0))
class Tried:
    word: str = modal.parameter(default="none")

    @modal.method()
    def attempt(self, path):
        with open(path, "a") as file:
            print(self.word, file=file)
        with open(path) as file:
            attempts = len(file.readlines())
        if attempts < 3:
            raise ValueError(f"attempt {{attempts}}")
        return attempts

    @modal.method()
    def held(self, path, name):
        with open(path, "a") as file:
            print(self.word, name, file=file)
        while not os.path.exists(path + ".gate"):
            time.sleep(0.01)
        return self.word, name

    @modal.method()
    def around(self, path):
        return self.attempt.remote(path), self.attempt.spawn(path + ".spawned").get()

    @modal.method()
    def numbers(self):
        yield 1

    @modal.fastapi_endpoint()
    def web(self, path: str):
        self.held.local(path, "web")
        return {{"word": self.word, "path": path}}


@app.cls(scaledown_window=2)
class Plain:
    @modal.enter()
    def wake(self):
        self.inputs = 0

    @modal.asgi_app()
    def asgi(self):
        from fastapi import FastAPI, Request, WebSocket
        web_app = FastAPI()

        @web_app.get("/inputs")
        def inputs():
            self.inputs += 1
            return self.inputs

        @web_app.websocket("/ws")
        async def ws(websocket: WebSocket):
            await websocket.accept()
            await websocket.send_text(await websocket.receive_text())

        return web_app

    @modal.wsgi_app()
    def wsgi(self):
        def web_app(environ, start_response):
            self.inputs += 1
            start_response("200 OK", [])
            return [str(self.inputs).encode()]
        return web_app


@app.cls(scaledown_window=2)
class Apps:
    word: str = modal.parameter(default="none")

    @modal.asgi_app()
    def asgi(self):
        from fastapi import FastAPI, Request, WebSocket
        web_app = FastAPI()

        @web_app.get("/query")
        def query(request: Request):
            return [self.word, str(request.query_params)]

        @web_app.websocket("/ws")
        async def ws(websocket: WebSocket):
            await websocket.accept()
            await websocket.send_text(self.word + " " + str(websocket.query_params))

        return web_app

    @modal.wsgi_app()
    def wsgi(self):
        def web_app(environ, start_response):
            start_response("200 OK", [])
            return [(self.word + " " + environ["QUERY_STRING"]).encode()]
        return web_app


@app.cls(scaledown_window=2)
class Program:
    word: str = modal.parameter(default="none")

    @modal.enter()
    async def prepare(self):
        self.page = "page of " + self.word

    @modal.web_server(8000, startup_timeout=30)
    def serve(self):
        import subprocess, sys
        code = (
            "import http.server, sys\\n"
            "class H(http.server.BaseHTTPRequestHandler):\\n"
            "    def do_GET(self):\\n"
            "        self.send_response(200); self.end_headers(); self.wfile.write(sys.argv[1].encode())\\n"
            "http.server.HTTPServer(('0.0.0.0', 8000), H).serve_forever()\\n"
        )
        subprocess.Popen([sys.executable, "-c", code, self.page])

    @modal.exit()
    def close(self):
        note(f"close {{self.page}}")
"""

SCRIPT = """
import asyncio, json, sys
import portico as modal
from portico.exception import Error

Cat = modal.Cls.from_name("zoo", "Cat")
Tried = modal.Cls.from_name("zoo", "Tried")


def outcome(work):
    try:
        return work()
    except Exception as error:
        return type(error).__name__, str(error)


async def aio(cat):
    return [await cat.square.remote.aio(3), [i async for i in cat.count.remote_gen.aio(2)],
            [i async for i in cat.square.map.aio(range(3))]]

async def spawned_aio(cat):
    await cat.square.spawn_map.aio(range(3))
    return await (await cat.square.spawn.aio(4)).get.aio()

print(json.dumps(eval(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def journal(shared: Machine) -> Path:
    """What the classes have written."""
    return shared.folder.parent / "journal"


@pytest.fixture(scope="module")
def zoo(shared: Machine, journal: Path) -> dict[str, str]:
    """The URLs of the methods."""
    shared.write("zoo.py", APP.format(journal=str(journal)))
    return shared.deploy("zoo.py")


def door(machine: Machine) -> socket.socket:
    """A connection to the server."""
    return socket.create_connection(("127.0.0.1", machine.port), timeout=PATIENCE)


def ask(machine: Machine, expression: str) -> object:
    """What an expression is in a script beside the server."""
    command = [sys.executable, "-c", SCRIPT, expression]
    done = subprocess.run(command, env=machine.env, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_methods_have_urls_of_their_own(zoo: dict[str, str]) -> None:
    """Made of the names of app, class and method."""
    assert sorted(zoo) == [
        "Apps.asgi",
        "Apps.wsgi",
        "Cat.post",
        "Cat.web",
        "Plain.asgi",
        "Plain.wsgi",
        "Program.serve",
        "Tried.web",
    ]
    assert zoo["Cat.web"].startswith("http://acme--zoo-cat-web.localhost:")


def test_parameters_are_query_parameters(shared: Machine, zoo: dict[str, str]) -> None:
    """Typed, with defaults, and not for the handler; each set of values has a container of its own."""
    tom, tim = shared.request(zoo["Cat.web"] + "/?name=tom&x=5"), shared.request(zoo["Cat.web"] + "/?name=tim&legs=3")
    assert isinstance(tom.json, dict)
    assert isinstance(tim.json, dict)
    assert {**tom.json, "pid": 0} == {"x": 5, "name": "tom", "legs": 4, "pid": 0}
    assert {**tim.json, "pid": 0} == {"x": 0, "name": "tim", "legs": 3, "pid": 0}
    assert tom.json["pid"] != tim.json["pid"]
    again = shared.request(zoo["Cat.web"] + "/?legs=4&x=6&name=tom")
    assert again.json == {**tom.json, "x": 6}
    posted = shared.request(zoo["Cat.post"] + "/?name=tom", "POST", body=b'{"a": 1}')
    assert posted.json == {"body": {"a": 1}, "name": "tom", "square": 9}


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("", 400, "modal-http: Cat: the parameter 'name' is missing"),
        ("?name=tom&legs=four", 400, "modal-http: Cat: the parameter 'legs' is not a whole number"),
        ("?name=tom&x=five", 422, "valid integer"),
    ],
)
def test_wrong_parameters_are_refused(shared: Machine, zoo: dict[str, str], query: str, status: int, said: str) -> None:
    """Those of the class by the server, those of the handler by FastAPI."""
    answer = shared.request(f"{zoo['Cat.web']}/{query}")
    assert answer.status == status
    assert said in answer.text


def test_methods_are_called_by_name(shared: Machine, zoo: dict[str, str]) -> None:
    """From a script: in all the ways in which functions are called."""
    expression = """[
        Cat(name="Sue").tell.remote()[:2], Cat(name="Sue", legs=2).tell.remote()[:2],
        list(Cat(name="Sue").count.remote_gen(3)), list(Cat(name="Sue").square.map(range(4))),
        list(Cat(name="Sue").square.starmap([(5,)])), Cat(name="Sue").square.for_each(range(3)),
        asyncio.run(aio(Cat(name="Sue"))),
    ]"""
    expected = [["Sue", 4], ["Sue", 2], [0, 1, 2], [0, 1, 4, 9], [25], None, [9, [0, 1], [0, 1, 4]]]
    assert ask(shared, expression) == expected


def test_calls_that_go_wrong_say_why(shared: Machine, zoo: dict[str, str]) -> None:
    """Parameters, methods, classes, and what a method raises."""
    expression = """[outcome(work) for work in (
        lambda: Cat().tell.remote(), lambda: Cat(name="a", colour="red").tell.remote(),
        lambda: Cat(name="a").nothing.remote(), lambda: modal.Cls.from_name("zoo", "Dog")().bark.remote(),
        lambda: Cat(name="Joe").fail.remote(), lambda: Cat(name="a").web.remote(),
        lambda: modal.Cls.from_name("zoo", "Plain")(size=3).asgi.get_web_url(),
    )]"""
    answers = ask(shared, expression)
    assert answers == [
        ["InvalidError", "Cat: the parameter 'name' is missing: text in UTF-8"],
        ["InvalidError", "Cat: there is no parameter 'colour'"],
        ["NotFoundError", "There is no function 'Cat.nothing' in the app 'zoo'."],
        ["NotFoundError", "There is no function 'Dog.bark' in the app 'zoo'."],
        ["ValueError", "no Joe"],
        [
            "InvalidError",
            "A webhook function cannot be invoked for remote execution with `.remote`. Invoke this function via its "
            f"web url {zoo['Cat.web']!r} or call it locally: Cat.web.local()",
        ],
        zoo["Plain.asgi"],
    ]


def test_all_methods_share_one_object(shared: Machine, zoo: dict[str, str]) -> None:
    """A request and a call of the same parameters find it; other methods are its own, and remote ones its pool's."""
    assert shared.request(zoo["Cat.web"] + "/?name=Ann&x=7").status == 200
    others = ask(shared, 'Cat(name="Ann").others.remote()')
    assert isinstance(others, list)
    assert others[0] == others[1] == others[2]
    assert others[3] == [0, 1]
    assert ask(shared, 'Cat(name="Ann").heard.remote()') == [7, "local", "plain", "remote"]


def test_a_container_enters_once_and_exits(shared: Machine, zoo: dict[str, str], journal: Path) -> None:
    """Those of the base first, before the first input; at scale-down on the loop that the methods ran on."""
    ask_at_once(shared, [f"{zoo['Cat.web']}/?name=Ivy&x={n}" for n in range(10)])

    def said() -> list[str]:
        return [line for line in lines(journal) if "Ivy" in line]

    wait_until(lambda: len(said()) == 3, "it is closed")
    assert said() == ["wake Ivy", "open Ivy", "close Ivy 16"]
    logs = shared.run("app", "logs", "zoo", "--tail", "1000").stdout
    assert "RuntimeError: cannot sleep" in logs


def test_apps_as_methods(shared: Machine, zoo: dict[str, str]) -> None:
    """ASGI and WSGI, side by side on one object, and WebSockets."""
    answers = [shared.request(zoo["Plain.asgi"] + "/inputs").text, shared.request(zoo["Plain.wsgi"] + "/x").text]
    assert answers == ["1", "2"]
    with connect(zoo["Plain.asgi"].replace("http", "ws") + "/ws", sock=door(shared)) as websocket:
        websocket.send("hello")
        assert websocket.recv() == "hello"


def test_apps_do_not_see_the_parameters(shared: Machine, zoo: dict[str, str]) -> None:
    """Only the rest of the query, over HTTP and over WebSockets."""
    assert shared.request(zoo["Apps.asgi"] + "/query?a=1&word=egg&b=%2F").json == ["egg", "a=1&b=%2F"]
    assert shared.request(zoo["Apps.wsgi"] + "/query?word=egg&b=%2F").text == "egg b=%2F"
    assert shared.request(zoo["Apps.wsgi"] + "/query").text == "none "
    url = zoo["Apps.asgi"].replace("http", "ws") + "/ws?c=2&word=nut"
    with connect(url, sock=door(shared)) as websocket:
        assert websocket.recv() == "nut c=2"


def test_methods_share_the_slots_of_their_container(shared: Machine, zoo: dict[str, str], tmp_path: Path) -> None:
    """Without @modal.concurrent a request waits while a call of another method runs."""
    path = tmp_path / "slots"
    ask(shared, f'Tried(word="one").held.spawn({str(path)!r}, "call").object_id')
    wait_until(lambda: lines(path) == ["one call"], "the call runs")
    request = Call(shared, f"{zoo['Tried.web']}/?word=one&path={path}")
    stats = """(lambda s: [s.num_running_inputs, s.backlog])(Tried(word="one").get_current_stats())"""
    wait_until(lambda: ask(shared, stats) == [1, 1], "the request waits")
    assert lines(path) == ["one call"]
    (tmp_path / "slots.gate").touch()
    assert request.answer().status == 200
    assert lines(path) == ["one call", "one web"]


def test_a_program_as_a_method(shared: Machine, zoo: dict[str, str], journal: Path) -> None:
    """What happens before the first input comes before the program, what happens after the last one after it."""
    assert shared.request(zoo["Program.serve"] + "/?word=hay").text == "page of hay"
    assert shared.request(zoo["Program.serve"] + "/x").text == "page of none"
    wait_until(lambda: "close page of hay" in lines(journal), "it is closed")


def test_methods_can_be_run(shared: Machine, zoo: dict[str, str]) -> None:
    """`portico run FILE::Class.method`: the parameters of the class are options too."""
    done = shared.run("run", "-q", "zoo.py::Cat.tell", "--name", "Max", "--legs", "3")
    assert done.stdout == ""
    told = shared.run("run", "-q", "zoo.py::app.Cat.fail", "--name", "Max", code=1)
    assert "ValueError: no Max" in told.stderr
    told = shared.run("run", "zoo.py::Cat.tell", code=2)
    assert "--name" in told.stderr
    assert "Cat.tell" in shared.run("run", "zoo.py", code=1).stderr


# -- stored calls, and retries --------------------------------------------------------------------------------------
def test_methods_are_spawned(shared: Machine, zoo: dict[str, str]) -> None:
    """With the parameters of their class; results are there for whoever has the id."""
    expression = """[
        Cat(name="Sue").tell.spawn().get()[:2], Cat(name="Sue", legs=2).tell.spawn().get()[:2],
        Cat(name="Sue").square.spawn_map(range(3)), asyncio.run(spawned_aio(Cat(name="Sue"))),
        modal.FunctionCall.from_id(Cat(name="ä&b=c").tell.spawn(1).object_id).get()[0],
    ]"""
    assert ask(shared, expression) == [["Sue", 4], ["Sue", 2], None, 16, "ä&b=c"]


@pytest.mark.parametrize(
    ("call", "name", "text"),
    [
        ("Cat().tell.spawn()", "InvalidError", "Cat: the parameter 'name' is missing: text in UTF-8"),
        ("Cat(name='a', colour='red').tell.spawn()", "InvalidError", "Cat: there is no parameter 'colour'"),
        ("Cat(name='a').nothing.spawn()", "NotFoundError", "There is no function 'Cat.nothing' in the app 'zoo'."),
        ("Cat(name='a').count.spawn(1)", "InvalidError", "A generator function cannot be called with `.spawn(...)`."),
        ("Cat(name='a').web.spawn(1)", "InvalidError", "A webhook function cannot be invoked for remote execution"),
        ("Cat(name='Joe').fail.spawn().get()", "ValueError", "no Joe"),
    ],
)
def test_spawns_that_go_wrong_say_why(shared: Machine, zoo: dict[str, str], call: str, name: str, text: str) -> None:
    """What can be known is said by `spawn`."""
    said = ask(shared, f"outcome(lambda: {call})")
    assert isinstance(said, list)
    assert said[0] == name
    assert text in said[1]


@pytest.mark.parametrize(
    "call",
    ["attempt.remote(path)", "attempt.spawn(path).get()", "attempt.map([path]).__iter__().__next__()"],
)
def test_methods_of_a_class_looked_up_are_tried_again(
    shared: Machine, zoo: dict[str, str], tmp_path: Path, call: str
) -> None:
    """As often as the `retries` of its class say, with the same parameters."""
    path = tmp_path / "attempts"
    assert ask(shared, f'(lambda path: Tried(word="egg").{call})({str(path)!r})') == 3
    assert lines(path) == ["egg"] * 3


def test_methods_are_tried_again_where_their_class_is(machine: Machine, tmp_path: Path) -> None:
    """Called and spawned from another method, in an app that only runs."""
    machine.up()
    machine.write("zoo.py", APP.format(journal=str(tmp_path / "journal")).replace("max_containers=1, ", ""))
    machine.run("run", "-q", "zoo.py::Tried.around", "--path", str(tmp_path / "attempts"))
    assert lines(tmp_path / "attempts") == lines(tmp_path / "attempts.spawned") == ["none"] * 3


def test_a_busy_set_of_parameters_does_not_keep_others_waiting(
    shared: Machine, zoo: dict[str, str], tmp_path: Path
) -> None:
    """With more calls than stand in its queue; those of one set begin in their order."""
    path = tmp_path / "held"
    ask(shared, f'Tried(word="busy").held.spawn_map([{str(path)!r}] * 100, range(100))')
    wait_until(lambda: lines(path) == ["busy 0"], "one runs, the others wait")
    other = tmp_path / "other"
    (tmp_path / "other.gate").touch()
    assert ask(shared, f'Tried(word="free").held.spawn({str(other)!r}, 1).get(timeout={PATIENCE / 2})') == ["free", 1]
    assert lines(path) == ["busy 0"]
    (tmp_path / "held.gate").touch()
    wait_until(lambda: len(lines(path)) == 100, "all have run")
    assert lines(path) == [f"busy {n}" for n in range(100)]


def test_stored_calls_of_methods_survive_the_server(machine: Machine, tmp_path: Path) -> None:
    """They keep their parameters; those that a new version does not know any more end with an error."""
    server = machine.up()
    app = APP.format(journal=str(tmp_path / "journal"))
    machine.write("zoo.py", app)
    machine.deploy("zoo.py")
    path = tmp_path / "held"
    spawned = f'[Tried(word="egg").held.spawn({str(path)!r}, n).object_id for n in range(3)]'
    ids = ask(machine, spawned)
    assert isinstance(ids, list)
    wait_until(lambda: lines(path) == ["egg 0"], "one runs")
    server.popen.kill()
    server.popen.wait()
    (tmp_path / "held.gate").touch()
    machine.up()
    results = ask(machine, f"[modal.FunctionCall.from_id(i).get(timeout={PATIENCE / 2}) for i in {ids}]")
    assert results == [["egg", 0], ["egg", 1], ["egg", 2]]

    (tmp_path / "held.gate").unlink()
    first, second = ask(machine, spawned.replace("range(3)", "range(2)"))  # type: ignore[misc]
    wait_until(lambda: len(lines(path)) == 5, "one more runs")
    before, after = (
        f"class Tried:\n    {field}" for field in ("word: str = modal.parameter(", "size: int = modal.parameter(")
    )
    machine.write("zoo.py", app.replace(f'{before}default="none")', f"{after})"))
    machine.deploy("zoo.py")
    said = ask(machine, f"outcome(lambda: modal.FunctionCall.from_id({second!r}).get(timeout={PATIENCE / 2}))")
    assert said == ["InvalidError", "Tried: the parameter 'size' is missing: a whole number of 64 bits"]
    (tmp_path / "held.gate").touch()
    assert ask(machine, f"modal.FunctionCall.from_id({first!r}).get(timeout={PATIENCE / 2})") == ["egg", 0]


def test_an_object_is_scaled_and_looked_at(shared: Machine, zoo: dict[str, str]) -> None:
    """The containers of its parameters, by the object or by one of its methods; others stay as they are."""
    expression = """[
        Cat(name="Kim").update_autoscaler(min_containers=1).min_containers,
        Cat(name="Kim").tell.autoscaler.settings().min_containers, Cat(name="Lou").autoscaler.settings().min_containers,
        outcome(lambda: Cat().update_autoscaler(min_containers=1)),
        outcome(lambda: modal.Cls.from_name("zoo", "Dog")().get_current_stats()),
        modal.Cls.from_name("zoo", "Plain")().update_autoscaler(max_containers=2).max_containers,
        outcome(lambda: modal.Function.from_name("zoo", "Cat").remote()),
        outcome(lambda: modal.Function.from_name("zoo", "Cat").spawn()),
    ]"""
    no_class = ["NotFoundError", "There is no function 'Dog' in the app 'zoo'."]
    no_function = ["NotFoundError", "There is no function 'Cat' in the app 'zoo'."]
    missing = ["InvalidError", "the parameter 'name' is missing: text in UTF-8"]
    assert ask(shared, expression) == [1, 1, 0, missing, no_class, 2, no_function, no_function]
    runners = """[getattr(Cat(name=name).web.get_current_stats(), "num_total_runners") for name in ("Kim", "Lou")]"""
    wait_until(lambda: ask(shared, runners) == [1, 0], "one is up, and stays")
    assert ask(shared, 'Cat(name="Kim").update_autoscaler(min_containers=0).min_containers') == 0


def test_requests_to_methods_are_answered_later(shared: Machine, zoo: dict[str, str], tmp_path: Path) -> None:
    """At the URL of the result, which needs no parameters; wrong ones are refused at once."""
    later = {"Prefer": "respond-async"}
    path = tmp_path / "web"
    told = shared.request(f"{zoo['Tried.web']}/?path={path}&word=egg", headers=later)
    assert told.status == 202
    url = told.headers["location"]
    wait_until(lambda: lines(path) == ["egg web"], "it runs")
    assert shared.request(url).status == 202
    assert shared.request(url.replace("tried-web", "cat-web")).status == 404
    (tmp_path / "web.gate").touch()
    wait_until(lambda: shared.request(url).status == 200, "it has been answered")
    assert shared.request(url).json == {"word": "egg", "path": str(path)}
    told = shared.request(zoo["Cat.web"] + "/?x=5", headers=later)
    assert (told.status, told.text) == (400, "modal-http: Cat: the parameter 'name' is missing: text in UTF-8")
    posted = shared.request(zoo["Cat.post"] + "/?name=tom", "POST", body=b'{"a": 1}', headers=later)
    wait_until(lambda: shared.request(posted.headers["location"]).status == 200, "it has been answered")
    assert shared.request(posted.headers["location"]).json == {"body": {"a": 1}, "name": "tom", "square": 9}
    asked = shared.request(zoo["Plain.wsgi"] + "/x", headers=later)
    wait_until(lambda: shared.request(asked.headers["location"]).status == 200, "it has been answered")
    page = shared.request(zoo["Program.serve"] + "/?word=hay", headers=later)
    wait_until(lambda: shared.request(page.headers["location"]).text == "page of hay", "the program has answered")


FAILING = """
import modal

app = modal.App("failing")


@app.cls()
class Model:
    {parameter}

    @modal.enter()
    def load(self):
        raise ValueError("no weights")

    @modal.method()
    def f(self):
        return 1
"""


def test_a_failing_enter_is_a_failed_container(shared: Machine) -> None:
    """A deploy shows the traceback; where the values are not known before, whoever calls hears the cause."""
    shared.write("failing.py", FAILING.format(parameter=""))
    told = shared.run("deploy", "failing.py", code=1).stderr
    assert "ValueError: no weights" in told
    assert 'line 13, in load\n    raise ValueError("no weights")' in told
    shared.write("failing.py", FAILING.format(parameter="x: int = modal.parameter()"))
    shared.deploy("failing.py")
    said = ask(shared, 'outcome(lambda: modal.Cls.from_name("failing", "Model")(x=1).f.remote())')
    assert said == ["StartError", "Model.f: a container could not start: ValueError: no weights"]
    shared.run("app", "stop", "failing", "--yes")


VERSIONS = """
import modal

app = modal.App("versions")


@app.cls({options})
class Model:
    size: int = modal.parameter(default=3)

    @modal.fastapi_endpoint()
    def web(self):
        return [{word!r}, self.size]

    {more}
"""
MORE = """@modal.method()
    def before(self):
        return 1

    @modal.fastapi_endpoint()
    def added(self):
        return "added"
"""


def test_a_served_class_is_reloaded(shared: Machine) -> None:
    """Its objects are new ones, also those with parameters; methods come and go."""
    shared.write("versions.py", VERSIONS.format(word="one", more="", options=""))
    process = shared.start("serve", "versions.py")
    url = process.until(r"^http://.*-web-dev\S*")[0]
    process.until("Serving")
    assert [shared.request(url + query).json for query in ("/", "/?size=7")] == [["one", 3], ["one", 7]]
    shared.write("versions.py", VERSIONS.format(word="two", more=MORE, options=""))
    process.until("Reloaded")
    assert [shared.request(url + query).json for query in ("/", "/?size=7")] == [["two", 3], ["two", 7]]
    assert shared.request(url.replace("-web-", "-added-")).json == "added"
    shared.write("versions.py", VERSIONS.format(word="three", more="", options=""))
    process.until("Reloaded")
    assert shared.request(url + "/?size=7").json == ["three", 7]
    assert shared.request(url.replace("-web-", "-added-")).status == 404
    assert process.interrupt() == 0


def test_a_class_survives_its_server_and_goes_back(machine: Machine) -> None:
    """A restart brings it up again, a rollback its earlier version; at the server's end its exits run."""
    journal = machine.folder.parent / "journal"
    bye = f"@modal.exit()\n    def bye(self):\n        open({str(journal)!r}, 'a').write(f'bye {{self.size}}\\n')"
    machine.write("versions.py", VERSIONS.format(word="one", more=bye, options="min_containers=1"))
    url = machine.deploy("versions.py")["Model.web"]
    machine.write("versions.py", VERSIONS.format(word="two", more=MORE, options=""))
    machine.deploy("versions.py")
    assert machine.request(url + "/?size=7").json == ["two", 7]
    machine.run("down", "--yes")
    machine.up()
    assert machine.request(url + "/?size=7").json == ["two", 7]
    machine.run("app", "rollback", "versions", "--yes")
    assert machine.request(url + "/?size=7").json == ["one", 7]
    wait_until(lambda: lines(journal) == ["bye 3"], "the container of the replaced version is gone")
    machine.run("down", "--yes")
    assert sorted(lines(journal)) == ["bye 3", "bye 3", "bye 7"]
