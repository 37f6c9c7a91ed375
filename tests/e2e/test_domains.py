"""Custom domains: registered, checked, deployed on, and led to the right app."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Machine
from tests.names import NameServer

SEED = """
import modal

app = modal.App("{app}")


@app.function()
@modal.fastapi_endpoint(custom_domains={domains})
def says():
    return "{app}"
"""
KINDS = """
import modal

app = modal.App("kinds")


async def plain(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b'"asgi"'})


@app.function()
@modal.asgi_app(custom_domains=["asgi.kinds.example"])
def asgi():
    return plain


@app.function()
@modal.wsgi_app(custom_domains=["wsgi.kinds.example", "*.wsgi.kinds.example"])
def wsgi():
    def answer(environ, start_response):
        start_response("200 OK", [("content-type", "application/json")])
        return [('"' + environ["HTTP_HOST"] + '"').encode()]

    return answer


@app.function()
@modal.web_server(8000, custom_domains=["web.kinds.example"])
def web():
    import subprocess, sys

    code = '''
from http.server import BaseHTTPRequestHandler, HTTPServer
class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'"web"')
HTTPServer(("0.0.0.0", 8000), Answer).serve_forever()
'''
    subprocess.Popen([sys.executable, "-c", code])


@app.cls()
class Shop:
    @modal.fastapi_endpoint(custom_domains=["cls.kinds.example"])
    def cart(self):
        return "cls"
"""


@pytest.fixture(scope="module")
def names() -> Iterator[NameServer]:
    """What DNS says."""
    server = NameServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def shop(names: NameServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A server that the internet reaches at 192.0.2.7, and that asks the test's own name server."""
    machine = Machine(tmp_path_factory.mktemp("domains"))
    machine.env |= {"PORTICO_DNS_RESOLVER": names.address, "PORTICO_PUBLIC_ADDRESS": "192.0.2.7, 2001:db8::7"}
    machine.up()
    yield machine
    machine.close()


def add(machine: Machine, *domains: str) -> None:
    """Register them."""
    for domain in domains:
        machine.run("domain", "add", domain, "--json")


def deploy(machine: Machine, app: str, *domains: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Deploy an app that answers with its name."""
    machine.write(f"{app}.py", SEED.format(app=app, domains=list(domains)))
    return machine.run("deploy", f"{app}.py", code=code)


def at(machine: Machine, host: str) -> object:
    """What a host answers: its JSON, or the status."""
    answer = machine.request(f"http://{host}:{machine.port}")
    return answer.json if answer.status == 200 else answer.status


def listed(machine: Machine) -> dict[str, dict]:
    """What `domain list --json` says, by name."""
    return {domain["name"]: domain for domain in json.loads(machine.run("domain", "list", "--json").stdout)}


def test_an_app_answers_at_its_domains_and_at_its_own_url(shop: Machine) -> None:
    """Exact ones and all hosts below a wildcard, with and without a port; the commands show them."""
    add(shop, "api.first.example", "*.first.example")
    done = deploy(shop, "first", "api.first.example", "*.first.example")
    port = shop.port
    assert f"Custom domain for says => http://api.first.example:{port}" in done.stdout.splitlines()
    for host in ("api.first.example", "API.First.example.", "www.first.example", "acme--first-says.localhost"):
        assert at(shop, host) == "first"
    answer = shop.raw(b"GET / HTTP/1.1\r\nHost: api.first.example\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert [at(shop, host) for host in ("first.example", "a.b.first.example")] == [404, 404]
    urls = [f"http://{host}.first.example:{port}" for host in ("api", "*")]
    assert json.loads(shop.run("deploy", "first.py", "--json").stdout)["endpoints"][0]["custom_urls"] == urls
    assert shop.app("first")["functions"][0]["custom_urls"] == urls
    assert urls[1] in shop.run("app", "info", "first").stdout
    assert "api.first.example, *.first.example" in shop.run("app", "list").stdout


def test_every_kind_of_endpoint_takes_domains(shop: Machine) -> None:
    """ASGI and WSGI apps, programs behind a port, and methods of classes; the host arrives as the client sent it."""
    add(shop, "*.kinds.example", "*.wsgi.kinds.example")
    shop.write("kinds.py", KINDS)
    shop.run("deploy", "kinds.py")
    assert {kind: at(shop, f"{kind}.kinds.example") for kind in ("asgi", "web", "cls")} == {
        kind: kind for kind in ("asgi", "web", "cls")
    }
    assert at(shop, "wsgi.kinds.example") == f"wsgi.kinds.example:{shop.port}"
    assert at(shop, "eu.wsgi.kinds.example") == f"eu.wsgi.kinds.example:{shop.port}"


def test_the_most_exact_match_wins(shop: Machine) -> None:
    """An app with the exact name has it before one with the wildcard, which has all others; until it is stopped."""
    add(shop, "*.match.example", "*.deep.match.example")
    for app, domain in {"wild": "*.match.example", "exact": "x.match.example", "deep": "*.deep.match.example"}.items():
        deploy(shop, app, domain)
    hosts = ("x.match.example", "y.match.example", "y.deep.match.example", "deep.match.example")
    assert [at(shop, host) for host in hosts] == ["exact", "wild", "deep", "wild"]
    shop.run("app", "stop", "exact", "--yes")
    assert at(shop, "x.match.example") == "wild"
    shop.run("app", "stop", "wild", "--yes")
    assert "app for invoked web endpoint is stopped" in shop.request(f"http://x.match.example:{shop.port}").text


def test_a_deploy_on_an_unregistered_domain_fails(shop: Machine) -> None:
    """With the command that registers it as the hint; nothing of the app is there."""
    failed = deploy(shop, "unknown", "api.unknown.example", "*.unknown.example", code=1)
    assert "The domains api.unknown.example, *.unknown.example are not registered." in failed.stderr
    assert "portico domain add api.unknown.example && portico domain add '*.unknown.example'" in failed.stderr
    assert "There is no app 'unknown'" in shop.run("app", "info", "unknown", code=1).stderr


def test_a_registered_name_covers_no_other(shop: Machine) -> None:
    """The domain above does not cover those below it, and a wildcard not the domain above it, nor two labels."""
    add(shop, "cover.example", "*.sub.cover.example")
    for domain in ("api.cover.example", "*.cover.example", "sub.cover.example", "a.b.sub.cover.example"):
        assert f"The domain {domain} is not registered." in deploy(shop, "covered", domain, code=1).stderr
    deploy(shop, "covered", "a.sub.cover.example")
    assert at(shop, "a.sub.cover.example") == "covered"


def test_two_deployed_apps_cannot_hold_one_domain(shop: Machine) -> None:
    """The deploy fails and names the holder, with its environment; the holder goes on."""
    add(shop, "held.example")
    shop.run("environment", "create", "prod")
    shop.write("holder.py", SEED.format(app="holder", domains=["held.example"]))
    shop.run("deploy", "holder.py", "-e", "prod")
    failed = deploy(shop, "rival", "held.example", code=1)
    assert "The domain held.example belongs to the app 'holder' in the environment 'prod'." in failed.stderr
    assert "portico app stop holder -e prod" in failed.stderr
    assert at(shop, "held.example") == "holder"
    shop.run("app", "stop", "holder", "-e", "prod", "--yes")
    deploy(shop, "rival", "held.example")
    assert at(shop, "held.example") == "rival"


def test_two_functions_cannot_have_one_domain(shop: Machine) -> None:
    """The error names both."""
    text = SEED.format(app="twice", domains=["a.twice.example"])
    shop.write("twice.py", text + text.partition("@app")[1] + text.partition("@app")[2].replace("says", "also"))
    failed = shop.run("deploy", "twice.py", code=1)
    assert "says and also would both have the domain a.twice.example" in failed.stderr


def test_a_new_version_gives_up_the_domains_that_it_does_not_name(shop: Machine) -> None:
    """And a rollback has them again; what another app has taken meanwhile, it cannot have."""
    add(shop, "*.moves.example")
    deploy(shop, "mover", "one.moves.example")
    deploy(shop, "mover", "two.moves.example")
    assert [at(shop, f"{name}.moves.example") for name in ("one", "two")] == [404, "mover"]
    shop.run("app", "rollback", "mover", "--yes")
    assert [at(shop, f"{name}.moves.example") for name in ("one", "two")] == ["mover", 404]
    deploy(shop, "taker", "two.moves.example")
    assert "belongs to the app 'taker'" in shop.run("app", "rollback", "mover", "v2", "--yes", code=1).stderr
    assert [at(shop, f"{name}.moves.example") for name in ("one", "two")] == ["mover", "taker"]


def test_a_served_app_takes_no_domain_from_a_deployed_one(shop: Machine) -> None:
    """It says so in one line, and is at its own URL; what nobody has, it has for as long as it runs."""
    add(shop, "*.dev.example")
    deploy(shop, "lasting", "api.dev.example")
    shop.write("passing.py", SEED.format(app="passing", domains=["api.dev.example", "free.dev.example", "no.example"]))
    serving = shop.start("serve", "passing.py")
    serving.until("Not registered here .*: no.example.")
    serving.until("api.dev.example stays with the app 'lasting', which is deployed; this one has its own URL only.")
    url = serving.until("^http://.*")[0]
    assert serving.until("^http://.*")[0] == f"http://free.dev.example:{shop.port}"
    assert shop.request(url).json == "passing"
    assert [at(shop, f"{name}.dev.example") for name in ("api", "free")] == ["lasting", "passing"]
    assert "Took over a URL from the running app 'passing'" in deploy(shop, "lasting", "free.dev.example").stderr
    serving.until("another app has taken over a URL of this one")
    assert at(shop, "free.dev.example") == "lasting"
    serving.interrupt()
    assert at(shop, "free.dev.example") == "lasting"


def test_adding_a_domain_shows_the_records_and_what_is_wrong(shop: Machine, names: NameServer) -> None:
    """It is registered all the same; when DNS is right, a check says so."""
    names.records["api.dns.example"] = [("A", "192.0.2.7"), ("AAAA", "2001:db8::9")]
    done = shop.run("domain", "add", "API.dns.example")
    assert done.stdout.splitlines() == [
        "✓ Domain api.dns.example is registered.",
        "TYPE  NAME             VALUE",
        "A     api.dns.example  192.0.2.7",
        "AAAA  api.dns.example  2001:db8::7",
    ]
    assert "api.dns.example leads to this server, and also elsewhere: 2001:db8::9." in done.stderr
    assert "portico domain check api.dns.example" in done.stderr
    names.records["api.dns.example"] = [("A", "192.0.2.7"), ("AAAA", "2001:db8::7")]
    again = shop.run("domain", "add", "api.dns.example")
    assert "✓ api.dns.example leads to this server, 192.0.2.7, 2001:db8::7." in again.stderr
    assert shop.run("domain", "check", "api.dns.example").returncode == 0


@pytest.mark.parametrize(
    ("records", "verdict", "said"),
    [
        (None, "missing", "x.look.example leads nowhere yet"),
        ([("A", "198.51.100.1")], "wrong", "leads to 198.51.100.1, and not to this server, 192.0.2.7"),
        ([("CNAME", "target.example.")], "right", "leads to this server, 192.0.2.7 (as an alias of target.example)"),
    ],
)
def test_a_check_says_what_is_wrong(
    shop: Machine, names: NameServer, records: list[tuple[str, str]] | None, verdict: str, said: str
) -> None:
    """And the exit code is 1 where it is not right."""
    add(shop, "x.look.example")
    names.records |= {"target.example": [("A", "192.0.2.7")]}
    if records is not None:
        names.records["x.look.example"] = records
    done = shop.run("domain", "check", "x.look.example", "--json", code=None)
    names.records.pop("x.look.example", None)
    found = json.loads(done.stdout)
    assert (found["verdict"], done.returncode) == (verdict, int(verdict != "right"))
    assert said in found["message"]


def test_a_wildcard_is_checked_with_a_name_below_it(shop: Machine, names: NameServer) -> None:
    """One that nobody has set by itself."""
    names.records["*.star.example"] = [("A", "192.0.2.7")]
    found = json.loads(shop.run("domain", "add", "*.star.example", "--json").stdout)
    assert found["dns"]["verdict"] == "right"
    assert {record["name"] for record in found["dns"]["records"]} == {"*.star.example"}
    assert any(name.endswith(".star.example") and name.startswith("portico-") for name in names.asked)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("localhost", "means each machine itself"),
        ("shop.localhost", "means each machine itself"),
        ("192.0.2.7", "that is an IP address"),
        ("https://a.example", "leave out the scheme"),
        ("a.example:443", "leave out the port"),
        ("a.example.", "leave out the dot at the end"),
        ("intranet", "one label only"),
        ("", "it is empty"),
    ],
)
def test_what_is_no_domain_is_refused(shop: Machine, name: str, said: str) -> None:
    """By `domain add`, and in a file; one sentence says why."""
    failed = shop.run("domain", "add", name, code=1)
    assert said in failed.stderr
    assert len(failed.stderr.splitlines()) == 2
    assert said in deploy(shop, "refused", name, code=1).stderr


def test_a_domain_in_use_is_not_removed(shop: Machine) -> None:
    """The error names the app; --force takes it away at once, and registering it again gives it back."""
    add(shop, "used.example")
    deploy(shop, "user", "used.example")
    failed = shop.run("domain", "remove", "used.example", code=1)
    assert "The domain used.example is used by the app 'user'." in failed.stderr
    assert "--force" in failed.stderr
    assert at(shop, "used.example") == "user"
    assert listed(shop)["used.example"]["used_by"] == [
        {"domain": "used.example", "app": "user", "environment": "main", "state": "deployed"}
    ]
    shop.run("domain", "remove", "used.example", "--force")
    assert at(shop, "used.example") == 404
    assert at(shop, "acme--user-says.localhost") == "user"
    assert "not registered" in shop.run("deploy", "user.py", code=1).stderr
    add(shop, "used.example")
    assert at(shop, "used.example") == "user"
    shop.run("app", "stop", "user", "--yes")
    shop.run("domain", "remove", "used.example")
    assert "not registered" in shop.run("domain", "remove", "used.example", code=1).stderr


def test_a_name_that_a_wildcard_covers_too_may_go(shop: Machine) -> None:
    """No app loses anything by it."""
    add(shop, "*.both.example", "a.both.example")
    deploy(shop, "both", "a.both.example")
    shop.run("domain", "remove", "a.both.example")
    assert at(shop, "a.both.example") == "both"
    assert "is used by the app 'both'" in shop.run("domain", "remove", "*.both.example", code=1).stderr


def test_names_in_other_scripts_are_taken_as_dns_has_them(shop: Machine) -> None:
    """In files, on the command line, and on the wire."""
    add(shop, "bücher.example")
    deploy(shop, "books", "bücher.example")
    assert at(shop, "xn--bcher-kva.example") == "books"
    assert "xn--bcher-kva.example" in listed(shop)


def test_domains_outlive_the_server(machine: Machine) -> None:
    """With who registered them; who asks while the app comes up waits, and a stopped app is known to be stopped."""
    server = machine.up()
    add(machine, "kept.example", "ended.example")
    deploy(machine, "kept", "kept.example")
    deploy(machine, "ended", "ended.example")
    machine.run("app", "stop", "ended", "--yes")
    before = listed(machine)
    server.interrupt()
    machine.up()
    assert at(machine, "kept.example") == "kept"
    assert "is stopped" in machine.request(f"http://ended.example:{machine.port}").text
    assert listed(machine) == before
    assert before["kept.example"]["created_by"]


def test_without_a_public_address_the_check_says_what_it_cannot_see(machine: Machine, names: NameServer) -> None:
    """With a domain of its own that others know, the server is where that leads."""
    names.records |= {"away.example": [("A", "198.51.100.1")], "*.apps.example": [("A", "198.51.100.1")]}
    machine.env["PORTICO_DNS_RESOLVER"] = names.address
    server = machine.up()
    done = machine.run("domain", "add", "away.example")
    assert "whether that is this server cannot be seen from here" in done.stderr
    assert "portico up --public-address" in done.stderr
    server.interrupt()
    machine.env["PORTICO_DOMAIN"] = "apps.example"
    machine.up()
    done = machine.run("domain", "check", "away.example")
    assert [line.split() for line in done.stdout.splitlines()[1:]] == [
        ["CNAME", "away.example", "acme.apps.example"],
        ["A", "away.example", "198.51.100.1"],
    ]
    assert "✓ away.example leads to this server" in done.stderr
    for own in ("apps.example", "shop.apps.example", "*.apps.example"):
        assert "the server's own domain apps.example" in machine.run("domain", "add", own, code=1).stderr
    assert "the server's own domain" in deploy(machine, "own", "shop.apps.example", code=1).stderr
