"""Exceptions that travel: the same type, arguments, chain and frames; or an error that says what was raised."""

import traceback

import pytest

from portico.model.errors import ExecutionError, InvalidError
from portico.wire import raised


class Odd(Exception):
    """Takes more than it gives to its base: pickle cannot rebuild it."""

    def __init__(self, one, two):
        super().__init__(one)


def travelled(error):
    """The exception after its way there and back."""
    return raised.load(raised.dump(error, lambda path: False))


def caught(function):
    """What it raises."""
    with pytest.raises((LookupError, ValueError)) as caught:
        function()
    return caught.value


def fails():
    raise LookupError("no such egg", 7)


def fails_because():
    try:
        fails()
    except LookupError as error:
        raise ValueError("no breakfast") from error


def fails_meanwhile():
    try:
        fails()
    except LookupError:
        raise ValueError("no breakfast")  # noqa: B904 - the context is what is tested


def test_type_and_arguments_stay():
    """The caller may catch it by its type."""
    error = travelled(caught(fails))
    assert (type(error), error.args) == (LookupError, ("no such egg", 7))


def test_the_remote_frames_are_shown():
    """The traceback names the function that has raised, with its line."""
    error = travelled(caught(fails))
    with pytest.raises(LookupError) as info:
        raise error
    text = "".join(traceback.format_exception(info.value))
    assert "in fails" in text
    assert 'raise LookupError("no such egg", 7)' in text


@pytest.mark.parametrize(("function", "link"), [(fails_because, "__cause__"), (fails_meanwhile, "__context__")])
def test_the_chain_stays(function, link):
    """Causes and contexts travel along."""
    error = travelled(caught(function))
    assert str(error) == "no breakfast"
    assert isinstance(getattr(error, link), LookupError)


def test_notes_stay():
    """What was added to the exception is still there."""
    error = ValueError("x")
    error.add_note("with eggs")
    assert travelled(error).__notes__ == ["with eggs"]


def test_our_own_errors_stay_whole():
    """Hints and details travel."""
    error = travelled(InvalidError("no", hint="yes", detail="why"))
    assert (error.message, error.hint, error.detail) == ("no", "yes", "why")


@pytest.mark.parametrize("error", [ValueError(open), Odd(1, 2), ValueError(iter(()).__next__, (x for x in ()))])
def test_any_exception_arrives_as_an_exception(error):
    """Also one that cannot be pickled or rebuilt: then its name and text arrive."""
    assert isinstance(travelled(error), (type(error), ExecutionError))


def test_one_that_cannot_be_pickled_is_told():
    """Its name and its text are in the error that stands in for it."""
    error = travelled(ValueError("bad", (x for x in ())))
    assert isinstance(error, ExecutionError)
    assert "ValueError" in error.message
    assert "bad" in error.detail


def test_one_that_cannot_be_rebuilt_is_told(monkeypatch):
    """A class that the caller does not have: the name, and why."""
    data = raised.dump(Odd.__base__("x"), lambda path: False)
    here = raised.load(data)
    assert str(here) == "x"
    lost = type("Lost", (Exception,), {"__module__": __name__, "__qualname__": "Lost"})
    monkeypatch.setitem(globals(), "Lost", lost)
    data = raised.dump(lost("gone"), lambda path: False)
    monkeypatch.delitem(globals(), "Lost")
    error = raised.load(data)
    assert isinstance(error, ExecutionError)
    assert "Lost" in error.message
    assert "gone" in error.detail


def test_our_own_errors_come_without_our_frames():
    """Their message says it all; frames of the user's that led to them stay, and so do those of our own faults."""
    ours = caught(fails)
    assert raised.load(raised.dump(ours, lambda path: True)).__traceback__ is not None
    with pytest.raises(InvalidError) as told:
        raise InvalidError("no")
    assert raised.load(raised.dump(told.value, lambda path: True)).__traceback__ is None
    assert travelled(told.value).__traceback__ is not None


def test_our_own_frames_are_left_out():
    """The traceback begins where the user's code does."""
    error = caught(fails)
    first = error.__traceback__.tb_frame.f_code.co_filename
    assert travelled(error).__traceback__ is not None
    assert raised.load(raised.dump(error, lambda path: path == first)).__traceback__ is not None
