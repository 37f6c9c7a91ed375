"""The control API's documents. HTTP with JSON over a Unix socket; what takes time answers with a stream of events,
one JSON document a line (`application/x-ndjson`), whose last one is `Deployed`, `Ended` or `Problem`.

    GET    /v1/server                                -> ServerInfo
    POST   /v1/server/stop                           -> 202; the server ends
    POST   /v1/blobs/missing        BlobList         -> BlobList
    PUT    /v1/blobs/{digest}       the bytes        -> 204
    POST   /v1/deployments          DeployRequest    -> events, Deployed
    POST   /v1/ephemeral            EphemeralRequest -> events for as long as the app lives: Created first, then
                                                        LogLine…; closing the connection ends the app
    POST   /v1/ephemeral/{app_id}/hold               -> 204; requests wait, until the next reload or release
    POST   /v1/ephemeral/{app_id}/release            -> 204
    POST   /v1/ephemeral/{app_id}/reload  DeployRequest -> events, Deployed
    GET    /v1/apps                                  -> AppList
    GET    /v1/apps/{ref}                            -> AppInfo       (ref: a name, or an app id)
    POST   /v1/apps/{ref}/stop                       -> AppInfo
    GET    /v1/apps/{ref}/history                    -> History
    POST   /v1/apps/{ref}/rollback  RollbackRequest  -> events, Deployed
    GET    /v1/apps/{ref}/logs?follow=&tail=&function= -> LogLine… (Ended when the app ends, with follow)
    GET    /v1/secrets?environment=                  -> SecretList
    PUT    /v1/secrets/{name}?environment= SecretRequest -> SecretInfo
    DELETE /v1/secrets/{name}?environment=           -> 204
    GET    /v1/settings                              -> SettingList
    PUT    /v1/settings             SettingInfo      -> SettingList
    GET    /v1/proxy-tokens                          -> ProxyTokenList
    POST   /v1/proxy-tokens         ProxyTokenRequest -> 201, NewProxyToken
    DELETE /v1/proxy-tokens/{id}                     -> 204
    GET    /v1/domains                               -> DomainList
    POST   /v1/domains              NewDomain        -> DomainInfo; also where it is registered already
    GET    /v1/domains/{name}/check                  -> DomainCheck
    DELETE /v1/domains/{name}?force=                 -> DomainInfo
    GET    /v1/environments                          -> EnvironmentList
    POST   /v1/environments         NewEnvironment   -> 201, EnvironmentInfo
    PATCH  /v1/environments/{name}  EnvironmentChange -> EnvironmentInfo
    DELETE /v1/environments/{name}?stop_apps=        -> 204
    GET    /v1/tokens                                -> TokenList
    POST   /v1/tokens               NewToken         -> 201, TokenSecret
    DELETE /v1/tokens/{ref}                          -> TokenInfo     (ref: an id, or a name)

    GET    /v1/openapi.json                          -> all of this, as OpenAPI 3.1
    *      /v1/calls/…                               what `wire/calls.py` says, from other machines

What is about apps takes `?environment=`; without it, `main` is meant. From other machines, over the public door, every
request carries `Authorization: Bearer <id>.<secret>` of a token.

Errors: the status of the error's code, and a `Problem`.
"""

from __future__ import annotations

import msgspec

from portico.model.spec import AppSpec, Bundle


class ServerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers. `url` is a template: put a label for `{label}`."""

    version: str
    pid: int
    workspace: str
    domain: str
    listen: str  # "host:port", the port as bound
    url: str  # "http://{label}.localhost:7777", or https://…
    home: str
    deployed_apps: int
    https_listen: str | None = None  # "host:port"; no host: all addresses of the machine
    authority: str | None = None  # the file of the root certificate that clients on that machine have to know


class BlobList(msgspec.Struct, frozen=True):
    """Digests (SHA-256, hex)."""

    digests: list[str]


class DeployRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Deploy, or reload, this app. `name` wins over the one in the spec."""

    spec: AppSpec
    bundle: Bundle
    name: str | None = None
    tag: str | None = None
    allow_missing_gpu: bool = False
    strategy: str = "rolling"


class EphemeralRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Serve this app for as long as the connection lives. rouse: start a first container of each endpoint at once."""

    spec: AppSpec
    bundle: Bundle
    name: str | None = None
    dev_suffix: str = "dev"
    rouse: bool = True


class RollbackRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Back to this version; None: to the one before the current."""

    version: int | None = None


class EndpointInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A function with its URL. protected: a request needs a proxy token. custom_urls: where else it answers."""

    function: str
    url: str
    protected: bool = False
    custom_urls: list[str] = []


class FunctionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A function and how it is doing. `url` is None for one without a web decorator; the next two: see EndpointInfo."""

    name: str
    url: str | None = None
    protected: bool = False
    custom_urls: list[str] = []
    containers: int = 0
    running: int = 0
    queued: int = 0


class AppInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An app. state: "deployed", "ephemeral" or "stopped". Times are seconds since the epoch."""

    id: str
    name: str
    environment: str
    state: str
    version: int
    created_at: float
    stopped_at: float | None = None
    functions: list[FunctionInfo] = []


class AppList(msgspec.Struct, frozen=True):
    """Apps, the newest first."""

    apps: list[AppInfo]


class VersionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One version of an app."""

    version: int
    created_at: float
    current: bool
    tag: str | None = None
    rollback_of: int | None = None
    functions: list[str] = []


class History(msgspec.Struct, frozen=True):
    """Versions, the newest first."""

    versions: list[VersionInfo]


class SecretRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Keep these variables under a name. replace: also where there is a secret of that name; it loses those it has."""

    variables: dict[str, str]
    replace: bool = False

    def __repr__(self) -> str:
        return f"SecretRequest({len(self.variables)} variables)"


class SecretInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A secret that the server keeps; nothing tells its values. Times are seconds since the epoch."""

    name: str
    environment: str
    created_at: float
    updated_at: float


class SecretList(msgspec.Struct, frozen=True):
    """The secrets of an environment, by name."""

    secrets: list[SecretInfo]


class SettingInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A setting of the workspace, or of the environment, app and function that are named. value None: unset it."""

    setting: str  # one of `model.policy.Setting`
    value: str | None
    environment: str | None = None
    app: str | None = None
    function: str | None = None


class SettingList(msgspec.Struct, frozen=True):
    """All that is set, and what holds for the workspace where nothing is."""

    settings: list[SettingInfo]
    defaults: dict[str, str]


class ProxyTokenRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A new proxy token. expires_in: seconds. environments, endpoints ("app" or "app/function"): none means all."""

    expires_in: float | None = None
    environments: list[str] = []
    endpoints: list[str] = []
    rate_limit: float | None = None


class NewProxyToken(msgspec.Struct, frozen=True, kw_only=True):
    """A proxy token with its secret, which is told this once."""

    id: str
    secret: str

    def __repr__(self) -> str:
        return f"NewProxyToken({self.id})"


class ProxyTokenInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A proxy token. Times are seconds since the epoch."""

    id: str
    created_at: float
    expires_at: float | None = None
    last_used_at: float | None = None
    environments: list[str] = []
    endpoints: list[str] = []
    rate_limit: float | None = None


class ProxyTokenList(msgspec.Struct, frozen=True):
    """Proxy tokens, the oldest first."""

    tokens: list[ProxyTokenInfo]


class NewDomain(msgspec.Struct, frozen=True, kw_only=True):
    """A custom domain to be registered: "api.example.com", or "*.example.com"."""

    name: str


class DomainUse(msgspec.Struct, frozen=True, kw_only=True):
    """A name that leads to an app: a registered domain, or one below a registered wildcard. state: as in AppInfo."""

    domain: str
    app: str
    environment: str
    state: str


class DomainInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A registered domain. created_by: "token NAME", or a user of the server's machine.

    certificate_state: "issued", "failed", "unrenewed" (there is one), or None while there was none; certificate_detail:
    for which host, or why not.
    """

    name: str
    created_at: float
    created_by: str
    used_by: list[DomainUse] = []
    certificate_state: str | None = None
    certificate_detail: str | None = None
    certificate_at: float | None = None


class DomainList(msgspec.Struct, frozen=True):
    """Registered domains, by name."""

    domains: list[DomainInfo]


class DnsRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A DNS record. type: "A", "AAAA" or "CNAME"."""

    type: str
    name: str
    value: str


class DomainCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Where DNS leads a domain. verdict: "right", "wrong", "missing", "unknown" or "failed".

    records: what to set: one of the CNAMEs or, for a name that has other records too, all of A and AAAA. There are none
    where it is not known where the internet reaches the server.
    """

    name: str
    verdict: str
    message: str
    addresses: list[str] = []
    records: list[DnsRecord] = []


class EnvironmentInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An environment. apps: how many live there. label: what the labels of its endpoints begin with."""

    name: str
    web_suffix: str
    created_at: float
    label: str
    apps: int = 0


class EnvironmentList(msgspec.Struct, frozen=True):
    """Environments, the oldest first."""

    environments: list[EnvironmentInfo]


class NewEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """web_suffix: None makes one of the name."""

    name: str
    web_suffix: str | None = None


class EnvironmentChange(msgspec.Struct, frozen=True, kw_only=True):
    """What is None stays."""

    name: str | None = None
    web_suffix: str | None = None


class TokenInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A token of the control API, without its secret. environment: the only one that it is for."""

    id: str
    name: str
    environment: str | None
    created_at: float
    expires_at: float | None = None
    last_used_at: float | None = None


class TokenList(msgspec.Struct, frozen=True):
    """Tokens, the oldest first."""

    tokens: list[TokenInfo]


class NewToken(msgspec.Struct, frozen=True, kw_only=True):
    """expires_in: seconds; None: it does not expire."""

    name: str
    environment: str | None = None
    expires_in: float | None = None


class TokenSecret(msgspec.Struct, frozen=True, kw_only=True):
    """A new token, with the secret that is shown once."""

    id: str
    secret: str
    name: str
    environment: str | None = None


# -- events -------------------------------------------------------------------------------------------------------
class ImageState(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="image"):
    """An image's build. state: "cached", "building", "built" or "failed". `functions` are those that use it."""

    key: str
    state: str
    functions: list[str]
    seconds: float = 0.0


class BuildLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="build_line"):
    """A line of an image's build log."""

    key: str
    line: str


class FunctionState(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="function"):
    """How a function comes along. state: "starting", "ready" or "failed"."""

    name: str
    state: str
    url: str | None = None


class Warned(msgspec.Struct, frozen=True, tag_field="type", tag="warning"):
    """Something that the user should know."""

    message: str


class Created(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="created"):
    """An ephemeral app is up."""

    app_id: str
    app: str
    endpoints: list[EndpointInfo]


class LogLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="log"):
    """A line that a container printed (source "stdout" or "stderr"), or that the server says of it ("system")."""

    at: float
    function: str
    container_id: str
    source: str
    line: str


class Deployed(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="deployed"):
    """The end of a deploy, reload or rollback that worked. unchanged: there was nothing to do."""

    app_id: str
    app: str
    version: int
    endpoints: list[EndpointInfo]
    unchanged: bool = False
    seconds: float = 0.0


class Ended(msgspec.Struct, frozen=True, tag_field="type", tag="ended"):
    """The stream ends as it should; `reason` says why: "stopped", "replaced", "server_stopped", "complete"."""

    reason: str


class Problem(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="problem"):
    """An error: the code and texts of `model.errors.Error`."""

    code: str
    message: str
    hint: str | None = None
    detail: str | None = None


Event = ImageState | BuildLine | FunctionState | Warned | Created | LogLine | Deployed | Ended | Problem
_event: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def encode_event(event: Event) -> bytes:
    """One line, with its newline."""
    return msgspec.json.encode(event) + b"\n"


def decode_event(line: bytes) -> Event:
    """The event of one line."""
    return _event.decode(line)
