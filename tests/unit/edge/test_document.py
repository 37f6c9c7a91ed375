"""Caddy's configuration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from portico.edge.document import Pem, Plan, bare, document
from portico.model.https import Address

PLAN = Plan(
    domain="apps.example.com",
    https=Address("", 443),
    http=Address("", 80),
    upstream=Path("/home/run/front.sock"),
    admin=Path("/home/run/caddy.sock"),
    ask="http://127.0.0.1:9/secret",
    storage=Path("/home/https/caddy"),
    email="ops@example.com",
    authority="https://acme.test/dir",
)


def test_names_get_certificates_of_the_authority_when_they_are_allowed() -> None:
    """On demand, after our permission, with the challenges at our ports."""
    automation = document(PLAN, None, ())["apps"]["tls"]["automation"]
    assert automation["on_demand"] == {"permission": {"module": "http", "endpoint": "http://127.0.0.1:9/secret"}}
    issuer = {
        "module": "acme",
        "ca": "https://acme.test/dir",
        "challenges": {"http": {"alternate_port": 80}, "tls-alpn": {"alternate_port": 443}},
        "email": "ops@example.com",
    }
    assert automation["policies"] == [{"on_demand": True, "issuers": [issuer]}]


def test_names_of_a_local_domain_get_certificates_of_caddys_own() -> None:
    """Others do so too, unless they are to be public; the machine's trust store is never touched."""
    local = replace(PLAN, domain="localhost")
    internal = {"on_demand": True, "issuers": [{"module": "internal"}]}
    own, others = document(local, None, ())["apps"]["tls"]["automation"]["policies"]
    assert own == {"subjects": ["localhost", "*.localhost"], **internal}
    assert others["issuers"][0]["module"] == "acme"
    private = document(replace(local, public=False), None, ())["apps"]
    assert private["tls"]["automation"]["policies"][1] == internal
    assert private["pki"]["certificate_authorities"]["local"] == {"install_trust": False}


def test_without_http_the_http_challenge_is_off() -> None:
    """Nobody would answer it."""
    apps = document(replace(PLAN, http=None, root="/ca.pem"), None, ())["apps"]
    issuer = apps["tls"]["automation"]["policies"][0]["issuers"][0]
    assert issuer["challenges"]["http"] == {"disabled": True}
    assert issuer["trusted_roots_pem_files"] == ["/ca.pem"]
    assert list(apps["http"]["servers"]) == ["https"]


def test_names_that_were_removed_are_dropped_before_all_others() -> None:
    """The first policy that matches counts."""
    servers = document(PLAN, None, ("a.test", "b.test"))["apps"]["http"]["servers"]
    drop = {"match": {"sni": ["a.test", "b.test"]}, "drop": True}
    assert servers["https"]["tls_connection_policies"] == [drop, {}]
    assert document(PLAN, None, ())["apps"]["http"]["servers"]["https"]["tls_connection_policies"] == [{}]


def test_a_wildcard_certificate_is_loaded() -> None:
    """With its key."""
    tls = document(PLAN, Pem("chain", "key"), ())["apps"]["tls"]
    assert tls["certificates"] == {"load_pem": [{"certificate": "chain", "key": "key"}]}


def test_proxies_in_front_are_named_at_both_doors() -> None:
    """What they say about clients goes on to the ingress; nobody else's word does."""
    servers = document(replace(PLAN, proxies=("10.0.0.0/8",)), None, ())["apps"]["http"]["servers"]
    assert {name: server["trusted_proxies"]["ranges"] for name, server in servers.items()} == {
        "https": ["10.0.0.0/8"],
        "http": ["10.0.0.0/8"],
    }
    assert "trusted_proxies" not in document(PLAN, None, ())["apps"]["http"]["servers"]["https"]


def test_the_admin_socket_stays_the_same() -> None:
    """It is all that Caddy starts with, and part of the whole."""
    begun = bare(PLAN)
    assert set(begun) == {"admin", "logging"}
    assert begun["admin"]["listen"] == "unix//home/run/caddy.sock"
    assert document(PLAN, None, ())["admin"] == begun["admin"]
