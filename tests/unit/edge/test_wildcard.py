"""The certificate of the server's own domain, as it is kept."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
import trustme

from portico.edge.document import Pem
from portico.edge.wildcard import Wildcard, renewal_time

BEGIN = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
WANTED = {
    "domain": "example.test",
    "authority": "https://ca.test:14000/dir",
    "root": "",
    "email": "",
    "hook": ("true",),
    "dns_wait": 0.0,
}


def pem(days: int) -> Pem:
    issued = trustme.CA().issue_cert("example.test", not_before=BEGIN, not_after=BEGIN + datetime.timedelta(days))
    return Pem(issued.cert_chain_pems[0].bytes().decode(), issued.private_key_pem.bytes().decode())


def test_it_is_renewed_after_two_thirds_of_its_life() -> None:
    """Days before its end, or hours where it lives for days."""
    assert renewal_time(pem(90)) == (BEGIN + datetime.timedelta(60)).timestamp()
    assert renewal_time(pem(6)) == (BEGIN + datetime.timedelta(4)).timestamp()


@pytest.mark.parametrize("broken", ["", "not a certificate", None])
def test_what_cannot_be_read_is_not_there(tmp_path: Path, broken: str | None) -> None:
    """So that another one is asked for."""
    wildcard = Wildcard(folder=tmp_path, **WANTED)
    assert wildcard.stored() is None
    folder = tmp_path / "ca.test-14000-dir"
    folder.mkdir()
    found = pem(90)
    (folder / "example.test.crt").write_text(found.chain)
    (folder / "example.test.key").write_text(found.key)
    assert wildcard.stored() == found
    if broken is None:
        (folder / "example.test.key").unlink()
    else:
        (folder / "example.test.crt").write_text(broken)
    assert wildcard.stored() is None


def test_another_authority_is_another_place(tmp_path: Path) -> None:
    """A certificate of a test authority is not taken for one that everybody trusts."""
    first = Wildcard(folder=tmp_path, **WANTED)
    second = Wildcard(folder=tmp_path, **WANTED | {"authority": "https://other.test/dir"})
    assert first.account != second.account
