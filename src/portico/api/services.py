"""What the control API asks of the server; `server/` implements it. Each raises the errors of `model.errors`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from portico.core.durable import line_of
from portico.model.calls import Body, CallRecord
from portico.model.errors import InvalidError
from portico.model.parameters import canonical
from portico.model.spec import ClassSpec
from portico.wire.control import (
    AppInfo,
    DeployRequest,
    DomainCheck,
    DomainInfo,
    DomainList,
    EnvironmentChange,
    EnvironmentInfo,
    EphemeralRequest,
    Event,
    History,
    LogLine,
    NewProxyToken,
    NewToken,
    ProxyTokenList,
    ProxyTokenRequest,
    RollbackRequest,
    SecretInfo,
    SecretList,
    SecretRequest,
    ServerInfo,
    SettingInfo,
    SettingList,
    TokenInfo,
    TokenSecret,
)


class ServerService(Protocol):
    """The server itself."""

    def info(self) -> ServerInfo:
        """Who answers."""

    def stop(self) -> None:
        """Begin to end the server; returns at once."""


class AppService(Protocol):
    """Deployed and ephemeral apps. `ref` is a name or an app id, in an environment. NotFoundError without that one."""

    async def apps(self, environment: str) -> list[AppInfo]:
        """All apps there, the newest first, stopped ones too."""

    async def app(self, ref: str, environment: str) -> AppInfo:
        """One app; a living one before a stopped one of the same name."""

    async def stop_app(self, ref: str, environment: str) -> AppInfo:
        """Stop it for good."""

    async def history(self, ref: str, environment: str) -> History:
        """Its versions."""

    def rollback(self, ref: str, request: RollbackRequest, environment: str) -> AsyncIterator[Event]:
        """Events until Deployed; raises where it fails."""

    def logs(
        self, ref: str, environment: str, *, follow: bool, tail: int, function: str | None
    ) -> AsyncIterator[LogLine]:
        """The last `tail` lines, then, with `follow`, what comes until the app ends."""


class DeployService(Protocol):
    """What brings apps up."""

    def deploy(self, request: DeployRequest, environment: str) -> AsyncIterator[Event]:
        """Events until Deployed; raises where it fails. Closing the iterator early abandons the deploy."""

    def ephemeral(self, request: EphemeralRequest, environment: str) -> AsyncIterator[Event]:
        """Events for as long as the app lives; closing the iterator ends the app."""

    def hold(self, app_id: str, environment: str) -> None:
        """New requests to this ephemeral app wait."""

    def release(self, app_id: str, environment: str) -> None:
        """They wait no longer; the last good version answers them."""

    def reload(self, app_id: str, request: DeployRequest, environment: str) -> AsyncIterator[Event]:
        """Replace its code. Events until Deployed; raises where it fails, and the last good version answers again."""


@dataclass(frozen=True, slots=True)
class Target:
    """A function, or a method "Class.method", that is called. cls: whose method it is."""

    app_id: str
    function: str
    is_generator: bool
    cls: ClassSpec | None = None

    def key(self, query: bytes, *, alone: bool) -> tuple[str, str]:
        """App id and line of a call with this query; InvalidError when it has wrong parameters of the class.

        alone: the query has nothing else.
        """
        if self.cls is None:
            return self.app_id, self.function
        try:
            text = canonical(self.cls.parameters, query, alone=alone)
        except InvalidError as error:
            raise InvalidError(f"{self.function.partition('.')[0]}: {error.message}") from None
        return self.app_id, line_of(self.function, text)


class CallService(Protocol):
    """Stored calls."""

    async def accept(self, key: tuple[str, str], head: bytes, client: str, chunks: AsyncIterator[bytes]) -> str:
        """Store a call in this app's line; its id, once it is on disk."""

    def is_long(self, key: tuple[str, str]) -> bool:
        """Whether hundreds of calls wait in this app's line."""

    async def outcome(self, call_id: str, wait: float | None) -> CallRecord:
        """The call, when it is done, or as it is after so many seconds. NotFoundError, OutputExpiredError."""

    def contents(self, body: Body) -> AsyncIterator[bytes]:
        """The bytes of a body."""

    async def cancel(self, call_id: str, *, terminate: bool) -> None:
        """End a call, and with `terminate` its container; one that has ended stays as it is."""


class FunctionService(Protocol):
    """Functions of living apps, by the host at which they are called."""

    async def find(self, host: str) -> Target:
        """NotFoundError when no living app has it."""

    async def find_web(self, host: str) -> Target:
        """The one that answers requests at this host; NotFoundError when there is none."""

    async def about(self, target: Target, what: str, parameters: bytes) -> dict[str, Any] | None:
        """Its "url", "retries", "stats" or "autoscaler"; of a class, those of these parameters."""

    async def update_autoscaler(
        self, target: Target, settings: dict[str, float | None], parameters: bytes
    ) -> dict[str, Any]:
        """Change some of its settings, until its next version; all of them."""


class SecretService(Protocol):
    """The secrets of an environment."""

    async def secrets(self, environment: str) -> SecretList:
        """All of them, by name."""

    async def write_secret(self, environment: str, name: str, request: SecretRequest) -> SecretInfo:
        """Keep it; ConflictError where there is one already, unless it is to be replaced."""

    async def delete_secret(self, environment: str, name: str) -> None:
        """Forget it; NotFoundError where there is none."""


class AdmissionService(Protocol):
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


class DomainService(Protocol):
    """The custom domains that are registered. InvalidError where a name is none."""

    async def domains(self) -> DomainList:
        """All of them, by name."""

    async def add_domain(self, text: str, token: str | None) -> DomainInfo:
        """Register it, on behalf of the token of this name or, None, of the machine's user; or find it registered."""

    async def remove_domain(self, text: str, *, force: bool) -> DomainInfo:
        """Register it no longer; what it was. ConflictError where an app uses it, unless it is to lose it."""

    async def check_domain(self, text: str) -> DomainCheck:
        """The DNS records that it needs, and where DNS leads it now."""


class EnvironmentService(Protocol):
    """The environments."""

    async def environments(self) -> list[EnvironmentInfo]:
        """All of them, the oldest first."""

    async def create_environment(self, name: str, web_suffix: str | None) -> EnvironmentInfo:
        """One more."""

    async def change_environment(self, name: str, change: EnvironmentChange) -> EnvironmentInfo:
        """Another name or web suffix; returns when its apps answer at their new URLs."""

    async def delete_environment(self, name: str, *, stop_apps: bool) -> None:
        """Forget it and what was deployed there; ConflictError while apps live there, unless they may be stopped."""


class AccessService(Protocol):
    """Who may use the API from other machines."""

    async def admit(self, authorization: str) -> TokenInfo:
        """The token in this header; AuthError where it has none that is valid."""

    def using(self, token_id: str) -> AbstractContextManager[None]:
        """The current task runs on behalf of this token: what it does is ended, with AuthError, when it is revoked."""

    async def tokens(self) -> list[TokenInfo]:
        """All that have not been revoked, the oldest first."""

    async def create_token(self, wanted: NewToken) -> TokenSecret:
        """One more; its secret is known only now."""

    async def revoke_token(self, ref: str) -> TokenInfo:
        """By id or name. It is valid no longer, and what runs on its behalf ends."""


class CallPlaceService(Protocol):
    """Where what is called is."""

    async def environment_of_call(self, host: str, path: str) -> str:
        """Of the function at this host of the calls' socket, or of the stored call at this path; NotFoundError."""
