"""Values as bytes: what cannot travel is told in one message, with the user's frames and nobody else's."""

import threading
import traceback

import pytest

from portico.model.errors import DeserializationError, SerializationError
from portico.wire import codec


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
    data = codec.dump(Late(), "x")
    with pytest.raises(DeserializationError, match="ValueError: too late") as caught:
        codec.load(data, "What f returned")
    frames = traceback.extract_tb(caught.value.__cause__.__traceback__)
    assert [frame.name for frame in frames] == ["refuse"]
