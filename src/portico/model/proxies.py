"""Which proxies are believed about the clients behind them."""

from __future__ import annotations

import ipaddress

from portico.model.errors import InvalidError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_networks(text: str, name: str) -> tuple[Network, ...]:
    """Comma-separated addresses and CIDR networks. InvalidError that names the setting `name`."""
    return tuple(_network(part.strip(), name) for part in text.split(",") if part.strip())


def parse_address(text: str) -> Address | None:
    """An address as it stands in headers and socket names; one of IPv4 within IPv6 is the IPv4 one. None: not one.

    A port behind it does not count: `192.0.2.1:80`, `[2001:db8::1]:80`.
    """
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _network(text: str, name: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise InvalidError(
            f"{name}: {error}.",
            hint="For example 127.0.0.1,10.0.0.0/8,2001:db8::/32",
        ) from None
