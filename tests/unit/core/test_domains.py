"""Which registration covers a name, and what is said of where DNS leads it."""

from __future__ import annotations

import pytest

from portico.core.domains import Answer, Verdict, covering, judge


@pytest.mark.parametrize(
    ("name", "by"),
    [
        ("example.com", "example.com"),
        ("*.shops.com", "*.shops.com"),
        ("tea.shops.com", "*.shops.com"),
        ("hats.shops.com", "hats.shops.com"),
        ("shops.com", None),
        ("a.b.shops.com", None),
        ("*.b.shops.com", None),
        ("api.example.com", None),
        ("*.example.com", None),
    ],
)
def test_a_registration_covers_itself_and_one_label_below_a_wildcard(name: str, by: str | None) -> None:
    """The exact one comes first."""
    assert covering(name, {"example.com", "*.shops.com", "hats.shops.com"}) == by


@pytest.mark.parametrize(
    ("found", "public", "verdict", "said"),
    [
        ({"1.1.1.1"}, {"1.1.1.1", "2.2.2.2"}, Verdict.RIGHT, "a.com leads to this server, 1.1.1.1."),
        ({"10.0.0.9"}, {"1.1.1.1"}, Verdict.RIGHT, "a.com leads to this server, 10.0.0.9."),
        ({"10.0.0.9"}, set(), Verdict.RIGHT, "a.com leads to this server, 10.0.0.9."),
        (set(), {"1.1.1.1"}, Verdict.MISSING, "a.com leads nowhere yet: there is no A or AAAA record for it."),
        ({"9.9.9.9"}, {"1.1.1.1"}, Verdict.WRONG, "a.com leads to 9.9.9.9, and not to this server, 1.1.1.1."),
        (
            {"1.1.1.1", "9.9.9.9"},
            {"1.1.1.1"},
            Verdict.WRONG,
            "a.com leads to this server, and also elsewhere: 9.9.9.9.",
        ),
        (
            {"9.9.9.9"},
            set(),
            Verdict.UNKNOWN,
            "a.com leads to 9.9.9.9; whether that is this server",
        ),
    ],
)
def test_an_answer_is_judged_by_the_servers_addresses(
    found: set[str], public: set[str], verdict: Verdict, said: str
) -> None:
    """Those that were told, and the machine's own, here 10.0.0.9."""
    judged, message = judge("a.com", Answer(frozenset(found)), frozenset(public), frozenset({"10.0.0.9"}))
    assert judged is verdict
    assert message.startswith(said)


def test_an_alias_and_a_failure_are_told() -> None:
    """The former beside the addresses, the latter in place of them."""
    alias = judge("a.com", Answer(frozenset({"9.9.9.9"}), alias="b.com"), frozenset({"1.1.1.1"}), frozenset())
    assert "a.com leads to 9.9.9.9 (as an alias of b.com), and not to" in alias[1]
    failed = judge("a.com", Answer(failure="no answer"), frozenset(), frozenset())
    assert failed == (Verdict.FAILED, "DNS did not say where a.com leads: no answer.")
