"""How many containers a function should have, how many of them start side by side, and which may go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from portico.core.pool import Member
from portico.model.errors import InvalidError
from portico.model.spec import Autoscaler

C = TypeVar("C")
W = TypeVar("W")


def desired(running: int, queued: int, target: int, autoscaler: Autoscaler) -> int:
    """Containers that the demand asks for: enough for all inputs, and the buffer while there are any."""
    inputs = running + queued
    wanted = -(-inputs // target) + (autoscaler.buffer_containers if inputs else 0)
    wanted = max(wanted, autoscaler.min_containers)
    return wanted if autoscaler.max_containers is None else min(wanted, autoscaler.max_containers)


def covered(containers: int, target: int, autoscaler: Autoscaler) -> float:
    """The number of inputs up to which so many containers are as many as `desired`."""
    if autoscaler.max_containers is not None and containers >= autoscaler.max_containers:
        return float("inf")
    return max(0, containers - autoscaler.buffer_containers) * target


def startable(
    missing: int, begun: Sequence[float], at_once: int, patience: float, now: float
) -> tuple[int, float | None]:
    """How many of the missing containers to start now, and when to look again (None: none is put off).

    `begun` has when those began that start already, the oldest first. At most `at_once` do so side by side, for they
    slow each other down. One that has taken longer than `patience` waits for something else, and counts no more.
    """
    young = [time for time in begun if time > now - patience]
    starts = min(missing, max(0, at_once - len(young)))
    return starts, None if starts == missing else (young[0] if young else now) + patience


def surplus(
    idle: Iterable[Member[C, W]], present: int, wanted: int, window: float, now: float
) -> tuple[list[Member[C, W]], float | None]:
    """Which idle members to retire now, and when to look again (None: nobody is idle in excess).

    `idle` comes in the order in which they became idle.
    """
    going: list[Member[C, W]] = []
    for member in idle:
        if present - len(going) <= wanted:
            break
        due = member.idle_since + window
        if due > now:
            return going, due
        going.append(member)
    return going, None


def changed(autoscaler: Autoscaler, settings: Mapping[str, float | None]) -> Autoscaler:
    """The autoscaler with some settings changed; None is the default. InvalidError for what makes no sense."""
    defaults = Autoscaler()
    values: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in {field.name for field in fields(Autoscaler)}:
            raise InvalidError(f"An autoscaler has no setting {name!r}.")
        if value is None or name == "scaledown_window":
            values[name] = getattr(defaults, name) if value is None else value
        elif value != int(value) or value < (1 if name == "max_containers" else 0):
            raise InvalidError(f"`{name}` must be a whole number, {1 if name == 'max_containers' else 0} or more.")
        else:
            values[name] = int(value)
    after = replace(autoscaler, **values)
    if after.max_containers is not None and after.max_containers < after.min_containers:
        raise InvalidError(
            f"`min_containers` ({after.min_containers}) cannot be greater than `max_containers` "
            f"({after.max_containers})."
        )
    if not 2 <= after.scaledown_window <= 3600:
        raise InvalidError("`scaledown_window` must be between 2 and 3600 (inclusive) seconds.")
    return after
