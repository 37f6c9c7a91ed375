"""The control API over a real socket: documents, streams, errors, limits, and clients that leave."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import socket
from pathlib import Path

import msgspec
import pytest

from portico.api import http as api_http
from portico.model import errors
from portico.model.spec import AppSpec, Bundle, EntrySpec, FunctionSpec, WebKind, WebSpec
from portico.wire.control import (
    AppInfo,
    BuildLine,
    Created,
    Deployed,
    DeployRequest,
    DomainUse,
    EphemeralRequest,
    LogLine,
    RollbackRequest,
)

SPEC = AppSpec(
    name="seed",
    entry=EntrySpec(module="app", path="app.py"),
    functions=(
        FunctionSpec(name="square", module="app", qualname="square", web=WebSpec(kind=WebKind.FASTAPI_ENDPOINT)),
    ),
)
DEPLOY = DeployRequest(spec=SPEC, bundle=Bundle())
SERVE = EphemeralRequest(spec=SPEC, bundle=Bundle())


def raw(path: Path, method: str, url: str, body: bytes | None = None, headers: dict[str, str] | None = None):
    """One exchange without the client's help: (status, headers, body)."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(path))
    connection.request(method, url, body=body, headers=headers or {})
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response.status, response.headers, data


def line(text: str, function: str = "square") -> LogLine:
    return LogLine(at=1.0, function=function, container_id="ct-1", source="stdout", line=text)


def api_body(request: DeployRequest) -> bytes:
    return msgspec.json.encode(request)


def make_app_info():
    return AppInfo(id="ap-1", name="seed", environment="main", state="deployed", version=1, created_at=1.0)


def test_server_info(client, services):
    """The server says who it is."""
    assert client.server() == services.info_document


def test_stop_server(client, services):
    """A request to stop reaches the server."""
    client.stop_server()
    assert services.calls == ["stop server"]


def test_blob_round_trip(client, services):
    """A blob that is missing is sent, and is missing no longer."""
    data = b"x" * 3_000_000
    digest = hashlib.sha256(data).hexdigest()
    assert client.missing_blobs([digest]) == [digest]
    client.put_blob(digest, io.BytesIO(data), len(data))
    assert services.stored[digest] == data
    assert client.missing_blobs([digest]) == []


def test_blob_with_a_bad_name_is_refused(control_socket):
    """A digest that is no digest never reaches the store."""
    status, _, body = raw(control_socket, "PUT", "/v1/blobs/..%2fetc", b"x")
    assert status in (400, 404)
    assert json.loads(body)["code"] in ("invalid", "not_found")
    assert raw(control_socket, "PUT", "/v1/blobs/ABC", b"x")[0] == 400


def test_blob_over_the_limit_is_refused_before_it_is_read(control_socket):
    """A declared length over 4 GiB gets its refusal at once."""
    headers = {"Content-Length": str(5 << 30)}
    status, _, body = raw(control_socket, "PUT", f"/v1/blobs/{'a' * 64}", headers=headers)
    assert (status, json.loads(body)["code"]) == (400, "invalid")


def test_document_over_the_limit_is_refused(control_socket, monkeypatch):
    """A document is never read beyond its limit, also where no length is declared."""
    monkeypatch.setattr(api_http, "MAX_DOCUMENT", 10)
    connection_body = iter([b"[1, 2, 3,", b" 4, 5, 6]"])
    status, _, body = raw(control_socket, "POST", "/v1/blobs/missing", connection_body)
    assert (status, json.loads(body)["code"]) == (400, "invalid")


def test_document_that_is_not_json_is_refused(control_socket):
    """A body that cannot be understood gets a clear 400."""
    status, headers, body = raw(control_socket, "POST", "/v1/deployments", b"{nonsense")
    assert status == 400
    assert headers["content-type"] == "application/json"
    assert "not what this address expects" in json.loads(body)["message"]


def test_unknown_address(control_socket):
    """An address that does not exist gives a Problem, not a page."""
    status, _, body = raw(control_socket, "GET", "/v1/nonsense")
    assert (status, json.loads(body)["code"]) == (404, "not_found")


def test_wrong_method(control_socket):
    """So does a verb that an address does not have."""
    status, _, body = raw(control_socket, "DELETE", "/v1/apps")
    assert (status, json.loads(body)["code"]) == (405, "invalid")


def test_deploy_streams_events_until_deployed(client, services):
    """A deploy's events come in order, the last one is Deployed."""
    services.before_deployed = [BuildLine(key="k", line="one"), BuildLine(key="k", line="two")]
    with client.deploy(DEPLOY) as events:
        seen = list(events)
    assert [type(event) for event in seen] == [BuildLine, BuildLine, Deployed]
    assert seen[-1].endpoints[0].url == "http://acme--seed-square.localhost:7777"


def test_error_before_the_first_event_has_its_status(control_socket, services):
    """What fails at once is an ordinary answer with the status of its code."""
    services.fail = errors.ImageBuildError("pip failed", detail="No matching distribution")
    body = api_body(DEPLOY)
    status, _, data = raw(control_socket, "POST", "/v1/deployments", body)
    assert status == 422
    assert json.loads(data)["detail"] == "No matching distribution"


def test_error_inside_a_stream_is_its_last_event(client, services):
    """What fails later ends the stream with a Problem, which the client raises."""
    services.before_deployed = [BuildLine(key="k", line="one")]
    services.fail = errors.StartError("square did not start", hint="h", detail="Traceback")
    events = client.deploy(DEPLOY)
    assert isinstance(next(events), BuildLine)
    with pytest.raises(errors.StartError) as caught:
        next(events)
    assert (caught.value.message, caught.value.hint, caught.value.detail) == ("square did not start", "h", "Traceback")


def test_foreign_errors_are_withheld(control_socket, services, caplog):
    """The text of an error that is not ours goes to the log under an id, not to the caller."""
    services.fail = RuntimeError("the password is 1234")
    status, _, data = raw(control_socket, "POST", "/v1/deployments", api_body(DEPLOY))
    problem = json.loads(data)
    assert (status, problem["code"]) == (500, "internal")
    assert "1234" not in data.decode()
    mark = problem["message"].removeprefix("Internal error ").rstrip(".")
    assert mark in caplog.text
    assert "1234" in caplog.text


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidError("x"), 400),
        (errors.UnsupportedError("x"), 400),
        (errors.AuthError("x"), 401),
        (errors.NotFoundError("x"), 404),
        (errors.ConflictError("x"), 409),
        (errors.PortInUseError("x"), 409),
        (errors.ImageBuildError("x"), 422),
        (errors.StartError("x"), 422),
        (errors.StateError("x"), 500),
        (errors.InternalFailure("x"), 500),
    ],
)
def test_status_of_each_code(control_socket, services, error, status):
    """Each code has its status."""
    services.fail = error
    answered, _, data = raw(control_socket, "POST", "/v1/deployments", api_body(DEPLOY))
    assert (answered, json.loads(data)["code"]) == (status, error.code)


def test_ephemeral_stream_shows_lines_as_they_come(client, services):
    """The app's creation and its first lines are there while the stream is still open."""
    services.lines = [line("hello")]
    with client.ephemeral(SERVE) as events:
        assert isinstance(next(events), Created)
        assert next(events) == line("hello")


def test_client_that_leaves_closes_a_waiting_stream(client, services):
    """The service's iterator ends although it had nothing to say."""
    with client.ephemeral(SERVE) as events:
        next(events)
        assert not services.closed.is_set()
    assert services.closed.wait(10)


def test_client_that_leaves_before_the_first_event_closes_the_stream(client, services, control_socket):
    """So it does when there has been no event at all."""
    services.living["ap-1"] = make_app_info()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(control_socket))
    connection.sendall(b"GET /v1/apps/seed/logs?follow=1 HTTP/1.1\r\nhost: x\r\n\r\n")
    connection.shutdown(socket.SHUT_WR)
    connection.close()
    assert services.closed.wait(10)


def test_hold_release_and_reload(client, services):
    """The verbs of a reload reach the service in order."""
    with client.ephemeral(SERVE) as events:
        app_id = next(events).app_id
        client.hold(app_id)
        with client.reload(app_id, DEPLOY) as reloading:
            assert isinstance(list(reloading)[-1], Deployed)
        client.hold(app_id)
        client.release(app_id)
    assert services.calls == ["hold", "reload", "hold", "release"]


def test_app_verbs(client, services):
    """List, look at, version list, roll back and stop."""
    list(client.deploy(DEPLOY))
    assert [app.name for app in client.apps()] == ["seed"]
    assert client.app("seed").functions[0].name == "square"
    assert client.history("seed").versions[0].version == 1
    assert isinstance(list(client.rollback("seed", RollbackRequest(version=1)))[-1], Deployed)
    assert client.stop_app("seed").name == "seed"
    with pytest.raises(errors.NotFoundError) as caught:
        client.app("seed")
    assert caught.value.hint == "See `portico app list`."


def test_logs_tail_and_function(client, services):
    """`tail` and `function` choose lines."""
    list(client.deploy(DEPLOY))
    services.lines = [line("a"), line("b", "cube"), line("c")]
    assert [entry.line for entry in client.logs("seed", tail=2)] == ["b", "c"]
    assert [entry.line for entry in client.logs("seed", function="square")] == ["a", "c"]


@pytest.mark.parametrize("tail", ["-1", "x", "99999999999999999999", "100001"])
def test_logs_with_a_bad_tail(control_socket, tail):
    """A tail that is no number in range is refused."""
    status, _, _ = raw(control_socket, "GET", f"/v1/apps/seed/logs?tail={tail}")
    assert status == 400


def test_stream_ends_with_ended(control_socket, services, monkeypatch):
    """A followed log says why it ends."""
    services.living["ap-1"] = make_app_info()

    async def ends(_: object) -> None:
        return

    monkeypatch.setattr(services, "_wait", ends)
    _, headers, data = raw(control_socket, "GET", "/v1/apps/seed/logs?follow=1")
    assert headers["content-type"] == "application/x-ndjson"
    assert json.loads(data) == {"type": "ended", "reason": "stopped"}


def test_public_health(public_socket):
    """The bare domain answers health checks."""
    assert (raw(public_socket, "GET", "/healthz")[0], raw(public_socket, "GET", "/healthz")[2]) == (200, b"ok\n")


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("GET", "/v1/apps"), ("POST", "/v1/server/stop")])
def test_public_door_refuses_all_else(public_socket, method, path):
    """Nothing of the control API can be reached from the public port."""
    status, headers, data = raw(public_socket, method, path)
    assert (status, json.loads(data)["code"]) == (401, "unauthorized")
    assert headers["www-authenticate"] == "Bearer"


def test_domains_go_through(client, services):
    """Registered by whoever may open the socket, checked, and removed; with `force` where one is used."""
    made = client.add_domain("*.example.com")
    assert (made.name, made.created_by) == ("*.example.com", "jo")
    assert client.domains() == [made]
    assert client.check_domain("*.example.com").records[0].name == "*.example.com"
    use = DomainUse(domain="*.example.com", app="shop", environment="main", state="deployed")
    services.named["*.example.com"] = msgspec.structs.replace(made, used_by=[use])
    with pytest.raises(errors.ConflictError):
        client.remove_domain("*.example.com", force=False)
    assert client.remove_domain("*.example.com", force=True).used_by == [use]
    with pytest.raises(errors.NotFoundError):
        client.remove_domain("*.example.com", force=True)
