"""What Caddy's log tells."""

from __future__ import annotations

import json
import logging

import pytest

from portico.edge.news import News, State, read


def line(**words: object) -> bytes:
    return json.dumps({"level": "info", "ts": 1.5, **words}).encode() + b"\n"


@pytest.mark.parametrize(
    ("logger", "msg", "news"),
    [
        ("tls.obtain", "certificate obtained successfully", News("a.test", State.ISSUED)),
        ("tls.renew", "certificate renewed successfully", News("a.test", State.ISSUED)),
        ("tls.obtain", "could not get certificate from issuer", News("a.test", State.FAILED, "HTTP 403")),
        ("tls.renew", "could not get certificate from issuer", News("a.test", State.UNRENEWED, "HTTP 403")),
        ("tls.obtain", "acquiring lock", None),
        ("tls.issuance.acme", "could not get certificate from issuer", None),
    ],
)
def test_what_becomes_of_a_certificate_is_understood(logger: str, msg: str, news: News | None) -> None:
    """Issued, renewed, failed with a reason; the rest is no news."""
    reason = "HTTP 403" if msg.startswith("could") else ""
    assert read(line(logger=logger, msg=msg, identifier="a.test", error=reason, attempt=1)).news == news


def test_a_failure_is_a_warning_and_noise_is_not_logged() -> None:
    """Ours is a log for people."""
    failed = read(line(level="error", logger="tls.obtain", msg="could not get certificate from issuer", error="no"))
    assert (failed.severity, failed.text) == (
        logging.WARNING,
        "tls.obtain: could not get certificate from issuer: no",
    )
    assert read(line(level="warn", logger="http", msg="HTTP/2 skipped because it requires TLS")).severity < logging.INFO
    assert read(line(logger="admin.api", msg="received request")).severity < logging.INFO


@pytest.mark.parametrize("text", [b"panic: runtime error\n", b"{", b'{"level": 1}\n', b"\xff\n", b"\n"])
def test_what_is_no_entry_is_told_as_it_is(text: bytes) -> None:
    """A crash's words are not lost."""
    entry = read(text)
    assert entry.news is None
    assert entry.severity == logging.WARNING
    assert entry.text == text.decode(errors="replace").strip()
