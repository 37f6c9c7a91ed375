"""How a server speaks HTTPS: declared once, with its defaults."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Final

from portico.model.errors import InvalidError

LETS_ENCRYPT: Final = "https://acme-v02.api.letsencrypt.org/directory"
OFF: Final = "off"
MAX_DNS_WAIT: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. host: "" for all addresses of the machine, IPv4 and IPv6."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Https:
    """What `--https` and the flags beside it say; "" stands for the default.

    listen, http_listen: "host:port", or ":port" for all addresses; the latter may be "off". caddy: the program's path.
    acme_ca: the directory of the authority. acme_root: a PEM file of what the authority's own certificate is signed
    with. dns_hook: a command that sets and removes TXT records. dns_wait: seconds until all the world sees a record.
    """

    listen: str = ""
    http_listen: str = ""
    caddy: str = ""
    acme_email: str = ""
    acme_ca: str = ""
    acme_root: str = ""
    dns_hook: str = ""
    dns_wait: float = 30.0

    def validate(self, domain: str) -> Https:
        """Itself, or InvalidError that names the setting."""
        https, http = self.address(domain), self.http_address(domain)
        if https == http:
            raise InvalidError(
                f"HTTPS and HTTP cannot both listen on {https}.",
                hint="Set --http-listen (PORTICO_HTTP_LISTEN) to another port, or to off.",
            )
        if self.acme_ca and not self.acme_ca.startswith("https://"):
            raise InvalidError(
                f"--acme-ca (PORTICO_ACME_CA) is not the URL of an authority's directory: {self.acme_ca!r}.",
                hint=f"For example {LETS_ENCRYPT}",
            )
        if self.dns_hook and is_local(domain):
            raise InvalidError(
                f"--dns-hook makes no sense for {domain}: no authority issues certificates for it.",
                hint="Set PORTICO_DOMAIN to a domain of yours, or leave the hook out.",
            )
        if not 0 <= self.dns_wait <= MAX_DNS_WAIT:
            raise InvalidError(f"PORTICO_DNS_WAIT is not 0 to {MAX_DNS_WAIT:g} seconds: {self.dns_wait:g}.")
        _ = self.dns_command  # it raises
        return self

    def address(self, domain: str) -> Address:
        """Where HTTPS is spoken: on a laptop only for itself, and on a port that every user may take."""
        return _address(self.listen or ("127.0.0.1:7443" if is_local(domain) else ":443"), "--https-listen")

    def http_address(self, domain: str) -> Address | None:
        """Where HTTP is answered in front of it; None: nowhere."""
        text = self.http_listen or (OFF if is_local(domain) else ":80")
        return None if text == OFF else _address(text, "--http-listen")

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that say the same."""
        return {
            "PORTICO_HTTPS_LISTEN": self.listen,
            "PORTICO_HTTP_LISTEN": self.http_listen,
            "PORTICO_CADDY": self.caddy,
            "PORTICO_ACME_EMAIL": self.acme_email,
            "PORTICO_ACME_CA": self.acme_ca,
            "PORTICO_ACME_ROOT": self.acme_root,
            "PORTICO_DNS_HOOK": self.dns_hook,
            "PORTICO_DNS_WAIT": f"{self.dns_wait:g}",
        }

    @property
    def authority(self) -> str:
        """The directory of the authority that issues certificates."""
        return self.acme_ca or LETS_ENCRYPT

    @property
    def dns_command(self) -> list[str]:
        """The words of the hook."""
        try:
            return shlex.split(self.dns_hook)
        except ValueError as error:
            raise InvalidError(f"--dns-hook (PORTICO_DNS_HOOK) is not a command: {error}.") from None


def is_local(domain: str) -> bool:
    """Whether this domain means each machine itself: no authority issues certificates for it."""
    return domain == "localhost" or domain.endswith(".localhost")


def _address(text: str, flag: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536 or ("[" in host) != (":" in host):
        name = f"PORTICO_{flag[2:].replace('-', '_').upper()}"
        raise InvalidError(
            f"{flag} ({name}) is not host:port: {text!r}.",
            hint="For example 127.0.0.1:7443, or :443 for all addresses of the machine.",
        )
    return Address(host.strip("[]"), int(port))
