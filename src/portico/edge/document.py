"""Caddy's configuration: the one document that says all of it, made anew for each change. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from portico.model.https import Address, is_local

Document = dict[str, Any]

ADMIN_HOST: Final = "portico"  # the Host that requests to the admin socket carry
_IDLE: Final = "60s"  # shorter than what the ingress keeps: a connection must not end while a request is on its way
_CONNECTIONS: Final = 1024  # idle ones to the ingress
_STREAMS: Final = "720h"  # WebSockets go on when the document changes


@dataclass(frozen=True, slots=True)
class Pem:
    """A certificate with its chain, and its key."""

    chain: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What does not change while the server runs.

    upstream, admin: Unix sockets. ask: the URL that says which names may have a certificate. proxies: networks of
    proxies in front of Caddy. root: see `Https`.
    """

    domain: str
    https: Address
    http: Address | None
    upstream: Path
    admin: Path
    ask: str
    storage: Path
    proxies: tuple[str, ...] = ()
    email: str = ""
    authority: str
    root: str = ""
    public: bool = True  # names that are not below a local domain get certificates of the authority


def bare(plan: Plan) -> Document:
    """What Caddy starts with: nothing but its admin socket."""
    return {
        "admin": {"listen": f"unix/{plan.admin}", "origins": [ADMIN_HOST], "config": {"persist": False}},
        "logging": {"logs": {"default": {"writer": {"output": "stderr"}, "encoder": {"format": "json"}}}},
    }


def document(plan: Plan, wildcard: Pem | None, dropped: tuple[str, ...]) -> Document:
    """All of it. wildcard: the certificate for the server's own names. dropped: names that get no connection."""
    return bare(plan) | {
        "storage": {"module": "file_system", "root": str(plan.storage)},
        "apps": {
            # never touch the trust store of the machine
            "pki": {"certificate_authorities": {"local": {"install_trust": False}}},
            "http": _http(plan, dropped),
            "tls": _tls(plan, wildcard),
        },
    }


def _http(plan: Plan, dropped: tuple[str, ...]) -> Document:
    policies: list[Document] = [{"match": {"sni": list(dropped)}, "drop": True}] if dropped else []
    servers = {"https": _server(plan, plan.https) | {"tls_connection_policies": [*policies, {}]}}
    ports = {"https_port": plan.https.port}
    if plan.http is not None:
        servers["http"] = _server(plan, plan.http)
        ports["http_port"] = plan.http.port
    return {**ports, "servers": servers}


def _server(plan: Plan, address: Address) -> Document:
    server: Document = {
        "listen": [str(address)],
        "automatic_https": {"disable": True},  # the ingress redirects: it knows which names have a certificate
        "routes": [{"handle": [_proxy(plan)], "terminal": True}],
    }
    if plan.proxies:
        server["trusted_proxies"] = {"source": "static", "ranges": list(plan.proxies)}
    return server


def _proxy(plan: Plan) -> Document:
    # no flush_interval: what streams is flushed anyway, and -1 would keep requests alive whose client has left
    return {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": f"unix/{plan.upstream}"}],
        "transport": {
            "protocol": "http",
            "compression": False,  # what the client accepts is passed on, and nothing else
            "keep_alive": {"idle_timeout": _IDLE, "max_idle_conns_per_host": _CONNECTIONS},
        },
        "headers": {"request": {"delete": ["Via"]}},
        "stream_close_delay": _STREAMS,
    }


def _tls(plan: Plan, wildcard: Pem | None) -> Document:
    policies: list[Document] = []
    internal = {"on_demand": True, "issuers": [{"module": "internal"}]}
    if is_local(plan.domain):
        policies.append({"subjects": [plan.domain, f"*.{plan.domain}"], **internal})
    policies.append({"on_demand": True, "issuers": [_acme(plan)]} if plan.public else internal)
    permission = {"module": "http", "endpoint": plan.ask}
    tls: Document = {"automation": {"on_demand": {"permission": permission}, "policies": policies}}
    if wildcard is not None:
        tls["certificates"] = {"load_pem": [{"certificate": wildcard.chain, "key": wildcard.key}]}
    return tls


def _acme(plan: Plan) -> Document:
    http = {"disabled": True} if plan.http is None else {"alternate_port": plan.http.port}
    issuer: Document = {
        "module": "acme",
        "ca": plan.authority,
        "challenges": {"http": http, "tls-alpn": {"alternate_port": plan.https.port}},
    }
    if plan.email:
        issuer["email"] = plan.email
    if plan.root:
        issuer["trusted_roots_pem_files"] = [plan.root]
    return issuer
