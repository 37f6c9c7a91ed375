"""Where the internet reaches the server, and whom it asks about names."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from portico.model.errors import InvalidError
from portico.model.proxies import parse_address

_NAME: Final = re.compile(r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]*[a-z][a-z0-9-]*")
_DNS_PORT: Final = 53


@dataclass(frozen=True, slots=True)
class PublicAddress:
    """Addresses at which the internet reaches the server, and host names that lead to it."""

    addresses: frozenset[str] = frozenset()
    names: tuple[str, ...] = ()


def parse_public_address(text: str, name: str) -> PublicAddress:
    """Comma-separated addresses and host names. InvalidError that names the setting `name`."""
    addresses, names = set(), []
    for part in (part.strip().lower() for part in text.split(",") if part.strip()):
        try:
            addresses.add(str(ipaddress.ip_address(part)))
        except ValueError:
            if not _NAME.fullmatch(part):
                raise InvalidError(
                    f"{name}: {part!r} is neither an address nor a host name.",
                    hint="For example 203.0.113.7,2001:db8::7 or server.example.com; without a port.",
                ) from None
            names.append(part)
    return PublicAddress(frozenset(addresses), tuple(names))


def parse_name_server(text: str, name: str) -> tuple[str, int] | None:
    """The address and port of a name server; None for "". InvalidError that names the setting `name`."""
    if not text:
        return None
    address = parse_address(text)
    host, colon, port = text.rpartition(":")
    if address is not None and text.strip("[]") == str(address):
        return str(address), _DNS_PORT
    if address is None or not colon or not port.isdigit() or host.strip("[]") != str(address) or int(port) > 65535:
        raise InvalidError(f"{name} is not the address of a name server: {text!r}.", hint="For example 127.0.0.1:53")
    return str(address), int(port)
