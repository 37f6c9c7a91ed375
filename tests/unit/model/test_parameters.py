"""Parameters of classes as text: what queries say, and what pools are called."""

from __future__ import annotations

import pytest

from portico.model.errors import InvalidError
from portico.model.parameters import MAX_SIZE, canonical, query_of, text_of, values_of, without
from portico.model.spec import ParameterKind, ParameterSpec

NAME = ParameterSpec(name="name", kind=ParameterKind.STR)
SIZE = ParameterSpec(name="size", kind=ParameterKind.INT, default="3")
DEEP = ParameterSpec(name="deep", kind=ParameterKind.BOOL, default="false")
SALT = ParameterSpec(name="salt", kind=ParameterKind.BYTES, default="")
ALL = (NAME, SIZE, DEEP, SALT)


@pytest.mark.parametrize(
    "values",
    [
        {"name": "a", "size": 7, "deep": True, "salt": b"\x00\xff&=+ %"},
        {"name": "ä & b=c+d %20 /?#", "size": -(2**63), "deep": False, "salt": b""},
        {"name": "", "size": 2**63 - 1, "deep": True, "salt": bytes(range(256))},
    ],
)
def test_values_survive_as_text(values: dict[str, object]) -> None:
    """What goes into a query comes out of its canonical text, whatever characters it has."""
    assert values_of(ALL, canonical(ALL, query_of(values).encode())) == values


def test_one_set_of_values_has_one_text() -> None:
    """Order, defaults and spellings make no difference: there is one pool."""
    texts = {
        canonical(ALL, query)
        for query in (b"name=a+b", b"name=a%20b&size=3", b"deep=no&size=%33&other=1&name=a b", b"salt=&name=a+b&deep=0")
    }
    assert texts == {"name=a%20b&size=3&deep=false&salt="}


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (b"", "'name' is missing"),
        (b"size=1", "'name' is missing"),
        (b"name=a&size=1.5", "'size' is not a whole number of 64 bits: '1.5'"),
        (b"name=a&size=9223372036854775808", "'size' is not"),
        (b"name=a&size=", "'size' is not"),
        (b"name=a&size=%2B-1", "'size' is not"),
        (b"name=a&size=" + b"9" * 5000, "'size' is not"),
        (b"name=a&deep=perhaps", "'deep' is not true or false"),
        (b"name=%ff", "'name' is not text in UTF-8"),
        (b"name=a&name=b", "'name' is given twice"),
        (b"name=" + b"a" * MAX_SIZE, "16 KiB"),
    ],
)
def test_wrong_values_are_named(query: bytes, said: str) -> None:
    """The message has the parameter, and what it should be."""
    with pytest.raises(InvalidError) as caught:
        canonical(ALL, query)
    assert said in caught.value.message
    assert len(caught.value.message) < 200


def test_other_names_are_for_the_handler_or_wrong() -> None:
    """A web request's query has more than the parameters, a call's has not."""
    assert canonical((SIZE,), b"x=1&size=4") == "size=4"
    with pytest.raises(InvalidError, match="no parameter 'x'"):
        canonical((SIZE,), b"x=1&size=4", alone=True)


def test_the_handler_does_not_see_the_parameters() -> None:
    """The rest of the query stays as it was sent, byte for byte."""
    assert without({"size", "na me"}, b"a=1&size=4&b=%2f+x&na%20me=5&&c") == b"a=1&b=%2f+x&&c"
    assert without({"size"}, b"") == b""


@pytest.mark.parametrize(
    ("value", "kind"), [(1.5, None), (None, None), ("3", ParameterKind.INT), (True, ParameterKind.INT)]
)
def test_other_types_have_no_text(value: object, kind: ParameterKind | None) -> None:
    """A boolean is no whole number, and nothing is converted."""
    with pytest.raises(InvalidError, match=r"Expected .*, got"):
        text_of(value, kind)


def test_a_value_that_cannot_travel_is_named() -> None:
    """With the parameter's name."""
    with pytest.raises(InvalidError, match=r"'size'.*64 bits"):
        query_of({"size": 2**63})
