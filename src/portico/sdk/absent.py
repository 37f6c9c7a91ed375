"""Names that exist so that files import, for what this server does not offer yet. Using one says so, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from portico.model.errors import UnsupportedError


def no_such_name(name: str) -> NoReturn:
    """The error of `modal.<name>` for a name that Portico does not have."""
    if name == "Stub":
        raise AttributeError("`modal.Stub` was removed from the API. Use `modal.App` instead.")
    raise AttributeError(f"Portico has no `modal.{name}`.")


def later(owner: str, names: Mapping[str, str] | frozenset[str]) -> Callable[[object, str], Any]:
    """A `__getattr__` that explains the known members of `owner` which are not there yet; a mapping gives hints."""

    def lookup(_self: object, name: str) -> NoReturn:
        if name in names:
            hint = names[name] if isinstance(names, Mapping) else None
            raise UnsupportedError(f"`{owner}.{name}` is not supported by this server yet.", hint=hint)
        raise AttributeError(f"`{owner}` has no attribute {name!r}.")

    return lookup


class _Placeholder(type):
    """A class that can be named and made, and whose every other use is refused."""

    _constructors = frozenset({"from_name", "from_id", "ephemeral"})

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in _Placeholder._constructors:
            return cls
        raise refusal(f"modal.{cls.__name__}.{name}")


class Absent(metaclass=_Placeholder):
    """A stored or remote object of a kind that this server does not have."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        raise refusal(f"modal.{type(self).__name__}")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise refusal(f"modal.{type(self).__name__}.{name}")


class Volume(Absent):
    """Persistent files."""


class NetworkFileSystem(Absent):
    """Shared files (older than volumes)."""


class CloudBucketMount(Absent):
    """A bucket as files."""


class Dict(Absent):
    """A shared dictionary."""


class Queue(Absent):
    """A shared queue."""


class Proxy(Absent):
    """A fixed outgoing address."""


class Sandbox(Absent):
    """A container for arbitrary commands."""


def refusal(what: str, *, hint: str | None = None) -> UnsupportedError:
    """The error for using `what`."""
    return UnsupportedError(f"`{what}` is not supported by this server yet.", hint=hint)


def batched(*args: object, max_batch_size: int = 1, wait_ms: int = 0) -> NoReturn:
    """Functions that take many inputs at once."""
    raise refusal("@modal.batched")
