"""The order in which folders are covered and put back."""

from __future__ import annotations

import pytest

from portico.runtime.confine import plan


@pytest.mark.parametrize(
    ("hidden", "shown", "steps"),
    [
        (["/home/p"], ["/usr"], [("/home/p", False)]),
        (["/home/p"], ["/home/p/images", "/home/p/images/a"], [("/home/p", False), ("/home/p/images", True)]),
        (["/tmp", "/tmp/p"], ["/tmp/p/b"], [("/tmp", False), ("/tmp/p", False), ("/tmp/p/b", True)]),
        (["/h"], ["/h", "/h-other"], [("/h", False)]),
        (
            ["/tmp", "/tmp/venv/home"],
            ["/tmp/venv", "/tmp/venv/home/b", "/tmp/venv/lib"],
            [("/tmp", False), ("/tmp/venv", True), ("/tmp/venv/home", False), ("/tmp/venv/home/b", True)],
        ),
    ],
    ids=["elsewhere", "inside-of-shown", "nested", "same", "home-inside-of-a-program"],
)
def test_what_is_hidden_inside_of_something_shown_is_covered_after_it(
    hidden: list[str], shown: list[str], steps: list[tuple[str, bool]]
) -> None:
    """From the outside in, and nothing twice; what is both is hidden."""
    assert plan(hidden, shown) == steps
    assert plan(reversed(hidden), reversed(shown)) == steps
