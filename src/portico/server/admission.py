"""Who may call endpoints, and how much: proxy tokens and settings, on the control plane's loop.

The data path has all of it in memory; what changes here is told there before the change is answered.
"""

from __future__ import annotations

import asyncio
import secrets
import string
import time
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Final

from portico.core.tokens import ProxyToken
from portico.model.errors import InvalidError, NotFoundError
from portico.model.naming import check_environment, check_object_name
from portico.model.policy import DEFAULT_MAX_BODY, Policies, Scope, Setting, check_value, parse_rate
from portico.model.ports import ProxyTokenRecord, Store
from portico.model.spec import FunctionSpec
from portico.server.dataplane import Bridge, DataPlane
from portico.server.environments import Environments
from portico.wire.control import (
    NewProxyToken,
    ProxyTokenInfo,
    ProxyTokenList,
    ProxyTokenRequest,
    SettingInfo,
    SettingList,
)

_ALPHABET: Final = string.ascii_letters + string.digits
_LENGTH: Final = 22
_MAX_LIFETIME: Final = 100 * 365 * 86400.0  # seconds
_MAX_SCOPES: Final = 1000


class AdmissionControl:
    """Implements `api.services.AdmissionService`. `rate_limit` is the workspace's where none is set."""

    def __init__(
        self,
        rate_limit: float | None,
        *,
        store: Callable[[], Awaitable[Store]],
        environments: Environments,
        data: DataPlane,
        bridge: Bridge,
    ) -> None:
        self._rate_limit = rate_limit
        self._store = store
        self._environments = environments
        self._data = data
        self._bridge = bridge
        self._policies = Policies()
        self._order = asyncio.Lock()  # what is stored last is what the data path hears last

    async def load(self) -> None:
        """Have the data path know what is stored; before the first route, and when an environment has changed."""
        async with self._order:
            records = await (await self._store()).admission.tokens()
            tokens = [(_token(record), record.rate_limit) for record in records]
            await self._bridge.call(self._data.set_tokens, tokens)
            await self._tell_policies()

    async def save(self) -> None:
        """Store when tokens were last used."""
        used = await self._bridge.run(self._data.used_tokens())
        if used:
            await (await self._store()).admission.used(used)

    def protects(self, endpoint: Scope, function: FunctionSpec) -> bool:
        """Whether a request to this endpoint needs a proxy token, by its code or by a setting."""
        in_code = function.web is not None and function.web.requires_proxy_auth
        return in_code or self._policies.requires_proxy_auth(endpoint)

    # -- settings -------------------------------------------------------------------------------------------------
    async def settings(self) -> SettingList:
        """All that is set."""
        found = await (await self._store()).admission.policies()
        return SettingList(
            [
                SettingInfo(
                    setting=policy.setting.value,
                    value=policy.value,
                    environment=policy.scope.environment or None,
                    app=policy.scope.app or None,
                    function=policy.scope.function or None,
                )
                for policy in found
            ],
            defaults={
                Setting.REQUIRE_PROXY_AUTH.value: "off",
                Setting.RATE_LIMIT.value: "off" if self._rate_limit is None else f"{self._rate_limit:g}",
                Setting.MAX_BODY.value: str(DEFAULT_MAX_BODY),
            },
        )

    async def change_setting(self, change: SettingInfo) -> SettingList:
        """Set one, or unset it; it holds for all requests from now on."""
        setting, scope = _setting(change.setting), _scope(change)
        value = None if change.value is None else check_value(setting, change.value)
        if value is not None and scope.environment:
            await self._environments.find(scope.environment)
        async with self._order:
            await (await self._store()).admission.set_policy(scope, setting, value)
            await self._tell_policies()
        return await self.settings()

    async def _tell_policies(self) -> None:
        self._policies = Policies(await (await self._store()).admission.policies())
        await self._bridge.call(self._data.set_policies, self._policies)

    # -- proxy tokens ---------------------------------------------------------------------------------------------
    async def proxy_tokens(self) -> ProxyTokenList:
        """All of them, the oldest first, and when they were last used."""
        await self.save()
        return ProxyTokenList([_info(record) for record in await (await self._store()).admission.tokens()])

    async def create_proxy_token(self, request: ProxyTokenRequest) -> NewProxyToken:
        """A new one; its secret is told this once."""
        _check(request)
        for environment in request.environments:
            await self._environments.find(environment)
        now = time.time()
        new = NewProxyToken(id=f"wk-{_random()}", secret=f"ws-{_random()}")
        record = ProxyTokenRecord(
            id=new.id,
            digest=sha256(new.secret.encode()).hexdigest(),
            created_at=now,
            expires_at=None if request.expires_in is None else now + request.expires_in,
            environments=tuple(request.environments),
            endpoints=tuple(request.endpoints),
            rate_limit=request.rate_limit,
        )
        async with self._order:
            await (await self._store()).admission.add_token(record)
            await self._bridge.call(self._data.put_token, _token(record), record.rate_limit)
        return new

    async def revoke_proxy_token(self, token_id: str) -> None:
        """It opens nothing from now on."""
        async with self._order:
            found = await (await self._store()).admission.remove_token(token_id)
            await self._bridge.call(self._data.remove_token, token_id)
        if not found:
            raise NotFoundError(
                f"There is no proxy token {token_id!r}.", hint="portico proxy-token list shows those that there are."
            )


def _setting(name: str) -> Setting:
    try:
        return Setting(name)
    except ValueError:
        raise InvalidError(f"There is no setting {name!r}.", hint=f"There are {', '.join(Setting)}.") from None


def _scope(change: SettingInfo) -> Scope:
    """What the change is about; a narrower level needs all wider ones."""
    if (change.function and not change.app) or (change.app and not change.environment):
        raise InvalidError("A function is named with its app, and an app with its environment.")
    return Scope(
        check_environment(change.environment) if change.environment else "",
        check_object_name(change.app, "app") if change.app else "",
        change.function[:128] if change.function else "",
    )


def _check(request: ProxyTokenRequest) -> None:
    if request.expires_in is not None and not 0 < request.expires_in <= _MAX_LIFETIME:
        raise InvalidError("A proxy token lives for more than no time, and for at most 100 years.")
    if len(request.environments) + len(request.endpoints) > _MAX_SCOPES:
        raise InvalidError(f"A proxy token names at most {_MAX_SCOPES:,} environments and endpoints.")
    if request.rate_limit is not None:
        parse_rate(str(request.rate_limit), "The rate limit of a proxy token")
    for environment in request.environments:
        check_environment(environment)
    for endpoint in request.endpoints:
        app, slash, function = endpoint.partition("/")
        check_object_name(app, "app")
        if slash and (not function or "/" in function):
            raise InvalidError(f"Not an endpoint: {endpoint!r}.", hint="Write APP/FUNCTION, or APP for all of an app.")


def _random() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))


def _token(record: ProxyTokenRecord) -> ProxyToken:
    return ProxyToken(
        record.id,
        bytes.fromhex(record.digest),
        record.expires_at,
        frozenset(record.environments),
        frozenset(record.endpoints),
    )


def _info(record: ProxyTokenRecord) -> ProxyTokenInfo:
    return ProxyTokenInfo(
        id=record.id,
        created_at=record.created_at,
        expires_at=record.expires_at,
        last_used_at=record.last_used_at,
        environments=list(record.environments),
        endpoints=list(record.endpoints),
        rate_limit=record.rate_limit,
    )
