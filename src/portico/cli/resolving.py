"""Whether this machine's programs can find an endpoint by its name, and what to do where they cannot.

curl and browsers know `*.localhost` by themselves; Python and others ask the system, which may not.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import threading
from urllib.parse import urlsplit

from portico.cli.terminal import Terminal

_PATIENCE = 2.0  # seconds; a resolver that takes longer makes for a slow client, which is worth the same advice


def resolves(host: str, listen_host: str) -> bool:
    """Whether the system's resolver gives an address of `host` on which the server listens."""
    found: list[str] = []

    def ask() -> None:
        with contextlib.suppress(OSError):
            found.extend(str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))

    # The resolver knows no timeout; a thread that is left behind does no harm.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return any(_same(address, listen_host) for address in found)


def advise(terminal: Terminal, url: str, listen: str) -> None:
    """Say on stderr how to try `url`; and how to mend it, if its name leads nowhere."""
    parts = urlsplit(url)
    host, listen_host = parts.hostname or "", listen.rpartition(":")[0].strip("[]")
    if resolves(host, listen_host):
        terminal.note(f"Try it: curl {url}")
    else:
        terminal.note(advice(url, reachable(listen_host)))


def advice(url: str, address: str) -> str:
    """Two lines: the remedy, and a curl line that works without it."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    bracketed = f"[{address}]" if ":" in address else address
    return (
        f"This system does not resolve {parts.hostname}; to mend that: {remedy(parts.hostname or '', address)}\n"
        f"Until then: curl --resolve {parts.hostname}:{port}:{bracketed} {url}"
    )


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
    return bound.is_unspecified or ipaddress.ip_address(address.partition("%")[0]) == bound
