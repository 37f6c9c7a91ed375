"""Labels and versions on the data path, on the engine's double."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from portico.core.routes import Owner
from portico.engines.fake import FakeEngine
from portico.ingress.ports import Refusal, Route
from portico.model.errors import ConflictError
from portico.model.ports import BuiltImage
from portico.model.spec import AppSpec, EntrySpec, FunctionSpec, WebKind, WebSpec
from portico.server.dataplane import Bridge, DataPlane, Release, Sockets


class Asked:
    """A waiter that records what it hears, and goes where it is moved."""

    wants_desk = False

    def __init__(self) -> None:
        self.granted = lambda lease: self.heard.append("granted")
        self.refused = lambda refusal: self.heard.append(refusal)
        self.heard: list[object] = []

    def moved(self, target: Route | Refusal) -> None:
        if isinstance(target, Refusal):
            self.heard.append(target)
            return
        self.heard.append("moved")
        answer = target.endpoint.lease(self, f"in-{id(self)}")  # type: ignore[arg-type]
        if answer is not None:
            self.heard.append(answer)


def ask(target: Route | Refusal) -> Asked:
    """An input that waits there."""
    asked = Asked()
    assert not isinstance(target, Refusal)
    assert target.endpoint.lease(asked, f"in-{id(asked)}") is None  # type: ignore[arg-type]
    return asked


def a_release(app_id: str, folder: Path, *domains: str) -> Release:
    """An app that wants the label "egg", and these custom domains."""
    web = WebSpec(kind=WebKind.FASTAPI_ENDPOINT, custom_domains=domains)
    function = FunctionSpec(name="f", module="m", qualname="f", web=web)
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


async def test_what_outlives_its_answer_has_the_grace_of_the_end(tmp_path: Path) -> None:
    """The ingress sees nothing of it, a WebSocket in a container say; the container is told how long it has."""
    engine = FakeEngine(tmp_path)
    data = DataPlane("localhost", Sockets.inside(tmp_path), engine, lambda *_: None)

    async def commit() -> None:
        pass

    await data.roll_out(a_release("ap-1", tmp_path), lambda _: None, commit)
    target = data.find("egg.localhost")
    assert not isinstance(target, Refusal)
    lease = target.endpoint.lease(Asked(), "in-1")  # type: ignore[arg-type]
    assert lease is not None
    assert not isinstance(lease, Refusal)
    lease.hold()
    closing = asyncio.ensure_future(data.close(7.0))
    (container,) = engine.containers
    while container.stopped is None:
        await asyncio.sleep(0)
    assert 6.0 < container.stopped <= 7.0
    await closing


async def test_who_asks_for_an_app_that_comes_up_waits_for_this_app_only(tmp_path: Path) -> None:
    """By URL and by call; what nobody has is known at once."""
    data = DataPlane("localhost", Sockets.inside(tmp_path), FakeEngine(tmp_path, manual=True), lambda *_: None)
    early = ask(data.find("egg.localhost"))
    host = "f.ap-1"
    data.claim(Owner("ap-1", "one"), ["egg"], [host])
    data.claim(Owner("ap-2", "two"), ["ham"], [])
    data.claimed()
    waiting = [ask(data.find("egg.localhost")), ask(data.calls.find(host))]
    other = ask(data.find("ham.localhost"))
    assert isinstance(data.find("bacon.localhost"), Refusal)
    assert isinstance(data.calls.find("bacon"), Refusal)
    data.install(a_release("ap-1", tmp_path))
    assert [asked.heard for asked in (early, waiting[0])] == [["moved", "moved"], ["moved"]]
    assert other.heard == []
    assert (await data.counts("ap-1"))["f"].queued == 2
    await data.close(0)
    assert [getattr(heard, "status", heard) for heard in other.heard] == [503]


async def test_who_asks_for_an_app_that_cannot_come_up_hears_why(tmp_path: Path) -> None:
    """By URL and by call."""
    data = DataPlane("localhost", Sockets.inside(tmp_path), FakeEngine(tmp_path), lambda *_: None)
    data.claim(Owner("ap-1", "one"), ["egg"], ["f.ap-1"])
    data.claimed()
    waiting = [ask(data.find("egg.localhost")), ask(data.calls.find("f.ap-1"))]
    data.unavailable("ap-1", "no disk")
    for asked in waiting:
        refusal = asked.heard[-1]
        assert isinstance(refusal, Refusal)
        assert (refusal.status, refusal.code) == (503, "start_failed")
        assert "no disk" in refusal.text
    await data.close(0)


async def test_a_deploy_may_not_have_the_label_of_an_app_that_comes_up(tmp_path: Path) -> None:
    """The error names the holder."""
    data = DataPlane("localhost", Sockets.inside(tmp_path), FakeEngine(tmp_path), lambda *_: None)
    data.claim(Owner("ap-1", "one"), ["egg"], [])
    with pytest.raises(ConflictError, match="one"):
        data.check_names(a_release("ap-2", tmp_path))
    await data.close(0)


async def test_a_deploy_whose_client_leaves_during_its_commit_ends_when_it_is_live(tmp_path: Path) -> None:
    """Not before: the next one of this app waits for it."""
    data = DataPlane("localhost", Sockets.inside(tmp_path), FakeEngine(tmp_path), lambda *_: None)
    committing, go_on = asyncio.Event(), asyncio.Event()

    async def commit() -> None:
        committing.set()
        await go_on.wait()

    rolling = asyncio.ensure_future(data.roll_out(a_release("ap-1", tmp_path), lambda _: None, commit))
    await committing.wait()
    rolling.cancel()
    await asyncio.wait([rolling], timeout=0.01)
    assert not rolling.done()
    go_on.set()
    await asyncio.wait([rolling])
    assert rolling.cancelled()
    assert list(await data.counts("ap-1")) == ["f"]
    await data.close(0)


def test_what_is_cancelled_over_the_bridge_has_ended_when_the_cancellation_returns() -> None:
    """On both loops."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    steps: list[str] = []

    async def there() -> None:
        steps.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            steps.append("ended there")

    async def here() -> None:
        running = asyncio.ensure_future(Bridge(loop).run(there()))
        while not steps:
            await asyncio.sleep(0.001)
        running.cancel()
        await asyncio.wait([running])
        steps.append("ended here")

    asyncio.run(here())
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    assert steps == ["begun", "ended there", "ended here"]


async def test_a_host_is_live_while_an_app_answers_there(tmp_path: Path) -> None:
    """By its label, by a custom domain, and below a wildcard; not before it comes up, and not once it is stopped."""
    data = DataPlane("localhost", Sockets.inside(tmp_path), FakeEngine(tmp_path), lambda *_: None)
    hosts = ["egg.localhost", "api.example.com", "a.wild.example.com"]
    others = ["ham.localhost", "example.com", "a.b.wild.example.com", "*.wild.example.com", "localhost", ""]
    data.claim(Owner("ap-1", "one"), ["egg", "api.example.com", "*.wild.example.com"], [])
    assert [data.is_live(host) for host in hosts] == [True] * 3
    data.set_domains(["api.example.com", "*.wild.example.com"])
    data.install(a_release("ap-1", tmp_path, "api.example.com", "*.wild.example.com"))
    assert [data.is_live(host) for host in hosts] == [True] * 3
    assert [host for host in others if data.is_live(host)] == []
    data.stop("ap-1")
    assert [host for host in hosts if data.is_live(host)] == []
    await data.close(0)


async def test_a_custom_domain_leads_to_its_function(tmp_path: Path) -> None:
    """While the app comes up those who ask wait."""
    data = DataPlane("localhost", Sockets.inside(tmp_path), FakeEngine(tmp_path, manual=True), lambda *_: None)
    early = ask(data.find("www.example.com"))
    data.set_domains(["*.example.com"])
    data.claim(Owner("ap-1", "one"), ["egg", "*.example.com"], [])
    data.claimed()
    waiting = ask(data.find("api.example.com"))
    data.install(a_release("ap-1", tmp_path, "*.example.com"))
    assert [asked.heard for asked in (early, waiting)] == [["moved", "moved"], ["moved"]]
    assert data.requested_at("api.example.com") is data.requested_at("egg.localhost") is not None
    assert isinstance(data.find("example.com"), Refusal)
    await data.close(0)


async def test_domains_follow_their_registration(tmp_path: Path) -> None:
    """An app that lives loses one that is removed, and has it again when it is registered again."""
    data = DataPlane("localhost", Sockets.inside(tmp_path), FakeEngine(tmp_path), lambda *_: None)
    data.claimed()
    data.set_domains(["*.example.com", "other.org"])
    data.install(a_release("ap-1", tmp_path, "api.example.com", "other.org"))
    assert data.domains("ap-1") == {"api.example.com": "f", "other.org": "f"}
    data.set_domains(["other.org"])
    assert data.domains("ap-1") == {"other.org": "f"}
    assert isinstance(data.find("api.example.com"), Refusal)
    data.set_domains(["api.example.com", "other.org"])
    assert [domain for domain, owner in data.domain_holders().items() if owner.app_id == "ap-1"] == [
        "other.org",
        "api.example.com",
    ]
    await data.close(0)


async def test_a_served_app_has_the_domains_that_no_deployed_app_has(tmp_path: Path) -> None:
    """It comes up all the same; and the deployed one takes what it wants, first or later."""
    data = DataPlane("localhost", Sockets.inside(tmp_path), FakeEngine(tmp_path), lambda *_: None)
    data.set_domains(["a.example.com", "b.example.com"])
    served = replace(a_release("ap-2", tmp_path, "a.example.com", "b.example.com"), ephemeral=True, labels={"f": "dev"})
    data.install(a_release("ap-1", tmp_path, "a.example.com"))
    assert data.check_names(served) == []
    data.install(served)
    assert (data.domains("ap-1"), data.domains("ap-2")) == ({"a.example.com": "f"}, {"b.example.com": "f"})
    later = a_release("ap-1", tmp_path, "a.example.com", "b.example.com")
    assert [owner.app_id for owner in data.check_names(later)] == ["ap-2"]
    data.install(later)
    assert (len(data.domains("ap-1")), data.domains("ap-2")) == (2, {})
    await data.close(0)


async def test_two_deployed_apps_cannot_have_one_domain(tmp_path: Path) -> None:
    """The error names the holder."""
    data = DataPlane("localhost", Sockets.inside(tmp_path), FakeEngine(tmp_path), lambda *_: None)
    data.set_domains(["a.example.com"])
    data.install(a_release("ap-1", tmp_path, "a.example.com"))
    with pytest.raises(ConflictError, match="app of ap-1"):
        data.check_names(replace(a_release("ap-2", tmp_path, "a.example.com"), labels={"f": "other"}))
    await data.close(0)


async def test_a_wildcard_leaves_the_machines_name_to_the_server(tmp_path: Path) -> None:
    """Who deploys from elsewhere may use it. The exact name is the app's."""
    sockets = Sockets.inside(tmp_path)
    data = DataPlane("localhost", sockets, FakeEngine(tmp_path), lambda *_: None, machine="web")
    data.set_domains(["*.example.com", "web.example.org"])
    data.install(a_release("ap-1", tmp_path, "*.example.com", "web.example.org"))
    assert data.find("web.example.com") is data.find("localhost")
    assert not data.is_live("web.example.com")
    assert [data.requested_at(host) is not None for host in ("www.example.com", "web.example.org")] == [True, True]
    await data.close(0)
