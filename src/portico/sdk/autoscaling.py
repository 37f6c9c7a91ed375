"""How a running function is scaled, and how it is doing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from portico.sdk.bridge import bridge_to

if TYPE_CHECKING:
    from portico.client.answers import Route, Say


class _Unset(Enum):
    UNSET = "unset"


UNSET: Final = _Unset.UNSET
_Setting = float | _Unset | None


@dataclass(frozen=True, slots=True)
class FunctionAutoscalerSettings:
    """How a function is scaled now."""

    min_containers: int | None
    max_containers: int | None
    scaledown_window: int | None
    buffer_containers: int | None


@dataclass(frozen=True, slots=True)
class FunctionStats:
    """How a function is doing now. backlog: inputs that wait. input_headroom: inputs that could begin at once."""

    backlog: int
    num_total_runners: int
    num_running_inputs: int
    input_headroom: int


class FunctionAutoscaler:
    """`f.autoscaler`."""

    def __init__(self, route: Callable[[str], Route], parameters: str = "") -> None:
        """parameters: of its class, as text."""
        self._route = route
        self._target = target_of("autoscaler", parameters)

    async def _settings_aio(self) -> FunctionAutoscalerSettings:
        from portico.client import loops  # asyncio and HTTP, which `import modal` must not cost

        return _settings(await loops.ask(self._route("autoscaler.settings"), _ask("GET", self._target)))

    @bridge_to(_settings_aio)
    def settings(self) -> FunctionAutoscalerSettings:
        """How it is scaled now."""
        from portico.client import calls

        return _settings(calls.ask(self._route("autoscaler.settings"), _ask("GET", self._target)))

    async def _update_aio(
        self,
        *,
        min_containers: _Setting = UNSET,
        max_containers: _Setting = UNSET,
        buffer_containers: _Setting = UNSET,
        scaledown_window: _Setting = UNSET,
    ) -> FunctionAutoscalerSettings:
        say = _ask("POST", self._target, _chosen(min_containers, max_containers, buffer_containers, scaledown_window))
        from portico.client import loops

        return _settings(await loops.ask(self._route("autoscaler.update"), say))

    @bridge_to(_update_aio)
    def update(
        self,
        *,
        min_containers: _Setting = UNSET,
        max_containers: _Setting = UNSET,
        buffer_containers: _Setting = UNSET,
        scaledown_window: _Setting = UNSET,
    ) -> FunctionAutoscalerSettings:
        """Changes it, at once and until the app is deployed again; None is the default. What is not given stays."""
        say = _ask("POST", self._target, _chosen(min_containers, max_containers, buffer_containers, scaledown_window))
        from portico.client import calls

        return _settings(calls.ask(self._route("autoscaler.update"), say))


def given(
    min_containers: int | None, max_containers: int | None, buffer_containers: int | None, scaledown_window: int | None
) -> dict[str, Any]:
    """Those that are not None."""
    values = _named(min_containers, max_containers, buffer_containers, scaledown_window)
    return {name: value for name, value in values.items() if value is not None}


def _chosen(*values: _Setting) -> dict[str, _Setting]:
    return {name: value for name, value in _named(*values).items() if value is not UNSET}


def _named(*values: Any) -> dict[str, Any]:
    names = ("min_containers", "max_containers", "buffer_containers", "scaledown_window")
    return dict(zip(names, values, strict=True))


def target_of(what: str, parameters: str) -> str:
    """Where a function is asked. parameters: of its class, as text."""
    from urllib.parse import quote  # 5 ms that `import modal` need not pay

    return f"/{what}/{quote(parameters, safe='')}" if parameters else f"/{what}"


def _ask(method: str, target: str, settings: dict[str, _Setting] | None = None) -> Say:
    from portico.client.answers import ask

    query = "&".join(f"{name}={'none' if value is None else value}" for name, value in (settings or {}).items())
    return ask(method, f"{target}?{query}")


def _settings(told: dict[str, Any]) -> FunctionAutoscalerSettings:
    return FunctionAutoscalerSettings(**told | {"scaledown_window": int(told["scaledown_window"])})
