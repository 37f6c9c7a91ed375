"""Values of a class's parameters as text: in URLs, in the requests of calls, and as the name of a pool.

The text is that of a query, `size=3&name=big%20one`: strings are UTF-8, integers have 64 bits, booleans are `true` and
`false`, bytes are themselves. Its canonical form has every parameter, in the order of the class.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from portico.model.errors import InvalidError
from portico.model.spec import ParameterKind, ParameterSpec

Value = str | int | bool | bytes

MAX_SIZE: Final = 16 * 1024  # bytes of all values of one class, as text
_TRUE: Final = frozenset([b"true", b"1", b"yes", b"on", b"t", b"y"])
_FALSE: Final = frozenset([b"false", b"0", b"no", b"off", b"f", b"n"])
_KINDS: Final[dict[type, ParameterKind]] = {
    str: ParameterKind.STR,
    int: ParameterKind.INT,
    bool: ParameterKind.BOOL,
    bytes: ParameterKind.BYTES,
}
_ARTICLES: Final = {
    ParameterKind.STR: "text in UTF-8",
    ParameterKind.INT: "a whole number of 64 bits",
    ParameterKind.BOOL: "true or false",
    ParameterKind.BYTES: "bytes",
}


def kind_of(annotation: object) -> ParameterKind | None:
    """The kind for an annotation; None for a type that parameters cannot have."""
    return _KINDS.get(annotation) if isinstance(annotation, type) else None


def text_of(value: object, kind: ParameterKind | None = None) -> str:
    """The text of one value. InvalidError when it has no text, or is not of this kind."""
    from urllib.parse import quote  # 5 ms that `import modal` need not pay

    own = _KINDS.get(type(value))
    if own is None or kind not in (None, own):
        wanted = "str, int, bool or bytes" if kind is None else kind.value
        raise InvalidError(f"Expected {wanted}, got {type(value).__name__}.")
    if isinstance(value, str | bytes):
        return quote(value, safe="")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return str(value)
    raise InvalidError("Whole numbers have at most 64 bits.")


def query_of(values: Mapping[str, object]) -> str:
    """Values as a query. InvalidError for one that cannot be a parameter's, or for all when they are too long."""
    from urllib.parse import quote  # see `text_of`

    pairs = []
    for name, value in values.items():
        try:
            pairs.append(f"{quote(name)}={text_of(value)}")
        except InvalidError as error:
            raise InvalidError(f"The parameter {name!r}: {error.message}") from None
    return _short("&".join(pairs))


def canonical(parameters: Sequence[ParameterSpec], query: bytes, *, alone: bool = False) -> str:
    """The canonical text of the values that a query gives; InvalidError when one is missing or wrong.

    alone: the query is about nothing else, so a name that no parameter has is wrong too.
    """
    given: dict[str, bytes] = {}
    known = {parameter.name for parameter in parameters}
    for name, raw, _ in _pairs(query):
        if name in known:
            if name in given:
                raise InvalidError(f"the parameter {name!r} is given twice")
            given[name] = raw
        elif alone:
            raise InvalidError(f"there is no parameter {name!r}")
    texts = []
    for parameter in parameters:
        if parameter.name in given:
            texts.append(f"{parameter.name}={text_of(_value(parameter, given[parameter.name]))}")
        elif parameter.default is not None:
            texts.append(f"{parameter.name}={parameter.default}")
        else:
            raise InvalidError(f"the parameter {parameter.name!r} is missing: {_ARTICLES[parameter.kind]}")
    return _short("&".join(texts))


def values_of(parameters: Sequence[ParameterSpec], text: str) -> dict[str, Value]:
    """The values in a canonical text."""
    kinds = {parameter.name: parameter for parameter in parameters}
    return {name: _value(kinds[name], raw) for name, raw, _ in _pairs(text.encode())}


def without(names: Collection[str], query: bytes) -> bytes:
    """A query without what it says of these names."""
    return b"&".join(piece for name, _, piece in _pairs(query) if name not in names)


def _pairs(query: bytes) -> Iterator[tuple[str, bytes, bytes]]:
    """Name and value of each piece, and the piece as it stands."""
    from urllib.parse import unquote_to_bytes  # see `text_of`

    for piece in query.split(b"&") if query else ():
        name, _, raw = piece.replace(b"+", b" ").partition(b"=")
        yield unquote_to_bytes(name).decode(errors="replace"), unquote_to_bytes(raw), piece


def _value(parameter: ParameterSpec, raw: bytes) -> Value:
    kind = parameter.kind
    if kind is ParameterKind.BYTES:
        return raw
    if kind is ParameterKind.BOOL and raw.lower() in _TRUE | _FALSE:
        return raw.lower() in _TRUE
    if kind is ParameterKind.INT and len(raw) <= 20 and raw.lstrip(b"+-").isdigit():
        number = _whole(raw)
        if number is not None and -(2**63) <= number < 2**63:
            return number
    if kind is ParameterKind.STR:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            pass  # said below, as for the others
    raise InvalidError(
        f"the parameter {parameter.name!r} is not {_ARTICLES[kind]}: {raw[:50].decode(errors='replace')!r}"
    )


def _whole(raw: bytes) -> int | None:
    try:
        return int(raw)
    except ValueError:  # two signs
        return None


def _short(text: str) -> str:
    if len(text) > MAX_SIZE:
        raise InvalidError("the parameters have more than 16 KiB together")
    return text
