"""HTTPS: Caddy in front of a real server, certificates of a real authority, real TLS."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as websocket

from tests.e2e.authority import Authority, authority
from tests.e2e.conftest import PATIENCE, Answer, Machine, Process, free_port, parse, wait_until

DOMAIN = "example.test"
APP = """
import modal

app = modal.App("door")


@app.function()
@modal.asgi_app()
def web():
    from fastapi import FastAPI, Request, WebSocket

    api = FastAPI()

    @api.get("/who")
    def who(request: Request):
        return {"client": request.client.host, "url": str(request.url), "names": sorted(request.headers)}

    @api.websocket("/echo")
    async def echo(socket: WebSocket):
        await socket.accept()
        await socket.send_json({"client": socket.client.host, "scheme": socket.url.scheme})
        await socket.send_text(await socket.receive_text())

    return api
"""


def custom(name: str, domains: list[str]) -> str:
    """The same app under this name, at domains of its own."""
    return APP.replace('"door"', f'"{name}"').replace("asgi_app()", f"asgi_app(custom_domains={domains})")


REFUSED = "alert internal error"
HOOK = """#!/bin/sh
echo "$1 $2" >> {log}
exec {python} - "$@" <<'EOF'
import json, sys, urllib.request
verb, name, value = sys.argv[1:]
path, words = ("set-txt", {{"host": name, "value": value}}) if verb == "present" else ("clear-txt", {{"host": name}})
urllib.request.urlopen("http://127.0.0.1:{port}/" + path, json.dumps(words).encode())
EOF
"""


@dataclass
class Site:
    """A server that speaks HTTPS, and those who visit it."""

    machine: Machine
    authority: Authority
    flags: list[str] = field(default_factory=list)
    server: Process | None = None

    def start(self) -> None:
        self.machine.env["PORTICO_DOMAIN"] = DOMAIN
        self.server = self.machine.start("up", *self.authority.flags, *self.flags)
        self.server.until("listens on")

    def certificate(self, host: str) -> tuple[str, tuple[str, ...]]:
        """Serial number and names of the certificate that visitors of this host get; SSLError where there is none."""
        with self.connected(host) as connection:
            found = connection.getpeercert() or {}
        return str(found["serialNumber"]), tuple(name for _, name in found["subjectAltName"])

    def connected(self, host: str, protocols: list[str] | None = None) -> ssl.SSLSocket:
        context = self.authority.context()
        if protocols:
            context.set_alpn_protocols(protocols)
        plain = socket.create_connection(("127.0.0.1", self.authority.https), timeout=PATIENCE)
        return context.wrap_socket(plain, server_hostname=host)

    def get(self, host: str, path: str = "/", *lines: str, secure: bool = True) -> Answer:
        """One request, over HTTP/1.1."""
        port = self.authority.https if secure else self.authority.http
        head = [f"GET {path} HTTP/1.1", f"Host: {host}:{port}", "Connection: close", *lines, "", ""]
        plain = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) if not secure else self.connected(host)
        with plain as connection:
            connection.sendall("\r\n".join(head).encode())
            return parse(b"".join(iter(lambda: connection.recv(65536), b"")))

    def websocket(self) -> ClientConnection:
        """One to the app `door`."""
        plain = socket.create_connection(("127.0.0.1", self.authority.https), timeout=PATIENCE)
        return websocket(f"wss://{HOST}:{self.authority.https}/echo", sock=plain, ssl=self.authority.context())

    def caddy(self) -> psutil.Process:
        """The one that runs now."""
        assert self.server is not None
        children = psutil.Process(self.server.popen.pid).children()
        return next(child for child in children if "caddy" in child.name())

    def domains(self) -> dict[str, dict]:
        """What `portico domain list --json` says, by name."""
        return {found["name"]: found for found in json.loads(self.machine.run("domain", "list", "--json").stdout)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with the app `door`, for tests that leave it as they found it."""
    folder = tmp_path_factory.mktemp("https")
    with authority(folder / "authority") as found:
        machine = Machine(folder)
        site = Site(machine, found)
        site.start()
        machine.write("door.py", APP)
        url = machine.deploy("door.py")["web"]
        assert url == f"https://{HOST}:{found.https}"
        yield site
        machine.close()
        wait_until(lambda: not machine.leftovers(), f"nothing is left: {machine.leftovers()}")


HOST = f"acme--door-web.{DOMAIN}"


def test_a_first_visit_gets_a_certificate_and_a_second_one_the_same(site: Site) -> None:
    """The authority is asked once, for the name that is visited."""
    first = site.certificate(HOST)
    assert first[1] == (HOST,)
    assert site.certificate(HOST) == first


def test_the_client_is_who_connects_and_not_who_it_says(site: Site) -> None:
    """Address, scheme and port are those of the visit; headers about others are dropped."""
    lines = ["X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: http", "X-Forwarded-Host: evil.test", "X-Real-Ip: 6.6.6.6"]
    said = site.get(HOST, "/who", *lines).json
    assert said == {
        "client": "127.0.0.1",
        "url": f"https://{HOST}:{site.authority.https}/who",
        "names": ["host", "x-request-id"],
    }


def test_http_2_is_spoken(site: Site) -> None:
    """A client that offers HTTP/2 gets it."""
    with site.connected(HOST, ["h2", "http/1.1"]) as connection:
        assert connection.selected_alpn_protocol() == "h2"


class Visit(QuicConnectionProtocol):
    """One GET over HTTP/3; `headers` is what comes first."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._http = H3Connection(self._quic)
        self.headers: asyncio.Future[dict[bytes, bytes]] = asyncio.get_running_loop().create_future()

    async def get(self, host: str, path: str) -> dict[bytes, bytes]:
        head = {":method": "GET", ":scheme": "https", ":authority": host, ":path": path}
        stream = self._quic.get_next_available_stream_id()
        self._http.send_headers(stream, [(k.encode(), v.encode()) for k, v in head.items()], end_stream=True)
        self.transmit()
        return await asyncio.wait_for(self.headers, PATIENCE)

    def quic_event_received(self, event: QuicEvent) -> None:
        for found in self._http.handle_event(event):
            if isinstance(found, HeadersReceived) and not self.headers.done():
                self.headers.set_result(dict(found.headers))


async def test_http_3_is_offered_and_spoken(site: Site) -> None:
    """Answers say that there is HTTP/3, and there is."""
    port = site.authority.https
    offered = await asyncio.to_thread(site.get, HOST, "/who")
    assert f'h3=":{port}"' in offered.headers["alt-svc"]
    trust = QuicConfiguration(alpn_protocols=H3_ALPN, server_name=HOST, verify_mode=ssl.CERT_NONE)
    async with connect("127.0.0.1", port, configuration=trust, create_protocol=Visit) as visit:
        headers = await visit.get(f"{HOST}:{port}", "/who")
    assert headers[b":status"] == b"200"


def test_a_websocket_knows_its_client(site: Site) -> None:
    """It passes through, as wss."""
    with site.websocket() as there:
        assert json.loads(there.recv()) == {"client": "127.0.0.1", "scheme": "wss"}
        there.send("x" * 100_000)
        assert there.recv() == "x" * 100_000


def test_http_leads_to_https(site: Site) -> None:
    """A request without TLS is sent to the same place with it, and keeps its method."""
    answer = site.get(HOST, "/who?x=1", secure=False)
    assert (answer.status, answer.headers["location"]) == (308, f"https://{HOST}:{site.authority.https}/who?x=1")


def test_an_unknown_name_gets_no_certificate(site: Site) -> None:
    """The authority does not hear of it; over HTTP the answer is that there is nothing, and no way to HTTPS."""
    host = f"acme--nothing-here.{DOMAIN}"
    with pytest.raises(ssl.SSLError, match=REFUSED):
        site.certificate(host)
    assert site.get(host, secure=False).status == 404
    assert host not in (site.authority.folder / "pebble.log").read_text()


def test_the_servers_own_domain_has_a_certificate(site: Site) -> None:
    """The control API is reached over TLS."""
    assert site.get(DOMAIN, "/healthz").text == "ok\n"


def test_where_no_certificate_can_be_had_http_goes_on(site: Site) -> None:
    """The reason is in the log and in `domain list`; what was sent to HTTPS before is answered over HTTP."""
    host = "broken.custom.test"
    site.authority.tell_dns("add-a", host=host, addresses=["127.0.0.9"])
    site.machine.run("domain", "add", host)
    site.machine.write("broken.py", custom("broken", [host]))
    site.machine.deploy("broken.py")
    assert site.get(host, "/who", secure=False).status == 308
    with socket.create_connection(("127.0.0.1", site.authority.https)) as plain:
        context = site.authority.context()
        visitor = context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
        visitor.settimeout(0.5)
        with pytest.raises((ssl.SSLError, TimeoutError)):
            visitor.do_handshake()  # its answer may take minutes: Caddy tries again and again meanwhile
        wait_until(lambda: site.domains()[host]["certificate_state"] == "failed", "the failure is known")
    assert f"{host}: " in site.domains()[host]["certificate_detail"]
    assert site.get(host, "/who", secure=False).json["url"] == f"http://{host}:{site.authority.http}/who"
    assert site.server is not None
    site.server.until(f"could not get certificate from issuer: {host}: .*127.0.0.9")


def test_custom_domains_have_certificates_for_as_long_as_they_are_registered(site: Site) -> None:
    """One for the domain, one for each host below a wildcard; `domain list` tells of them; then they are refused."""
    machine = site.machine
    machine.run("domain", "add", "api.custom.test")
    machine.run("domain", "add", "*.wild.test")
    machine.write("custom.py", custom("custom", ["api.custom.test", "*.wild.test"]))
    machine.deploy("custom.py")
    assert site.certificate("api.custom.test")[1] == ("api.custom.test",)
    assert site.certificate("one.wild.test")[1] == ("one.wild.test",)
    with pytest.raises(ssl.SSLError, match=REFUSED):
        site.certificate("wild.test")
    assert site.get("one.wild.test", "/who").status == 200
    wait_until(lambda: site.domains()["*.wild.test"]["certificate_detail"] == "one.wild.test", "it is noted")
    assert site.domains()["api.custom.test"]["certificate_state"] == "issued"

    with site.websocket() as there:  # it goes on, whatever Caddy is told meanwhile
        there.recv()
        machine.run("domain", "remove", "api.custom.test", "--force")
        there.send("still here")
        assert there.recv() == "still here"
    with pytest.raises(ssl.SSLError, match=REFUSED):
        site.certificate("api.custom.test")
    assert site.certificate("one.wild.test")[1] == ("one.wild.test",)
    assert not list(machine.home.glob("https/caddy/certificates/*/api.custom.test"))

    machine.run("domain", "add", "api.custom.test")
    machine.deploy("custom.py")
    assert site.get("api.custom.test", "/who").status == 200


def test_a_caddy_that_dies_is_replaced_and_asks_for_nothing_again(site: Site) -> None:
    """Soon there is HTTPS again, with the certificates that there were."""
    before = site.certificate(HOST)
    dead = site.caddy()
    dead.kill()
    assert site.server is not None
    site.server.until("Caddy runs again")
    assert site.certificate(HOST) == before
    assert site.caddy() != dead


def test_what_caddy_keeps_is_for_this_user_only(site: Site) -> None:
    """Keys and sockets are not open to others."""
    folder = site.machine.home / "https"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((site.machine.home / "run" / "front.sock").stat().st_mode) == 0o600
    assert all(stat.S_IMODE(key.stat().st_mode) == 0o600 for key in folder.rglob("*.key"))


@pytest.fixture
def own(tmp_path: Path, machine: Machine) -> Iterator[Site]:
    """A server of the test's own, not started yet."""
    with authority(tmp_path / "authority") as found:
        yield Site(machine, found)
        machine.close()


def test_a_server_that_comes_back_asks_for_nothing_again(own: Site) -> None:
    """Certificates outlive the server; also one that was killed, and takes its Caddy with it."""
    own.machine.write("door.py", APP)
    own.start()
    own.machine.deploy("door.py")
    before = own.certificate(HOST)
    caddy = own.caddy()
    assert own.server is not None
    own.server.popen.kill()
    caddy.wait(PATIENCE)
    own.server.popen.wait()
    own.start()
    assert own.certificate(HOST) == before
    assert own.server.interrupt() == 0


def test_a_certificate_is_renewed_by_itself(tmp_path: Path, machine: Machine) -> None:
    """Visitors get the next one before the one that they have ends."""
    with authority(tmp_path / "authority", validity=120) as found:
        site = Site(machine, found)
        site.start()
        machine.write("door.py", APP)
        machine.deploy("door.py")
        first = site.certificate(HOST)
        wait_until(lambda: site.certificate(HOST) != first, "there is another certificate")
        assert site.get(HOST, "/who").status == 200
        machine.close()


def test_one_certificate_for_all_own_names_with_a_dns_hook(own: Site, tmp_path: Path) -> None:
    """The hook sets and removes a record for each name; then names need no certificates of their own; nor later."""
    log, hook = tmp_path / "hook.log", tmp_path / "hook"
    hook.write_text(HOOK.format(log=log, python=os.sys.executable, port=own.authority.set_dns))
    hook.chmod(0o700)
    own.flags = ["--dns-hook", str(hook), "--dns-wait", "0"]
    own.machine.write("door.py", APP)
    own.start()
    own.machine.deploy("door.py")
    assert own.server is not None
    own.server.until("there is a certificate for example.test")
    serial, names = own.certificate(HOST)
    assert set(names) == {DOMAIN, f"*.{DOMAIN}"}
    assert own.certificate(DOMAIN)[0] == serial
    record = f"_acme-challenge.{DOMAIN}."
    assert log.read_text().splitlines() == [f"{verb} {record}" for verb in ("present", "cleanup")] * 2
    assert own.server.interrupt() == 0
    own.start()
    assert own.certificate(HOST)[0] == serial
    assert own.server.interrupt() == 0


def test_a_dns_hook_that_fails_is_told_of_and_names_get_their_own_certificates(own: Site) -> None:
    """Its code and its words are in the log."""
    own.flags = ["--dns-hook", "sh -c 'echo no such zone; exit 3' hook"]
    own.machine.write("door.py", APP)
    own.start()
    assert own.server is not None
    own.server.until(r"no certificate for \*.example.test: The DNS hook failed with code 3 \(present\): no such zone")
    own.machine.deploy("door.py")
    assert own.certificate(HOST)[1] == (HOST,)
    assert own.server.interrupt() == 0


def test_a_laptop_has_an_authority_of_its_own(machine: Machine) -> None:
    """For localhost nobody is asked; it says which certificate to trust; nothing of the machine's is touched."""
    port = free_port()
    server = machine.start("up", "--https", "--https-listen", f"127.0.0.1:{port}")
    server.until(f"listens on https://localhost:{port}, ")
    root = server.until(r"curl --cacert (\S+) https")[1]
    machine.write("door.py", APP)
    deployed = machine.run("deploy", "door.py")
    url = f"https://acme--door-web.localhost:{port}"
    assert f"web => {url}\n" in deployed.stdout
    assert f"curl --cacert {root} " in deployed.stderr
    curl = ["curl", "--silent", "--fail", "--cacert", root, "--resolve", f"acme--door-web.localhost:{port}:127.0.0.1"]
    done = subprocess.run([*curl, f"{url}/who"], capture_output=True, check=True)
    assert json.loads(done.stdout)["url"] == f"{url}/who"
    assert not [name for name in os.listdir("/usr/local/share/ca-certificates") if "caddy" in name.lower()]
    assert server.interrupt() == 0


def test_what_makes_no_sense_is_said(machine: Machine, tmp_path: Path) -> None:
    """Flags that are wrong are wrong usage; what is not there, or taken, is named with its remedy."""
    for flags, said in {
        ("--https", "--https-listen", "nowhere"): "--https-listen (PORTICO_HTTPS_LISTEN) is not host:port: 'nowhere'",
        ("--http-listen", "off"): "--http-listen is about HTTPS: it needs --https beside it",
        ("--https", "--acme-ca", "letsencrypt"): "--acme-ca (PORTICO_ACME_CA) is not the URL",
        ("--https", "--dns-hook", "hook"): "--dns-hook makes no sense for localhost",
    }.items():
        assert said in machine.run("up", *flags, code=2).stderr
    port = ["--https-listen", f"127.0.0.1:{free_port()}"]
    assert (
        "HTTPS needs Caddy, and 'no' is no program"
        in machine.run("up", "--https", *port, "--caddy", "no", code=1).stderr
    )
    old = tmp_path / "caddy"
    old.write_text("#!/bin/sh\necho 2.6.2\n")
    old.chmod(0o700)
    refused = machine.run("up", "--https", *port, "--caddy", str(old), code=1).stderr
    assert f"Caddy 2.6.2 ({old}) is too old" in refused
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = ["--https-listen", f"127.0.0.1:{taken.getsockname()[1]}"]
        refused = machine.run("up", "--https", *port, code=1).stderr
        assert f"for --https-listen, is in use by python (process {os.getpid()})" in refused or "is in use" in refused
