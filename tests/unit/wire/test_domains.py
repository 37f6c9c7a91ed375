"""What is a domain name, and what is none."""

from __future__ import annotations

import subprocess
import sys

import pytest

from portico.model.errors import InvalidError
from portico.wire.domains import check_foreign, domain_name


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("api.example.com", "api.example.com"),
        ("API.Example.COM", "api.example.com"),
        ("*.example.com", "*.example.com"),
        ("example.co.uk", "example.co.uk"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("*.Bücher.example", "*.xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("straße.example", "xn--strae-oqa.example"),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
        ("r3---sn-abc.example.com", "r3---sn-abc.example.com"),
        (f"{'a' * 63}.example", f"{'a' * 63}.example"),
    ],
)
def test_a_name_is_taken_as_dns_has_it(written: str, name: str) -> None:
    """In lower case, and in ASCII as browsers send it."""
    assert domain_name(written) == name
    assert domain_name(name) == name


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("", "it is empty"),
        ("example.com.", "leave out the dot at the end"),
        ("https://example.com", "leave out the scheme"),
        ("example.com/path", "leave out the path"),
        ("example.com:443", "leave out the port"),
        ("192.0.2.7", "an IP address"),
        ("2001:db8::7", "an IP address"),
        ("[2001:db8::7]", "an IP address"),
        ("192.0.2.300", "the last label is a number"),
        ("localhost", "means each machine itself"),
        ("shop.localhost", "means each machine itself"),
        ("localhost.localdomain", "means each machine itself"),
        ("intranet", "one label only"),
        ("*.com", "two labels behind"),
        ("*", "one '*.' in front"),
        ("*.*.example.com", "one '*.' in front"),
        ("a*.example.com", "one '*.' in front"),
        ("a.*.example.com", "one '*.' in front"),
        ("a..example.com", "a label is empty"),
        (".example.com", "a label is empty"),
        ("-a.example.com", "the label '-a'"),
        ("a_b.example.com", "the label 'a_b'"),
        ("a b.example.com", "the label 'a b'"),
        ("jo@example.com", "the label 'jo@example'"),
        (f"{'a' * 64}.example", "1 to 63"),
        (".".join(["a" * 49] * 6), "more than 253"),
        ("xn--99999999.example", "xn--99999999"),
        ("\U0001f4a9\u200b_.example", "not"),
    ],
)
def test_what_is_no_domain_name_is_refused_with_the_reason(written: str, reason: str) -> None:
    """One sentence, with the name in it, and examples of what would do."""
    with pytest.raises(InvalidError) as caught:
        domain_name(written)
    assert caught.value.message.startswith(f"Not a domain name: {written!r}: ")
    assert reason in caught.value.message
    assert "*.example.com" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["apps.x.com", "a.apps.x.com", "*.apps.x.com", "*.b.apps.x.com"])
def test_the_servers_own_names_are_no_custom_domains(name: str) -> None:
    """Labels are there for those; the domain above, and its wildcard, may be registered."""
    with pytest.raises(InvalidError, match=r"the server's own domain apps\.x\.com"):
        check_foreign(name, "apps.x.com")
    for other in ("x.com", "*.x.com", "myapps.x.com"):
        assert check_foreign(other, "apps.x.com") == other


def test_ascii_names_need_no_tables() -> None:
    """IDNA's are imported for a name that needs them."""
    program = (
        "import sys; from portico.wire.domains import domain_name; domain_name('a.com'); print('idna' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
