"""What Caddy's log says about certificates, line by line. Pure."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

_LEVELS: Final = {"error": logging.WARNING, "fatal": logging.ERROR, "panic": logging.ERROR, "warn": logging.INFO}
_NOISE: Final = (
    "exiting; byeee",
    "HTTP/2 skipped",
    "HTTP/3 skipped",
    "admin endpoint on open interface",
    "certificate is in emergency",
)
_OBTAINED: Final = "certificate obtained successfully"
_RENEWED: Final = "certificate renewed successfully"
_FAILED: Final = "could not get certificate from issuer"
_MAX_REASON: Final = 500  # characters


class State(StrEnum):
    """How it stands with the certificate of a name."""

    ISSUED = "issued"
    FAILED = "failed"  # there is none
    UNRENEWED = "unrenewed"  # there is one, which could not be renewed yet


@dataclass(frozen=True, slots=True)
class News:
    """Something has happened to the certificate of a host. reason: why there is no new one."""

    host: str
    state: State
    reason: str = ""


class Entry(msgspec.Struct, frozen=True):
    """A line of Caddy's log, as far as it is read."""

    level: str = ""
    logger: str = ""
    msg: str = ""
    identifier: str = ""
    error: str = ""

    @property
    def text(self) -> str:
        """For our log."""
        parts = [self.logger, self.msg, self.identifier, self.error]
        return ": ".join(part for part in parts if part)

    @property
    def severity(self) -> int:
        """For our log; DEBUG for what need not be said."""
        if self.msg.startswith(_NOISE):
            return logging.DEBUG
        if self.msg in (_OBTAINED, _RENEWED):
            return logging.INFO
        return _LEVELS.get(self.level, logging.DEBUG)

    @property
    def news(self) -> News | None:
        """What it says about a certificate."""
        if self.logger not in ("tls.obtain", "tls.renew") or not self.identifier:
            return None
        if self.msg in (_OBTAINED, _RENEWED):
            return News(self.identifier, State.ISSUED)
        if self.msg == _FAILED:
            state = State.FAILED if self.logger == "tls.obtain" else State.UNRENEWED
            return News(self.identifier, state, self.error[:_MAX_REASON])
        return None


def read(line: bytes) -> Entry:
    """A line; one that is no entry of the log is an error's text (a crash)."""
    try:
        return msgspec.json.decode(line, type=Entry)
    except msgspec.DecodeError:
        return Entry(level="error", msg=line.decode(errors="replace").rstrip())
