"""Who may call endpoints, and how much: from the command line to the answer of the door."""

from __future__ import annotations

import json
import socket
import time

import pytest

from tests.e2e.conftest import Machine, parse, wait_until

APP = """
import modal
from fastapi import Request

app = modal.App("{name}")

@app.function()
@modal.fastapi_endpoint(method="POST"{closed})
async def closed(request: Request):
    size = 0
    async for piece in request.stream():
        size += len(piece)
    return {{"size": size, "headers": dict(request.headers)}}

@app.function()
@modal.asgi_app()
def opened():
    from fastapi import FastAPI
    web = FastAPI()

    @web.get("/")
    def hello():
        return "hello"

    return web
"""
MISSING = (401, "modal-http: missing credentials for proxy authorization\n")
INVALID = (401, "modal-http: invalid credentials for proxy authorization\n")


def deploy(machine: Machine, name: str, *options: str, closed: bool = True) -> dict[str, str]:
    machine.write(f"{name}.py", APP.format(name=name, closed=", requires_proxy_auth=True" if closed else ""))
    return machine.deploy(f"{name}.py", *options)


def a_token(machine: Machine, *options: str) -> dict[str, str]:
    """A new proxy token, as the headers of a request."""
    made = json.loads(machine.run("proxy-token", "create", "--json", *options).stdout)
    assert set(made) == {"id", "secret"}
    assert made["id"].startswith("wk-")
    assert made["secret"].startswith("ws-")
    return {"Modal-Key": made["id"], "Modal-Secret": made["secret"]}


def bearer(token: dict[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {token['Modal-Key']}.{token['Modal-Secret']}"}


def post(machine: Machine, url: str, headers: dict[str, str] | None = None, body: bytes = b"{}") -> tuple[int, object]:
    answer = machine.request(url, "POST", body=body, headers=headers)
    return answer.status, answer.json if answer.status == 200 else answer.text


def containers(machine: Machine, app: str) -> int:
    return sum(function["containers"] for function in machine.app(app)["functions"])


def test_a_protected_endpoint_needs_a_token(shared: Machine) -> None:
    """Both forms pass, neither reaches the code; without one no container is started; the other function is open."""
    urls = deploy(shared, "prot")
    wait_until(lambda: containers(shared, "prot") == 2, "both were proven")
    token = a_token(shared)
    assert post(shared, urls["closed"]) == MISSING
    assert post(shared, urls["closed"], token | {"Modal-Secret": "ws-x"}) == INVALID
    for headers in (token, bearer(token)):
        status, seen = post(shared, urls["closed"], headers | {"X-Own": "1"})
        assert (status, seen["headers"]["x-own"]) == (200, "1")
        assert not {"modal-key", "modal-secret", "authorization"} & set(seen["headers"])
    assert shared.request(urls["opened"]).json == "hello"


def test_a_refused_request_starts_no_container(shared: Machine) -> None:
    """A served app has none until somebody with a token comes."""
    shared.write("cold.py", APP.format(name="cold", closed=", requires_proxy_auth=True"))
    url = shared.deploy("cold.py")["closed"]
    token = a_token(shared)
    for container in shared.containers():
        container.kill()
    wait_until(lambda: containers(shared, "cold") == 0, "the containers have gone")
    for _ in range(5):
        assert post(shared, url) == MISSING
    assert containers(shared, "cold") == 0
    assert post(shared, url, token)[0] == 200


def test_a_browsers_question_passes(shared: Machine) -> None:
    """A preflight is answered by the app, without credentials; the request that follows needs them, and may be read."""
    url = deploy(shared, "cors")["closed"]
    asked = {"Origin": "https://page.test", "Access-Control-Request-Method": "POST"}
    answer = shared.request(url, "OPTIONS", headers=asked | {"Access-Control-Request-Headers": "modal-key"})
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] in ("*", "https://page.test")
    assert "modal-key" in answer.headers["access-control-allow-headers"]
    refused = shared.request(url, "POST", body=b"", headers={"Origin": "https://page.test"})
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, "https://page.test")


SOCKET = """
import modal

app = modal.App("wired")

@app.function()
@modal.asgi_app(requires_proxy_auth=True)
def web():
    from fastapi import FastAPI, WebSocket
    web = FastAPI()

    @web.websocket("/")
    async def tell(socket: WebSocket):
        await socket.accept()
        await socket.send_text(", ".join(sorted(socket.headers)))

    return web
"""


def test_a_websocket_needs_a_token(shared: Machine) -> None:
    """It is refused before it becomes one; with a token it opens, and the app does not see it."""
    shared.write("wired.py", SOCKET)
    url = shared.deploy("wired.py")["web"]
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    host = url.partition("//")[2]

    def open_socket(more: dict[str, str]) -> bytes:
        lines = [f"{name}: {value}" for name, value in (upgrade | more).items()]
        request = "\r\n".join(["GET / HTTP/1.1", f"Host: {host}", *lines, "", ""])
        with socket.create_connection(("127.0.0.1", shared.port), timeout=20) as connection:
            connection.sendall(request.encode())
            answer = b""
            while b"user-agent" not in answer and b"authorization" not in answer and b"host" not in answer:
                piece = connection.recv(65536)
                if not piece:
                    break
                answer += piece
        return answer

    refused = open_socket({})
    assert refused.startswith(b"HTTP/1.1 401 ")
    assert MISSING[1].encode() in refused
    opened = open_socket(a_token(shared))
    assert opened.startswith(b"HTTP/1.1 101 ")
    assert b"host" in opened
    assert b"modal-" not in opened


def test_a_revoked_token_stops_at_once(shared: Machine) -> None:
    """Also on a connection that it has opened, and for good."""
    url = deploy(shared, "revoked")["closed"]
    token = a_token(shared)
    assert post(shared, url, token)[0] == 200
    shared.run("proxy-token", "revoke", token["Modal-Key"])
    assert post(shared, url, token) == INVALID
    again = shared.run("proxy-token", "revoke", token["Modal-Key"], code=1)
    assert f"no proxy token '{token['Modal-Key']}'" in again.stderr


def test_a_token_expires(shared: Machine) -> None:
    """By itself; the list says when."""
    url = deploy(shared, "expiring")["closed"]
    token = a_token(shared, "--expires-in", "5s")
    assert post(shared, url, token)[0] == 200
    (info,) = [
        t for t in json.loads(shared.run("proxy-token", "list", "--json").stdout) if t["id"] == token["Modal-Key"]
    ]
    assert info["expires_at"] == pytest.approx(info["created_at"] + 5)
    wait_until(lambda: post(shared, url, token) == INVALID, "it has expired")


def test_the_list_tells_of_uses_and_of_no_secrets(shared: Machine) -> None:
    """When a token was used last; a revoked one is gone from it."""
    url = deploy(shared, "listed")["closed"]
    token = a_token(shared, "--env", "main", "--endpoint", "listed/closed", "--rate-limit", "5")
    before = time.time()
    post(shared, url, token)
    listed = shared.run("proxy-token", "list", "--json").stdout
    assert token["Modal-Secret"] not in listed
    (info,) = [t for t in json.loads(listed) if t["id"] == token["Modal-Key"]]
    assert info["last_used_at"] == pytest.approx(before, abs=30)
    assert (info["environments"], info["endpoints"], info["rate_limit"]) == (["main"], ["listed/closed"], 5.0)
    assert token["Modal-Key"] in shared.run("proxy-token", "list").stdout
    shared.run("proxy-token", "revoke", token["Modal-Key"])
    assert token["Modal-Key"] not in shared.run("proxy-token", "list").stdout


def test_a_token_for_another_environment_is_forbidden(shared: Machine) -> None:
    """403, as for one of another endpoint."""
    shared.run("environment", "create", "dev")
    url, staged = deploy(shared, "scoped")["closed"], deploy(shared, "scoped", "--env", "dev")["closed"]
    token = a_token(shared, "--env", "dev")
    assert post(shared, staged, token)[0] == 200
    assert post(shared, url, token)[0] == 403
    assert post(shared, url, a_token(shared, "--endpoint", "other"))[0] == 403
    assert post(shared, url, a_token(shared, "--endpoint", "scoped"))[0] == 200
    shared.run("environment", "update", "dev", "--set-name", "develop")
    renamed = next(
        f["url"] for f in json.loads(shared.run("app", "info", "scoped", "-e", "develop", "--json").stdout)["functions"]
    )
    assert post(shared, renamed, token)[0] == 200


def test_urls_that_need_a_token_are_marked(shared: Machine) -> None:
    """By `serve`, by `deploy`, and in the lists; by code or by a setting."""
    shared.write("marked.py", APP.format(name="marked", closed=", requires_proxy_auth=True"))
    serving = shared.start("serve", "marked.py")
    assert serving.until("--marked-closed-dev")[0]
    assert [line.endswith(" 🔑") for line in serving.seen if "--marked-closed-dev" in line] == [True]
    serving.until("--marked-opened-dev")
    assert not serving.seen[-1].endswith("🔑")
    assert serving.interrupt() == 0
    said = shared.run("deploy", "marked.py").stdout
    assert "closed => " in said
    assert [line.endswith(" 🔑") for line in said.splitlines() if "=>" in line] == [True, False]
    assert "1 of 2" in next(line for line in shared.run("app", "list").stdout.splitlines() if "marked" in line)
    shared.run("workspace", "set", "require-proxy-auth", "on", "--app", "marked")
    said = shared.run("deploy", "marked.py").stdout
    assert [line.endswith(" 🔑") for line in said.splitlines() if "=>" in line] == [True, True]
    assert all(function["protected"] for function in shared.app("marked")["functions"])


@pytest.mark.parametrize("scope", [[], ["--env", "main"], ["--app", "kept"], ["--app", "kept", "--function", "closed"]])
def test_a_setting_protects_what_is_below_it(machine: Machine, scope: list[str]) -> None:
    """Without a change in the code or a deploy, at once and after a restart; `inherit` takes it back."""
    server = machine.up()
    url = deploy(machine, "kept", closed=False)["closed"]
    assert post(machine, url)[0] == 200
    machine.run("workspace", "set", "require-proxy-auth", "on", *scope)
    token = a_token(machine)
    assert post(machine, url) == MISSING
    assert post(machine, url, token)[0] == 200
    server.end()
    machine.up()
    assert post(machine, url) == MISSING
    assert post(machine, url, token)[0] == 200
    machine.run("workspace", "set", "require-proxy-auth", "inherit", *scope)
    assert post(machine, url)[0] == 200


def test_an_app_may_be_taken_out_of_what_protects_all(machine: Machine) -> None:
    """The narrower setting wins; what the code asks for is not to be switched off."""
    machine.up()
    urls = deploy(machine, "public")
    machine.run("workspace", "set", "require-proxy-auth", "on")
    assert machine.request(urls["opened"]).status == 401
    machine.run("workspace", "set", "require-proxy-auth", "off", "--app", "public")
    assert machine.request(urls["opened"]).status == 200
    assert post(machine, urls["closed"]) == MISSING
    shown = json.loads(machine.run("workspace", "settings", "--json").stdout)
    assert [(entry["app"], entry["value"]) for entry in shown["settings"]] == [(None, "on"), ("public", "off")]
    assert "require-proxy-auth" in machine.run("workspace", "settings").stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["workspace", "set", "nothing", "on"], 2),
        (["workspace", "set", "require-proxy-auth", "perhaps"], 2),
        (["workspace", "set", "rate-limit", "-5"], 2),
        (["workspace", "set", "max-body", "huge"], 2),
        (["workspace", "set", "rate-limit", "5", "--function", "f"], 2),
        (["workspace", "set", "rate-limit", "5", "--app", "not a name"], 1),
        (["proxy-token", "create", "--expires-in", "soon"], 2),
        (["proxy-token", "create", "--expires-in", "0"], 2),
        (["proxy-token", "create", "--env", "not a name"], 1),
        (["proxy-token", "create", "--endpoint", "app/"], 1),
        (["proxy-token", "revoke", "wk-nobody"], 1),
    ],
)
def test_bad_input_is_refused(shared: Machine, arguments: list[str], code: int) -> None:
    """With a short error, and nothing changed."""
    before = shared.run("workspace", "settings", "--json").stdout
    failed = shared.run(*arguments, code=code)
    assert "Error" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert shared.run("workspace", "settings", "--json").stdout == before


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PORTICO_RATE_LIMIT", "many", "PORTICO_RATE_LIMIT is a number of requests a second, or off"),
        ("PORTICO_SECRET_KEY", "too short", "PORTICO_SECRET_KEY is not a key: 32 bytes in base64"),
    ],
)
def test_a_bad_variable_stops_the_start(machine: Machine, variable: str, value: str, said: str) -> None:
    """With its name, and what it should be; nothing of the value of a key."""
    machine.env[variable] = value
    failed = machine.run("up", code=1)
    assert said in failed.stderr
    assert variable == "PORTICO_RATE_LIMIT" or value not in failed.stderr


def test_the_rate_limit_holds_under_overload(machine: Machine) -> None:
    """What passes is the burst and the rate's worth, to 1 %; each refusal says when to come again."""
    machine.env["PORTICO_RATE_LIMIT"] = "40"
    machine.up()
    url = deploy(machine, "loaded", closed=False)["opened"]
    host = url.partition("//")[2]
    request = f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    passed = refused = 0
    example = None
    with socket.create_connection(("127.0.0.1", machine.port)) as connection:
        stream = connection.makefile("rb")
        began = time.monotonic()
        first = last = began
        while last - began < 2.5:
            asked = time.monotonic()
            connection.sendall(request)
            status, answer = read_answer(stream)
            last = time.monotonic()
            if status == 200:
                passed += 1
            else:
                first = first if refused else asked
                refused += 1
                example = example or answer
    assert example is not None
    assert example.status == 429
    assert (example.headers["retry-after"], example.headers["ratelimit-limit"]) == ("1", "40")
    assert example.headers["ratelimit-remaining"] == "0"
    least, most = 200 + 40 * (last - began) * 0.99 - 2, 200 + 40 * (last - began) * 1.01 + 2
    assert least <= passed <= most, (passed, refused, last - began)


def read_answer(stream) -> tuple[int, object]:
    """One response with a Content-Length, from a connection that stays."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += stream.readline()
    answer = parse(head)
    body = stream.read(int(answer.headers["content-length"]))
    return answer.status, parse(head + body)


def test_a_rate_limit_can_be_set_for_one_endpoint_and_taken_away(shared: Machine) -> None:
    """The others are not touched."""
    urls = deploy(shared, "limited", closed=False)
    place = ("--app", "limited", "--function", "opened")
    shared.run("workspace", "set", "rate-limit", "0.1", *place)
    assert [shared.request(urls["opened"]).status for _ in range(3)] == [200, 429, 429]
    assert [post(shared, urls["closed"])[0] for _ in range(3)] == [200] * 3
    shared.run("workspace", "set", "rate-limit", "off", *place)
    assert [shared.request(urls["opened"]).status for _ in range(3)] == [200] * 3


def test_a_token_can_have_a_rate_limit_of_its_own(shared: Machine) -> None:
    """Others pass meanwhile."""
    url = deploy(shared, "paced")["closed"]
    slow, quick = a_token(shared, "--rate-limit", "0.1"), a_token(shared)
    assert [post(shared, url, token)[0] for token in (slow, slow, quick, slow, quick)] == [200, 429, 200, 429, 200]


def test_a_body_over_the_limit_is_refused(shared: Machine) -> None:
    """413: by its length at once, in chunks at the first byte too many; 4 GiB where nothing is set."""
    url = deploy(shared, "sized", closed=False)["closed"]
    host = url.partition("//")[2]
    head = f"POST / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
    huge = shared.raw(f"{head}Content-Length: {(4 << 30) + 1}\r\n\r\n".encode())
    assert parse(huge).status == 413
    assert parse(huge).text == "modal-http: bad request: the request's body is over 4 GiB\n"
    shared.run("workspace", "set", "max-body", "100KiB", "--app", "sized")
    assert post(shared, url, body=b"x" * 102_400)[1]["size"] == 102_400
    assert post(shared, url, body=b"x" * 102_401)[0] == 413
    chunk = b"%x\r\n%b\r\n" % (1024, b"x" * 1024)
    whole = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk * 100
    assert parse(shared.raw(whole + b"0\r\n\r\n")).json["size"] == 102_400
    assert parse(shared.raw(whole + b"1\r\nx\r\n")).status == 413


def test_a_method_of_a_class_is_protected_like_a_function(shared: Machine) -> None:
    """By its decorator, method by method; `Class.method` is what settings and scopes know it by."""
    shared.write(
        "protcls.py",
        """
import modal

app = modal.App("protcls")

@app.cls()
class Egg:
    @modal.fastapi_endpoint(requires_proxy_auth=True)
    def closed(self):
        return "closed"

    @modal.fastapi_endpoint()
    def opened(self):
        return "opened"
""",
    )
    urls = shared.deploy("protcls.py")
    assert shared.request(urls["Egg.opened"]).status == 200
    refused = shared.request(urls["Egg.closed"])
    assert (refused.status, refused.text) == MISSING
    token = a_token(shared)
    assert shared.request(urls["Egg.closed"], headers=token).json == "closed"
    shared.run("workspace", "set", "require-proxy-auth", "on", "--app", "protcls", "--function", "Egg.opened")
    assert shared.request(urls["Egg.opened"]).status == 401
