"""Where a server lives and what it is called: declared once, made at the edge (command line, client), passed on."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from portico.model.addresses import PublicAddress, parse_name_server, parse_public_address
from portico.model.errors import InvalidError
from portico.model.https import Https
from portico.model.limits import DEFAULT_LIMITS, Limits
from portico.model.naming import check_workspace
from portico.model.policy import DEFAULT_RATE_LIMIT
from portico.model.proxies import Network, parse_networks
from portico.model.sizes import parse_size

MAX_INGRESS = 64
_MAX_SOCKET_PATH = 100  # the kernel takes 107 bytes; leave room for a file name's last characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One server's place and name.

    home: state (database, blobs, images, logs, keys), 0700. listen: "host:port" of the public door; port 0 takes a
    free one. domain: the endpoints live at `<label>.<domain>`. workspace: the first part of every label. limits: what
    one function may take. secret_key: what the server seals with, 32 bytes in base64; None: the key in the home.
    rate_limit: requests a second to all endpoints together, where no other is set; None: no limit.
    trusted_proxies: addresses and networks, with commas, of proxies that are believed about the clients behind them.
    public_address: addresses and host names, with commas, at which the internet reaches the server; "": not known here.
    dns_resolver: the name server that is asked about custom domains, an address and maybe a port; "": the machine's.
    max_websocket_message: a size, or "unlimited". redirect_after: seconds without an answer, after which a client is
    sent to the URL of the result; None: never. ingress: processes that share the public port. https: how it is spoken;
    None: not at all.
    """

    home: Path
    workspace: str
    listen: str = "127.0.0.1:7777"
    domain: str = "localhost"
    secret_key: str | None = field(default=None, repr=False)
    rate_limit: float | None = DEFAULT_RATE_LIMIT
    limits: Limits = DEFAULT_LIMITS
    trusted_proxies: str = ""
    max_websocket_message: str = "2MiB"
    public_address: str = ""
    dns_resolver: str = ""
    redirect_after: int | None = None
    ingress: int = 1
    https: Https | None = None

    def validate(self) -> Settings:
        """Itself, or InvalidError that names the setting."""
        check_workspace(self.workspace)
        self.limits.validate()
        host, _, port = self.listen.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise InvalidError(f"PORTICO_LISTEN is not host:port: {self.listen!r}.", hint="For example 127.0.0.1:7777")
        if not self.domain or self.domain.startswith(".") or "/" in self.domain or self.domain != self.domain.lower():
            raise InvalidError(f"PORTICO_DOMAIN is not a domain name: {self.domain!r}.", hint="For example localhost")
        if self.redirect_after is not None and self.redirect_after < 1:
            raise InvalidError(f"PORTICO_REDIRECT_AFTER must be at least 1 second, not {self.redirect_after}.")
        if not 1 <= self.ingress <= MAX_INGRESS:
            raise InvalidError(f"PORTICO_INGRESS is a number from 1 to {MAX_INGRESS}, not {self.ingress}.")
        _ = self.trusted_networks, self.websocket_limit, self.public, self.name_server  # they raise
        if self.https is not None:
            self.https.validate(self.domain)
        return self

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that say the same, for a process that we start."""
        return {
            "PORTICO_HOME": str(self.home),
            "PORTICO_WORKSPACE": self.workspace,
            "PORTICO_LISTEN": self.listen,
            "PORTICO_DOMAIN": self.domain,
            "PORTICO_RATE_LIMIT": "off" if self.rate_limit is None else f"{self.rate_limit:g}",
            "PORTICO_QUEUE_LIMIT": str(self.limits.queue),
            "PORTICO_MAX_CONTAINERS": str(self.limits.containers),
            "PORTICO_DRAIN_TIMEOUT": "" if self.limits.drain is None else str(self.limits.drain),
            "PORTICO_TRUSTED_PROXIES": self.trusted_proxies,
            "PORTICO_MAX_WEBSOCKET_MESSAGE": self.max_websocket_message,
            "PORTICO_PUBLIC_ADDRESS": self.public_address,
            "PORTICO_DNS_RESOLVER": self.dns_resolver,
            "PORTICO_REDIRECT_AFTER": "" if self.redirect_after is None else str(self.redirect_after),
            "PORTICO_INGRESS": str(self.ingress),
            "PORTICO_HTTPS": "off" if self.https is None else "on",
        } | ({} if self.https is None else self.https.variables)

    @property
    def trusted_networks(self) -> tuple[Network, ...]:
        """Where the proxies are that are believed."""
        return parse_networks(self.trusted_proxies, "PORTICO_TRUSTED_PROXIES")

    @property
    def public(self) -> PublicAddress:
        """Where the internet reaches the server, as far as that was said."""
        return parse_public_address(self.public_address, "PORTICO_PUBLIC_ADDRESS")

    @property
    def name_server(self) -> tuple[str, int] | None:
        """Address and port of the name server that is asked about custom domains; None: the machine's."""
        return parse_name_server(self.dns_resolver, "PORTICO_DNS_RESOLVER")

    @property
    def websocket_limit(self) -> int | None:
        """The most bytes of a WebSocket's message; None: any number."""
        return parse_size(self.max_websocket_message, "PORTICO_MAX_WEBSOCKET_MESSAGE")

    @property
    def listen_host(self) -> str:
        """The address to bind, without the brackets of IPv6."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def is_public(self) -> bool:
        """Whether others than this machine may reach that address."""
        try:
            return not ipaddress.ip_address(self.listen_host).is_loopback
        except ValueError:
            return self.listen_host != "localhost"

    @property
    def listen_port(self) -> int:
        """The port to bind; 0 means any free one."""
        return int(self.listen.rpartition(":")[2])

    @property
    def run_dir(self) -> Path:
        """Where sockets live: in the home or, where that path is too long for a socket, in the temporary folder."""
        inside = self.home / "run"
        if len(os.fsencode(inside)) + len("/c/ct-0123456789abcdef.sock") <= _MAX_SOCKET_PATH:
            return inside
        return Path(tempfile.gettempdir()) / f"portico-{os.getuid()}-{self.mark}"

    @property
    def mark(self) -> str:
        """What tells this server's names from those of others on the machine, where they meet."""
        return hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]

    @property
    def control_socket(self) -> Path:
        """The control API's own socket, for the same user on the same machine."""
        return self.run_dir / "control.sock"

    @property
    def calls_socket(self) -> Path:
        """Where functions are called, by this user's programs and containers on the same machine."""
        return self.run_dir / "calls.sock"

    @property
    def front_socket(self) -> Path:
        """Where the server that speaks HTTPS hands requests on."""
        return self.run_dir / "front.sock"

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.home / "portico.db"
