"""A laptop that deploys to a server on another machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.conftest import EXAMPLES, PATIENCE, Answer, Machine, parse, wait_until
from tests.e2e.network import cable

SEED = """
import modal

app = modal.App("{app}")


@app.function()
@modal.fastapi_endpoint()
def says():
    print("asked")
    return "{says}"
"""
PORT = 7777
SEND = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=30) as connection:
    connection.sendall(sys.stdin.buffer.read())
    while part := connection.recv(65536):
        sys.stdout.buffer.write(part)
"""


@dataclass
class Office:
    """A server, and a laptop that has nothing but a cable to it."""

    server: Machine
    laptop: Machine
    address: str

    @property
    def url(self) -> str:
        return f"http://{self.address}:{PORT}"

    def send(self, data: bytes) -> bytes:
        """Bytes from the laptop to the server's port; all that comes back."""
        command = [*self.laptop.prefix, sys.executable, "-c", SEND, self.address, str(PORT)]
        return subprocess.run(command, input=data, capture_output=True, check=True, timeout=PATIENCE).stdout

    def get(self, url: str, *lines: str, method: str = "GET") -> Answer:
        """One request from the laptop."""
        host, _, path = url.partition("//")[2].partition("/")
        head = [f"{method} /{path} HTTP/1.1", f"Host: {host}", "Connection: close", *lines, "", ""]
        return parse(self.send("\r\n".join(head).encode()))

    def sent(self) -> int:
        """How many bytes the laptop has sent through its cable."""
        command = [*self.laptop.prefix, "cat", "/proc/self/net/dev"]
        devices = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return int(devices.partition("cable:")[2].split()[8])

    def new_token(self, *options: str) -> dict[str, str]:
        """Made on the server's machine."""
        return json.loads(self.server.run("token", "new", "--json", *options).stdout)

    def set_token(self, token: dict[str, str], *options: str) -> None:
        """Kept on the laptop."""
        words = ["--server-url", self.url, "--token-id", token["id"], *options]
        self.laptop.run("token", "set", *words, stdin=token["secret"] + "\n")


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    with cable() as ends:
        server = Machine(tmp_path_factory.mktemp("server"))
        laptop = Machine(tmp_path_factory.mktemp("laptop"))
        server.prefix, laptop.prefix = ends.server, ends.laptop
        server.start("up", "--listen", f"0.0.0.0:{PORT}").until("listens on")
        yield Office(server, laptop, ends.server_address)
        for machine in (laptop, server):
            machine.close()
            wait_until(lambda machine=machine: not machine.leftovers(), "nothing is left")


@pytest.fixture
def laptop(office: Office) -> Iterator[Machine]:
    """The laptop with a token, for one test."""
    token = office.new_token("--name", "laptop")
    office.set_token(token)
    yield office.laptop
    office.server.run("token", "revoke", token["id"], "--yes", code=None)
    config(office.laptop).unlink()


def config(machine: Machine):
    return machine.folder.parent / "portico.toml"


def test_a_laptop_without_a_token_is_refused(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command says what to do; the answer is JSON, and no page of another origin can read it."""
    monkeypatch.setitem(office.laptop.env, "PORTICO_SERVER_URL", office.url)
    said = office.laptop.run("app", "list", code=1).stderr
    assert "asks for a token" in said
    assert "portico token set" in said
    answer = office.get(f"{office.url}/v1/apps", "Origin: http://evil.example")
    assert (answer.status, answer.json["code"]) == (403, "forbidden")
    assert not [name for name in answer.headers if name.startswith("access-control")]
    answer = office.get(f"{office.url}/v1/apps")
    assert (answer.status, answer.json["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_deploy_from_a_laptop(office: Office, laptop: Machine) -> None:
    """With nothing but a token in a file that only its owner may read; nothing is started on the laptop."""
    assert config(laptop).stat().st_mode & 0o777 == 0o600
    laptop.write("seed.py", SEED.format(app="seed", says="from afar"))
    done = laptop.run("deploy", "seed.py")
    url = f"http://acme--seed-says.localhost:{PORT}"
    assert f"=> {url}" in done.stdout
    assert f"curl --resolve acme--seed-says.localhost:{PORT}:{office.address} {url}" in done.stderr
    assert office.get(url).json == "from afar"
    assert [app["name"] for app in json.loads(laptop.run("app", "list", "--json").stdout)] == ["seed"]
    assert "[says] asked" in laptop.run("app", "logs", "seed").stdout
    assert not laptop.home.exists() or not laptop.servers()


def test_a_script_on_a_laptop_finds_a_function(office: Office, laptop: Machine) -> None:
    """Its URL, as the server knows it."""
    laptop.write("seed.py", SEED.format(app="found", says="here"))
    url = laptop.deploy("seed.py")["says"]
    script = laptop.write("script.py", "import modal; print(modal.Function.from_name('found', 'says').get_web_url())")
    command = [*laptop.prefix, sys.executable, str(script)]
    done = subprocess.run(command, env=laptop.env, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout == f"{url}\n"


def test_the_example_of_a_script(office: Office, laptop: Machine) -> None:
    """What it finds and calls was deployed from here, as its docstring says."""
    laptop.write("class_methods.py", (EXAMPLES / "class_methods.py").read_text())
    url = laptop.deploy("class_methods.py")["total"]
    done = python(office, (EXAMPLES / "remote_client.py").read_text())
    assert done.stdout == f"{url}\n[0, 4, 16, 36]\n", done.stderr


def test_only_missing_files_travel(office: Office, laptop: Machine) -> None:
    """What the server has by its content is not sent again, whatever app it came with: not through the cable either."""
    size = 3_000_000
    laptop.write("seed.py", SEED.format(app="files", says="one") + "\nimport large\n")
    laptop.write("large.py", "#" * size)
    before_first = office.sent()
    laptop.deploy("seed.py")
    before_second = office.sent()
    assert before_second - before_first > size
    blobs = office.server.home / "blobs"

    def known() -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in blobs.rglob("*") if path.is_file()}

    before = known()
    laptop.write("seed.py", SEED.format(app="others", says="two") + "\nimport large\n")
    url = laptop.deploy("seed.py")["says"]
    assert office.sent() - before_second < size / 10
    assert len(known().keys() - before.keys()) == 1
    assert before.items() <= known().items()
    assert office.get(url).json == "two"


def test_serve_from_a_laptop(office: Office, laptop: Machine) -> None:
    """With logs and live reload; the app ends with the command."""
    laptop.write("served.py", SEED.format(app="served", says="one"))
    process = laptop.start("serve", "served.py")
    url = process.until("^http://.*")[0]
    assert office.get(url).json == "one"
    process.until("asked")
    laptop.write("served.py", SEED.format(app="served", says="two"))
    process.until("Reloaded in")
    assert office.get(url).json == "two"
    assert process.interrupt() == 0
    assert office.get(url).status == 404


def test_a_serve_that_is_killed_ends_its_app(office: Office, laptop: Machine) -> None:
    """The server notices that nobody listens."""
    laptop.write("served.py", SEED.format(app="killed", says="one"))
    process = laptop.start("serve", "served.py")
    url = process.until("^http://.*")[0]
    process.popen.kill()
    wait_until(lambda: office.get(url).status == 404, "the app has ended")


def test_a_revoked_token_ends_at_once(office: Office, laptop: Machine) -> None:
    """The next command is refused, and what runs on its behalf ends."""
    laptop.write("served.py", SEED.format(app="revoked", says="one"))
    process = laptop.start("serve", "served.py")
    url = process.until("^http://.*")[0]
    assert "is revoked" in office.server.run("token", "revoke", "laptop", "--yes").stdout
    process.until("The token has been revoked")
    assert process.popen.wait(PATIENCE) == 1
    wait_until(lambda: office.get(url).status == 404, "the app has ended")
    assert "unknown, revoked or expired" in laptop.run("app", "list", code=1).stderr


def test_a_token_for_one_environment_opens_no_other(office: Office) -> None:
    """Nor the server itself; 403, with the way to do it."""
    office.server.run("environment", "create", "staging")
    token = office.new_token("--env", "staging")
    office.set_token(token, "--env", "staging")
    laptop = office.laptop
    laptop.write("seed.py", SEED.format(app="placed", says="here"))
    url = laptop.deploy("seed.py")["says"]
    assert url == f"http://acme-staging--placed-says.localhost:{PORT}"
    for words in (("app", "list", "-e", "main"), ("deploy", "seed.py", "--env", "main"), ("token", "list")):
        assert "is for the environment 'staging' only" in laptop.run(*words, code=1).stderr
    bearer = f"Authorization: Bearer {token['id']}.{token['secret']}"
    for path, status in {
        "apps?environment=staging": 200,
        "apps?environment=staging&environment=main": 403,
        "apps?environment=staging&environment=": 403,
        "apps": 403,
        "environments": 403,
        "tokens": 403,
        "server": 200,
    }.items():
        assert office.get(f"{office.url}/v1/{path}", bearer).status == status, path
    assert office.get(f"{office.url}/v1/server/stop", bearer, method="POST").status == 403
    office.server.run("environment", "delete", "staging", "--yes")
    assert office.get(f"{office.url}/v1/server", bearer).status == 401
    config(laptop).unlink()


def test_secrets_are_kept_as_hashes(office: Office, laptop: Machine) -> None:
    """Neither the database nor a list nor a log has one."""
    secret = config(laptop).read_text().partition('token_secret = "')[2].partition('"')[0]
    assert secret.startswith("as-")
    laptop.run("app", "list")
    listed = json.loads(laptop.run("token", "list", "--json").stdout)
    assert [token["last_used_at"] is not None for token in listed] == [True]
    for path in office.server.home.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path
    assert secret not in laptop.run("config", "show").stdout + laptop.run("profile", "list").stdout


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("10.77.0.1:7777", 200),
        ("[::1]", 200),
        ("{machine}", 200),
        ("{machine}.lan", 200),
        ("x.y", 404),
    ],
)
def test_where_control_requests_are_answered(office: Office, host: str, status: int) -> None:
    """At the bare domain, at addresses, and at the machine's name in whatever domain."""
    machine = subprocess.run(["hostname"], capture_output=True, text=True, check=True).stdout.strip().partition(".")[0]
    host = host.format(machine=machine)
    raw = office.send(f"GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert parse(raw).status == status


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"PORTICO_SERVER_URL": "http://10.77.0.1:1"}, "The server at http://10.77.0.1:1 cannot be reached"),
        ({"PORTICO_SERVER_URL": "10.77.0.1:7777"}, "PORTICO_SERVER_URL is not a server's URL"),
        ({"PORTICO_SERVER_URL": "http://a:b@10.77.0.1"}, "PORTICO_SERVER_URL is not a server's URL"),
        ({"PORTICO_SERVER_URL": "http://10.77.0.1:7777/v1"}, "PORTICO_SERVER_URL is not a server's URL"),
        ({"PORTICO_TOKEN_ID": "ak-1"}, "Half a token is set"),
        ({"PORTICO_TOKEN_ID": "wk-1", "PORTICO_TOKEN_SECRET": "ws-1"}, "no token of the control API"),
        ({"PORTICO_TOKEN_ID": "ak-1", "PORTICO_TOKEN_SECRET": "as-1"}, "unknown, revoked or expired"),
        ({"PORTICO_PROFILE": "nothing"}, "There is no profile 'nothing'"),
    ],
)
def test_bad_settings_are_named(
    office: Office, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    """The error says which setting it is, or who does not answer."""
    for name, value in ({"PORTICO_SERVER_URL": office.url} | variables).items():
        monkeypatch.setitem(office.laptop.env, name, value)
    assert said in office.laptop.run("app", "list", code=1).stderr


def test_an_expired_token_is_refused(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its second on."""
    token = office.new_token("--expires-in", "1s")
    bearer = f"Authorization: Bearer {token['id']}.{token['secret']}"
    wait_until(lambda: office.get(f"{office.url}/v1/server", bearer).status == 401, "it has expired")
    office.server.run("token", "revoke", token["id"], "--yes")


def test_a_token_that_the_server_does_not_take_is_not_kept(office: Office) -> None:
    """`token set` asks the server first."""
    words = ["--server-url", office.url, "--token-id", "ak-wrong"]
    done = office.laptop.run("token", "set", *words, stdin="as-wrong\n", code=1)
    assert "unknown, revoked or expired" in done.stderr
    assert not config(office.laptop).exists()


JOB = """
import modal

app = modal.App("job")


@app.function()
def square(x):
    return x * x


@app.function()
def count(n):
    yield from range(n)


@app.function()
def fail():
    raise ValueError("on purpose")


@app.cls()
class Power:
    exponent: int = modal.parameter()

    @modal.method()
    def of(self, x):
        return x ** self.exponent

@app.local_entrypoint()
def main():
    print("here", square.remote(3), list(square.map([1, 2])), list(count.remote_gen(3)))
"""
METHODS = """
import modal

cube = modal.Cls.from_name("job", "Power")(exponent=3)
print(cube.of.spawn(2).get(timeout=30), cube.update_autoscaler(scaledown_window=3).scaledown_window)
"""
CALLS = """
import asyncio
import modal

square, count, fail = [modal.Function.from_name("job", name) for name in ("square", "count", "fail")]
print(square.remote(7), list(square.map(range(5))), list(count.remote_gen(4)))
print(asyncio.run(square.remote.aio(9)), square.spawn(5).get(timeout=30))
try:
    fail.remote()
except ValueError as error:
    print("raised", error)
"""


def python(office: Office, script: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A script on the laptop."""
    path = office.laptop.write("script.py", script)
    command, env = [*office.laptop.prefix, sys.executable, str(path)], office.laptop.env | more
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE)


def test_functions_are_called_from_a_laptop(office: Office, laptop: Machine) -> None:
    """All kinds of calls, with what they return, yield and raise."""
    laptop.write("job.py", JOB)
    laptop.run("deploy", "job.py")
    done = python(office, CALLS)
    assert done.stdout.splitlines() == ["49 [0, 1, 4, 9, 16] [0, 1, 2, 3]", "81 25", "raised on purpose"], done.stderr


def test_run_from_a_laptop(office: Office, laptop: Machine) -> None:
    """The entrypoint runs here, its functions there."""
    laptop.write("job.py", JOB)
    assert "here 9 [1, 4] [0, 1, 2]" in laptop.run("run", "job.py").stdout


def test_large_values_travel(office: Office, laptop: Machine) -> None:
    """In both directions, as between containers."""
    laptop.write("echo.py", "import modal\napp = modal.App('echo')\n@app.function()\ndef echo(x): return x\n")
    laptop.run("deploy", "echo.py")
    size = 20_000_000
    script = f"import modal; print(len(modal.Function.from_name('echo', 'echo').remote(b'x' * {size})))"
    assert python(office, script).stdout == f"{size}\n"


def test_calls_without_a_valid_token_are_refused(office: Office, laptop: Machine) -> None:
    """With the same words as for commands."""
    script = "import modal; modal.Function.from_name('job', 'square').remote(1)"
    variables = {"PORTICO_TOKEN_ID": "ak-1", "PORTICO_TOKEN_SECRET": "as-1"}
    assert "AuthError: The token is not valid here" in python(office, script, **variables).stderr


def test_a_token_for_one_environment_calls_what_is_there(office: Office, laptop: Machine) -> None:
    """Calls, results of spawned ones, and `run`; and nothing of another environment, nor what is not there."""
    laptop.write("job.py", JOB)
    laptop.run("deploy", "job.py")
    office.server.run("environment", "create", "staging")
    laptop.run("deploy", "job.py", "-e", "staging")
    spawned = python(office, "import modal; print(modal.Function.from_name('job', 'square').spawn(6).object_id)").stdout
    token = office.new_token("--env", "staging")
    variables = {
        "PORTICO_TOKEN_ID": token["id"],
        "PORTICO_TOKEN_SECRET": token["secret"],
        "PORTICO_SERVER_URL": office.url,
        "PORTICO_ENVIRONMENT": "staging",
    }
    assert python(office, CALLS, **variables).stdout.splitlines()[1] == "81 25"
    assert python(office, METHODS, **variables).stdout == "8 3\n"
    for call in (
        "Function.from_name('job', 'square', environment_name='main').remote(1)",
        "Function.from_name('job', 'square', environment_name='main').spawn(1)",
        f"FunctionCall.from_id('{spawned.strip()}').get()",
    ):
        done = python(office, f"import modal; modal.{call}", **variables)
        assert "PermissionDeniedError" in done.stderr, (call, done.stderr)
    done = python(office, "import modal; modal.Function.from_name('job', 'nothing').remote()", **variables)
    assert "NotFoundError: There is no function 'nothing'" in done.stderr
    office.server.run("environment", "delete", "staging", "--yes")
