"""In which environment what is called is: for callers whose token is for one environment only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from portico.model.errors import NotFoundError
from portico.model.ports import Store
from portico.server.functions import Functions
from portico.server.rollout import Rollouts
from portico.wire.calls import STORED_HOST, calls_host


class CallPlaces:
    """Implements `api.services.CallPlaceService`, on the control plane's loop."""

    def __init__(self, functions: Functions, store: Callable[[], Awaitable[Store]], rollouts: Rollouts) -> None:
        self._functions = functions
        self._store = store
        self._rollouts = rollouts

    async def environment_of_call(self, host: str, path: str) -> str:
        """Of the function at this host of the calls' socket, or of the stored call at this path; NotFoundError."""
        app_id = await self._stored(path) if host == STORED_HOST else await self._called(host)
        if app_id in self._rollouts.ephemeral_apps:
            return self._rollouts.ephemeral_apps[app_id].environment
        store = await self._store()
        for environment in await store.environments.all():
            if any(app.id == app_id for app in await store.apps(environment.name)):
                return environment.name
        raise NotFoundError("There is no such app.")

    async def _called(self, host: str) -> str:
        return (await self._functions.find(calls_host(host))).app_id

    async def _stored(self, path: str) -> str:
        call = await (await self._store()).calls.call(path.strip("/").partition("/")[0])
        if call is None:
            raise NotFoundError("There is no such call.")
        return call.app_id
