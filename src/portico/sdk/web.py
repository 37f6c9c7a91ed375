"""The four web decorators."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, NoReturn, ParamSpec, TypeVar

from portico.model.errors import InvalidError
from portico.model.naming import check_label
from portico.model.spec import WebKind, WebSpec
from portico.sdk.partial import PartialFunction, check_parentheses, is_method, partial_of
from portico.wire.domains import domain_name

P = ParamSpec("P")
R = TypeVar("R")

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT")

Decorator = Callable[[PartialFunction[P, R] | Callable[P, R]], PartialFunction[P, R]]


def fastapi_endpoint(
    *forgotten: object,
    method: str = "GET",
    label: str | None = None,
    custom_domains: Iterable[str] | None = None,
    docs: bool = False,
    requires_proxy_auth: bool = False,
) -> Decorator[P, R]:
    """The function answers HTTP requests at `/`, as a FastAPI route would: typed parameters in, JSON out.

    docs: interactive documentation at /docs, the schema at /openapi.json. label: the endpoint's own label in its URL.
    """
    check_parentheses(forgotten, "@modal.fastapi_endpoint()")
    if not isinstance(method, str) or method.upper() not in METHODS:
        raise InvalidError(f"Not an HTTP method: {method!r}.", hint=f"One of {', '.join(METHODS)}.")
    web = _web(WebKind.FASTAPI_ENDPOINT, label, custom_domains, requires_proxy_auth)
    return _decorator(replace(web, method=method.upper(), docs=bool(docs)))


def asgi_app(
    *forgotten: object,
    label: str | None = None,
    custom_domains: Iterable[str] | None = None,
    requires_proxy_auth: bool = False,
) -> Decorator[P, R]:
    """The function gives an ASGI app, which then answers all paths."""
    check_parentheses(forgotten, "@modal.asgi_app()")
    return _decorator(_web(WebKind.ASGI_APP, label, custom_domains, requires_proxy_auth))


def wsgi_app(
    *forgotten: object,
    label: str | None = None,
    custom_domains: Iterable[str] | None = None,
    requires_proxy_auth: bool = False,
) -> Decorator[P, R]:
    """The function gives a WSGI app, which then answers all paths."""
    check_parentheses(forgotten, "@modal.wsgi_app()")
    return _decorator(_web(WebKind.WSGI_APP, label, custom_domains, requires_proxy_auth))


def web_server(
    port: int,
    *,
    startup_timeout: float = 5.0,
    label: str | None = None,
    custom_domains: Iterable[str] | None = None,
    requires_proxy_auth: bool = False,
) -> Decorator[P, R]:
    """The function starts a program that listens on `port`, all of whose paths are then reachable."""
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise InvalidError("First argument of `@web_server` must be a local port, such as `@web_server(8000)`.")
    if isinstance(startup_timeout, bool) or not isinstance(startup_timeout, int | float) or not startup_timeout > 0:
        raise InvalidError("The `startup_timeout` argument of `@web_server` must be positive.")
    web = _web(WebKind.WEB_SERVER, label, custom_domains, requires_proxy_auth)
    return _decorator(replace(web, port=port, startup_timeout=float(startup_timeout)))


def web_endpoint(*args: object, **kwargs: object) -> NoReturn:
    """The old name of `fastapi_endpoint`."""
    raise InvalidError(
        "`@modal.web_endpoint` was renamed, and its old name has been removed.",
        hint="Write `@modal.fastapi_endpoint` instead; the arguments are the same.",
    )


def _web(kind: WebKind, label: str | None, custom_domains: Iterable[str] | None, proxy_auth: bool) -> WebSpec:
    if label is not None and not isinstance(label, str):
        raise InvalidError(f"`label` of `@modal.{kind}` must be a string, not {type(label).__name__}.")
    return WebSpec(
        kind=kind,
        label=None if label is None else check_label(label),
        custom_domains=_domains(custom_domains, kind),
        requires_proxy_auth=bool(proxy_auth),
    )


def _domains(domains: Iterable[str] | None, kind: WebKind) -> tuple[str, ...]:
    if domains is None:
        return ()
    if isinstance(domains, str):
        raise InvalidError(
            f"`custom_domains` of `@modal.{kind}` must be a list of strings, not a bare string.",
            hint=f"Write custom_domains=[{domains!r}].",
        )
    if not isinstance(domains, Iterable):
        raise InvalidError(f"`custom_domains` of `@modal.{kind}` must be a list of strings, not {domains!r}.")
    try:
        return tuple(dict.fromkeys(domain_name(name) for name in domains))
    except InvalidError as error:
        raise InvalidError(f"`custom_domains` of `@modal.{kind}`: {error.message}", hint=error.hint) from None


def _decorator(web: WebSpec) -> Decorator[P, R]:
    def decorate(wrapped: PartialFunction[P, R] | Callable[P, R]) -> PartialFunction[P, R]:
        partial = partial_of(wrapped, web.kind)
        if partial.web is not None:
            raise InvalidError(f"`@modal.{web.kind}` and `@modal.{partial.web.kind}` cannot both be applied.")
        if web.kind is not WebKind.FASTAPI_ENDPOINT:
            _check_factory(partial.raw, web.kind)
        return replace(partial, web=web).check()

    return decorate


def _check_factory(function: Callable[..., Any], kind: WebKind) -> None:
    """A function that gives an app, or starts a server, is called once and without arguments."""
    if inspect.iscoroutinefunction(function):
        raise InvalidError(f"The `@modal.{kind}` decorator can't be applied to an async function.")
    parameters = list(inspect.signature(function).parameters)
    if parameters[1 if is_method(function) else 0 :]:
        raise InvalidError(f"Functions decorated by `@modal.{kind}` can't have parameters.")
