"""Finding what is deployed, by name: what `Function.from_name` asks."""

from __future__ import annotations

from portico.client.connect import connect
from portico.model.errors import NotFoundError
from portico.wire.control import AppInfo

_RANK = {"deployed": 0, "ephemeral": 1}


def web_url(app_name: str, function_name: str, environment: str | None = None) -> str | None:
    """The URL of a function of a living app, a deployed one before an ephemeral one; None for one without a URL.

    NotFoundError for an unknown app or function, ConnectionError where no server runs.
    """
    client = connect(environment)
    app = _living(client.apps(), app_name, client.environment)
    for function in app.functions:
        if function.name == function_name:
            return function.url
    raise NotFoundError(f"The app {app_name!r} has no function {function_name!r}.")


def _living(apps: list[AppInfo], name: str, environment: str) -> AppInfo:
    found = [app for app in apps if app.name == name and app.state in _RANK]
    if not found:
        raise NotFoundError(
            f"No app {name!r} is deployed in the environment {environment!r}.", hint="See `portico app list`."
        )
    return min(found, key=lambda app: _RANK[app.state])
