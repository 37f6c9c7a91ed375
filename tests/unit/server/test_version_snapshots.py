"""Which containers are forked from which snapshot, and when it is dismissed; on the engine's double."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from portico.engines.fake import FakeEngine
from portico.model.errors import StartError
from portico.model.ports import BuiltImage, StartFailure
from portico.model.spec import AppSpec, Autoscaler, EntrySpec, FunctionSpec, WebKind, WebSpec
from portico.server.dataplane import DataPlane, Release, Sockets


@dataclass
class Case:
    """A data path and its engine."""

    engine: FakeEngine
    data: DataPlane
    folder: Path

    async def deploy(self, version: int, kind: WebKind = WebKind.FASTAPI_ENDPOINT, *, snapshot: bool = True) -> None:
        """One function that has two containers."""
        function = FunctionSpec(
            name="f",
            module="m",
            qualname="f",
            web=WebSpec(kind=kind, port=8000),
            autoscaler=Autoscaler(min_containers=2),
            enable_memory_snapshot=snapshot,
        )
        release = Release(
            app_id="ap-1",
            app_name="app",
            version=version,
            ephemeral=False,
            environment="main",
            spec=AppSpec(name="app", entry=EntrySpec(module="m"), functions=(function,)),
            images={"f": BuiltImage(key="k", python=Path("/usr/bin/python3"))},
            bundle_dir=self.folder,
            labels={"f": "egg"},
            urls={"f": "http://egg.localhost"},
        )
        await self.data.roll_out(release, lambda _: None, _nothing)

    def snapshots(self, version: int) -> list[str | None]:
        """What the containers of a version are forked from."""
        return [each.start.snapshot for each in self.engine.containers if each.start.version == version]


async def _nothing() -> None:
    pass


@pytest.fixture
async def case(tmp_path: Path) -> AsyncIterator[Case]:
    engine = FakeEngine(tmp_path)
    case = Case(engine, DataPlane("localhost", Sockets.inside(tmp_path), engine, lambda *_: None), tmp_path)
    yield case
    await case.data.close(0)


async def test_the_containers_of_a_version_have_one_snapshot(case: Case) -> None:
    """And those of the next version another one."""
    await case.deploy(1)
    await case.deploy(2)
    (first,), (second,) = set(case.snapshots(1)), set(case.snapshots(2))
    assert len(case.snapshots(1)) == len(case.snapshots(2)) == 2
    assert first is not None
    assert second is not None
    assert first != second


async def test_a_version_that_is_replaced_dismisses_its_snapshot(case: Case) -> None:
    """So does an app that is stopped."""
    await case.deploy(1)
    assert case.engine.dismissed == []
    await case.deploy(2)
    assert case.engine.dismissed == case.snapshots(1)[:1]
    case.data.stop("ap-1")
    assert case.engine.dismissed == [case.snapshots(1)[0], case.snapshots(2)[0]]


async def test_a_version_that_cannot_start_dismisses_its_snapshot(case: Case) -> None:
    """The one before keeps its own."""
    await case.deploy(1)
    case.engine.failing["f"] = StartFailure("no luck")
    with pytest.raises(StartError):
        await case.deploy(2)
    assert case.engine.dismissed == case.snapshots(2)


@pytest.mark.parametrize(
    ("kind", "snapshot"), [(WebKind.FASTAPI_ENDPOINT, False), (WebKind.WEB_SERVER, True)], ids=["not-asked", "program"]
)
async def test_others_have_none(case: Case, kind: WebKind, snapshot: bool) -> None:
    """Who does not ask for one, and programs of the user's."""
    await case.deploy(1, kind, snapshot=snapshot)
    assert set(case.snapshots(1)) == {None}
