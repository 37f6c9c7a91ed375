"""The life of a container and of a deployment, as tables: an absent entry raises and changes nothing."""

from __future__ import annotations

from enum import Enum


class ContainerState(Enum):
    """Where a container is in its life."""

    STARTING = "starting"
    READY = "ready"
    RETIRING = "retiring"  # takes no new inputs; those that it has go on
    GONE = "gone"


class ContainerEvent(Enum):
    """What can happen to a container."""

    READY = "ready"
    FAILED = "failed"
    RETIRE = "retire"
    EXITED = "exited"


class LifecycleError(Exception):
    """Something happened that cannot happen in this state."""


_S, _E = ContainerState, ContainerEvent
_CONTAINER = {
    (_S.STARTING, _E.READY): _S.READY,
    (_S.STARTING, _E.FAILED): _S.RETIRING,
    (_S.STARTING, _E.RETIRE): _S.RETIRING,
    (_S.STARTING, _E.EXITED): _S.GONE,
    (_S.READY, _E.RETIRE): _S.RETIRING,
    (_S.READY, _E.EXITED): _S.GONE,
    (_S.RETIRING, _E.READY): _S.RETIRING,  # it was told to go before it had come up
    (_S.RETIRING, _E.FAILED): _S.RETIRING,
    (_S.RETIRING, _E.RETIRE): _S.RETIRING,
    (_S.RETIRING, _E.EXITED): _S.GONE,
}


def after(state: ContainerState, event: ContainerEvent) -> ContainerState:
    """The next state; LifecycleError where the table has none."""
    try:
        return _CONTAINER[state, event]
    except KeyError:
        raise LifecycleError(f"a container that is {state.value} cannot have {event.value}") from None
