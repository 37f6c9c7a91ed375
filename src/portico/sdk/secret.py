"""Secrets: environment variables that a function gets, from the user's side or kept by the server under a name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from portico.model.errors import InvalidError
from portico.model.naming import check_object_name
from portico.model.spec import SecretSpec
from portico.model.variables import check_key, check_variables
from portico.sdk import context
from portico.sdk.dotenv import parse_dotenv


class Secret:
    """Some environment variables. Make one with `from_dict`, `from_dotenv`, `from_local_environ` or `from_name`."""

    def __init__(self, spec: SecretSpec) -> None:
        self.spec = spec

    def __repr__(self) -> str:
        return f"<Secret {self.name or ', '.join(sorted(self.spec.values)) or '(empty)'}>"

    @property
    def name(self) -> str | None:
        """The name under which the server keeps it; None for values of the user's side."""
        return self.spec.name

    @staticmethod
    def from_dict(env_dict: Mapping[str, str | None] = {}) -> Secret:
        """These variables; those that are None are left out."""
        return _inline(check_variables(env_dict, "The `env_dict` argument of `Secret.from_dict`"))

    @staticmethod
    def from_dotenv(path: str | Path | None = None, *, filename: str = ".env") -> Secret:
        """The variables of the nearest such file: in the working folder, or that of `path`, or a folder above."""
        if not context.is_local():
            return _inline({})
        start = Path.cwd() if path is None else Path(path).expanduser().absolute()
        for folder in (start, *start.parents):
            if (folder / filename).is_file():
                text = (folder / filename).read_text("utf-8")
                return _inline(check_variables(parse_dotenv(text, os.environ), str(folder / filename)))
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
            return _inline({})
        missing = [key for key in env_keys if key not in os.environ]
        if missing:
            raise InvalidError(f"Not set in the local environment: {', '.join(missing)}.")
        return _inline(check_variables({key: os.environ[key] for key in env_keys}, "Secret.from_local_environ"))

    @staticmethod
    def from_name(name: str, *, environment_name: str | None = None, required_keys: Sequence[str] = ()) -> Secret:
        """A secret that the server keeps: made with `portico secret create`, looked up when a container starts.

        environment_name: where it is kept; None: where the app is. A deploy fails without one of `required_keys`.
        """
        if isinstance(required_keys, str) or not all(isinstance(key, str) for key in required_keys):
            raise InvalidError("The `required_keys` argument of `Secret.from_name` must be a list of strings.")
        for key in required_keys:
            check_key(key, "The `required_keys` argument of `Secret.from_name`")
        if environment_name is not None:
            check_object_name(environment_name, "environment")
        return Secret(
            SecretSpec(
                name=check_object_name(name, "secret"),
                environment=environment_name,
                required_keys=tuple(required_keys),
            )
        )


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


def _inline(values: dict[str, str]) -> Secret:
    return Secret(SecretSpec(values=values))
