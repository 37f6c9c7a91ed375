"""Custom domains: which registration covers a name, and what to say of where DNS leads it."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from enum import StrEnum


def covering(name: str, registered: Container[str]) -> str | None:
    """The registration that a name needs: itself, or the wildcard that it is under; None where there is none."""
    wildcard = "*." + name.partition(".")[2]
    return name if name in registered else wildcard if wildcard in registered else None


class Verdict(StrEnum):
    """Whether a domain leads to this server."""

    RIGHT = "right"
    WRONG = "wrong"  # it leads elsewhere, or not only here
    MISSING = "missing"  # it leads nowhere
    UNKNOWN = "unknown"  # it leads somewhere; whether that is here cannot be seen from here
    FAILED = "failed"  # DNS did not answer


@dataclass(frozen=True, slots=True)
class Answer:
    """What DNS says of a name. alias: the name that its addresses are of, where that is another one (CNAME).

    failure: why there is no answer; no addresses without a failure: the name has none.
    """

    addresses: frozenset[str] = field(default_factory=frozenset)
    alias: str | None = None
    failure: str | None = None


def judge(name: str, answer: Answer, public: frozenset[str], local: frozenset[str]) -> tuple[Verdict, str]:
    """What to say of an answer. public: the server's addresses, as far as they were told; local: this machine's own."""
    if answer.failure is not None:
        return Verdict.FAILED, f"DNS did not say where {name} leads: {answer.failure}."
    if not answer.addresses:
        return Verdict.MISSING, f"{name} leads nowhere yet: there is no A or AAAA record for it."
    alias = "" if answer.alias is None else f" (as an alias of {answer.alias})"
    there = _listed(answer.addresses)
    if answer.addresses <= public | local:
        return Verdict.RIGHT, f"{name} leads to this server, {there}{alias}."
    if not public:
        return Verdict.UNKNOWN, f"{name} leads to {there}{alias}; whether that is this server cannot be seen from here."
    elsewhere = answer.addresses - public - local
    if elsewhere == answer.addresses:
        return Verdict.WRONG, f"{name} leads to {there}{alias}, and not to this server, {_listed(public)}."
    return Verdict.WRONG, f"{name} leads to this server, and also elsewhere: {_listed(elsewhere)}{alias}."


def _listed(addresses: frozenset[str]) -> str:
    return ", ".join(sorted(addresses))
