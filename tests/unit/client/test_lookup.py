"""Looking a URL up by name."""

from __future__ import annotations

import pytest

from portico.client import lookup
from portico.client.control import ControlClient
from portico.model.errors import NotFoundError
from portico.wire.control import AppInfo, FunctionInfo


def info(state: str, url: str | None, name: str = "seed") -> AppInfo:
    return AppInfo(
        id="ap-1",
        name=name,
        environment="main",
        state=state,
        version=1,
        created_at=1.0,
        functions=[FunctionInfo(name="square", url=url)],
    )


@pytest.fixture
def known(monkeypatch) -> list[AppInfo]:
    apps: list[AppInfo] = []
    monkeypatch.setattr(ControlClient, "apps", lambda self: [a for a in apps if a.environment == self.environment])
    return apps


def test_deployed_before_ephemeral(known):
    """Where both live, the deployed app is meant."""
    known += [info("ephemeral", "http://dev"), info("deployed", "http://prod")]
    assert lookup.web_url("seed", "square") == "http://prod"


def test_function_without_url(known):
    """A function that is not on the web has none."""
    known.append(info("deployed", None))
    assert lookup.web_url("seed", "square") is None


@pytest.mark.parametrize(
    ("app", "function", "environment"),
    [("other", "square", None), ("seed", "cube", None), ("seed", "square", "staging")],
)
def test_unknown_names(known, app, function, environment):
    """An unknown app, function or environment is an error."""
    known.append(info("deployed", "http://prod"))
    with pytest.raises(NotFoundError):
        lookup.web_url(app, function, environment)


def test_stopped_app(known):
    """A stopped app has no URL to give."""
    known.append(info("stopped", "http://prod"))
    with pytest.raises(NotFoundError):
        lookup.web_url("seed", "square")
