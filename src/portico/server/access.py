"""Who may use the control API from other machines: its tokens. On the control plane's loop."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import string
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from typing import Final

from portico.model.errors import AuthError, InvalidError, NotFoundError
from portico.model.naming import check_object_name
from portico.model.ports import ApiToken, Store
from portico.server.environments import Environments
from portico.wire.control import NewToken, TokenInfo, TokenSecret

log = logging.getLogger("portico.access")

_ALPHABET: Final = string.ascii_letters + string.digits
_NOTE_EVERY: Final = 60.0  # seconds between two notes in the store that a token was used
_NOBODY: Final = ApiToken(id="", name="", digest="0" * 64, environment=None, created_at=0.0)
_HINT: Final = "Make a token with `portico token new` on the server's machine, and set it here: `portico token set`."


class Access:
    """The tokens that are valid, and what runs on behalf of each."""

    def __init__(self, store: Callable[[], Awaitable[Store]], environments: Environments) -> None:
        self._store = store
        self._environments = environments
        self._known: dict[str, ApiToken] | None = None
        self._noted: dict[str, float] = {}
        self._running: dict[str, set[asyncio.Task[object]]] = {}
        self._notes: set[asyncio.Task[None]] = set()

    async def admit(self, authorization: str) -> TokenInfo:
        """The token in this header; AuthError where it has none that is valid."""
        scheme, _, pair = authorization.partition(" ")
        token_id, _, secret = pair.strip().partition(".")
        if scheme.lower() != "bearer" or not token_id or not secret:
            raise AuthError("This server's control API asks for a token.", hint=_HINT)
        token = (await self._load()).get(token_id, _NOBODY)
        same = hmac.compare_digest(sha256(secret.encode()).hexdigest(), token.digest)
        now = time.time()
        if not same or token is _NOBODY or (token.expires_at is not None and token.expires_at <= now):
            raise AuthError("The token is not valid here: unknown, revoked or expired.", hint=_HINT)
        self._note(token, now)
        return _info(token)

    @contextmanager
    def using(self, token_id: str) -> Iterator[None]:
        """The current task runs on behalf of this token: it is cancelled when the token is revoked."""
        task = asyncio.current_task()
        assert task is not None
        tasks = self._running.setdefault(token_id, set())
        tasks.add(task)
        try:
            yield
        finally:
            tasks.discard(task)
            if not tasks and self._running.get(token_id) is tasks:
                del self._running[token_id]

    # -- for its API ----------------------------------------------------------------------------------------------
    async def tokens(self) -> list[TokenInfo]:
        """All that have not been revoked, the oldest first."""
        return [_info(token) for token in (await self._load()).values()]

    async def create_token(self, wanted: NewToken) -> TokenSecret:
        """One more; its secret is known only now."""
        check_object_name(wanted.name, "token")
        if wanted.environment is not None:
            await self._environments.find(wanted.environment)
        now = time.time()
        if wanted.expires_in is not None and not 0 < wanted.expires_in < 1e10:
            raise InvalidError("A token expires after a number of seconds that is more than 0.")
        secret = f"as-{secrets.token_urlsafe(32)}"
        token = ApiToken(
            id=f"ak-{''.join(secrets.choice(_ALPHABET) for _ in range(22))}",
            name=wanted.name,
            digest=sha256(secret.encode()).hexdigest(),
            environment=wanted.environment,
            created_at=now,
            expires_at=None if wanted.expires_in is None else now + wanted.expires_in,
        )
        known = await self._load()
        await (await self._store()).api_tokens.create(token)
        known[token.id] = token
        return TokenSecret(id=token.id, secret=secret, name=token.name, environment=token.environment)

    async def revoke_token(self, ref: str) -> TokenInfo:
        """By id or name. It is valid no longer, and what runs on its behalf ends."""
        known = await self._load()
        found = [token for token in known.values() if ref in (token.id, token.name)]
        if not found:
            raise NotFoundError(f"There is no token {ref!r}.", hint="See `portico token list`.")
        if len(found) > 1:
            raise InvalidError(f"{len(found)} tokens are named {ref!r}.", hint="Name its id: see `portico token list`.")
        token = known.pop(found[0].id)
        for task in self._running.pop(token.id, ()):
            task.cancel()
        await (await self._store()).api_tokens.delete(token.id)
        return _info(token)

    def environment_changed(self, name: str, target: str | None) -> None:
        """An environment has another name, or is gone: so are the tokens that are for it alone."""
        known = self._known or {}
        for token in [token for token in known.values() if token.environment == name]:
            if target is None:
                del known[token.id]
                for task in self._running.pop(token.id, ()):
                    task.cancel()
            else:
                known[token.id] = replace(token, environment=target)

    # -- inside ---------------------------------------------------------------------------------------------------
    async def _load(self) -> dict[str, ApiToken]:
        if self._known is None:
            found = await (await self._store()).api_tokens.all()
            if self._known is None:
                self._known = {token.id: token for token in found}
        return self._known

    def _note(self, token: ApiToken, now: float) -> None:
        """It was used; the store hears of it now and then, and the request does not wait for that."""
        assert self._known is not None
        self._known[token.id] = replace(token, last_used_at=now)
        if now - self._noted.get(token.id, 0.0) >= _NOTE_EVERY:
            self._noted[token.id] = now
            note = asyncio.ensure_future(self._write_note(token.id, now))
            self._notes.add(note)
            note.add_done_callback(self._notes.discard)

    async def _write_note(self, token_id: str, now: float) -> None:
        try:
            await (await self._store()).api_tokens.used(token_id, now)
        except Exception:
            log.exception("the use of the token %s could not be noted", token_id)


def _info(token: ApiToken) -> TokenInfo:
    return TokenInfo(
        id=token.id,
        name=token.name,
        environment=token.environment,
        created_at=token.created_at,
        expires_at=token.expires_at,
        last_used_at=token.last_used_at,
    )
