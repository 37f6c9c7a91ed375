"""Who may call endpoints: from the command line to the answer of the door."""

from __future__ import annotations

import json
import socket
import time

import pytest

from tests.e2e.access import APP, INVALID, MISSING, a_token, bearer, deploy, post, read_answer
from tests.e2e.conftest import PATIENCE, Machine, wait_until


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
    """The very next request is refused, also on a connection that it has opened; and so is one on another."""
    url = deploy(shared, "revoked")["closed"]
    token = a_token(shared)
    lines = [f"{name}: {value}" for name, value in (token | {"Host": url.partition("//")[2]}).items()]
    request = "\r\n".join(["POST / HTTP/1.1", "Content-Length: 0", *lines, "", ""]).encode()
    with socket.create_connection(("127.0.0.1", shared.port), timeout=PATIENCE) as connection:
        stream = connection.makefile("rb")
        connection.sendall(request)
        assert read_answer(stream).status == 200
        revoked = shared.run("proxy-token", "revoke", token["Modal-Key"], "--json")
        assert json.loads(revoked.stdout) == {"id": token["Modal-Key"]}
        connection.sendall(request)
        refused = read_answer(stream)
        assert (refused.status, refused.text) == INVALID
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
    """When a token was used last; a revoked one is gone from it. Its secret is in no file, only what it hashes to."""
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
    for path in shared.home.rglob("*"):
        assert not path.is_file() or token["Modal-Secret"].encode() not in path.read_bytes(), path
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


def test_an_environment_takes_its_keys_and_settings_along(shared: Machine) -> None:
    """Another one of its name is open to whom it is said to be, and not to those of the one before."""
    shared.run("environment", "create", "once")
    shared.run("workspace", "set", "require-proxy-auth", "on", "--env", "once")
    alone, also = a_token(shared, "--env", "once"), a_token(shared, "--env", "once", "--env", "main")
    url = deploy(shared, "reborn", "--env", "once", closed=False)["closed"]
    assert [post(shared, url, headers)[0] for headers in ({}, alone, also)] == [401, 200, 200]
    shared.run("environment", "delete", "once", "--yes")
    shared.run("environment", "create", "once")
    deploy(shared, "reborn", "--env", "once", closed=False)
    assert post(shared, url)[0] == 200
    shared.run("workspace", "set", "require-proxy-auth", "on", "--env", "once")
    assert post(shared, url, alone) == INVALID
    assert post(shared, url, also)[0] == 403
    shared.run("environment", "delete", "once", "--yes")


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
    assert " on " in next(line for line in shared.run("app", "list").stdout.splitlines() if "marked" in line)
    again = shared.start("serve", "marked.py")
    again.until("^Serving marked")
    assert [line.endswith(" 🔑") for line in again.seen if line.startswith("http://")] == [True, True]
    assert again.interrupt() == 0


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
        (["workspace", "set", "rate-limit", "5", "--env", "nowhere"], 1),
        (["proxy-token", "create", "--expires-in", "soon"], 2),
        (["proxy-token", "create", "--expires-in", "0"], 2),
        (["proxy-token", "create", "--env", "not a name"], 1),
        (["proxy-token", "create", "--env", "nowhere"], 1),
        (["proxy-token", "create", "--endpoint", "app/"], 1),
        (["proxy-token", "create", "--endpoint", "app/f/g"], 1),
        (["proxy-token", "revoke", "wk-nobody"], 1),
    ],
)
def test_bad_input_is_refused(shared: Machine, arguments: list[str], code: int) -> None:
    """With a short error, and nothing changed."""
    before = state(shared)
    failed = shared.run(*arguments, code=code)
    assert "Error" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert state(shared) == before


def state(machine: Machine) -> list[str]:
    """All that is set, and all tokens."""
    return [machine.run(*words, "--json").stdout for words in (("workspace", "settings"), ("proxy-token", "list"))]


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
