"""Values and functions as bytes and back. The only place that knows cloudpickle."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from portico.model.errors import DeserializationError, InvalidError, SerializationError

if TYPE_CHECKING:
    from typing_extensions import Buffer

_PLAIN: Final = frozenset([type(None), bool, int, float, str, bytes])
_FEW: Final = 8
MAX_FUNCTION = 16 * 1024 * 1024  # bytes
_MACHINERY = frozenset({"portico", "cloudpickle", "pickle", "copyreg", "importlib"})


def dump_function(function: Callable[..., Any] | None) -> bytes:
    """The function with what it refers to in its own module. SerializationError, or InvalidError above 16 MiB."""
    import cloudpickle  # 50 ms, and few functions travel by value

    module = sys.modules.get(getattr(function, "__module__", ""))
    by_value = module is not None and module.__name__ not in cloudpickle.list_registry_pickle_by_value()
    try:
        if module is not None and by_value:
            cloudpickle.register_pickle_by_value(module)
        data: bytes = cloudpickle.dumps(function, protocol=5)
    except Exception as error:
        raise SerializationError(f"{function!r} cannot travel by value: {type(error).__name__}: {error}") from error
    finally:
        if module is not None and by_value:
            cloudpickle.unregister_pickle_by_value(module)
    if len(data) > MAX_FUNCTION:
        raise InvalidError(
            f"{function!r} is {len(data):,} bytes by value; the limit is 16 MiB.",
            hint="Read large data where the function runs, not into global variables that it refers to.",
        )
    return data


def load_function(data: bytes) -> Callable[..., Any]:
    """The function that `dump_function` made these bytes of. DeserializationError when it cannot be rebuilt here."""
    import cloudpickle

    try:
        function: Callable[..., Any] = cloudpickle.loads(data)
    except Exception as error:
        raise DeserializationError(
            f"A function that travels by value cannot be rebuilt: {type(error).__name__}: {error}",
            hint="What it imports must be installed in its image.",
        ) from error
    return function


class _Pieces(list[bytes]):
    """The file that a pickler writes to. It hands over large bytes as they are, and here they stay so."""

    def write(self, data: object) -> None:
        # whoever owns a buffer that can be written to may do so before it is sent
        self.append(data if type(data) is bytes else bytes(cast("Buffer", data)))


def dump(value: object, what: str) -> Sequence[bytes]:
    """The value, in pieces: large bytes in it are not copied, for new memory costs more than a way through a socket.

    SerializationError, which says `what` it is, when it cannot travel.
    """
    pieces = _Pieces()
    if _is_plain(value):
        import pickle

        pickle.Pickler(pieces, 5).dump(value)
        return pieces
    import cloudpickle

    try:
        cloudpickle.Pickler(pieces, 5).dump(value)
    except Exception as error:
        raise SerializationError(
            f"{what} cannot be sent: {type(error).__name__}: {error}",
            hint="What a call takes and gives must be picklable: data, not open files, sockets, locks or generators.",
        ) from _cause(error)
    return pieces


def _is_plain(value: object, depth: int = 2) -> bool:
    """Whether pickle does the same as cloudpickle, in a tenth of the time; looks at few things only."""
    kind = type(value)
    if kind is tuple:
        items = cast("tuple[object, ...]", value)
        return depth > 0 and len(items) <= _FEW and all(_is_plain(item, depth - 1) for item in items)
    return kind in _PLAIN or (kind is dict and not value)


def load(data: bytes | bytearray, what: str) -> Any:
    """The value that `dump` made these bytes of; DeserializationError when it cannot be rebuilt here."""
    import pickle  # asked for by those who have it: cloudpickle's bytes are pickle's

    try:
        return pickle.loads(data)  # noqa: S301 - from this user's own containers, over a socket of this user's own
    except Exception as error:
        raise DeserializationError(
            f"{what} cannot be rebuilt here: {type(error).__name__}: {error}",
            hint="What its type needs must be importable on both sides.",
        ) from _cause(error)


def _cause(error: Exception) -> Exception | None:
    """The error with its traceback from the user's code on (`__reduce__`, an import); None where there is none."""
    shown = error.__traceback__
    while shown is not None and shown.tb_frame.f_globals.get("__name__", "").partition(".")[0] in _MACHINERY:
        shown = shown.tb_next
    return error.with_traceback(shown) if shown is not None else None
