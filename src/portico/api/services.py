"""What the control API asks of the server; `server/` implements it. Each raises the errors of `model.errors`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from portico.wire.control import (
    AppInfo,
    DeployRequest,
    EphemeralRequest,
    Event,
    History,
    LogLine,
    NewProxyToken,
    ProxyTokenList,
    ProxyTokenRequest,
    RollbackRequest,
    SecretInfo,
    SecretList,
    SecretRequest,
    ServerInfo,
    SettingInfo,
    SettingList,
)


class ServerService(Protocol):
    """The server itself."""

    def info(self) -> ServerInfo:
        """Who answers."""

    def stop(self) -> None:
        """Begin to end the server; returns at once."""


class AppService(Protocol):
    """Deployed and ephemeral apps. `ref` is a name or an app id."""

    async def apps(self) -> list[AppInfo]:
        """All apps, the newest first, stopped ones too."""

    async def app(self, ref: str) -> AppInfo:
        """One app; a living one before a stopped one of the same name."""

    async def stop_app(self, ref: str) -> AppInfo:
        """Stop it for good."""

    async def history(self, ref: str) -> History:
        """Its versions."""

    def rollback(self, ref: str, request: RollbackRequest) -> AsyncIterator[Event]:
        """Events until Deployed; raises where it fails."""

    def logs(self, ref: str, *, follow: bool, tail: int, function: str | None) -> AsyncIterator[LogLine]:
        """The last `tail` lines, then, with `follow`, what comes until the app ends."""


class DeployService(Protocol):
    """What brings apps up."""

    def deploy(self, request: DeployRequest) -> AsyncIterator[Event]:
        """Events until Deployed; raises where it fails. Closing the iterator early abandons the deploy."""

    def ephemeral(self, request: EphemeralRequest) -> AsyncIterator[Event]:
        """Events for as long as the app lives; closing the iterator ends the app."""

    def hold(self, app_id: str) -> None:
        """New requests to this ephemeral app wait."""

    def release(self, app_id: str) -> None:
        """They wait no longer; the last good version answers them."""

    def reload(self, app_id: str, request: DeployRequest) -> AsyncIterator[Event]:
        """Replace its code. Events until Deployed; raises where it fails, and the last good version answers again."""


class SecretService(Protocol):
    """The secrets of an environment."""

    async def secrets(self, environment: str) -> SecretList:
        """All of them, by name."""

    async def write_secret(self, environment: str, name: str, request: SecretRequest) -> SecretInfo:
        """Keep it; ConflictError where there is one already, unless it is to be replaced."""

    async def delete_secret(self, environment: str, name: str) -> None:
        """Forget it; NotFoundError where there is none."""


class AccessService(Protocol):
    """Who may call endpoints, and how much."""

    async def settings(self) -> SettingList:
        """All that is set."""

    async def change_setting(self, change: SettingInfo) -> SettingList:
        """Set one, or unset it; it holds for all requests from now on."""

    async def proxy_tokens(self) -> ProxyTokenList:
        """All of them, the oldest first."""

    async def create_proxy_token(self, request: ProxyTokenRequest) -> NewProxyToken:
        """A new one."""

    async def revoke_proxy_token(self, token_id: str) -> None:
        """It opens nothing from now on; NotFoundError where there is none."""
