"""Functions that call functions, from endpoints, from other functions and from scripts."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.e2e.calls import Call
from tests.e2e.conftest import PATIENCE, Machine, wait_until

APP = """
import asyncio, os, threading, time
from pathlib import Path
import modal

app = modal.App("calls")
NOTES = Path(__file__).parent

class Odd(Exception):
    pass

class Shy(Exception):
    def __init__(self, one, two):
        super().__init__(one)

@app.function(scaledown_window=2)
@modal.concurrent(max_inputs=50)
def double(x, *, plus=0):
    return x * 2 + plus

@app.function(scaledown_window=2)
async def adouble(x):
    return x * 2

@app.function(scaledown_window=2)
@modal.concurrent(max_inputs=20)
def misbehave(how):
    if how == "odd":
        raise Odd("no egg")
    if how == "shy":
        raise Shy("one", "two")
    if how == "exit":
        raise SystemExit(3)
    if how == "unpicklable":
        return threading.Lock()
    if how == "die":
        os._exit(7)

@app.function(scaledown_window=2)
def count(n, pause=0.0):
    for i in range(n):
        yield i
        time.sleep(pause)

@app.function(scaledown_window=2)
async def acount(n):
    for i in range(n):
        yield i

@app.function(scaledown_window=2)
def breaks(n):
    for i in range(n):
        yield i
    raise Odd("no more")

@app.function(scaledown_window=2)
def dies():
    yield 1
    os._exit(1)

@app.function(scaledown_window=2)
def endless(path):
    try:
        while True:
            yield b"again\\n"
            time.sleep(0.01)
    finally:
        Path(path).write_text("closed")

@app.function(scaledown_window=2)
async def aendless(path):
    try:
        while True:
            yield b"again\\n"
            await asyncio.sleep(0.01)
    finally:
        Path(path).write_text("closed")

@app.function(timeout=1, scaledown_window=2)
def slow():
    time.sleep(20)

@app.function(timeout=1, scaledown_window=2)
async def drips():
    yield 1
    await asyncio.sleep(20)

@app.function(max_containers=1, timeout=1, scaledown_window=2)
def selfish(depth):
    return selfish.remote(depth - 1) if depth else "done"

@app.function(max_containers=1, timeout=1, scaledown_window=2)
async def aselfish(depth, verb="remote"):
    if verb == "map":
        return [x async for x in aselfish.map.aio([depth - 1])]
    if verb == "spawn":
        return await (await aselfish.spawn.aio(depth - 1)).get.aio()
    return await aselfish.remote.aio(depth - 1) if depth else "done"

@app.function(max_containers=1, timeout=1, scaledown_window=2)
def selfish_gen(depth):
    yield "begun"
    if depth:
        yield from selfish_gen.remote_gen(depth - 1)

@app.function(scaledown_window=2, max_containers=2)
def add(x, y=0, *, plus=0):
    return x + y + plus

@app.function(scaledown_window=2, max_containers=1)
@modal.concurrent(max_inputs=10)
async def backwards(i, of):
    await asyncio.sleep((of - i) * 0.03)
    return i

@app.function(scaledown_window=2, max_containers=2)
def picky(x):
    if x % 3 == 1:
        raise ValueError(f"not {x}")
    return x

@app.function(scaledown_window=2)
@modal.fastapi_endpoint()
def mapped(n: int):
    from fastapi.responses import StreamingResponse
    return StreamingResponse(add.map((f"segment {i};" for i in range(n)), [""] * n, kwargs={"plus": ""}))

@app.function(scaledown_window=2)
def chain(x):
    return double.remote(x) + 1

@app.function(scaledown_window=2)
@modal.fastapi_endpoint()
async def endpoint(x: int):
    return [await double.remote.aio(x), double.remote(x, plus=1), [i async for i in acount.remote_gen.aio(x)],
            list(count.remote_gen(x)), chain.remote(x), await adouble.remote.aio(x), double.local(x)]

@app.function(scaledown_window=2)
@modal.fastapi_endpoint()
def stream(path: str, kind: str):
    from fastapi.responses import StreamingResponse
    return StreamingResponse((aendless if kind == "async" else endless).remote_gen(path))
"""

SCRIPT = """
import asyncio, json, sys
import portico as modal
from portico import exception
def f(name, app="calls"):
    return modal.Function.from_name(app, name)
def attempt(call):
    try:
        return call()
    except BaseException as error:
        return [type(error).__name__, str(error), getattr(error, "hint", None)]
async def collect(values):
    return [value async for value in values]
"""


@pytest.fixture(scope="module")
def laptop(shared: Machine) -> Machine:
    """A server with the app deployed on it."""
    shared.write("callapp.py", APP)
    shared.urls = shared.deploy("callapp.py")  # type: ignore[attr-defined]
    return shared


def script(machine: Machine, text: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a plain script of the user's to its end."""
    path = machine.write("elsewhere/script.py", SCRIPT + text)
    done = subprocess.run(
        [sys.executable, str(path)], env=machine.env, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == code, done.stderr
    return done


def says(machine: Machine, expression: str) -> object:
    """What an expression in a script comes to."""
    return json.loads(script(machine, f"print(json.dumps({expression}))").stdout)


def test_an_endpoint_calls_functions(laptop: Machine) -> None:
    """Sync and async, values and generators, through another function, and here."""
    answer = laptop.request(laptop.urls["endpoint"] + "/?x=3")  # type: ignore[attr-defined]
    assert answer.json == [6, 7, [0, 1, 2], [0, 1, 2], 7, 6, 6]


def test_a_script_calls_a_deployed_function(laptop: Machine) -> None:
    """By the names of app and function, with positional and keyword arguments."""
    assert says(laptop, "[f('double').remote(4), f('double').remote('ab', plus='c')]") == [8, "ababc"]


def test_a_script_awaits_many_calls(laptop: Machine) -> None:
    """`.aio` leaves the loop free: all run at the same time."""
    text = """
async def main():
    print(json.dumps(await asyncio.gather(*(f("double").remote.aio(i) for i in range(50)))))
asyncio.run(main())
"""
    assert json.loads(script(laptop, text).stdout) == [i * 2 for i in range(50)]


def test_threads_and_forks_may_call(laptop: Machine) -> None:
    """Connections are no two callers' at the same time."""
    text = """
import os
from concurrent.futures import ThreadPoolExecutor
double = f("double")
double.remote(1)
pid = os.fork()
with ThreadPoolExecutor(8) as threads:
    assert list(threads.map(double.remote, range(200))) == [i * 2 for i in range(200)]
if pid:
    assert os.waitpid(pid, 0)[1] == 0
"""
    script(laptop, text)


def test_values_come_when_they_are_yielded(laptop: Machine) -> None:
    """The first does not wait for the last."""
    text = """
import time
began = time.monotonic()
first, *rest = (time.monotonic() - began for _ in f("count").remote_gen(4, pause=0.3))
print(rest[-1] - first)
"""
    assert float(script(laptop, text).stdout) > 0.6


def test_an_exception_is_raised_at_the_caller(laptop: Machine) -> None:
    """By its own type where the caller has it, with the remote frames in its traceback."""
    text = f"""
sys.path.insert(0, {str(laptop.folder)!r})
from portico.sdk import alias
alias.install()
import callapp
try:
    f("misbehave").remote("odd")
except callapp.Odd:
    import traceback
    traceback.print_exc()
"""
    shown = script(laptop, text).stderr
    assert 'raise Odd("no egg")' in shown
    assert "callapp.Odd: no egg" in shown


def test_an_exception_that_the_caller_does_not_know_is_told(laptop: Machine) -> None:
    """With its name, and its traceback as text."""
    name, text, _ = says(laptop, "attempt(lambda: f('misbehave').remote('odd'))")
    assert name == "ExecutionError"
    assert "Odd" in text


@pytest.mark.parametrize(
    ("call", "name", "text"),
    [
        ("f('misbehave').remote('shy')", "ExecutionError", "raised Shy"),
        ("f('misbehave').remote('exit')", "ExecutionError", "sys.exit(3)"),
        ("f('misbehave').remote('unpicklable')", "SerializationError", "What misbehave returned cannot be sent"),
        ("f('misbehave').remote('die')", "RemoteError", "the container ended"),
        ("f('double').remote(sys.stdin)", "SerializationError", "An argument of double cannot be sent"),
        ("f('count').remote(1)", "InvalidError", "Use `.remote_gen(...)` instead"),
        ("list(f('double').remote_gen(1))", "InvalidError", "Use `.remote(...)` instead"),
        ("f('double').remote()", "TypeError", "missing 1 required positional argument"),
        ("f('nope').remote()", "NotFoundError", "no function 'nope' in the app 'calls'"),
        ("f('double', 'nope').remote()", "NotFoundError", "in the app 'nope'"),
        ("f('endpoint').remote(1)", "InvalidError", "A webhook function cannot be invoked"),
        ("f('slow').remote()", "FunctionTimeoutError", "timed out"),
        ("list(f('drips').remote_gen())", "FunctionTimeoutError", "timed out"),
        ("asyncio.run(collect(f('drips').remote_gen.aio()))", "FunctionTimeoutError", "timed out"),
        ("list(f('breaks').remote_gen(2))", "ExecutionError", "raised Odd"),
        ("list(f('dies').remote_gen())", "RemoteError", "stopped before its end"),
    ],
)
def test_what_goes_wrong_is_said(laptop: Machine, call: str, name: str, text: str) -> None:
    """Each failure has its own error."""
    said = says(laptop, f"attempt(lambda: {call})")
    assert said[0] == name
    assert text in said[1]


@pytest.mark.parametrize(
    "call",
    [
        "f('selfish').remote(1)",
        "f('selfish').spawn(1).get()",
        "f('aselfish').remote(1)",
        "f('aselfish').remote(1, 'map')",
        "f('aselfish').remote(1, 'spawn')",
        "list(f('selfish_gen').remote_gen(1))",
    ],
)
def test_a_function_that_waits_for_itself_meets_its_deadline(laptop: Machine, call: str) -> None:
    """Its only container is the caller: an error that says so, not a hang."""
    name, text = says(laptop, f"attempt(lambda: {call})")[:2]
    assert name == "FunctionTimeoutError"
    assert "1 more waited for it, with no slot free" in text


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_client_that_leaves_ends_the_remote_generator(laptop: Machine, kind: str) -> None:
    """From the browser through the endpoint to the function: its `finally` runs."""
    note = laptop.folder / f"closed-{kind}"
    call = Call(laptop, laptop.urls["stream"] + f"/?path={note}&kind={kind}")  # type: ignore[attr-defined]
    call.until(b"again")
    call.leave()
    wait_until(note.exists, "the generator is closed")


def test_closing_a_generator_ends_the_remote_one(laptop: Machine) -> None:
    """In a script, too."""
    note = laptop.folder / "closed-script"
    script(laptop, f"g = f('endless').remote_gen({str(note)!r})\nnext(g)\ng.close()\n")
    wait_until(note.exists, "the generator is closed")


def test_what_was_raised_is_in_the_log(laptop: Machine) -> None:
    """With the user's frames."""
    says(laptop, "attempt(lambda: f('misbehave').remote('odd'))")
    wait_until(lambda: "misbehave raised Odd: no egg" in laptop.run("app", "logs", "calls").stdout, "it is logged")


def test_a_function_of_an_app_that_does_not_run_cannot_be_called(laptop: Machine) -> None:
    """The error says how to run it."""
    text = "app = modal.App('x')\n@app.function()\ndef g(): ...\nprint(json.dumps(attempt(lambda: g.remote())))"
    said = json.loads(script(laptop, text).stdout)
    assert said[0] == "ExecutionError"
    assert "portico run" in said[2]


def test_without_a_server_a_call_says_so(machine: Machine) -> None:
    """Not found, and how to start one."""
    machine.home.mkdir()
    assert says(machine, "attempt(lambda: f('double').remote(1))")[:2] == [
        "ConnectionError",
        "No Portico server is running.",
    ]


def test_a_served_app_calls_its_own_functions(laptop: Machine) -> None:
    """Also while a deployed app has the same name."""
    laptop.write("served.py", APP.replace("return x * 2 + plus", "return x * 200 + plus"))
    process = laptop.start("serve", "served.py")
    process.until("http://acme--calls-endpoint-dev")
    url = process.seen[-1]
    assert laptop.request(url + "/?x=1").json[1] == 201  # type: ignore[index]
    assert says(laptop, "f('double').remote(1)") == 2
    assert process.interrupt() == 0


# -- map ------------------------------------------------------------------------------------------------------------
def test_a_map_gives_results_in_the_order_of_its_inputs(laptop: Machine) -> None:
    """Also while later ones are ready earlier."""
    assert says(laptop, "list(f('backwards').map(range(6), [6] * 6))") == [0, 1, 2, 3, 4, 5]


def test_a_map_can_give_results_as_they_come(laptop: Machine) -> None:
    """The quickest first."""
    assert says(laptop, "list(f('backwards').map(range(6), [6] * 6, order_outputs=False))") == [5, 4, 3, 2, 1, 0]


def test_maps_zip_their_inputs_and_hand_keywords_on(laptop: Machine) -> None:
    """One iterable for each argument; a sequence for all of them with starmap; the shortest ends it."""
    assert says(laptop, "list(f('add').map([1, 2, 3], [10, 20], kwargs={'plus': 100}))") == [111, 122]
    assert says(laptop, "list(f('add').starmap([(1, 2), (3,)], kwargs={'plus': 100}))") == [103, 103]
    assert says(laptop, "list(f('add').map([]))") == []


def test_a_map_of_many_inputs(laptop: Machine) -> None:
    """Thousands, over two containers."""
    assert says(laptop, "list(f('add').map(range(3000))) == list(range(3000))") is True


def test_a_map_in_an_endpoint_streams(laptop: Machine) -> None:
    """As in the documentation: the results are the response's chunks."""
    text = laptop.request(laptop.urls["mapped"] + "/?n=10").text  # type: ignore[attr-defined]
    assert text == "".join(f"segment {i};" for i in range(10))


def test_the_first_exception_ends_a_map(laptop: Machine) -> None:
    """After the results that came before it."""
    text = """
seen = []
try:
    for value in f("picky").map([0, 2, 4, 6]):
        seen.append(value)
except exception.ExecutionError as error:
    print(json.dumps(seen))
except ValueError as error:
    print(json.dumps([seen, str(error)]))
"""
    assert json.loads(script(laptop, text).stdout) == [[0, 2], "not 4"]


def test_exceptions_may_be_results(laptop: Machine) -> None:
    """With return_exceptions=True."""
    assert says(laptop, "[repr(x) for x in f('picky').map(range(4), return_exceptions=True)]") == [
        "0",
        "ValueError('not 1')",
        "2",
        "3",
    ]


def test_for_each_waits_for_all_and_gives_nothing(laptop: Machine) -> None:
    """Exceptions are raised, or ignored on request."""
    assert says(laptop, "f('picky').for_each([0, 2])") is None
    assert says(laptop, "f('picky').for_each(range(4), ignore_exceptions=True)") is None
    assert says(laptop, "attempt(lambda: f('picky').for_each(range(4)))")[:2] == ["ValueError", "not 1"]


def test_an_endless_input_is_taken_as_it_is_needed(laptop: Machine) -> None:
    """At most 1,000 inputs are outstanding."""
    text = """
taken = 0
def numbers():
    global taken
    while True:
        taken += 1
        yield taken
results = iter(f("add").map(numbers()))
first = [next(results) for _ in range(10)]
import time
before = -1
while taken != before:
    before = taken
    time.sleep(0.3)
print(json.dumps([first, taken]))
results.close()
"""
    first, taken = json.loads(script(laptop, text).stdout)
    assert first == list(range(1, 11))
    assert taken <= 1010


def test_maps_in_async_code(laptop: Machine) -> None:
    """`async for` with sync and async inputs; a plain `for` is an error that says what to write."""
    text = """
async def letters():
    for letter in "abc":
        yield letter
async def main():
    pairs = f("add").map.aio(letters(), "xyz", kwargs={"plus": ""})
    said = [[x async for x in f("add").map.aio(range(5))], [x async for x in pairs]]
    await f("add").for_each.aio(range(3))
    try:
        for x in f("add").map(range(3)):
            pass
    except exception.InvalidError as error:
        said.append(str(error))
    print(json.dumps(said))
asyncio.run(main())
"""
    numbers, letters, error = json.loads(script(laptop, text).stdout)
    assert (numbers, letters) == ([0, 1, 2, 3, 4], ["ax", "by", "cz"])
    assert "You can't iter(Function.map()) from an async function" in error


def test_a_map_that_nobody_asks_for_results_warns(laptop: Machine) -> None:
    """Nothing was called."""
    assert "nothing was called" in script(laptop, "f('add').map([1])").stderr


@pytest.mark.parametrize(
    ("inputs", "name"), [("f('add').map([sys.stdin])", "SerializationError"), ("f('nope').map([1])", "NotFoundError")]
)
def test_a_map_that_cannot_be(laptop: Machine, inputs: str, name: str) -> None:
    """It ends at once with the error of a call."""
    assert says(laptop, f"attempt(lambda: list({inputs}))")[0] == name


def test_an_iterator_that_fails_ends_the_map(laptop: Machine) -> None:
    """With its own exception."""
    assert says(laptop, "attempt(lambda: list(f('add').map(1 // x for x in (1, 0))))")[0] == "ZeroDivisionError"
