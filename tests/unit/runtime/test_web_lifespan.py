"""An ASGI app's lifespan: what it may do, and what may go wrong."""

from __future__ import annotations

import pytest

from portico.model.errors import ExecutionError, StartError
from portico.runtime.asgi import Receive, Scope, Send
from portico.runtime.lifespan import Lifespan


async def test_an_app_shares_its_state_with_its_requests() -> None:
    """What the startup puts into the state is there when it has returned."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        scope["state"]["db"] = "open"
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        scope["state"]["db"] = "closed"
        await send({"type": "lifespan.shutdown.complete"})

    lifespan = Lifespan(app)
    await lifespan.startup()
    assert lifespan.state == {"db": "open"}
    await lifespan.shutdown()
    assert lifespan.state == {"db": "closed"}


async def test_an_app_that_knows_no_lifespan_is_fine() -> None:
    """One that raises or returns without a word has no lifespan."""

    async def raises(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError(scope["type"])

    async def returns(scope: Scope, receive: Receive, send: Send) -> None: ...

    for app in (raises, returns):
        lifespan = Lifespan(app)
        await lifespan.startup()
        await lifespan.shutdown()


async def test_a_failed_startup_raises_what_the_app_raises() -> None:
    """The app's own exception says more than its message."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "a traceback"})
        raise KeyError("DATABASE_URL")

    with pytest.raises(KeyError, match="DATABASE_URL"):
        await Lifespan(app).startup()


async def test_a_failed_startup_without_an_exception_has_its_message() -> None:
    """StartError carries the app's words."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(StartError, match="no database"):
        await Lifespan(app).startup()


async def test_a_failed_shutdown_is_an_error_too() -> None:
    """It has the app's words."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "still busy"})

    lifespan = Lifespan(app)
    await lifespan.startup()
    with pytest.raises(ExecutionError, match="still busy"):
        await lifespan.shutdown()
