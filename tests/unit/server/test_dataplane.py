"""Labels and versions on the data path, on the engine's double."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from portico.engines.fake import FakeEngine
from portico.model.errors import ConflictError
from portico.model.ports import BuiltImage
from portico.model.spec import AppSpec, EntrySpec, FunctionSpec, WebKind, WebSpec
from portico.server.dataplane import DataPlane, Release, Sockets


def a_release(app_id: str, folder: Path) -> Release:
    """An app that wants the label "egg"."""
    function = FunctionSpec(name="f", module="m", qualname="f", web=WebSpec(kind=WebKind.FASTAPI_ENDPOINT))
    return Release(
        app_id=app_id,
        app_name=f"app of {app_id}",
        version=1,
        ephemeral=False,
        environment="main",
        spec=AppSpec(name="app", entry=EntrySpec(module="m"), functions=(function,)),
        images={"f": BuiltImage(key="k", python=Path("/usr/bin/python3"))},
        bundle_dir=folder,
        labels={"f": "egg"},
        urls={"f": "http://egg.localhost"},
    )


async def test_of_two_apps_that_commit_at_the_same_time_only_one_gets_the_label(tmp_path: Path) -> None:
    """The other one is not committed at all."""
    data = DataPlane("localhost", Sockets.inside(tmp_path), FakeEngine(tmp_path), lambda *_: None)
    committing, go_on = asyncio.Event(), asyncio.Event()
    committed: list[str] = []

    async def slowly() -> None:
        committing.set()
        await go_on.wait()
        committed.append("first")

    async def at_once() -> None:
        committed.append("second")

    first = asyncio.ensure_future(data.roll_out(a_release("ap-1", tmp_path), lambda _: None, slowly))
    await committing.wait()
    second = asyncio.ensure_future(data.roll_out(a_release("ap-2", tmp_path), lambda _: None, at_once))
    await asyncio.wait([second], timeout=0.05)
    go_on.set()
    await first
    with pytest.raises(ConflictError, match="app of ap-1"):
        await second
    assert committed == ["first"]
    await data.close(0)
