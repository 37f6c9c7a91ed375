"""Who may pass with which proxy token."""

from __future__ import annotations

from hashlib import sha256

import pytest

from portico.core.tokens import ProxyToken, ProxyTokens, Verdict
from portico.model.policy import Scope

HERE = Scope("main", "seed", "square")


def check(token: ProxyToken, *, key: bytes = b"wk-1", secret: bytes = b"ws-1", at: float = 100.0) -> Verdict:
    """What becomes of these credentials where there is this token."""
    tokens = ProxyTokens()
    tokens.put(token)
    return tokens.check(key, secret, HERE, at)[0]


def a_token(**more: object) -> ProxyToken:
    return ProxyToken("wk-1", sha256(b"ws-1").digest(), **more)


def test_the_right_pair_passes() -> None:
    """Id and secret belong together."""
    assert check(a_token()) is Verdict.VALID
    assert check(a_token(), secret=b"ws-2") is Verdict.INVALID
    assert check(a_token(), key=b"wk-2") is Verdict.INVALID
    assert check(a_token(), key=b"", secret=b"") is Verdict.INVALID
    assert check(a_token(), key=b"\xff\x00", secret=b"\xff") is Verdict.INVALID


def test_an_expired_one_does_not() -> None:
    """From its last moment on."""
    assert check(a_token(expires_at=100.5)) is Verdict.VALID
    assert check(a_token(expires_at=100.0)) is Verdict.INVALID


@pytest.mark.parametrize(
    ("scope", "verdict"),
    [
        ({"environments": frozenset({"main", "dev"})}, Verdict.VALID),
        ({"environments": frozenset({"dev"})}, Verdict.ELSEWHERE),
        ({"endpoints": frozenset({"seed/square"})}, Verdict.VALID),
        ({"endpoints": frozenset({"seed"})}, Verdict.VALID),
        ({"endpoints": frozenset({"seed/cube", "square"})}, Verdict.ELSEWHERE),
        ({"environments": frozenset({"dev"}), "endpoints": frozenset({"seed"})}, Verdict.ELSEWHERE),
    ],
)
def test_a_scope_bounds_it(scope: dict[str, object], verdict: Verdict) -> None:
    """Environments and endpoints; both hold. Who has a wrong secret does not learn of the scope."""
    assert check(a_token(**scope)) is verdict
    assert check(a_token(**scope), secret=b"ws-2") is Verdict.INVALID


def test_a_removed_one_is_nobodys() -> None:
    """At once."""
    tokens = ProxyTokens()
    tokens.put(a_token())
    tokens.remove("wk-1")
    assert tokens.check(b"wk-1", b"ws-1", HERE, 100.0)[0] is Verdict.INVALID


def test_none_is_anybodys_after_a_clearance() -> None:
    """All at once."""
    tokens = ProxyTokens()
    tokens.put(a_token())
    tokens.clear()
    assert tokens.check(b"wk-1", b"ws-1", HERE, 100.0)[0] is Verdict.INVALID


def test_secrets_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By their hashes, and also where there is no such token: so the time tells nothing of either."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr("portico.core.tokens.hmac.compare_digest", compare)
    check(a_token())
    check(a_token(), secret=b"wrong")
    check(a_token(), key=b"wk-unknown")
    kept, given, wrong = sha256(b"ws-1").digest(), sha256(b"ws-1").digest(), sha256(b"wrong").digest()
    assert compared == [(given, kept), (wrong, kept), (given, bytes(32))]


def test_uses_are_told_once() -> None:
    """The last time of each token that has passed since one has asked; the first of them is announced."""
    announced: list[str] = []
    tokens = ProxyTokens(lambda: announced.append("use"))
    tokens.put(a_token())
    for at in (100.0, 101.0):
        tokens.check(b"wk-1", b"ws-1", HERE, at)
    tokens.check(b"wk-1", b"wrong", HERE, 102.0)
    assert tokens.take_used() == {"wk-1": 101.0}
    assert tokens.take_used() == {}
    assert announced == ["use"]
    tokens.check(b"wk-1", b"ws-1", HERE, 103.0)
    assert announced == ["use", "use"]
