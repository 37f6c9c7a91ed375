"""Values on their way: whatever pickles comes back as it was."""

from __future__ import annotations

import threading
import traceback
from enum import IntEnum
from typing import Any

import pytest

from portico.model.errors import DeserializationError, SerializationError
from portico.wire import codec


class Colour(IntEnum):
    """Looks like a plain number."""

    RED = 1


class Text(str):
    """Looks like plain text."""


class Stubborn:
    """Its own code says no."""

    def __reduce__(self):
        raise ValueError("not me")


class Late:
    """It can be taken down, and not be rebuilt."""

    def __reduce__(self):
        return refuse, ()


def refuse():
    raise ValueError("too late")


@pytest.mark.parametrize(
    "value",
    [None, True, 7, 1.5, "é", b"x", (), ((1, "a"), {}), ((), {"k": 1}), (((((1,),),),),), [1, {2: 3}], Colour.RED],
)
def test_values_come_back_equal_and_of_their_type(value: Any) -> None:
    """Plain ones and others."""
    back = codec.load(b"".join(codec.dump(value, "it")), "it")
    assert back == value
    assert type(back) is type(value)


def test_what_is_changed_after_it_was_sent_arrives_as_it_was() -> None:
    """Only bytes that cannot change are left where they are."""
    value = bytearray(b"x" * 1_000_000)
    pieces = codec.dump([value], "it")
    value[:] = b"y" * len(value)
    assert codec.load(b"".join(pieces), "it") == [b"x" * 1_000_000]


def test_subclasses_and_functions_travel_in_arguments() -> None:
    """What only looks plain is not taken for it."""
    (text, double), _ = codec.load(b"".join(codec.dump(((Text("a"), lambda x: 2 * x), {}), "it")), "it")
    assert type(text) is Text
    assert double(4) == 8


def test_a_list_in_itself_travels() -> None:
    """A look at what is in a value ends."""
    ring: list[Any] = []
    ring.append(ring)
    back = codec.load(b"".join(codec.dump(((ring,), {}), "it")), "it")[0][0]
    assert back[0] is back


def test_what_cannot_be_pickled_is_said_to_be_so() -> None:
    """With what it is."""
    with pytest.raises(SerializationError, match="An argument cannot be sent"):
        codec.dump(((iter([]).__class__, (x for x in ())), {}), "An argument")


def test_what_cannot_be_pickled_is_told_without_the_pickler():
    """The message has all that the pickler knows."""
    with pytest.raises(SerializationError, match="What f returned cannot be sent: TypeError: cannot pickle") as caught:
        codec.dump([threading.Lock()], "What f returned")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_users_code_that_refuses_to_be_pickled_is_shown():
    """From its own first line on."""
    with pytest.raises(SerializationError, match="ValueError: not me") as caught:
        codec.dump(Stubborn(), "An argument of f")
    frames = traceback.extract_tb(caught.value.__cause__.__traceback__)
    assert [frame.name for frame in frames] == ["__reduce__"]


def test_users_code_that_fails_to_rebuild_is_shown():
    """From its own first line on."""
    data = b"".join(codec.dump(Late(), "x"))
    with pytest.raises(DeserializationError, match="ValueError: too late") as caught:
        codec.load(data, "What f returned")
    frames = traceback.extract_tb(caught.value.__cause__.__traceback__)
    assert [frame.name for frame in frames] == ["refuse"]
