"""Every file in examples/ does what it shows, with `portico serve` and with `portico deploy`."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.calls import Call
from tests.e2e.conftest import EXAMPLES, Machine, wait_until


@dataclass(frozen=True)
class Use:
    """A request to an example's function, and what comes back."""

    function: str
    expected: object
    path: str = "/"
    body: bytes | None = None
    headers: dict[str, str] | None = None
    needs_token: bool = False  # a proxy token
    status: int = 200


# By file. None: a part of another example.
USES: dict[str, list[Use] | None] = {
    "app_image.py": [Use("greet", "Hello world!"), Use("greet", "Hello Ann!", "/?name=Ann")],
    "async_endpoint.py": [Use("wait", {"waited": 0.01}, "/?seconds=0.01")],
    "bearer_token.py": [Use("protected", "success!", headers={"Authorization": "Bearer swordfish"})],
    "class_endpoint.py": [
        Use("Translator.translate", {"language": "en", "word": "egg"}, "/?word=egg"),
        Use("Translator.translate", {"language": "de", "word": "Ei"}, "/?language=de&word=egg"),
    ],
    "class_methods.py": [Use("total", {"squares": [0, 4, 16], "counted": [0, 2, 4]}, "/?step=2&to=3")],
    "cube.py": [Use("cube", {"cube": 27}, body=b'{"x": 3}')],
    "custom_domains.py": [Use("Shops.web", {"detail": "No such shop"}, status=404)],
    "docs_and_label.py": [Use("greet", {"greeting": "Hello Ann!"}, "/?name=Ann")],
    "environments.py": [],  # answers with its own URL, which the tests below know
    "fastapi_app.py": [
        Use("fastapi_app", {"message": "Hello"}),
        Use("fastapi_app", {"message": "Hi"}, "/echo", b'{"message": "Hi"}'),
    ],
    "flask_app.py": [Use("flask_app", {"message": "Hello"}, "/echo", b'{"message": "Hello"}')],
    "hello.py": [Use("hello", "Hello world!")],
    "limits.py": [Use("upload", {"bytes": 3, "from": "127.0.0.1"}, body=b"abc")],
    "map_stream.py": [Use("stream_parallel", "".join(f"segment {i}\n" for i in range(10)))],
    "pkg/__init__.py": None,
    "pkg/greetings.py": None,
    "pkg/web.py": [Use("greet", "Hello world!")],
    "process.py": [
        Use("process", {"processed": "nut", "quantity": 42}, body=b'{"name": "nut"}'),
        Use("process", {"processed": "nut", "quantity": 7}, body=b'{"name": "nut", "qty": 7}'),
    ],
    "proxy_auth.py": [Use("members_only", "hello, member", needs_token=True)],
    "quickstart.py": [Use("hello", "Hello world!"), Use("square", {"square": 49}, "/?x=7")],
    "remote_client.py": None,  # a script; a test below runs it
    "remote_gen_stream.py": [],  # streams for ten seconds: the tests below look at the beginning
    "secret_sources.py": [Use("show", {"greeting": "hi", "database": "db.test/shop", "path": True})],
    "siblings/app.py": [Use("rectangle", {"area": 6.0, "of": "rectangles"}, "/?a=2&b=3")],
    "siblings/shapes.py": None,
    "siblings/words/__init__.py": None,
    "siblings/words/plural.py": None,
    "spawn_poll.py": [],  # one answer is part of the next request: the tests below know
    "square.py": [Use("square", {"square": 49}, "/?x=7")],
    "web_server.py": [Use("my_server", Path(__file__).read_text(), __file__)],
    "web_url.py": [],  # answers with its own URL, which the tests below know
}
FILES = sorted(file.relative_to(EXAMPLES).as_posix() for file in EXAMPLES.rglob("*.py"))
RUNNABLE = [file for file in FILES if USES.get(file, []) is not None]


@pytest.fixture(scope="module")
def laptop(shared: Machine) -> Machine:
    """A machine whose user has copied the examples."""
    shutil.copytree(EXAMPLES, shared.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    shared.run("secret", "create", "auth-token", "AUTH_TOKEN=-", stdin="swordfish\n")
    shared.run("domain", "add", "*.shops.example")
    shared.run("secret", "create", "database", "DATABASE_URL=-", stdin="postgresql://me:hidden@db.test/shop\n")
    return shared


def reference(file: str) -> list[str]:
    """What to write on the command line: the package is run as a module, as its docstring says."""
    return ["-m", "pkg.web"] if file == "pkg/web.py" else [file]


def options(file: str) -> list[str]:
    """What to write behind it: one example asks for a GPU."""
    return ["--allow-missing-gpu"] if file == "remote_gen_stream.py" else []


def a_token(machine: Machine) -> dict[str, str]:
    """A new proxy token, as the headers of a request."""
    made = json.loads(machine.run("proxy-token", "create", "--json").stdout)
    return {"Modal-Key": made["id"], "Modal-Secret": made["secret"]}


def check(machine: Machine, file: str, urls: dict[str, str]) -> None:
    """The example answers as it should."""
    for use in USES[file] or []:
        method = "GET" if use.body is None else "POST"
        headers = use.headers or (a_token(machine) if use.needs_token else None)
        answer = machine.request(urls[use.function] + use.path, method, body=use.body, headers=headers)
        is_json = answer.headers["content-type"] == "application/json"
        assert (answer.status, answer.json if is_json else answer.text) == (use.status, use.expected)
    if file == "spawn_poll.py":
        call_id = machine.request(urls["submit"] + "/?text=hello").json["call_id"]  # type: ignore[index]
        result = f"{urls['result']}/?call_id={call_id}"
        wait_until(lambda: machine.request(result).status == 200, "the job is done")
        assert machine.request(result).json == {"result": "HELLO"}
    if file == "custom_domains.py":
        assert machine.request(f"http://tea.shops.example:{machine.port}").json == ["green", "black"]
    if file == "remote_gen_stream.py":
        call = Call(machine, urls["hook"])
        for number in range(2):
            assert b"data: result %d" % (number + 1) not in call.until(b"data: result %d\n\n" % number)
        call.leave()
    if file == "web_url.py":
        assert machine.request(urls["my_endpoint"]).json == {"url": urls["my_endpoint"]}
    if file == "environments.py":
        assert machine.request(urls["where"]).json == {"environment": "main", "url": urls["where"]}
    if file == "docs_and_label.py":
        assert [machine.request(f"{urls['greet']}/{path}").status for path in ("docs", "openapi.json")] == [200, 200]


@pytest.mark.parametrize("file", FILES)
def test_every_example_is_tested(file: str) -> None:
    """A new one needs a line in USES."""
    assert file in USES


@pytest.mark.parametrize("file", RUNNABLE)
def test_an_example_can_be_served(laptop: Machine, file: str) -> None:
    """The URLs that are printed answer as the example says."""
    process = laptop.start("serve", *reference(file))
    name = process.until("^Serving (.*); Ctrl-C ends it")[1]
    apps = json.loads(laptop.run("app", "list", "--json").stdout)
    living = next(app for app in apps if app["name"] == name and app["state"] == "ephemeral")
    urls = {function["name"]: function["url"] for function in living["functions"] if function["url"]}
    customs = [url for function in living["functions"] for url in function["custom_urls"]]
    assert sorted([*urls.values(), *customs]) == sorted(
        line.split()[0] for line in process.seen if line.startswith("http://")
    )
    check(laptop, file, urls)
    assert process.interrupt() == 0


@pytest.mark.parametrize("file", RUNNABLE)
def test_an_example_can_be_deployed(laptop: Machine, file: str) -> None:
    """The URLs that it says answer as the example says."""
    check(laptop, file, laptop.deploy(*reference(file), *options(file)))


def test_the_limits_of_the_example_hold(laptop: Machine) -> None:
    """Set as its docstring says, as far as one can: by hundreds of bytes, and one request in ten seconds."""
    url = laptop.deploy("limits.py")["upload"]
    laptop.run("workspace", "set", "max-body", "100", "--app", "limits")
    assert [laptop.request(url, "POST", body=b"x" * size).status for size in (100, 101)] == [200, 413]
    place = ("--app", "limits", "--function", "upload")
    laptop.run("workspace", "set", "rate-limit", "0.1", *place)
    assert [laptop.request(url, "POST", body=b"x").status for _ in range(2)] == [200, 429]
    laptop.run("workspace", "set", "rate-limit", "off", *place)


def test_the_environments_of_the_example_differ(laptop: Machine) -> None:
    """Deployed to two, it answers at two URLs."""
    laptop.run("environment", "create", "staging")
    url = laptop.deploy("environments.py", "--env", "staging")["where"]
    assert url == f"http://acme-staging--where.localhost:{laptop.port}"
    assert laptop.request(url).json == {"environment": "staging", "url": url}
    laptop.run("environment", "delete", "staging", "--yes")
