"""Calls that are kept: a request to a function, stored before it runs, and what came of it. Times are seconds since
the epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class CallState(StrEnum):
    """How far a stored call has come."""

    QUEUED = "queued"
    STARTED = "started"  # a container may have begun with it
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Body:
    """Bytes that are kept: a few with the record, many in a file of this name."""

    size: int = 0
    inline: bytes = b""
    file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a call came to: a response, or, with a `code` of the model's errors, why there is none.

    lines: the response's header lines, each with its CRLF, without those about its length and connection.
    """

    status: int
    lines: bytes = b""
    body: Body = field(default_factory=Body)
    code: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecord:
    """One stored call. head: the request's first line and its headers, with their CRLFs, without length, connection
    and the ingress's own header. client: "<address> <port> <scheme>", as that header has it. attempts: how often it
    was started. not_before: when a retry is due."""

    id: str  # "fc-" and 26 characters, see core/durable.py
    position: int = 0  # the order of acceptance; the store gives it
    app_id: str
    function: str  # or the line of it that it waits in, see core/durable.py
    created_at: float
    head: bytes
    client: str
    body: Body = field(default_factory=Body)
    state: CallState = CallState.QUEUED
    attempts: int = 0
    not_before: float | None = None
    finished_at: float | None = None
    outcome: Outcome | None = None


# -- changes: each is one call's next step, written together with those of others ---------------------------------
@dataclass(frozen=True, slots=True)
class Accepted:
    """A new call."""

    call: CallRecord


@dataclass(frozen=True, slots=True)
class Started:
    """It is about to be sent to a container."""

    call_id: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Requeued:
    """It runs again, not before then; None: as soon as it can. `attempts` as they count."""

    call_id: str
    attempts: int
    not_before: float | None


@dataclass(frozen=True, slots=True)
class Finished:
    """It has come to its end."""

    call_id: str
    at: float
    outcome: Outcome


Change = Accepted | Started | Requeued | Finished
