"""How many containers a function should have, and which may go."""

from __future__ import annotations

from collections.abc import Iterable
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
