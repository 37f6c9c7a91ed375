"""Ports of this machine: whether they can be had, and who has the others."""

from __future__ import annotations

import contextlib
import errno
import socket

from portico.model.errors import ConflictError
from portico.model.https import Address, Https


def check_free(https: Https, domain: str) -> None:
    """ConflictError where HTTPS, or HTTP in front of it, cannot be spoken."""
    _check(https.address(domain), "--https-listen", udp=True)  # HTTP/3
    http = https.http_address(domain)
    if http is not None:
        _check(http, "--http-listen", udp=False)


def holder(port: int) -> str | None:
    """Which process listens on a port, as far as this user may see."""
    import psutil  # 50 ms, for this one error

    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("inet"):
            listens = connection.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)
            if listens and connection.pid and tuple(connection.laddr)[1:2] == (port,):
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    return None


def _check(address: Address, flag: str, *, udp: bool) -> None:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM) if udp else (socket.SOCK_STREAM,):
        try:
            _bind(address, kind)
        except OSError as error:
            raise _unavailable(address, flag, error) from None


def _bind(address: Address, kind: socket.SocketKind) -> None:
    family = socket.AF_INET6 if ":" in address.host or (not address.host and socket.has_ipv6) else socket.AF_INET
    with socket.socket(family, kind) as probe:
        if kind is socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6 and not address.host:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        probe.bind((address.host, address.port))


def _unavailable(address: Address, flag: str, error: OSError) -> ConflictError:
    if error.errno == errno.EADDRINUSE:
        found = holder(address.port)
        return ConflictError(
            f"The port {address}, for {flag}, is in use{f' by {found}' if found else ''}.",
            hint=f"End that program, or choose another port: {flag} :{address.port + 8000}",
        )
    if error.errno == errno.EACCES:
        return ConflictError(
            f"This account may not listen on the port {address}, for {flag}.",
            hint="Run the server by the unit that `portico up --https --systemd` prints, or as root; or let everybody "
            f"listen there: sysctl net.ipv4.ip_unprivileged_port_start={address.port}; or take another port: {flag} "
            f":{address.port + 8000}",
        )
    return ConflictError(f"Portico cannot listen on {address}: {error.strerror}.", hint=f"Set {flag} to host:port.")
