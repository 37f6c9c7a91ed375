"""A call that was spawned: it is stored, runs by itself, and its result can be asked for from anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote

from portico.model.errors import InvalidError
from portico.sdk.absent import later
from portico.sdk.bridge import bridge_to

if TYPE_CHECKING:
    from portico.client.answers import Route, Say

R = TypeVar("R")
_LATER = frozenset({"iter", "logs", "hydrate", "get_dashboard_url", "get_call_graph"})


class FunctionCall(Generic[R]):
    """Made by `Function.spawn(...)`, or from its `object_id` by `FunctionCall.from_id`, in any process."""

    from_id: _FromId
    gather: _Gather

    def __init__(self, object_id: str) -> None:
        self._object_id = object_id

    def __repr__(self) -> str:
        return f"FunctionCall.from_id({self._object_id!r})"

    @property
    def object_id(self) -> str:
        """Its id, "fc-…"."""
        return self._object_id

    async def _get_aio(self, timeout: float | None = None, *, index: int = 0) -> R:  # noqa: ASYNC109 - as `get` has it
        route, say = self._result(timeout, index)
        from portico.client import loops  # asyncio and HTTP, which `import modal` must not cost

        result: R = await loops.ask(route, say)
        return result

    @bridge_to(_get_aio)
    def get(self, timeout: float | None = None, *, index: int = 0) -> R:
        """Its result, or what it raised. Waits for `timeout` seconds; without it, for as long as it takes.

        TimeoutError when there is none by then, OutputExpiredError when it is no longer kept.
        """
        route, say = self._result(timeout, index)
        from portico.client import calls

        result: R = calls.ask(route, say)
        return result

    async def _cancel_aio(self, terminate_containers: bool = False) -> None:
        route, say = self._cancellation(terminate_containers)
        from portico.client import loops

        await loops.ask(route, say)

    @bridge_to(_cancel_aio)
    def cancel(self, terminate_containers: bool = False) -> None:
        """Ends it: it does not run, or runs no more, and is not tried again. One that has ended stays as it is.

        A sync function cannot be ended in the middle: it goes on, and nobody gets its result. With
        terminate_containers its container ends, and all that runs there.
        """
        route, say = self._cancellation(terminate_containers)
        from portico.client import calls

        calls.ask(route, say)

    async def _num_inputs_aio(self) -> int:
        return 1

    @bridge_to(_num_inputs_aio)
    def num_inputs(self) -> int:
        """How many inputs it has."""
        return 1

    __getattr__ = later("modal.FunctionCall", _LATER)

    def _result(self, timeout: float | None, index: int) -> tuple[Route, Say]:
        if index != 0:
            raise InvalidError(f"A spawned call has one result; there is no result {index}.")
        from portico.client.answers import ask

        wait = "" if timeout is None else f"?wait={max(0.0, float(timeout)):g}"
        return self._route("get"), ask("GET", f"/{quote(self._object_id, '')}{wait}")

    def _cancellation(self, terminate_containers: bool) -> tuple[Route, Say]:
        from portico.client.answers import ask

        terminate = "?terminate=1" if terminate_containers else ""
        return self._route("cancel"), ask("POST", f"/{quote(self._object_id, '')}/cancel{terminate}")

    def _route(self, verb: str) -> Route:
        from portico.client.answers import stored
        from portico.client.calling import calls_address

        return stored(calls_address()[0], self._object_id, verb)


class _FromId:
    """`FunctionCall.from_id(...)` and `FunctionCall.from_id.aio(...)`."""

    def __call__(self, function_call_id: str) -> FunctionCall[Any]:
        """The call with this id. Nothing is asked of a server until it is used."""
        if not isinstance(function_call_id, str) or not function_call_id.startswith("fc-"):
            raise InvalidError(f"Not the id of a function call: {function_call_id!r}.", hint="It begins with 'fc-'.")
        return FunctionCall(function_call_id)

    async def aio(self, function_call_id: str) -> FunctionCall[Any]:
        """The same, to be awaited."""
        return self(function_call_id)


class _Gather:
    """`FunctionCall.gather(...)` and `FunctionCall.gather.aio(...)`."""

    def __call__(self, *function_calls: FunctionCall[Any]) -> list[Any]:
        """The results of all, in order; raises what the first of them to fail has raised."""
        import asyncio

        from portico.client.mapping import background_loop

        return asyncio.run_coroutine_threadsafe(self.aio(*function_calls), background_loop()).result()

    async def aio(self, *function_calls: FunctionCall[Any]) -> list[Any]:
        """The same, to be awaited."""
        import asyncio

        return list(await asyncio.gather(*(call.get.aio() for call in function_calls)))


FunctionCall.from_id = _FromId()
FunctionCall.gather = _Gather()
