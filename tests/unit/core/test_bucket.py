"""The token bucket, with a clock of its own."""

from __future__ import annotations

import pytest

from portico.core.bucket import TokenBucket


def passed(bucket: TokenBucket, times: list[float]) -> int:
    """How many of the requests at these times pass."""
    count = 0
    for now in times:
        if bucket.has_one(now):
            bucket.take()
            count += 1
    return count


@pytest.mark.parametrize("rate", [200.0, 50.0, 7.5])
@pytest.mark.parametrize("offered", [1.5, 10.0])
def test_ten_seconds_of_overload_pass_what_they_may(rate: float, offered: float) -> None:
    """The burst and ten seconds' worth, to 1 %, however much is offered."""
    start = 1e6  # a clock far from zero: small steps must not be lost
    count = int(rate * offered * 10)
    bucket = TokenBucket(rate, start)
    drained = passed(bucket, [start] * int(bucket.burst))
    assert drained == int(rate * 5)
    steady = passed(bucket, [start + i * 10 / count for i in range(1, count + 1)])
    assert steady == pytest.approx(rate * 10, rel=0.01)


def test_a_pause_fills_it_up_to_the_burst() -> None:
    """However long nobody came: five seconds' worth at once, and no more."""
    bucket = TokenBucket(200, 0)
    assert passed(bucket, [3600.0] * 2000) == 1000
    assert passed(bucket, [3601.0] * 2000) == 200


def test_less_than_the_rate_is_never_refused() -> None:
    """A client that keeps to the rate sees no bucket."""
    bucket = TokenBucket(10, 0)
    assert passed(bucket, [i * 0.101 for i in range(1000)]) == 1000


def test_it_says_when_the_next_one_may_pass() -> None:
    """And then it does."""
    bucket = TokenBucket(0.1, 0)
    assert bucket.has_one(0)
    bucket.take()
    assert not bucket.has_one(4)
    assert bucket.wait() == pytest.approx(6)
    assert not bucket.has_one(9.9)
    assert bucket.has_one(10.01)


def test_another_rate_takes_what_is_left_along() -> None:
    """A changed limit gives nobody a new burst."""
    bucket = TokenBucket(200, 0)
    passed(bucket, [0.0] * 1000)
    bucket.change(100)
    assert passed(bucket, [1.0] * 1000) == 100
    bucket.change(1)
    assert passed(bucket, [100.0] * 1000) == 5
