"""When to try again for names without a certificate."""

from __future__ import annotations

from portico.core.certificates import FIRST_DELAY, MAX_DELAY, MOST, Failures


def test_a_name_rests_after_a_failure_and_longer_after_the_next() -> None:
    """Five minutes, then ten, and so on up to six hours."""
    failures, now, rests = Failures(), 0.0, []
    for _ in range(9):
        failures.failed("a.test", now)
        begun = now
        while not failures.may_try("a.test", now):
            now += FIRST_DELAY / 2
        rests.append(now - begun)
    assert rests == [min(FIRST_DELAY * 2**n, MAX_DELAY) for n in range(9)]


def test_what_fails_while_a_name_rests_counts_once() -> None:
    """Caddy itself tries several times in one visit."""
    failures = Failures()
    for now in (0.0, 60.0, 180.0):
        failures.failed("a.test", now)
    assert failures.due(FIRST_DELAY - 1) == []
    assert failures.due(FIRST_DELAY) == ["a.test"]


def test_a_name_that_is_forgotten_may_be_tried_at_once() -> None:
    """It has a certificate, or somebody has mended it. What never failed may be tried, too."""
    failures = Failures()
    failures.failed("a.test", 0.0)
    assert not failures.may_try("a.test", 1.0)
    failures.forget("a.test")
    failures.forget("never.test")
    assert failures.may_try("a.test", 1.0)
    assert failures.may_try("other.test", 1.0)


def test_the_number_of_names_is_bounded() -> None:
    """Whoever makes names up pushes out the oldest failure, and takes no more memory."""
    failures = Failures()
    for number in range(MOST + 1):
        failures.failed(f"{number}.test", 0.0)
    assert len(failures.due(MAX_DELAY)) == MOST
    assert failures.may_try("0.test", 1.0)
    assert not failures.may_try("1.test", 1.0)
