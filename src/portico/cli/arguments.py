"""The words behind `portico run FILE`: which function is meant, and the options that its parameters are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import click

from portico.model import errors
from portico.wire.reading import Parameter, Runnable

_TYPES: Final[dict[str, Any]] = {"str": str, "int": int, "float": float, "datetime": click.DateTime()}


class Given(NamedTuple):
    """What the command line gives to a function: words as they are, or options by name."""

    words: list[str]
    options: dict[str, Any]


def choose(runnables: list[Runnable], names: Sequence[str]) -> Runnable:
    """The one with the first of these names that there is; without names, the only one that there is to run.

    InvalidError otherwise.
    """
    if names:
        known = {runnable.name: runnable for runnable in runnables}
        found = next((known[name] for name in names if name in known), None)
        if found is None:
            raise errors.InvalidError(f"There is no function or entrypoint {names[-1]!r}.", hint=_known(runnables))
    else:
        entrypoints = [runnable for runnable in runnables if runnable.entrypoint]
        candidates = entrypoints or [runnable for runnable in runnables if not runnable.web]
        if not candidates:
            raise errors.InvalidError(
                "There is nothing to run.", hint="Put @app.local_entrypoint() above a function; or use `portico serve`."
            )
        if len(candidates) > 1:
            raise errors.InvalidError("Say which function or entrypoint to run.", hint=_known(candidates))
        found = candidates[0]
    if found.web:
        raise errors.InvalidError(
            f"{found.name} is a web endpoint: it is served, not run.", hint="Use `portico serve FILE`."
        )
    if found.problem is not None:
        raise errors.InvalidError(found.problem, hint="Options are str, int, float, bool and datetime.")
    return found


def parse(runnable: Runnable, program: str, words: list[str]) -> Given:
    """The words as arguments; click.UsageError where they make none. `--help` shows the help, and exits."""
    if runnable.raw:
        return Given(words, {})
    command = click.Command(
        runnable.name,
        params=[_option(parameter) for parameter in runnable.parameters],
        help=runnable.doc or None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    with command.make_context(program, list(words)) as context:
        sources = {name: context.get_parameter_source(name) for name in context.params}
        given = {name: value for name, value in context.params.items() if sources[name] != _DEFAULT}
    named = {_key(parameter): parameter.name for parameter in runnable.parameters}
    return Given([], {named[key]: _plain(value) for key, value in given.items()})


_DEFAULT: Final = click.core.ParameterSource.DEFAULT


def _option(parameter: Parameter) -> click.Option:
    flag = parameter.name.replace("_", "-").strip("-")
    default = f"default: {parameter.default}" if parameter.default else None
    if parameter.kind == "bool":
        return click.Option(
            [f"--{flag}/--no-{flag}", _key(parameter)], required=parameter.required, default=None, help=default
        )
    return click.Option(
        [f"--{flag}", _key(parameter)], type=_TYPES[parameter.kind], required=parameter.required, help=default
    )


def _key(parameter: Parameter) -> str:
    return f"p_{parameter.name}".lower()  # click lower-cases, and `help` is its own


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _known(runnables: list[Runnable]) -> str:
    names = [runnable.name for runnable in runnables if not runnable.web]
    return "FILE::NAME, with one of: " + ", ".join(names) if names else "The app has only web endpoints."
