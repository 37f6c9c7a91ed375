"""How HTTPS is spoken: defaults, and what makes no sense."""

from __future__ import annotations

import pytest

from portico.model.errors import InvalidError
from portico.model.https import LETS_ENCRYPT, Address, Https, is_local


def test_a_public_server_has_the_usual_ports_and_a_laptop_one_that_everybody_may_take() -> None:
    """By the domain."""
    https = Https()
    assert (https.address("example.com"), https.http_address("example.com")) == (Address("", 443), Address("", 80))
    assert (https.address("localhost"), https.http_address("localhost")) == (Address("127.0.0.1", 7443), None)
    assert https.authority == LETS_ENCRYPT


@pytest.mark.parametrize(
    ("text", "address"),
    [(":8443", Address("", 8443)), ("0.0.0.0:1", Address("0.0.0.0", 1)), ("[::1]:443", Address("::1", 443))],
)
def test_addresses_are_read_and_written_as_they_are(text: str, address: Address) -> None:
    """IPv6 has brackets."""
    assert Https(listen=text).address("example.com") == address
    assert str(address) == text


@pytest.mark.parametrize("text", ["443", "host", "host:", "host:0", "host:65536", "::1:443", "a:b", "off", "[x]:1"])
def test_what_is_no_address_is_named_with_flag_and_variable(text: str) -> None:
    """`off` is for HTTP only."""
    with pytest.raises(InvalidError, match=r"--https-listen \(PORTICO_HTTPS_LISTEN\) is not host:port"):
        Https(listen=text).validate("example.com")


@pytest.mark.parametrize(
    ("https", "domain", "said"),
    [
        (Https(listen=":80"), "example.com", "cannot both listen on :80"),
        (Https(acme_ca="http://ca"), "example.com", "PORTICO_ACME_CA"),
        (Https(dns_hook="hook"), "localhost", "makes no sense for localhost"),
        (Https(dns_hook="'"), "example.com", "not a command"),
        (Https(dns_wait=-1), "example.com", "PORTICO_DNS_WAIT"),
        (Https(dns_wait=float("nan")), "example.com", "PORTICO_DNS_WAIT"),
    ],
)
def test_what_makes_no_sense_is_refused(https: Https, domain: str, said: str) -> None:
    """With the setting's name."""
    with pytest.raises(InvalidError, match=said):
        https.validate(domain)


def test_what_is_local() -> None:
    """Names that mean each machine itself."""
    assert [name for name in ("localhost", "a.localhost", "localhost.com", "example.test") if is_local(name)] == [
        "localhost",
        "a.localhost",
    ]
