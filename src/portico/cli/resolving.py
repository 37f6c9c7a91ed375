"""Whether this machine's programs can find an endpoint by its name, and what to do where they cannot.

curl and browsers know `*.localhost` by themselves; Python and others ask the system, which may not.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shlex
import socket
import threading
from urllib.parse import urlsplit

from portico.cli.spawn import Attachment
from portico.cli.terminal import Terminal
from portico.client.remote import Remote
from portico.wire.control import ServerInfo

_PATIENCE = 2.0  # seconds; a resolver that takes longer makes for a slow client, which is worth the same advice


def resolves(host: str, listen_host: str) -> bool:
    """Whether the system's resolver gives an address of `host` on which the server listens."""
    return any(_same(address, listen_host) for address in _addresses(host))


def _addresses(host: str) -> list[str]:
    """What the system's resolver knows of a name."""
    found: list[str] = []

    def ask() -> None:
        with contextlib.suppress(OSError, UnicodeError):
            infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            found.extend(str(info[4][0]).partition("%")[0] for info in infos)

    # The resolver knows no timeout; a thread that is left behind does no harm.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return found


def advise(terminal: Terminal, url: str, server: Attachment) -> None:
    """Say on stderr how to try `url`; and how to mend it, if its name leads nowhere."""
    if server.info is None:
        return
    host, address = urlsplit(url).hostname or "", server.client.address
    if isinstance(address, Remote):
        _advise_elsewhere(terminal, url, host, address)
        return
    listen_host = public_host(server.info)
    root = f"--cacert {shlex.quote(server.info.authority)} " if server.info.authority else ""
    if resolves(host, listen_host):
        terminal.note(f"Try it: curl {root}{url}")
    else:
        terminal.note(advice(url, reachable(listen_host), root))


def _advise_elsewhere(terminal: Terminal, url: str, host: str, remote: Remote) -> None:
    """As `advise`, for a server on another machine: this one's own addresses are wrong."""
    found = _addresses(host)
    if found and not all(ipaddress.ip_address(address).is_loopback for address in found):
        terminal.note(f"Try it: curl {url}")
        return
    terminal.note(
        f"{host} does not lead to the server from here. Have the server run with PORTICO_DOMAIN set to a domain whose "
        "names all lead to it."
    )
    there = _addresses(remote.parts.hostname or "")
    if there:
        terminal.note(f"Until then: {_direct(url, there[0])}")


def public_host(info: ServerInfo) -> str:
    """The address on which the server listens for those who follow its URLs."""
    return (info.https_listen or info.listen).rpartition(":")[0].strip("[]") or "0.0.0.0"  # noqa: S104 - compared


def _direct(url: str, address: str, flags: str = "") -> str:
    """A curl line that asks no name server."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    bracketed = f"[{address}]" if ":" in address else address
    return f"curl {flags}--resolve {parts.hostname}:{port}:{bracketed} {url}"


def advice(url: str, address: str, flags: str = "") -> str:
    """Two lines: the remedy, and a curl line that works without it."""
    host = urlsplit(url).hostname or ""
    remedied = f"This system does not resolve {host}; to mend that: {remedy(host, address)}"
    return f"{remedied}\nUntil then: {_direct(url, address, flags)}"


def remedy(host: str, address: str) -> str:
    """One line for a shell."""
    if host.endswith(".localhost") and os.path.exists("/etc/debian_version"):
        return "sudo apt install libnss-myhostname"
    return f"echo '{address} {host}' | sudo tee -a /etc/hosts"


def reachable(listen_host: str) -> str:
    """An address at which this machine reaches a server that listens there."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen_host, listen_host)  # noqa: S104 - compared, not bound


def _same(address: str, listen_host: str) -> bool:
    try:
        bound = ipaddress.ip_address(listen_host)
    except ValueError:
        return True  # the server listens on a name; who knows
    return bound.is_unspecified or ipaddress.ip_address(address) == bound
