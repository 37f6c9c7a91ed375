"""The control API, over its Unix socket or, to another machine, over TCP: one method per verb of `wire/control.py`.

Standard library HTTP, because the command line's start-up time is the user's waiting time. Plain calls have a
timeout; streams have none, since silence is normal there. No call asks a name server.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from portico.client.remote import Remote, not_a_server, open_connection
from portico.client.stream import EventStream, not_understood
from portico.model import errors
from portico.model.naming import MAIN
from portico.wire.control import (
    AppInfo,
    AppList,
    BlobList,
    DeployRequest,
    DomainCheck,
    DomainInfo,
    DomainList,
    EnvironmentChange,
    EnvironmentInfo,
    EnvironmentList,
    EphemeralRequest,
    History,
    NewDomain,
    NewEnvironment,
    NewProxyToken,
    NewToken,
    Problem,
    ProxyTokenInfo,
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
    TokenList,
    TokenSecret,
)

CONNECT_TIMEOUT = 5.0  # seconds; a Unix socket connects at once, unless its server's backlog is full
_STOP_TIMEOUT = 120.0  # stopping an app waits for its containers
_CHUNK = 1 << 20

_T = TypeVar("_T")


class NoServerError(errors.ConnectionError):
    """Nobody listens where the server should be."""


class ControlClient:
    """Talks to the server at `address`, about one environment. One connection per call; safe in several threads.

    Raises the tree of `model.errors`: what the server answers, `ConnectionError` where none answers, `TimeoutError`
    where a plain call takes longer than `timeout` seconds.
    """

    def __init__(self, address: Path | Remote, timeout: float = 30.0, environment: str = MAIN) -> None:
        self.address = address
        self.environment = environment
        self._timeout = timeout

    @property
    def is_remote(self) -> bool:
        """Whether the server is on another machine, as far as we know."""
        return isinstance(self.address, Remote)

    # -- the server ------------------------------------------------------------------------------------------
    def server(self) -> ServerInfo:
        """Who answers."""
        return self._call("GET", "/v1/server", ServerInfo)

    def find_server(self) -> ServerInfo | None:
        """Who answers; None where no server runs."""
        try:
            return self.server()
        except NoServerError:
            return None

    def stop_server(self) -> None:
        """Ask it to end; returns before it has."""
        self._plain("POST", "/v1/server/stop")

    # -- blobs -----------------------------------------------------------------------------------------------
    def missing_blobs(self, digests: list[str]) -> list[str]:
        """Which of these the server does not have."""
        return self._call("POST", "/v1/blobs/missing", BlobList, BlobList(digests)).digests

    def put_blob(self, digest: str, content: IO[bytes], size: int) -> None:
        """Send `size` bytes of `content`, in pieces; InvalidError when they are not what the digest says."""
        self._plain("PUT", f"/v1/blobs/{digest}", body=_pieces(content, size), length=size)

    # -- deployments -----------------------------------------------------------------------------------------
    def deploy(self, request: DeployRequest) -> EventStream:
        """Events until Deployed."""
        return self._stream("POST", self._of("/v1/deployments"), request)

    def ephemeral(self, request: EphemeralRequest) -> EventStream:
        """Events for as long as the app lives; closing the stream ends the app."""
        return self._stream("POST", self._of("/v1/ephemeral"), request)

    def hold(self, app_id: str) -> None:
        """New requests to this ephemeral app wait."""
        self._plain("POST", self._of(f"/v1/ephemeral/{quote(app_id, '')}/hold"))

    def release(self, app_id: str) -> None:
        """They wait no longer."""
        self._plain("POST", self._of(f"/v1/ephemeral/{quote(app_id, '')}/release"))

    def reload(self, app_id: str, request: DeployRequest) -> EventStream:
        """Replace the code of an ephemeral app; events until Deployed."""
        return self._stream("POST", self._of(f"/v1/ephemeral/{quote(app_id, '')}/reload"), request)

    # -- apps ------------------------------------------------------------------------------------------------
    def apps(self) -> list[AppInfo]:
        """All apps, the newest first."""
        return self._call("GET", self._of("/v1/apps"), AppList).apps

    def app(self, ref: str) -> AppInfo:
        """One app, by name or id."""
        return self._call("GET", self._of(f"/v1/apps/{quote(ref, '')}"), AppInfo)

    def stop_app(self, ref: str) -> AppInfo:
        """Stop it for good; returns when its containers have gone."""
        return self._call("POST", self._of(f"/v1/apps/{quote(ref, '')}/stop"), AppInfo, timeout=_STOP_TIMEOUT)

    def history(self, ref: str) -> History:
        """Its versions, the newest first."""
        return self._call("GET", self._of(f"/v1/apps/{quote(ref, '')}/history"), History)

    def rollback(self, ref: str, request: RollbackRequest) -> EventStream:
        """Events until Deployed."""
        return self._stream("POST", self._of(f"/v1/apps/{quote(ref, '')}/rollback"), request)

    def logs(self, ref: str, *, follow: bool = False, tail: int = 100, function: str | None = None) -> EventStream:
        """The last `tail` lines, then, with `follow`, what comes until the app ends."""
        query = {"follow": int(follow), "tail": tail} | ({"function": function} if function else {})
        return self._stream("GET", self._of(f"/v1/apps/{quote(ref, '')}/logs", **query))

    # -- environments ----------------------------------------------------------------------------------------
    def environments(self) -> list[EnvironmentInfo]:
        """All of them, the oldest first."""
        return self._call("GET", "/v1/environments", EnvironmentList).environments

    def create_environment(self, name: str, web_suffix: str | None = None) -> EnvironmentInfo:
        """One more."""
        return self._call("POST", "/v1/environments", EnvironmentInfo, NewEnvironment(name=name, web_suffix=web_suffix))

    def change_environment(self, name: str, change: EnvironmentChange) -> EnvironmentInfo:
        """Another name or web suffix; returns when its apps answer at their new URLs."""
        return self._call("PATCH", f"/v1/environments/{quote(name, '')}", EnvironmentInfo, change)

    def delete_environment(self, name: str, *, stop_apps: bool) -> None:
        """Forget it and what was deployed there; ConflictError while apps live there, unless they may be stopped."""
        path = f"/v1/environments/{quote(name, '')}?stop_apps={int(stop_apps)}"
        self._plain("DELETE", path, timeout=_STOP_TIMEOUT)

    # -- tokens ----------------------------------------------------------------------------------------------
    def tokens(self) -> list[TokenInfo]:
        """Those of the control API that have not been revoked, the oldest first."""
        return self._call("GET", "/v1/tokens", TokenList).tokens

    def create_token(self, wanted: NewToken) -> TokenSecret:
        """One more; its secret is known only now."""
        return self._call("POST", "/v1/tokens", TokenSecret, wanted)

    def revoke_token(self, ref: str) -> TokenInfo:
        """By id or name. It is valid no longer, and what runs on its behalf ends."""
        return self._call("DELETE", f"/v1/tokens/{quote(ref, '')}", TokenInfo)

    def _of(self, path: str, **query: object) -> str:
        """The path, about our environment."""
        return f"{path}?{urlencode({'environment': self.environment} | query)}"

    # -- secrets ---------------------------------------------------------------------------------------------
    def secrets(self) -> list[SecretInfo]:
        """All of them, by name; without their values, which nothing tells."""
        return self._call("GET", self._of("/v1/secrets"), SecretList).secrets

    def write_secret(self, name: str, variables: dict[str, str], *, replace: bool) -> SecretInfo:
        """Keep it; ConflictError where there is one already, unless it is to be replaced."""
        request = SecretRequest(variables=variables, replace=replace)
        return self._call("PUT", self._of(f"/v1/secrets/{quote(name, '')}"), SecretInfo, request)

    def delete_secret(self, name: str) -> None:
        """Forget it; NotFoundError where there is none."""
        self._plain("DELETE", self._of(f"/v1/secrets/{quote(name, '')}"))

    # -- custom domains --------------------------------------------------------------------------------------
    def domains(self) -> list[DomainInfo]:
        """Those that are registered, by name."""
        return self._call("GET", "/v1/domains", DomainList).domains

    def add_domain(self, name: str) -> DomainInfo:
        """Register it; one that is registered stays as it is."""
        return self._call("POST", "/v1/domains", DomainInfo, NewDomain(name=name))

    def check_domain(self, name: str) -> DomainCheck:
        """The DNS records that it needs, and where DNS leads it now."""
        return self._call("GET", f"/v1/domains/{quote(name, '')}/check", DomainCheck)

    def remove_domain(self, name: str, *, force: bool) -> DomainInfo:
        """Register it no longer; what it was. ConflictError where an app uses it, unless it is to lose it."""
        return self._call("DELETE", f"/v1/domains/{quote(name, '')}?force={int(force)}", DomainInfo)

    # -- who may call, and how much --------------------------------------------------------------------------
    def settings(self) -> SettingList:
        """All that is set, for all environments."""
        return self._call("GET", "/v1/settings", SettingList)

    def change_setting(self, change: SettingInfo) -> SettingList:
        """Set one, or unset it."""
        return self._call("PUT", "/v1/settings", SettingList, change)

    def proxy_tokens(self) -> list[ProxyTokenInfo]:
        """All of them, the oldest first."""
        return self._call("GET", "/v1/proxy-tokens", ProxyTokenList).tokens

    def create_proxy_token(self, request: ProxyTokenRequest) -> NewProxyToken:
        """A new one; its secret is told this once."""
        return self._call("POST", "/v1/proxy-tokens", NewProxyToken, request)

    def revoke_proxy_token(self, token_id: str) -> None:
        """It opens nothing from now on; NotFoundError where there is none."""
        self._plain("DELETE", f"/v1/proxy-tokens/{quote(token_id, '')}")

    # -- HTTP ------------------------------------------------------------------------------------------------
    def _call(
        self, method: str, path: str, answer: type[_T], document: object = None, timeout: float | None = None
    ) -> _T:
        data = self._plain(method, path, body=_json(document), timeout=timeout)
        try:
            return msgspec.json.decode(data, type=answer)
        except msgspec.DecodeError as error:
            raise not_understood(self.address, error) from None

    def _plain(
        self,
        method: str,
        path: str,
        *,
        body: bytes | Iterator[bytes] | None = None,
        length: int | None = None,
        timeout: float | None = None,
    ) -> bytes:
        timeout = timeout or self._timeout
        connection = self._connect(timeout)
        try:
            response = self._exchange(connection, method, path, body, length)
            data = response.read()
        except TimeoutError:
            raise errors.TimeoutError(
                f"The server did not answer within {timeout:g} s.", hint="See `portico doctor`, and the server's log."
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from None
        finally:
            connection.close()
        if response.status >= 300:
            raise self._problem(response, data)
        return data

    def _stream(self, method: str, path: str, document: object = None) -> EventStream:
        connection = self._connect(self._timeout)
        sock = connection.sock
        try:
            sock.settimeout(None)  # the first event may be long in coming, and so may every other
            response = self._exchange(connection, method, path, _json(document))
            if response.status >= 300:
                raise self._problem(response, response.read())
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._lost(error) from None
        except BaseException:  # also Ctrl-C: the server learns from the closed connection that nobody listens
            connection.close()
            raise
        return EventStream(sock, response, self.address)

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        if isinstance(self.address, Remote):
            return open_connection(self.address, timeout)
        connection = _UnixConnection(self.address, timeout)
        try:
            connection.connect()
        except TimeoutError:
            raise errors.ConnectionError(
                f"The server at {self.address} accepts no connection.", hint="See its log, and `portico doctor`."
            ) from None
        except PermissionError:
            raise errors.ConnectionError(
                f"No permission to talk to the server at {self.address}.", hint="It belongs to another user."
            ) from None
        except OSError:
            raise NoServerError("No Portico server is running.", hint="Start one with `portico up`.") from None
        return connection

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        length: int | None = None,
    ) -> http.client.HTTPResponse:
        headers = self.address.headers if isinstance(self.address, Remote) else {}
        if length is not None:
            headers["Content-Length"] = str(length)
        # A server that refuses before it has read all breaks the pipe; its answer is there to be read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, path, body=body, headers=headers)
        return connection.getresponse()

    def _problem(self, response: http.client.HTTPResponse, data: bytes) -> errors.Error:
        try:
            problem = msgspec.json.decode(data, type=Problem)
        except msgspec.DecodeError as error:
            if isinstance(self.address, Remote):
                return not_a_server(self.address, response)
            return not_understood(self.address, f"status {response.status}: {error}")
        return errors.by_code(problem.code, problem.message, hint=problem.hint, detail=problem.detail)

    def _lost(self, error: Exception) -> errors.Error:
        if isinstance(error, http.client.HTTPException) and not isinstance(error, http.client.RemoteDisconnected):
            return not_understood(self.address, repr(error))
        return errors.ConnectionError("The server closed the connection.", hint="It may have ended; see its log.")


class _UnixConnection(http.client.HTTPConnection):
    sock: socket.socket

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(CONNECT_TIMEOUT)
            sock.connect(str(self._path))
            sock.settimeout(self.timeout)
        except BaseException:
            sock.close()
            raise
        self.sock = sock


def _pieces(content: IO[bytes], size: int) -> Iterator[bytes]:
    left = size
    while left:
        piece = content.read(min(left, _CHUNK))
        if not piece:
            raise errors.InvalidError("A file became shorter while it was sent.", hint="Try again.")
        left -= len(piece)
        yield piece


def _json(document: object) -> bytes | None:
    return None if document is None else msgspec.json.encode(document)
