"""The secrets that living apps name, and what they make of a function's environment variables."""

from __future__ import annotations

from collections.abc import Mapping

from portico.model.errors import InvalidError, NotFoundError
from portico.model.naming import MAIN
from portico.model.spec import FunctionSpec, SecretSpec


class SecretTable:
    """Variables by environment and name of their secret, as they are now; None where there is no such secret."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Mapping[str, str] | None] = {}

    def __repr__(self) -> str:
        return f"<SecretTable {len(self._known)} secrets>"

    def put(self, environment: str, name: str, variables: Mapping[str, str] | None) -> None:
        """From now on the secret has these; None: there is none."""
        self._known[environment, name] = variables

    def change(self, environment: str, name: str, variables: Mapping[str, str] | None) -> None:
        """As `put`, for those that are here."""
        if (environment, name) in self._known:
            self._known[environment, name] = variables

    def variables(self, function: FunctionSpec, environment: str) -> dict[str, str]:
        """What the user sets for a function's containers: its secrets in order, then `env`; later wins.

        `environment` is the app's. NotFoundError or InvalidError for a named secret that is not what it should be.
        """
        merged: dict[str, str] = {}
        for secret in function.secrets:
            merged |= secret.values if secret.name is None else self._find(secret, environment)
        return merged | function.env

    def _find(self, secret: SecretSpec, environment: str) -> Mapping[str, str]:
        place = secret.environment or environment
        assert secret.name is not None
        return check_kept(secret, place, self._known.get((place, secret.name)))


def check_kept(secret: SecretSpec, environment: str, variables: Mapping[str, str] | None) -> Mapping[str, str]:
    """The variables of a named secret; NotFoundError without one, InvalidError where it lacks a required key."""
    there = f"in the environment {environment!r}"
    if variables is None:
        raise NotFoundError(
            f"There is no secret {secret.name!r} {there}.",
            hint=_command(secret, environment, secret.required_keys),
        )
    missing = [key for key in secret.required_keys if key not in variables]
    if missing:
        raise InvalidError(
            f"The secret {secret.name!r} {there} lacks {', '.join(missing)}.",
            hint=_command(secret, environment, (*variables, *missing), "--force"),
        )
    return variables


def _command(secret: SecretSpec, environment: str, keys: tuple[str, ...], *options: str) -> str:
    """What makes it, for a shell. KEY=- asks for the value."""
    place = () if environment == MAIN else ("--env", environment)
    words = [*([f"{key}=-" for key in keys] or ["KEY=VALUE"]), *options, *place]
    return f"portico secret create {secret.name} {' '.join(words)}"
