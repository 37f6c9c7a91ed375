"""Stored calls: ids, attempts, and the line in front of a function. Decisions without a clock."""

from __future__ import annotations

import pytest

from portico.core import durable
from portico.model.spec import RetryPolicy

DAY = 86400.0


def test_an_id_tells_when_it_was_made_and_cannot_be_guessed() -> None:
    """Ids of one moment differ in 80 bits; later ones sort behind."""
    first, other, later = durable.make_id(1000.5, 1), durable.make_id(1000.5, 1 << 79), durable.make_id(2000.0, 0)
    assert (len(first), first[:3]) == (29, "fc-")
    assert first < other < later
    assert [durable.made_at(call) for call in (first, other, later)] == [1000.5, 1000.5, 2000.0]


@pytest.mark.parametrize("text", ["", "fc-", "fc-123", "fc-" + "U" * 26, "ap-" + "0" * 26, "0" * 26, "fc-" + "0" * 27])
def test_what_is_no_id(text: str) -> None:
    """It was never made."""
    assert durable.made_at(text) is None
    assert not durable.is_expired(text, 1e12)


def test_results_are_kept_for_a_week() -> None:
    """What ended before then goes; an unknown id that is older may have been there."""
    assert durable.expired_before(30 * DAY) == 23 * DAY
    assert durable.is_expired(durable.make_id(22 * DAY, 7), 30 * DAY)
    assert not durable.is_expired(durable.make_id(24 * DAY, 7), 30 * DAY)


@pytest.mark.parametrize(
    ("policy", "delays"),
    [
        (None, [None]),
        (RetryPolicy(max_retries=0), [None]),
        (RetryPolicy(max_retries=2), [1.0, 1.0, None]),
        (RetryPolicy(max_retries=4, initial_delay=2.0, backoff_coefficient=3.0, max_delay=20.0), [2, 6, 18, 20, None]),
        (RetryPolicy(max_retries=1, initial_delay=0.0), [0.0, None]),
    ],
)
def test_each_failure_waits_longer_until_there_is_no_attempt_left(
    policy: RetryPolicy | None, delays: list[float | None]
) -> None:
    """Delays grow by the coefficient up to their bound."""
    said = [durable.next_attempt(policy, attempts, 100.0) for attempts in range(1, len(delays) + 1)]
    assert said == [None if delay is None else 100.0 + delay for delay in delays]


def test_a_thousandth_retry_has_a_delay() -> None:
    """However large the power."""
    assert RetryPolicy(max_retries=10_000, backoff_coefficient=10.0).delay(9_999) == 60.0


def a_line(*calls: str) -> durable.Line[str]:
    line: durable.Line[str] = durable.Line()
    for position, call in enumerate(calls, 1):
        line.join(call, position)
    return line


def test_calls_leave_in_the_order_in_which_they_came() -> None:
    """One that comes back is before those that have not begun."""
    line = a_line("a", "b")
    assert line.take() == "a"
    line.again("a")
    assert [line.take(), line.take(), line.take()] == ["a", "b", None]


def test_a_long_line_is_in_the_store() -> None:
    """A page is here; once it is taken the next one is read, from where this one ends."""
    line: durable.Line[int] = durable.Line()
    here = [line.join(position, position) for position in range(1, durable.PAGE + 11)]
    assert here == [True] * durable.PAGE + [False] * 10
    line.window = durable.LAST_WINDOW
    for _ in range(durable.PAGE):
        assert line.take() is not None
        line.waiting -= 1
    assert line.runs_short
    assert line.begin_page() == durable.PAGE
    line.page(list(range(durable.PAGE + 1, durable.PAGE + 11)), durable.PAGE + 10, full=False)
    assert (len(line), line.more, line.position) == (10, False, durable.PAGE + 10)


def test_a_call_that_comes_while_a_page_is_read_is_not_forgotten() -> None:
    """It may not be on that page, so there is another one; if it is, it does not join twice."""
    line: durable.Line[str] = durable.Line()
    line.more = True
    assert line.begin_page() == 0
    assert not line.join("b", 2)
    line.page(["a"], 1, full=False)
    assert line.more
    line.begin_page()
    line.page(["b"], 2, full=False)
    assert not line.join("b", 2)
    assert len(line) == 2


def test_few_calls_are_under_way_at_first_and_more_while_others_wait() -> None:
    """The window doubles up to its bound, and is small again when nobody waits."""
    line = a_line(*map(str, range(durable.PAGE)))
    taken = sum(line.take() is not None for _ in range(100))
    assert taken == durable.FIRST_WINDOW
    assert line.grow()
    assert line.window == 2 * durable.FIRST_WINDOW
    while line.grow():
        pass
    assert line.window == durable.LAST_WINDOW
    while line.take() is not None:
        line.waiting -= 1
    assert not line.grow()
    assert line.window == durable.FIRST_WINDOW


def test_other_inputs_are_not_crowded_out() -> None:
    """However large the window, few calls wait in the pool's own queue."""
    line = a_line(*map(str, range(durable.PAGE)))
    line.window = durable.LAST_WINDOW
    assert sum(line.take() is not None for _ in range(durable.PAGE)) == durable.MOST_WAITING


def test_methods_have_a_line_for_each_set_of_parameters_up_to_a_number() -> None:
    """So one set does not wait for another, and there are not as many lines as values."""
    lines = {durable.line_of("Model.f", f"size={size}") for size in range(10_000)}
    assert len(lines) == durable.LINES
    assert {durable.function_of(line) for line in lines} == {"Model.f"}
    assert durable.line_of("f", "") == durable.function_of("f") == "f"


def test_a_line_that_was_turned_away_begins_slowly_again() -> None:
    """What is under way stays; no more follow until there are few."""
    line = a_line(*map(str, range(durable.PAGE)))
    while line.grow():
        pass
    for _ in range(durable.MOST_WAITING):
        line.take()
    line.waiting = 0
    line.shrink()
    assert line.take() is None
    line.under_way = durable.FIRST_WINDOW - 1
    assert line.take() is not None
