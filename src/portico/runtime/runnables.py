"""What of an app `portico run` can begin with, and the options that its parameters become."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import msgspec

from portico.model.spec import ParameterKind
from portico.sdk.app import App
from portico.sdk.classes import Definition
from portico.wire.reading import Parameter, Runnable

_KINDS: Final[dict[Any, str]] = {str: "str", int: "int", float: "float", bool: "bool", datetime: "datetime"}
_WORDS: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def runnables(app: App) -> list[Runnable]:
    """Its local entrypoints, then its functions."""
    entrypoints = [_describe(name, entry.raw, entrypoint=True) for name, entry in app.entrypoints.items()]
    functions: list[Runnable] = []
    for name, function in app.functions.items():
        if isinstance(function, Definition):
            functions += _methods(function)
        elif function.raw is not None:
            functions.append(_describe(name, function.raw, entrypoint=False, web=function.spec.web is not None))
    return [*entrypoints, *functions]


def _methods(definition: Definition) -> list[Runnable]:
    """The methods of a class. The parameters of the class are options of each of them."""
    own = [
        Parameter(name=p.name, kind=p.kind, required=p.default is None, default=p.default or "")
        for p in definition.cls.parameters
    ]
    described = []
    for method, part in zip(definition.cls.methods, definition.spec.parts, strict=True):
        raw = definition.partials[method.name].raw
        runnable = _describe(part.name, raw, entrypoint=False, web=part.web is not None, bound=True)
        taken = {parameter.name for parameter in runnable.parameters}
        problem = runnable.problem
        if own and (runnable.raw or any(p.kind == ParameterKind.BYTES or p.name in taken for p in own)):
            problem = f"The parameters of {definition.name} cannot be options of {part.name}."
        described.append(msgspec.structs.replace(runnable, parameters=[*own, *runnable.parameters], problem=problem))
    return described


def _describe(
    name: str, raw: Callable[..., Any], *, entrypoint: bool, web: bool = False, bound: bool = False
) -> Runnable:
    """`bound`: the first parameter is the object that it is a method of."""
    parameters = list(inspect.signature(raw).parameters.values())[1 if bound else 0 :]
    doc = inspect.getdoc(raw) or ""
    if [parameter.kind for parameter in parameters] == [inspect.Parameter.VAR_POSITIONAL]:
        return Runnable(name=name, entrypoint=entrypoint, web=web, raw=True, doc=doc)
    if any(parameter.kind in _WORDS for parameter in parameters):
        problem = f"{name} takes * or ** next to other parameters, which are no options."
        return Runnable(name=name, entrypoint=entrypoint, web=web, problem=problem, doc=doc)
    hints = _hints(raw)
    described = []
    for parameter in parameters:
        kind = _kind(hints.get(parameter.name), parameter.default)
        if kind is None:
            problem = f"The parameter {parameter.name!r} of {name} cannot be an option: {parameter.annotation!r}."
            return Runnable(name=name, entrypoint=entrypoint, web=web, problem=problem, doc=doc)
        required = parameter.default is inspect.Parameter.empty
        default = "" if required or parameter.default is None else str(parameter.default)
        described.append(Parameter(name=parameter.name, kind=kind, required=required, default=default))
    return Runnable(name=name, entrypoint=entrypoint, web=web, parameters=described, doc=doc)


def _hints(raw: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(raw)
    except Exception:  # a name that is only there for type checkers
        return {name: hint for name, hint in raw.__annotations__.items() if not isinstance(hint, str)}


def _kind(hint: Any, default: Any) -> str | None:
    """The kind of option; None where there is none for such a parameter."""
    if hint is None or hint is Any:
        return _KINDS.get(type(default), "str")
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        choices = [choice for choice in typing.get_args(hint) if choice is not type(None)]
        return _KINDS.get(choices[0]) if len(choices) == 1 else None
    return _KINDS.get(hint)
