"""How many containers a function should have, how many of them start side by side, and which may go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from portico.core.pool import Member
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
