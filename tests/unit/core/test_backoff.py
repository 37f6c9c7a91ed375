"""Ends in a row."""

from portico.core.backoff import Streak


def test_ends_in_a_row_are_counted() -> None:
    """Each that began after the one before had ended."""
    streak = Streak()
    assert [streak.add(began, began + 1) for began in (1, 2, 3)] == [1, 2, 3]


def test_those_side_by_side_count_as_one() -> None:
    """Whatever ended the first has ended the others."""
    streak = Streak()
    assert [streak.add(1, 5), streak.add(2, 5), streak.add(4, 6)] == [1, 1, 1]


def test_one_that_lives_ends_the_row() -> None:
    """The next is a first one again."""
    streak = Streak()
    streak.add(1, 2)
    streak.end()
    assert streak.add(3, 4) == 1
