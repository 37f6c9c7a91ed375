"""Settings from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from portico.client.settings import environment_name, load_settings
from portico.model.errors import InvalidError


def test_defaults():
    """Without any variable there is a complete, valid set."""
    settings = load_settings({})
    assert (settings.listen, settings.domain) == ("127.0.0.1:7777", "localhost")
    assert settings.home.name == "portico"
    assert settings.workspace
    assert settings.redirect_after is None


def test_all_given(tmp_path):
    """Each variable is taken."""
    settings = load_settings(
        {
            "PORTICO_HOME": str(tmp_path),
            "PORTICO_LISTEN": "0.0.0.0:80",
            "PORTICO_DOMAIN": "example.com",
            "PORTICO_WORKSPACE": "acme",
            "PORTICO_TRUSTED_PROXIES": "127.0.0.1, 10.0.0.0/8,::1",
            "PORTICO_MAX_WEBSOCKET_MESSAGE": "64KiB",
            "PORTICO_REDIRECT_AFTER": "150",
            "PORTICO_PUBLIC_ADDRESS": "203.0.113.7, 2001:DB8::7,server.Example.com",
            "PORTICO_DNS_RESOLVER": "127.0.0.1:8053",
        }
    )
    assert (settings.home, settings.listen_host, settings.listen_port) == (tmp_path, "0.0.0.0", 80)
    assert (settings.domain, settings.workspace) == ("example.com", "acme")
    assert [str(network) for network in settings.trusted_networks] == ["127.0.0.1/32", "10.0.0.0/8", "::1/128"]
    assert settings.websocket_limit == 65536
    assert settings.redirect_after == 150
    assert settings.public.addresses == {"203.0.113.7", "2001:db8::7"}
    assert settings.public.names == ("server.example.com",)
    assert settings.name_server == ("127.0.0.1", 8053)


def test_https_is_spoken_when_it_is_switched_on():
    """Its variables say how; without the switch they say nothing."""
    said = {
        "PORTICO_DOMAIN": "example.com",
        "PORTICO_HTTPS_LISTEN": "[::1]:8443",
        "PORTICO_HTTP_LISTEN": "off",
        "PORTICO_CADDY": "/opt/caddy",
        "PORTICO_ACME_EMAIL": "ops@example.com",
        "PORTICO_ACME_CA": "https://ca.test/dir",
        "PORTICO_ACME_ROOT": "/root.pem",
        "PORTICO_DNS_HOOK": "hook --zone example.com",
        "PORTICO_DNS_WAIT": "5",
    }
    assert load_settings(said).https is None
    assert load_settings(said | {"PORTICO_HTTPS": "off"}).https is None
    settings = load_settings(said | {"PORTICO_HTTPS": "on"})
    assert settings.https is not None
    assert str(settings.https.address(settings.domain)) == "[::1]:8443"
    assert settings.https.http_address(settings.domain) is None
    assert settings.https.dns_command == ["hook", "--zone", "example.com"]
    assert load_settings(settings.variables | {"PORTICO_HOME": str(settings.home)}) == settings


@pytest.mark.parametrize(("name", "value"), [("PORTICO_HTTPS", "yes"), ("PORTICO_DNS_WAIT", "soon")])
def test_what_https_is_not(name, value):
    """A switch is on or off, and a wait is a number."""
    with pytest.raises(InvalidError, match=name):
        load_settings({"PORTICO_HTTPS": "on", name: value})


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("", None),
        ("127.0.0.1", ("127.0.0.1", 53)),
        ("::1", ("::1", 53)),
        ("[::1]", ("::1", 53)),
        ("[::1]:5353", ("::1", 5353)),
    ],
)
def test_a_name_server_has_a_port(text, server):
    """53, unless another one is said."""
    assert load_settings({"PORTICO_DNS_RESOLVER": text}).name_server == server


def test_empty_variables_count_as_unset():
    """`PORTICO_LISTEN=` is the default, as with most programs."""
    assert load_settings({"PORTICO_LISTEN": "", "PORTICO_DOMAIN": ""}).listen == "127.0.0.1:7777"


def test_home_is_made_absolute(monkeypatch, tmp_path):
    """A relative home means the same folder for every process that is started from here."""
    monkeypatch.chdir(tmp_path)
    assert load_settings({"PORTICO_HOME": "state"}).home == tmp_path / "state"
    assert load_settings({"PORTICO_HOME": "~/state"}).home == Path.home() / "state"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORTICO_LISTEN", "7777"),
        ("PORTICO_LISTEN", "localhost:http"),
        ("PORTICO_DOMAIN", "Example.com"),
        ("PORTICO_WORKSPACE", "ab"),
        ("PORTICO_WORKSPACE", "Acme"),
        ("PORTICO_TRUSTED_PROXIES", "10.0.0.0/33"),
        ("PORTICO_TRUSTED_PROXIES", "127.0.0.1,proxy.example"),
        ("PORTICO_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("PORTICO_MAX_WEBSOCKET_MESSAGE", "2 MB"),
        ("PORTICO_MAX_WEBSOCKET_MESSAGE", "0"),
        ("PORTICO_MAX_WEBSOCKET_MESSAGE", "-1"),
        ("PORTICO_REDIRECT_AFTER", "0"),
        ("PORTICO_REDIRECT_AFTER", "1.5"),
        ("PORTICO_PUBLIC_ADDRESS", "203.0.113.300"),
        ("PORTICO_PUBLIC_ADDRESS", "203.0.113.7:443"),
        ("PORTICO_PUBLIC_ADDRESS", "server"),
        ("PORTICO_DNS_RESOLVER", "dns.example.com"),
        ("PORTICO_DNS_RESOLVER", "127.0.0.1:dns"),
        ("PORTICO_DNS_RESOLVER", "127.0.0.1:65536"),
    ],
)
def test_nonsense_names_the_variable(name, value):
    """A bad value says which variable to mend."""
    with pytest.raises(InvalidError) as caught:
        load_settings({name: value})
    assert name in f"{caught.value.message} {caught.value.hint}"


def test_environment_round_trip(tmp_path):
    """A process started with these variables has the same settings."""
    environ = {"PORTICO_HOME": str(tmp_path), "PORTICO_WORKSPACE": "acme"}
    for more in ({}, {"PORTICO_REDIRECT_AFTER": "150"}):
        settings = load_settings(environ | more)
        assert load_settings(settings.variables) == settings


@pytest.mark.parametrize(
    ("given", "environ", "meant"),
    [
        (None, {}, "main"),
        (None, {"PORTICO_ENVIRONMENT": ""}, "main"),
        (None, {"MODAL_ENVIRONMENT": "theirs"}, "theirs"),
        (None, {"PORTICO_ENVIRONMENT": "ours", "MODAL_ENVIRONMENT": "theirs"}, "ours"),
        ("given", {"PORTICO_ENVIRONMENT": "ours"}, "given"),
    ],
)
def test_the_environment_that_is_meant(given, environ, meant):
    """What is said comes before the variables, Portico's own before Modal's, and `main` is the default."""
    assert environment_name(given, environ) == meant


def test_a_name_that_no_environment_can_have_is_an_error():
    """It is refused before anybody is asked."""
    with pytest.raises(InvalidError, match="environment name: 'a b'"):
        environment_name(None, {"PORTICO_ENVIRONMENT": "a b"})


@pytest.mark.parametrize(("text", "size"), [("2MiB", 2 << 20), ("1 gib", 1 << 30), ("100", 100), ("unlimited", None)])
def test_sizes_are_written_as_people_do(text, size):
    """With binary units, or none; or there is no limit."""
    assert load_settings({"PORTICO_MAX_WEBSOCKET_MESSAGE": text}).websocket_limit == size
