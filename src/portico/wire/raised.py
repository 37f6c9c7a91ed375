"""An exception as bytes and back, with the frames of its traceback. The only place that knows tblib.

Each exception of the chain travels on its own, so that one that cannot be pickled, or not be rebuilt where it arrives,
takes no other with it: an ExecutionError with its text and traceback stands in for it.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, NamedTuple

from portico.model.errors import DeserializationError, Error, ExecutionError, SerializationError
from portico.wire import codec

_LONGEST_CHAIN: Final = 16
_WHAT: Final = "An exception"


class _Link(NamedTuple):
    """One exception of a chain. `frames` is tblib's picture of its traceback; `text` what Python prints of it."""

    pickled: bytes | None
    name: str
    text: str
    frames: dict[str, Any] | None
    is_cause: bool  # of the one before it; otherwise its context


def dump(error: BaseException, is_ours: Callable[[str], bool]) -> bytes:
    """The exception with its chain; frames of files that `is_ours` are left out where they are the outermost."""
    links: list[tuple[Any, ...]] = []
    following: BaseException | None = error
    is_cause = False
    while following is not None and len(links) < _LONGEST_CHAIN:
        links.append(tuple(_link(following, is_cause, is_ours)))
        is_cause = following.__cause__ is not None
        following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)
    return pickle.dumps(links, protocol=5)


def load(data: bytes | bytearray) -> BaseException:
    """The exception, ready to be raised here: its traceback ends with the frames that it had there."""
    links = [_Link(*link) for link in pickle.loads(data)]  # noqa: S301 - see codec.load
    exceptions = [_rebuild(link) for link in links]
    for outer, inner, link in zip(exceptions, exceptions[1:], links[1:], strict=False):
        if link.is_cause:
            outer.__cause__ = inner
        else:
            outer.__context__ = inner
    return exceptions[0]


def _link(error: BaseException, is_cause: bool, is_ours: Callable[[str], bool]) -> _Link:
    users = _without_ours(error.__traceback__, is_ours)
    shown = users if users is not None or isinstance(error, Error) else error.__traceback__
    text = "".join(traceback.format_exception(type(error), error, shown, chain=False))
    return _Link(_pickled(error), type(error).__qualname__, text, _frames(shown), is_cause)


def _without_ours(shown: TracebackType | None, is_ours: Callable[[str], bool]) -> TracebackType | None:
    first = shown
    while first is not None and is_ours(first.tb_frame.f_code.co_filename):
        first = first.tb_next
    return first


def _pickled(error: BaseException) -> bytes | None:
    try:
        data = b"".join(codec.dump(error, _WHAT))
        pickle.loads(data)  # noqa: S301 - our own bytes: an exception whose __init__ takes more than its args comes to light here
    except (SerializationError, Exception):
        return None
    return data


def _frames(shown: TracebackType | None) -> dict[str, Any] | None:
    if shown is None:
        return None
    from tblib import Traceback  # only when something was raised

    picture: dict[str, Any] = Traceback(shown).to_dict()
    return picture


def _rebuild(link: _Link) -> BaseException:
    error = _unpickled(link)
    if link.frames is not None:
        from tblib import Traceback

        error.__traceback__ = Traceback.from_dict(link.frames).as_traceback()
    return error


def _unpickled(link: _Link) -> BaseException:
    if link.pickled is None:
        return ExecutionError(f"The function raised {link.name}, which cannot be sent.", detail=link.text)
    try:
        error = codec.load(link.pickled, _WHAT)
    except DeserializationError as reason:
        return ExecutionError(
            f"The function raised {link.name}, which cannot be rebuilt here.",
            hint=str(reason.message),
            detail=link.text,
        )
    return error if isinstance(error, BaseException) else Error(link.text)
