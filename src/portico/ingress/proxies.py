"""What trusted proxies say about the clients behind them. What anybody else says is dropped with the request's head."""

from __future__ import annotations

from portico.ingress.head import RequestHead
from portico.model.proxies import Network, parse_address

_SCHEMES = {b"http": b"http", b"https": b"https", b"ws": b"http", b"wss": b"https"}


class Proxies:
    """The proxies of these networks are believed."""

    def __init__(self, networks: tuple[Network, ...]) -> None:
        self._networks = networks

    def trusts(self, address: str) -> bool:
        """Whether the peer with this address is one of them."""
        parsed = parse_address(address) if self._networks else None
        return parsed is not None and any(parsed in network for network in self._networks)

    def origin(self, head: RequestHead, peer: bytes) -> bytes:
        """Who sent this request, as `peer` names the proxy that passed it on; its host is put into the head.

        Each proxy adds to the right of the lists. So the client is the rightmost address that is none of the proxies,
        and scheme and host are what stands as far from the right; of a shorter list, its leftmost.
        """
        address, port, scheme = peer.split(b" ")
        hops = 0
        for said in reversed(head.said(b"x-forwarded-for")):
            parsed = parse_address(said.decode("latin-1"))
            if parsed is None:
                break
            address, port, hops = str(parsed).encode(), b"0", hops + 1
            if not self.trusts(str(parsed)):
                break
        hops = max(hops, 1)
        if schemes := head.said(b"x-forwarded-proto"):
            scheme = _SCHEMES.get(schemes[-min(hops, len(schemes))].lower(), scheme)
        if hosts := head.said(b"x-forwarded-host"):
            head.replace_host(hosts[-min(hops, len(hosts))])
        return b" ".join((address, port, scheme))
