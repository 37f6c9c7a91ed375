"""Tokens of the control API: who gets in, and until when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import pytest

from portico.model.errors import AuthError, InvalidError, NotFoundError
from portico.server.access import Access
from portico.server.environments import Environments
from portico.store.sql import SqlStore, open_store
from portico.wire.control import NewToken, TokenSecret


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    store = await open_store(tmp_path / "portico.db")
    yield store
    await store.close()


@pytest.fixture
def access(store: SqlStore) -> Access:
    return fresh(store)


def fresh(store: SqlStore) -> Access:
    """As after a restart."""

    async def opened() -> SqlStore:
        return store

    return Access(opened, Environments("acme", opened))


def bearer(token: TokenSecret) -> str:
    return f"Bearer {token.id}.{token.secret}"


async def test_a_token_gets_in_also_after_a_restart(access: Access, store: SqlStore) -> None:
    """What is stored is a hash of its secret."""
    token = await access.create_token(NewToken(name="jo"))
    assert (await access.admit(bearer(token))).id == token.id
    assert (await fresh(store).admit(bearer(token))).name == "jo"
    (kept,) = await store.api_tokens.all()
    assert kept.digest == sha256(token.secret.encode()).hexdigest()
    assert token.secret not in repr(kept)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer {id}",
        "Bearer {id}.",
        "Bearer .{secret}",
        "Bearer {id}.x",
        "Bearer ak-x.{secret}",
        "Basic {id}.{secret}",
        "{id}.{secret}",
        "Bearer {secret}.{id}",
        "Bearer {id}.{secret}x",
        "Bearer {id} {secret}",
    ],
)
async def test_whatever_is_no_token_stays_out(access: Access, header: str) -> None:
    """The error says how to get one, and not what was wrong with this one."""
    token = await access.create_token(NewToken(name="jo"))
    with pytest.raises(AuthError) as caught:
        await access.admit(header.format(id=token.id, secret=token.secret))
    assert "portico token set" in (caught.value.hint or "")


async def test_a_revoked_token_stays_out_and_its_work_ends(access: Access, store: SqlStore) -> None:
    """At once, and for good; others go on."""
    token, other = [await access.create_token(NewToken(name=name)) for name in ("jo", "al")]
    begun = asyncio.Event()

    async def work(token_id: str) -> None:
        with access.using(token_id):
            begun.set()
            await asyncio.sleep(60)

    tasks = [asyncio.create_task(work(one.id)) for one in (token, other)]
    await begun.wait()
    await access.revoke_token("jo")
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    assert not tasks[1].done()
    tasks[1].cancel()
    for known in (access, fresh(store)):
        with pytest.raises(AuthError):
            await known.admit(bearer(token))
        assert (await known.admit(bearer(other))).name == "al"


async def test_a_token_expires(access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    """From that second on it is like one that was revoked."""
    token = await access.create_token(NewToken(name="jo", expires_in=60.0))
    await access.admit(bearer(token))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61.0)
    with pytest.raises(AuthError, match="expired"):
        await access.admit(bearer(token))


async def test_its_last_use_is_remembered(access: Access, store: SqlStore) -> None:
    """By the server at once, by the store soon."""
    token = await access.create_token(NewToken(name="jo"))
    assert (await access.tokens())[0].last_used_at is None
    await access.admit(bearer(token))
    assert (await access.tokens())[0].last_used_at == pytest.approx(time.time(), abs=60)
    while (await store.api_tokens.all())[0].last_used_at is None:
        await asyncio.sleep(0)


async def test_two_tokens_of_one_name_are_revoked_by_id(access: Access) -> None:
    """The name alone would be a guess."""
    one, _ = [await access.create_token(NewToken(name="jo")) for _ in range(2)]
    with pytest.raises(InvalidError, match="2 tokens are named 'jo'"):
        await access.revoke_token("jo")
    assert (await access.revoke_token(one.id)).id == one.id
    with pytest.raises(NotFoundError, match="'nobody'"):
        await access.revoke_token("nobody")


async def test_a_token_is_for_an_environment_that_is_there(access: Access) -> None:
    """Others are refused when it is made, and so are names and times that make no sense."""
    with pytest.raises(NotFoundError, match="'staging'"):
        await access.create_token(NewToken(name="jo", environment="staging"))
    with pytest.raises(InvalidError, match="token name"):
        await access.create_token(NewToken(name="a b"))
    with pytest.raises(InvalidError, match="more than 0"):
        await access.create_token(NewToken(name="jo", expires_in=-1.0))
