"""What every store must do, on real databases."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from portico.model.errors import ConflictError, NotFoundError, StateError
from portico.model.ports import ApiToken, AppRecord, DeploymentRecord, DomainRecord, EnvironmentRecord
from portico.model.spec import AppSpec, Bundle, EntrySpec, FileEntry, FunctionSpec
from portico.store.check import check_database
from portico.store.sql import SqlStore, open_store

BUNDLE = Bundle(files=(FileEntry(path="seed.py", digest="a" * 64, size=12),))


def an_app(id: str = "ap-1", name: str = "seed", environment: str = "main", created_at: float = 1.5) -> AppRecord:
    return AppRecord(id=id, name=name, environment=environment, created_at=created_at, stopped_at=None, current=1)


def a_deployment(version: int = 1, app_id: str = "ap-1", **more: object) -> DeploymentRecord:
    function = FunctionSpec(name="square", module="seed", qualname="square", env={"K": "\0é"}, serialized=b"\x00\xff")
    spec = AppSpec(name="seed", entry=EntrySpec(module="seed", path="seed.py"), functions=(function,))
    return DeploymentRecord(
        app_id=app_id, version=version, created_at=2.25, spec=spec, bundle=BUNDLE, digest="d" * 64, **more
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "portico.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqlStore]:
    store = await open_store(path)
    yield store
    await store.close()


async def test_a_recorded_version_comes_back_as_it_was(store: SqlStore) -> None:
    """Specifications, secrets' bytes and times survive the way through the database."""
    deployment = a_deployment(tag="v1.0", rollback_of=None)
    await store.record(app=an_app(), deployment=deployment)
    assert await store.history("ap-1") == [deployment]
    assert await store.apps("main") == [an_app()]


async def test_a_new_version_becomes_the_current_one(store: SqlStore) -> None:
    """`record` of an app that is there adds a version and moves `current`, and nothing else of the app."""
    await store.record(app=an_app(), deployment=a_deployment(1))
    await store.record(app=an_app(created_at=99.0), deployment=a_deployment(2))
    app = await store.app("seed", "main")
    assert app is not None
    assert (app.current, app.created_at) == (2, 1.5)
    assert [deployment.version for deployment in await store.history("ap-1")] == [2, 1]


async def test_a_rollback_is_a_version_of_its_own(store: SqlStore) -> None:
    """History only grows: going back to version 1 makes version 3."""
    for version in (1, 2):
        await store.record(app=an_app(), deployment=a_deployment(version))
    await store.record(app=an_app(), deployment=a_deployment(3, rollback_of=1))
    assert [(d.version, d.rollback_of) for d in await store.history("ap-1")] == [(3, 1), (2, None), (1, None)]


async def test_a_version_number_is_used_once(store: SqlStore) -> None:
    """A second version 1 is a conflict, and the current version stays what it was."""
    await store.record(app=an_app(), deployment=a_deployment(2))
    await store.record(app=an_app(), deployment=a_deployment(3))
    with pytest.raises(ConflictError, match="version 2"):
        await store.record(app=an_app(), deployment=a_deployment(2))
    app = await store.app("seed", "main")
    assert app is not None
    assert app.current == 3


async def test_apps_are_listed_the_newest_first_in_their_environment(store: SqlStore) -> None:
    """Stopped ones are listed too, other environments' are not."""
    await store.record(app=an_app("ap-1", "old", created_at=1.0), deployment=a_deployment(app_id="ap-1"))
    await store.record(app=an_app("ap-2", "new", created_at=2.0), deployment=a_deployment(app_id="ap-2"))
    await store.record(app=an_app("ap-3", "other", "staging"), deployment=a_deployment(app_id="ap-3"))
    await store.stop("ap-1", now=3.0)
    assert [(app.name, app.stopped_at) for app in await store.apps("main")] == [("new", None), ("old", 3.0)]


async def test_the_newest_app_of_a_name_is_found(store: SqlStore) -> None:
    """A name may be used again after its app was stopped."""
    await store.record(app=an_app("ap-1", created_at=1.0), deployment=a_deployment(app_id="ap-1"))
    await store.stop("ap-1", now=2.0)
    await store.record(app=an_app("ap-2", created_at=3.0), deployment=a_deployment(app_id="ap-2"))
    app = await store.app("seed", "main")
    assert app is not None
    assert app.id == "ap-2"
    assert await store.app("seed", "staging") is None


async def test_stopping_is_for_good(store: SqlStore) -> None:
    """A stopped app takes no new version, and a second stop changes nothing."""
    await store.record(app=an_app(), deployment=a_deployment())
    await store.stop("ap-1", now=5.0)
    await store.stop("ap-1", now=9.0)
    with pytest.raises(ConflictError, match="stopped"):
        await store.record(app=an_app(), deployment=a_deployment(2))
    app = await store.app("seed", "main")
    assert app is not None
    assert (app.stopped_at, app.current) == (5.0, 1)
    assert len(await store.history("ap-1")) == 1


async def test_stopping_an_unknown_app_is_an_error(store: SqlStore) -> None:
    """There is nothing to stop."""
    with pytest.raises(NotFoundError, match="ap-9"):
        await store.stop("ap-9", now=1.0)


async def test_the_database_opens_again_with_all_that_was_in_it(path: Path) -> None:
    """A store that was closed and opened has the same apps; its file is the user's alone."""
    first = await open_store(path)
    await first.record(app=an_app(), deployment=a_deployment())
    await first.close()
    second = await open_store(path)
    assert await second.history("ap-1") == [a_deployment()]
    await second.close()
    assert path.stat().st_mode & 0o777 == 0o600


WRITER = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_store import a_deployment, an_app, open_store

async def main():
    store = await open_store(Path(sys.argv[1]))
    version = 0
    while True:
        version += 1
        await store.record(app=an_app(), deployment=a_deployment(version))
        print(version, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("after", [1, 7, 30])
async def test_a_killed_server_leaves_its_last_good_state(path: Path, after: int) -> None:
    """What `record` had returned for is there after SIGKILL, and versions have no holes."""
    argv = [sys.executable, "-c", WRITER, str(path), str(Path(__file__).parent)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        told = [int(next(writer.stdout)) for _ in range(after)]
        os.kill(writer.pid, signal.SIGKILL)
        told += [int(line) for line in writer.stdout]
    check_database(path)
    store = await open_store(path)
    versions = [deployment.version for deployment in await store.history("ap-1")]
    app = await store.app("seed", "main")
    await store.close()
    assert app is not None
    assert app.current == versions[0] >= told[-1]
    assert versions == list(range(versions[0], 0, -1))


async def test_a_broken_database_is_refused_and_left_alone(path: Path) -> None:
    """A file with rubbish in its middle is named in the error, and keeps every byte."""
    store = await open_store(path)
    for version in range(1, 60):
        await store.record(app=an_app(), deployment=a_deployment(version))
    await store.close()
    with open(path, "r+b") as file:
        file.seek(8192)
        file.write(b"\xa5" * 8192)
    before = path.read_bytes()
    with pytest.raises(StateError, match=str(path)) as caught:
        await open_store(path)
    assert "never overwrites" in str(caught.value.hint)
    assert path.read_bytes() == before


async def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    """Whatever it is, it is not ours to overwrite."""
    path.write_text("my notes\n" * 100)
    with pytest.raises(StateError, match="is not a database"):
        await open_store(path)
    assert path.read_text() == "my notes\n" * 100


async def test_another_programs_database_is_refused_and_left_alone(path: Path) -> None:
    """A healthy SQLite file without our schema gets no tables of ours."""
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(StateError, match="not one of Portico's"):
        await open_store(path)
    assert path.read_bytes() == before


async def test_a_newer_schema_is_refused(path: Path) -> None:
    """An older Portico does not touch what a newer one has migrated."""
    await (await open_store(path)).close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    with pytest.raises(StateError, match=r"newer version of Portico .*9999"):
        await open_store(path)


async def test_a_failure_of_the_database_is_a_state_error(store: SqlStore, path: Path) -> None:
    """When a table is gone under the store, the error names the file."""
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE deployments")
    database.close()
    with pytest.raises(StateError, match=str(path)):
        await store.history("ap-1")


def an_environment(name: str = "staging", web_suffix: str = "staging", created_at: float = 9e9) -> EnvironmentRecord:
    return EnvironmentRecord(name=name, web_suffix=web_suffix, created_at=created_at)


async def test_a_new_store_has_the_main_environment(store: SqlStore) -> None:
    """Its web suffix is empty, so its URLs begin with the workspace alone."""
    assert [(e.name, e.web_suffix) for e in await store.environments.all()] == [("main", "")]


async def test_environments_are_kept_the_oldest_first(store: SqlStore) -> None:
    """What was created comes back as it was, behind `main`."""
    await store.environments.create(an_environment())
    assert (await store.environments.all())[1:] == [an_environment()]


@pytest.mark.parametrize(
    ("name", "suffix", "said"),
    [("staging", "other", "an environment 'staging' already"), ("other", "staging", "'staging' has the web suffix")],
)
async def test_environments_share_neither_name_nor_suffix(store: SqlStore, name: str, suffix: str, said: str) -> None:
    """The error says what is taken, and by whom; also for `main` and the empty suffix."""
    await store.environments.create(an_environment())
    with pytest.raises(ConflictError, match=said):
        await store.environments.create(an_environment(name, suffix))
    with pytest.raises(ConflictError, match="'main' has the web suffix ''"):
        await store.environments.change("staging", an_environment(web_suffix=""))


async def test_a_renamed_environment_keeps_its_apps(store: SqlStore) -> None:
    """They are found under the new name, and no longer under the old one."""
    await store.environments.create(an_environment())
    await store.record(app=an_app(environment="staging"), deployment=a_deployment())
    await store.environments.change("staging", an_environment("prod", "p"))
    assert [(e.name, e.web_suffix) for e in await store.environments.all()] == [("main", ""), ("prod", "p")]
    assert [app.id for app in await store.apps("prod")] == ["ap-1"]
    assert await store.apps("staging") == []


async def test_an_environment_with_living_apps_stays(store: SqlStore) -> None:
    """Deleting it fails and changes nothing; once its apps are stopped, it goes with their versions."""
    await store.environments.create(an_environment())
    await store.record(app=an_app(environment="staging"), deployment=a_deployment())
    with pytest.raises(ConflictError, match="'seed' lives in the environment 'staging'"):
        await store.environments.delete("staging")
    assert len(await store.environments.all()) == 2
    await store.stop("ap-1", now=2.0)
    await store.environments.delete("staging")
    assert [e.name for e in await store.environments.all()] == ["main"]
    assert await store.apps("staging") == []
    assert await store.history("ap-1") == []


async def test_unknown_environments_are_not_changed_or_deleted(store: SqlStore) -> None:
    """The error names them."""
    with pytest.raises(NotFoundError, match="'nothing'"):
        await store.environments.change("nothing", an_environment())
    with pytest.raises(NotFoundError, match="'nothing'"):
        await store.environments.delete("nothing")


def a_token(id: str = "ak-1", environment: str | None = None, created_at: float = 1.0) -> ApiToken:
    return ApiToken(id=id, name="jo", digest="d" * 64, environment=environment, created_at=created_at, expires_at=9.0)


async def test_tokens_are_kept_until_they_are_revoked(store: SqlStore) -> None:
    """The oldest first, with when they were used last."""
    await store.api_tokens.create(a_token("ak-2", created_at=2.0))
    await store.api_tokens.create(a_token())
    await store.api_tokens.used("ak-2", 5.5)
    assert await store.api_tokens.all() == [a_token(), replace(a_token("ak-2", created_at=2.0), last_used_at=5.5)]
    await store.api_tokens.delete("ak-1")
    assert [token.id for token in await store.api_tokens.all()] == ["ak-2"]


async def test_a_token_for_an_environment_goes_where_it_goes(store: SqlStore) -> None:
    """It follows a new name, and is gone with the environment."""
    await store.environments.create(an_environment())
    await store.api_tokens.create(a_token("ak-1", "staging"))
    await store.api_tokens.create(a_token("ak-2"))
    await store.environments.change("staging", an_environment("prod"))
    assert [token.environment for token in await store.api_tokens.all()] == ["prod", None]
    await store.environments.delete("prod")
    assert [token.id for token in await store.api_tokens.all()] == ["ak-2"]


async def test_domains_are_kept_by_name(path: Path) -> None:
    """Once each, with the last news of a certificate, also after a restart; until they are removed."""
    store = await open_store(path)
    wild = DomainRecord(name="*.example.com", created_at=1.5, created_by="jo")
    await store.domains.add(DomainRecord(name="api.example.com", created_at=2.5, created_by="token ci"))
    await store.domains.add(wild)
    with pytest.raises(ConflictError, match=r"\*.example.com is registered already"):
        await store.domains.add(wild)
    await store.domains.set_certificate("*.example.com", "failed", "a.example.com: no address", 3.5)
    await store.close()
    store = await open_store(path)
    told = {"certificate_state": "failed", "certificate_detail": "a.example.com: no address", "certificate_at": 3.5}
    kept = await store.domains.all()
    assert [domain.name for domain in kept] == ["*.example.com", "api.example.com"]
    assert kept[0] == replace(wild, **told)
    assert [await store.domains.remove("api.example.com") for _ in range(2)] == [True, False]
    assert await store.domains.all() == kept[:1]
    await store.close()
