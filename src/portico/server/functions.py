"""What callers may ask of functions: where they are, how they do, how they are scaled, when calls are tried again."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from portico.api.services import Target
from portico.core.scaling import changed
from portico.model.errors import NotFoundError
from portico.server.away import AwayEndpoint
from portico.server.dataplane import Bridge, DataPlane, Served
from portico.server.endpoint import FunctionEndpoint, MethodEndpoint
from portico.server.supervisor import Supervisor


class Functions:
    """Implements `api.services.FunctionService`, on the control plane's loop."""

    def __init__(self, data: DataPlane, bridge: Bridge) -> None:
        self._data = data
        self._bridge = bridge

    async def find(self, host: str) -> Target:
        """NotFoundError when no living app has it."""
        return await self._bridge.call(self._find, host)

    async def find_web(self, host: str) -> Target:
        """The one that answers requests at this host; NotFoundError when there is none."""
        return await self._bridge.call(self._find_web, host)

    async def about(self, target: Target, what: str, parameters: bytes) -> dict[str, Any] | None:
        """Its "url", "retries", "stats" or "autoscaler"."""
        return await self._bridge.run(self._about(target, what, parameters))

    async def update_autoscaler(
        self, target: Target, settings: dict[str, float | None], parameters: bytes
    ) -> dict[str, Any]:
        """Change some of its settings, until its next version; all of them."""
        return await self._bridge.run(self._update(target, settings, parameters))

    # -- on the ingress's loop ------------------------------------------------------------------------------------
    def _find(self, host: str) -> Target:
        return _target(self._data.called_at(host))

    def _find_web(self, host: str) -> Target:
        return _target(self._data.requested_at(host))

    async def _about(self, target: Target, what: str, parameters: bytes) -> dict[str, Any] | None:
        endpoint = _endpoint(self._data, target)
        if isinstance(endpoint, AwayEndpoint) and what in ("stats", "autoscaler"):
            return await endpoint.keeper.about(endpoint, what, parameters)
        return about(self._data, target, what, parameters)

    async def _update(self, target: Target, settings: dict[str, float | None], parameters: bytes) -> dict[str, Any]:
        endpoint = _endpoint(self._data, target)
        if isinstance(endpoint, AwayEndpoint):
            return await endpoint.keeper.update(endpoint, settings, parameters)
        return update(self._data, target, settings, parameters)


def about(data: DataPlane, target: Target, what: str, parameters: bytes) -> dict[str, Any] | None:
    """See `Functions.about`; of what lives in this process, and of others their url and retries."""
    endpoint = _endpoint(data, target)
    if what == "url":
        return {"url": data.url(target.app_id, target.function)}
    if what == "retries":
        policy = endpoint.function.retries
        return None if policy is None else asdict(policy)
    if what == "stats":
        supervisor = _supervisor(endpoint, parameters)
        counts = supervisor.counts
        if isinstance(endpoint, FunctionEndpoint | MethodEndpoint) and supervisor is endpoint.supervisor:
            counts = endpoint.counts
        return {
            "backlog": counts.queued,
            "num_total_runners": counts.starting + counts.ready,
            "num_running_inputs": counts.running,
            "input_headroom": supervisor.room,
        }
    return asdict(_supervisor(endpoint, parameters).wish)


def update(data: DataPlane, target: Target, settings: dict[str, float | None], parameters: bytes) -> dict[str, Any]:
    """See `Functions.update_autoscaler`; of what lives in this process."""
    supervisor = _supervisor(_endpoint(data, target), parameters)
    supervisor.rescale(changed(supervisor.wish, settings))
    return asdict(supervisor.wish)


def _endpoint(data: DataPlane, target: Target) -> Served:
    endpoint = data.endpoint(target.app_id, target.function)
    if endpoint is None:
        raise NotFoundError("There is no such function.")
    return endpoint


def _supervisor(endpoint: Served, parameters: bytes) -> Supervisor:
    assert not isinstance(endpoint, AwayEndpoint), "it is asked where it lives"
    supervisor = endpoint.supervisor
    return supervisor if isinstance(supervisor, Supervisor) else supervisor.pool(parameters)


def _target(endpoint: Served | None) -> Target:
    if endpoint is None:
        raise NotFoundError("There is no such function.")
    function = endpoint.function
    return Target(endpoint.app_id, function.name, function.is_generator, endpoint.whole.cls)
