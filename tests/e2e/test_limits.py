"""How much of endpoints clients may ask for: rates and sizes."""

from __future__ import annotations

import json
import socket
import time

from tests.e2e.access import a_token, deploy, post, read_answer
from tests.e2e.conftest import PATIENCE, Machine, parse

LIMIT_HEADERS = ("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset")


def test_the_rate_limit_is_exact_under_overload(machine: Machine) -> None:
    """The burst, then the rate's worth, to 1 %; each refusal says when to come again."""
    machine.env["PORTICO_RATE_LIMIT"] = "40"
    machine.up()
    host = deploy(machine, "loaded", closed=False)["opened"].partition("//")[2]
    request = f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    statuses: list[int] = []
    refusals: list[tuple[float, float]] = []  # each was decided between these times, and left nothing in the bucket
    with socket.create_connection(("127.0.0.1", machine.port), timeout=PATIENCE) as connection:
        stream = connection.makefile("rb")
        while not refusals or refusals[-1][1] - refusals[0][1] < 2.5:
            asked = time.monotonic()
            connection.sendall(request)
            answer = read_answer(stream)
            statuses.append(answer.status)
            if answer.status == 429:
                refusals.append((asked, time.monotonic()))
    shown = {name: answer.headers[name] for name in ("retry-after", *LIMIT_HEADERS)}
    assert shown == {
        "retry-after": "1",
        "ratelimit-limit": "40",
        "ratelimit-remaining": "0",
        "ratelimit-reset": "1",
    }
    assert answer.text == "modal-http: rate limit exceeded: 40 requests a second\n"
    assert statuses[:200] == [200] * 200
    steady = statuses[statuses.index(429) :].count(200)
    (asked, answered), (asked_last, answered_last) = refusals[0], refusals[-1]
    assert 40 * (asked_last - answered) * 0.99 - 1 <= steady <= 40 * (answered_last - asked) * 1.01 + 1


def test_the_limit_where_none_is_set(machine: Machine) -> None:
    """200 requests a second for the workspace."""
    del machine.env["PORTICO_RATE_LIMIT"]
    machine.up()
    assert json.loads(machine.run("workspace", "settings", "--json").stdout)["defaults"]["rate-limit"] == "200"


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


def test_a_client_of_ipv6_has_its_own_address(machine: Machine) -> None:
    """On a door that listens to IPv6 alone."""
    server = machine.start("up", "--listen", f"[::1]:{machine.port}")
    server.until(rf"listens on http://\[::1\]:{machine.port}")
    url = deploy(machine, "sixth", closed=False)["closed"]
    request = f"POST / HTTP/1.1\r\nHost: {url.partition('//')[2]}\r\nContent-Length: 0\r\n\r\n"
    with socket.create_connection(("::1", machine.port), timeout=PATIENCE) as connection:
        connection.sendall(request.encode())
        assert read_answer(connection.makefile("rb")).json["client"] == "::1"
