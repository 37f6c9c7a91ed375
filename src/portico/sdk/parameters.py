"""`modal.parameter()`, and which parameters a class has."""

from __future__ import annotations

import inspect
from typing import Any, Final

from portico.model import parameters
from portico.model.errors import InvalidError
from portico.model.spec import ParameterKind, ParameterSpec

_MISSING: Final = object()
_KINDS: Final = {kind.value: kind for kind in ParameterKind}


class Parameter:
    """A field of a class; one with `init` is a parameter of it."""

    def __init__(self, default: object, init: bool) -> None:
        self.default = default
        self.init = init

    def __get__(self, instance: object, owner: type) -> Any:
        if instance is None:
            return self
        if self.default is _MISSING:
            raise AttributeError("field has no default value and no specified value")
        return self.default

    def spec(self, name: str, annotation: object) -> ParameterSpec:
        """What it is as data."""
        kind = _KINDS.get(annotation) if isinstance(annotation, str) else parameters.kind_of(annotation)
        if kind is None:
            given = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", repr(annotation))
            raise InvalidError(
                f"Class parameter '{name}': {given} is not a supported modal.parameter() type. "
                f"Use one of: {', '.join(_KINDS)}"
            )
        if self.default is _MISSING:
            return ParameterSpec(name=name, kind=kind)
        try:
            return ParameterSpec(name=name, kind=kind, default=parameters.text_of(self.default, kind))
        except InvalidError as error:
            raise InvalidError(f"Class parameter '{name}': the default is wrong: {error.message}") from None


def parameter(*, default: Any = _MISSING, init: bool = True) -> Any:
    """A parameter of a class: `name: str = modal.parameter()`. Each set of values has containers of its own.

    init=False: the field is no parameter, only has a type and maybe a default.
    """
    return Parameter(default, init)


def parameters_of(cls: type) -> tuple[ParameterSpec, ...]:
    """The parameters of a class and of its bases, those of the bases first. InvalidError where one makes no sense."""
    found: dict[str, ParameterSpec] = {}
    for owner in reversed(cls.__mro__):
        annotations = inspect.get_annotations(owner)
        for name, value in vars(owner).items():
            if not isinstance(value, Parameter):
                found.pop(name, None)  # it hides the one of a base
            elif value.init and name not in annotations:
                raise InvalidError(
                    "All modal.parameter() specifications need to be type-annotated",
                    hint=f"For example: {name}: str = modal.parameter()",
                )
            elif value.init:
                found[name] = value.spec(name, annotations[name])
    return tuple(found.values())
