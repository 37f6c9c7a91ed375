"""Values on their way: whatever pickles comes back as it was."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import pytest

from portico.model.errors import SerializationError
from portico.wire import codec


class Colour(IntEnum):
    """Looks like a plain number."""

    RED = 1


class Text(str):
    """Looks like plain text."""


@pytest.mark.parametrize(
    "value",
    [None, True, 7, 1.5, "é", b"x", (), ((1, "a"), {}), ((), {"k": 1}), (((((1,),),),),), [1, {2: 3}], Colour.RED],
)
def test_values_come_back_equal_and_of_their_type(value: Any) -> None:
    """Plain ones and others."""
    back = codec.load(codec.dump(value, "it"), "it")
    assert back == value
    assert type(back) is type(value)


def test_subclasses_and_functions_travel_in_arguments() -> None:
    """What only looks plain is not taken for it."""
    (text, double), _ = codec.load(codec.dump(((Text("a"), lambda x: 2 * x), {}), "it"), "it")
    assert type(text) is Text
    assert double(4) == 8


def test_a_list_in_itself_travels() -> None:
    """A look at what is in a value ends."""
    ring: list[Any] = []
    ring.append(ring)
    back = codec.load(codec.dump(((ring,), {}), "it"), "it")[0][0]
    assert back[0] is back


def test_what_cannot_be_pickled_is_said_to_be_so() -> None:
    """With what it is."""
    with pytest.raises(SerializationError, match="An argument cannot be sent"):
        codec.dump(((iter([]).__class__, (x for x in ())), {}), "An argument")
