"""Secrets, proxy tokens and settings in the store, and what lies sealed in its file."""

from __future__ import annotations

import base64
import os
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.contract.test_store import a_deployment, an_app

from portico.model.errors import ConflictError, StateError
from portico.model.policy import Policy, Scope, Setting
from portico.model.ports import EnvironmentRecord, ProxyTokenRecord, SecretRecord
from portico.model.spec import AppSpec, Bundle, EntrySpec, FunctionSpec, SecretSpec
from portico.store.sql import SqlStore, open_store
from portico.wire import spec as wire

KEY = SecretRecord(environment="main", name="aws", created_at=1.0, updated_at=1.0)
TOKEN = ProxyTokenRecord(
    id="wk-1", digest="d" * 64, created_at=1.0, environments=("dev", "main"), endpoints=("seed/f",)
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "portico.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqlStore]:
    store = await open_store(path)
    yield store
    await store.close()


def a_secretive_deployment(version: int = 1):
    """A version whose code has a value of its own."""
    function = FunctionSpec(
        name="f", module="m", qualname="f", secrets=(SecretSpec(values={"K": "hidden-1"}),), env={"E": "hidden-2"}
    )
    spec = AppSpec(name="seed", entry=EntrySpec(module="m"), functions=(function,))
    return replace(a_deployment(version), spec=spec, digest="hidden-3".ljust(64))


async def test_a_secret_comes_back_as_it_was(store: SqlStore) -> None:
    """With its times; in its environment only."""
    await store.secrets.write(KEY, {"A": "é\n", "B": ""}, replace=False)
    assert await store.secrets.read("main", "aws") == (KEY, {"A": "é\n", "B": ""})
    assert await store.secrets.read("dev", "aws") is None
    assert await store.secrets.all("main") == [KEY]
    assert await store.secrets.all("dev") == []


async def test_a_secret_is_replaced_when_that_is_meant(store: SqlStore) -> None:
    """It loses what it had, and keeps its time of creation."""
    await store.secrets.write(KEY, {"A": "1"}, replace=True)
    with pytest.raises(ConflictError, match="aws"):
        await store.secrets.write(KEY, {"B": "2"}, replace=False)
    later = replace(KEY, created_at=9.0, updated_at=9.0)
    await store.secrets.write(later, {"B": "2"}, replace=True)
    assert await store.secrets.read("main", "aws") == (replace(KEY, updated_at=9.0), {"B": "2"})
    assert await store.secrets.delete("main", "aws")
    assert not await store.secrets.delete("main", "aws")


async def test_values_are_in_no_file(store: SqlStore, path: Path) -> None:
    """Neither those of secrets nor what apps say, also not what it hashes to."""
    await store.secrets.write(KEY, {"A": "hidden-0"}, replace=False)
    await store.record(app=an_app(), deployment=a_secretive_deployment())
    assert await store.history("ap-1") == [a_secretive_deployment()]
    for file in path.parent.iterdir():
        assert b"hidden-" not in file.read_bytes()


async def test_what_was_stored_in_clear_is_sealed_and_overwritten(path: Path) -> None:
    """A database of an earlier version, opened once."""
    store = await open_store(path)
    await store.record(app=an_app(), deployment=a_secretive_deployment())
    await store.close()
    clear = a_secretive_deployment()
    with sqlite3.connect(path) as database:
        document = wire.encode(clear.spec, Bundle()).decode()
        database.execute("UPDATE deployments SET document = ?, digest = ?", (document, clear.digest))
        database.execute("DELETE FROM proofs")
    database.close()
    os.unlink(path.parent / "secret.key")
    assert b"hidden-1" in path.read_bytes()
    store = await open_store(path)
    assert await store.history("ap-1") == [replace(clear, bundle=Bundle())]
    await store.close()
    for file in path.parent.iterdir():
        assert b"hidden-" not in file.read_bytes()


async def test_a_sealed_entry_opens_in_its_own_row_only(path: Path) -> None:
    """Whoever can write to the file cannot give one secret the values of another."""
    store = await open_store(path)
    for name in ("aws", "gcp"):
        await store.secrets.write(replace(KEY, name=name), {"A": name}, replace=False)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE secrets SET variables = (SELECT variables FROM secrets WHERE name = 'gcp')")
    database.close()
    assert (await store.secrets.read("main", "gcp") or (None, {}))[1] == {"A": "gcp"}
    with pytest.raises(StateError, match="secrets variables main aws"):
        await store.secrets.read("main", "aws")
    await store.close()


@pytest.mark.parametrize("tampered", ["", "x", "====", "AAAA"])
async def test_a_damaged_entry_is_an_error(store: SqlStore, path: Path, tampered: str) -> None:
    """Not a traceback."""
    await store.secrets.write(KEY, {"A": "1"}, replace=False)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE secrets SET variables = ?", (tampered,))
    database.close()
    with pytest.raises(StateError):
        await store.secrets.read("main", "aws")


async def test_the_key_is_made_once_and_is_the_users_alone(path: Path) -> None:
    """32 bytes in base64."""
    await (await open_store(path)).close()
    key = path.parent / "secret.key"
    before = key.read_bytes()
    assert key.stat().st_mode & 0o777 == 0o600
    assert len(base64.b64decode(before)) == 32
    await (await open_store(path)).close()
    assert key.read_bytes() == before


async def test_another_key_is_refused(path: Path) -> None:
    """So is none; and neither leaves a new one behind."""
    await (await open_store(path)).close()
    other = base64.b64encode(bytes(32)).decode()
    with pytest.raises(StateError, match="another secret key"):
        await open_store(path, other)
    key = path.parent / "secret.key"
    kept = key.read_text()
    key.unlink()
    with pytest.raises(StateError, match="is gone"):
        await open_store(path)
    assert not key.exists()
    await (await open_store(path, kept)).close()


@pytest.mark.parametrize(
    ("text", "mode", "said"), [("short", 0o600, "is not a key"), ("é", 0o600, "is not a key"), (None, 0o644, "Others")]
)
async def test_a_bad_key_file_is_refused(path: Path, text: str | None, mode: int, said: str) -> None:
    """With what to do about it."""
    await (await open_store(path)).close()
    key = path.parent / "secret.key"
    if text is not None:
        key.write_text(text)
    key.chmod(mode)
    with pytest.raises(StateError, match=said) as caught:
        await open_store(path)
    assert caught.value.hint


async def test_an_environment_takes_its_secrets_settings_and_tokens_along(store: SqlStore) -> None:
    """When it is renamed. When it is deleted, its secrets and settings go, and what opens nothing else."""
    await store.environments.create(EnvironmentRecord(name="dev", web_suffix="dev", created_at=1.0))
    await store.secrets.write(replace(KEY, environment="dev"), {"A": "1"}, replace=False)
    await store.admission.add_token(TOKEN)
    await store.admission.set_policy(Scope("dev"), Setting.RATE_LIMIT, "5")
    await store.environments.change("dev", EnvironmentRecord(name="test", web_suffix="dev", created_at=1.0))
    assert (await store.secrets.read("test", "aws") or (None, {}))[1] == {"A": "1"}
    assert await store.secrets.all("dev") == []
    assert await store.admission.policies() == [Policy(Scope("test"), Setting.RATE_LIMIT, "5")]
    assert await store.admission.tokens() == [replace(TOKEN, environments=("test", "main"))]
    await store.environments.delete("test")
    assert await store.secrets.all("test") == []
    assert await store.admission.policies() == []
    assert await store.admission.tokens() == [replace(TOKEN, environments=("main",))]
    await store.environments.create(EnvironmentRecord(name="test", web_suffix="test", created_at=2.0))
    await store.admission.add_token(replace(TOKEN, id="wk-2", environments=("test",)))
    await store.environments.delete("test")
    assert [token.id for token in await store.admission.tokens()] == ["wk-1"]


async def test_proxy_tokens_are_kept(store: SqlStore) -> None:
    """With their scopes and times; a removed one is gone."""
    await store.admission.add_token(TOKEN)
    await store.admission.used({"wk-1": 7.5, "wk-gone": 8.0})
    assert await store.admission.tokens() == [replace(TOKEN, last_used_at=7.5)]
    assert await store.admission.remove_token("wk-1")
    assert not await store.admission.remove_token("wk-1")
    assert await store.admission.tokens() == []


async def test_settings_are_kept(store: SqlStore) -> None:
    """One value for each setting and scope, the widest first; None unsets it."""
    for scope, value in ((Scope("main", "seed"), "10"), (Scope(), "20"), (Scope(), "30")):
        await store.admission.set_policy(scope, Setting.RATE_LIMIT, value)
    wide, narrow = Policy(Scope(), Setting.RATE_LIMIT, "30"), Policy(Scope("main", "seed"), Setting.RATE_LIMIT, "10")
    assert await store.admission.policies() == [wide, narrow]
    await store.admission.set_policy(Scope(), Setting.RATE_LIMIT, None)
    assert await store.admission.policies() == [narrow]
