"""The server in front that speaks HTTPS: what it says about clients is believed, whoever they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from portico.ingress.head import RequestHead, host_of
from portico.ingress.ports import Refusal

MOST: Final = 10_000  # names that are remembered; whoever makes names up makes no more of them


class Front:
    """Whoever connects to its socket is that server. Requests that came to it without TLS are sent to HTTPS, where
    there is, or may be, a certificate for their host; elsewhere nobody would get an answer.

    port: where it speaks HTTPS. secures: whether that is meant for this host at all.
    """

    def __init__(self, port: int, secures: Callable[[str], bool]) -> None:
        self._port = b"" if port == 443 else b":%d" % port
        self._secures = secures
        self._failed: set[str] = set()
        self.on_failed: Callable[[str, bool], None] = lambda host, failed: None

    @property
    def failed(self) -> frozenset[str]:
        """The hosts for which no certificate can be had."""
        return frozenset(self._failed)

    def set_failed(self, host: str, failed: bool) -> None:
        """Whether no certificate can be had for it."""
        self.on_failed(host, failed)
        if len(self._failed) >= MOST:
            self._failed.clear()
        self._failed.add(host) if failed else self._failed.discard(host)

    def redirect(self, head: RequestHead, origin: bytes) -> Refusal | None:
        """Where a request from `origin` goes instead; None: it is answered as it is."""
        if origin.endswith(b" https"):
            return None
        host = host_of(head.hosts[0])
        if host is None or host in self._failed or not self._secures(host):
            return None
        path = head.target if head.target.startswith(b"/") else b"/"
        return Refusal(308, "", lines=b"location: https://%b%b%b\r\n" % (host.encode(), self._port, path))
