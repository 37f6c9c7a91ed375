"""An authority for certificates (Pebble) with a name server of its own, where every name means this machine."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from tests.e2e.conftest import free_port, wait_until


@dataclass
class Authority:
    """Pebble, and who visits with trust in it.

    https, http: the ports at which it looks for what proves that a name is somebody's.
    """

    folder: Path
    https: int
    http: int
    port: int = field(default_factory=free_port)
    manage: int = field(default_factory=free_port)
    dns: int = field(default_factory=free_port)
    set_dns: int = field(default_factory=free_port)

    @property
    def flags(self) -> list[str]:
        """What a server is started with that goes to it."""
        ports = ["--https-listen", f"127.0.0.1:{self.https}", "--http-listen", f"127.0.0.1:{self.http}"]
        return ["--https", *ports, "--acme-ca", f"https://localhost:{self.port}/dir", "--acme-root", str(self.ca)]

    @property
    def ca(self) -> Path:
        """What the authority's own certificate is signed with."""
        return self.folder / "ca.pem"

    def tell_dns(self, verb: str, **words: object) -> None:
        """Change the name server: `add-a`, `clear-a`, `set-txt`, …"""
        request = urllib.request.Request(f"http://127.0.0.1:{self.set_dns}/{verb}", json.dumps(words).encode())
        urllib.request.urlopen(request, timeout=10).close()

    def context(self) -> ssl.SSLContext:
        """Trust in what it issues."""
        own = ssl.create_default_context(cafile=str(self.ca))
        with urllib.request.urlopen(f"https://localhost:{self.manage}/roots/0", context=own, timeout=10) as answer:
            return ssl.create_default_context(cadata=answer.read().decode())

    def orders(self, host: str) -> int:
        """How often it was asked for a certificate of this host."""
        return (self.folder / "pebble.log").read_text().count(f'"{host}"')

    def is_up(self) -> bool:
        try:
            self.context()
            self.tell_dns("clear-a", host="nobody.")
        except OSError:
            return False
        return True


@contextmanager
def authority(folder: Path, *, validity: int = 90 * 86400) -> Iterator[Authority]:
    """A running one, whose certificates are valid for so many seconds."""
    folder.mkdir()
    found = Authority(folder, free_port(), free_port())
    _certify(found)
    own = {
        "listenAddress": f"127.0.0.1:{found.port}",
        "managementListenAddress": f"127.0.0.1:{found.manage}",
        "certificate": str(folder / "pebble.crt"),
        "privateKey": str(folder / "pebble.key"),
        "httpPort": found.http,
        "tlsPort": found.https,
        "certificateValidityPeriod": validity,
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": own}))
    names = ["-dns01", f"127.0.0.1:{found.dns}", "-management", f"127.0.0.1:{found.set_dns}"]
    names += ["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""]
    quick = os.environ | {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
    with (
        open(folder / "pebble.log", "wb") as log,
        subprocess.Popen(["pebble-challtestsrv", *names], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as dns,
        subprocess.Popen(
            ["pebble", "-config", folder / "pebble.json", "-dnsserver", f"127.0.0.1:{found.dns}"],
            env=quick,
            stdout=log,
            stderr=log,
        ) as pebble,
    ):
        try:
            wait_until(found.is_up, "the authority answers")
            yield found
        finally:
            pebble.kill()
            dns.kill()


def _certify(found: Authority) -> None:
    signer = trustme.CA()
    signer.cert_pem.write_to_path(str(found.ca))
    issued = signer.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(str(found.folder / "pebble.key"))
    (found.folder / "pebble.crt").write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
