"""What a request may be wrong in, although its head could be parsed. Its connection is not used again.

Where two programs could understand a request in two ways, nothing is guessed: it is refused.
"""

from __future__ import annotations

from portico.ingress import pages
from portico.ingress.head import MAX_HEAD, RequestHead
from portico.ingress.ports import Refusal

_COUNTED = frozenset([b"OPTIONS", b"TRACE"])  # methods that Max-Forwards is for


def fault(head: RequestHead) -> Refusal | None:
    """Why this request goes nowhere; None: it may. Brings its target into origin form."""
    if head.size > MAX_HEAD:
        return too_large(head)
    if head.version not in ("1.1", "1.0"):
        return pages.UNKNOWN_VERSION
    if head.transfer_coding is not None and (refusal := _coding(head)):
        return refusal
    if head.method == b"CONNECT":
        return pages.NO_CONNECT
    if len(head.hosts) != 1:
        return pages.NO_HOST
    if not head.locate():
        return pages.BAD_TARGET
    if head.upgrade and head.is_websocket and head.has_body:
        return pages.BAD_HANDSHAKE
    if head.method in _COUNTED and not head.travel():
        return pages.ARRIVED if head.method == b"OPTIONS" else pages.NO_TRACE
    return None


def too_large(head: RequestHead) -> Refusal:
    """The refusal of a head with more than `MAX_HEAD` bytes."""
    return pages.TARGET_TOO_LONG if 2 * len(head.target) > MAX_HEAD else pages.HEAD_TOO_LARGE


def _coding(head: RequestHead) -> Refusal | None:
    if head.version == "1.0":  # RFC 9112, 6.1: its framing is faulty
        return pages.BAD_REQUEST
    return None if head.transfer_coding == b"chunked" else pages.UNKNOWN_CODING
