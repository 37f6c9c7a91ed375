"""What DNS says of a name, from a name server on a socket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from portico.core.domains import Answer
from portico.server.dns import Dns
from tests.names import BROKEN, SILENT, NameServer


@pytest.fixture
def names() -> Iterator[NameServer]:
    server = NameServer()
    yield server
    server.close()


def asking(names: NameServer, patience: float = 20.0) -> Dns:
    """Who asks this server only."""
    host, _, port = names.address.partition(":")
    return Dns((host, int(port)), patience)


async def test_all_addresses_of_a_name_are_found(names: NameServer) -> None:
    """Of both kinds, and through aliases."""
    names.records = {
        "api.example.com": [("CNAME", "shop.example.com.")],
        "shop.example.com": [("A", "192.0.2.7"), ("A", "192.0.2.8"), ("AAAA", "2001:db8::7")],
    }
    addresses = frozenset({"192.0.2.7", "192.0.2.8", "2001:db8::7"})
    assert await asking(names).addresses("shop.example.com") == Answer(addresses)
    assert await asking(names).addresses("api.example.com") == Answer(addresses, alias="shop.example.com")


async def test_a_name_without_addresses_is_no_failure(names: NameServer) -> None:
    """Whether there is no such name, or one that has other records."""
    names.records = {"mail.example.com": [("TXT", '"hello"')]}
    assert await asking(names).addresses("mail.example.com") == Answer()
    assert await asking(names).addresses("none.example.com") == Answer()


async def test_a_server_that_cannot_answer_is_a_failure(names: NameServer) -> None:
    """With what it says."""
    names.records = {"api.example.com": BROKEN}
    failure = (await asking(names).addresses("api.example.com")).failure
    assert failure is not None
    assert "SERVFAIL" in failure


async def test_a_server_that_is_silent_is_not_waited_for(names: NameServer) -> None:
    """Longer than the asker's patience."""
    names.records = {"api.example.com": SILENT}
    answer = await asking(names, patience=0.2).addresses("api.example.com")
    assert answer == Answer(failure="no answer within 0.2 seconds")
