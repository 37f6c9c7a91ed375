"""Secrets: environment variables that a function gets. Their values become part of the app's specification."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from portico.model.errors import InvalidError, UnsupportedError
from portico.model.naming import check_object_name
from portico.sdk import context
from portico.sdk.dotenv import parse_dotenv

MAX_KEY = 16_384
MAX_VALUE = 32_768
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Secret:
    """Some environment variables. Make one with `from_dict`, `from_dotenv`, `from_local_environ` or `from_name`."""

    def __init__(self, values: Mapping[str, str], *, name: str | None = None) -> None:
        self._values = dict(values)
        self.name = name

    def __repr__(self) -> str:
        return f"<Secret {self.name or ', '.join(sorted(self._values)) or '(empty)'}>"

    @staticmethod
    def from_dict(env_dict: Mapping[str, str | None] = {}) -> Secret:
        """These variables; those that are None are left out."""
        return Secret(check_variables(env_dict, "The `env_dict` argument of `Secret.from_dict`"))

    @staticmethod
    def from_dotenv(path: str | Path | None = None, *, filename: str = ".env") -> Secret:
        """The variables of the nearest such file: in the working folder, or that of `path`, or a folder above."""
        if not context.is_local():
            return Secret({})
        start = Path.cwd() if path is None else Path(path).expanduser().absolute()
        for folder in (start, *start.parents):
            if (folder / filename).is_file():
                text = (folder / filename).read_text("utf-8")
                return Secret(check_variables(parse_dotenv(text, os.environ), str(folder / filename)))
        raise InvalidError(
            f"No file {filename!r} in {start} or a folder above it.",
            hint="Give the folder that has it: modal.Secret.from_dotenv(__file__)",
        )

    @staticmethod
    def from_local_environ(env_keys: Sequence[str]) -> Secret:
        """Variables of the environment in which `serve` or `deploy` runs."""
        if isinstance(env_keys, str) or not all(isinstance(key, str) for key in env_keys):
            raise InvalidError("The `env_keys` argument of `Secret.from_local_environ` must be a list of strings.")
        if not context.is_local():
            return Secret({})
        missing = [key for key in env_keys if key not in os.environ]
        if missing:
            raise InvalidError(f"Not set in the local environment: {', '.join(missing)}.")
        return Secret(check_variables({key: os.environ[key] for key in env_keys}, "Secret.from_local_environ"))

    @staticmethod
    def from_name(name: str, *, environment_name: str | None = None, required_keys: Sequence[str] = ()) -> Secret:
        """A secret that the server keeps."""
        return Secret({}, name=check_object_name(name, "secret"))

    def variables(self) -> dict[str, str]:
        """What it puts into a function's environment; UnsupportedError for a named one."""
        if self.name is not None:
            raise UnsupportedError(
                f"Named secrets are not supported by this server yet: {self.name!r}.",
                hint="Use `Secret.from_dotenv()`, `Secret.from_local_environ([...])` or `Secret.from_dict({...})`.",
            )
        return dict(self._values)


def check_secrets(secrets: object, owner: str) -> tuple[Secret, ...]:
    """The secrets as a tuple, or InvalidError when they are something else."""
    if secrets is None:
        return ()
    if not isinstance(secrets, Iterable) or isinstance(secrets, str):
        raise InvalidError(f"`secrets=` of {owner} must be a list of `modal.Secret` objects.")
    items = tuple(secrets)
    if not all(isinstance(item, Secret) for item in items):
        raise InvalidError(f"`secrets=` of {owner} must be a list of `modal.Secret` objects.")
    return items


def check_variables(variables: object, owner: str) -> dict[str, str]:
    """Environment variables without those that are None, or InvalidError that names the bad one."""
    if not isinstance(variables, Mapping):
        raise InvalidError(f"{owner} must be a dict of strings, not {type(variables).__name__}.")
    kept: dict[str, str] = {}
    for key, value in variables.items():
        if not isinstance(key, str) or not isinstance(value, str | None):
            raise InvalidError(f"{owner} must have strings as keys and values; {key!r} has not.")
        if not _KEY.fullmatch(key) or len(key) > MAX_KEY:
            raise InvalidError(
                f"{owner}: {key[:80]!r} cannot name an environment variable.",
                hint="Letters, digits and '_', not beginning with a digit.",
            )
        if value is None:
            continue
        if len(value) > MAX_VALUE or "\0" in value:
            raise InvalidError(f"{owner}: the value of {key!r} is longer than {MAX_VALUE:,} characters or has a NUL.")
        kept[key] = value
    return kept
