"""What became of one attempt at a call, and when the next one is."""

from __future__ import annotations

from typing import Any, Final

from portico.client.answers import Route, ask, value_of
from portico.model import errors
from portico.model.spec import RetryPolicy
from portico.wire.calls import Kind, Message

ASK_RETRIES: Final = ask("GET", "/retries")
_LOST: Final = (errors.RemoteError, errors.FunctionTimeoutError, errors.StartError)

Outcome = Message | errors.Error


def failed(outcome: Outcome) -> bool:
    """Whether it counts as a failure of the function: it raised, ran out of time, or its container was lost."""
    if isinstance(outcome, Message):
        return outcome.kind is Kind.ERROR
    return outcome.has_run


def outcome_of(error: errors.Error) -> Outcome:
    """What an attempt that ended so has come to; raises what is so for every attempt."""
    if error.has_run and not isinstance(error, _LOST):
        raise error
    return error


def result_of(outcome: Outcome, route: Route) -> Any:
    """The value; raises what it is otherwise."""
    if isinstance(outcome, Message):
        return value_of(outcome, route)
    raise outcome


def policy_of(value: dict[str, Any] | None) -> RetryPolicy | None:
    """The policy that the server has told."""
    return None if value is None else RetryPolicy(**value)


def delay_after(attempts: int, policy: RetryPolicy | None) -> float | None:
    """Seconds until the next attempt; None when there is none."""
    return None if policy is None else policy.delay(attempts)
