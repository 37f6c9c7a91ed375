"""Environment variables that users set: what they may be called and have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from portico.model.errors import InvalidError
from portico.model.naming import check_object_name

MAX_KEY: Final = 16_384  # characters
MAX_VALUE: Final = 32_768
MAX_VARIABLES: Final = 1_000  # of one secret
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHOWN = 80


def check_variables(variables: object, owner: str) -> dict[str, str]:
    """Environment variables without those that are None, or InvalidError that names the bad one; never its value."""
    if not isinstance(variables, Mapping):
        raise InvalidError(f"{owner} must be a dict of strings, not {type(variables).__name__}.")
    kept: dict[str, str] = {}
    for key, value in variables.items():
        if not isinstance(key, str) or not isinstance(value, str | None):
            raise InvalidError(f"{owner} must have strings as keys and values; {key!r} has not.")
        check_key(key, owner)
        if value is None:
            continue
        if len(value) > MAX_VALUE or "\0" in value:
            raise InvalidError(
                f"{owner}: the value of {_short(key)} is longer than {MAX_VALUE:,} characters or has a NUL."
            )
        kept[key] = value
    return kept


def check_key(key: str, owner: str) -> str:
    """`key`, or InvalidError when it cannot name an environment variable."""
    if len(key) > MAX_KEY:
        raise InvalidError(
            f"{owner}: the key {_short(key)} has {len(key):,} characters; at most {MAX_KEY:,} are taken."
        )
    if not is_key(key):
        raise InvalidError(
            f"{owner}: {_short(key)} cannot name an environment variable.",
            hint="Letters, digits and '_', not beginning with a digit.",
        )
    return key


def is_key(text: str) -> bool:
    """Whether it can name an environment variable."""
    return _KEY.fullmatch(text) is not None


def check_secret(name: str, variables: object) -> dict[str, str]:
    """The variables of a secret that is to be kept under this name, or InvalidError."""
    check_object_name(name, "secret")
    values = check_variables(variables, f"The secret {name!r}")
    if not values:
        raise InvalidError(f"The secret {name!r} has no variables.", hint="Give it some: KEY=VALUE")
    if len(values) > MAX_VARIABLES:
        raise InvalidError(f"The secret {name!r} has {len(values):,} variables; at most {MAX_VARIABLES:,} are taken.")
    return values


def _short(key: str) -> str:
    return repr(key) if len(key) <= _SHOWN else f"{key[:_SHOWN]!r}…"
