"""The user's side of `portico run`: imports the file, waits until its app is up, and runs what was asked for.

    python -P -m portico.runtime.entry ORDER

It has the terminal of `portico run`. Exit codes: 0 done, 1 something was raised, otherwise what sys.exit() was given.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from portico.model.errors import Error, InvalidError
from portico.runtime import loader
from portico.runtime.references import resolve
from portico.sdk import alias, context
from portico.sdk.app import App
from portico.sdk.classes import Definition
from portico.sdk.functions import Function
from portico.wire import running


def main(document: str) -> int:
    """Run it; the exit code."""
    order = running.order(document)
    alias.install()
    try:
        work = _load(order)
        going = _wait(order.go)
        if going is None:
            return 1  # the app did not come up, and who started us says why
        context.enter_run(going.app_name, going.app_id, going.urls)
        result = work()
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
        if order.write_result is not None:
            _write(order.write_result, result)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        return _tell(error)
    return 0


def _load(order: running.Order) -> Callable[[], Any]:
    """What to do once the app is up."""
    reference = resolve(order.request)
    sys.argv[:] = [order.request.ref, *order.words]
    module = loader.import_entry(reference.entry, reference.root)
    _, app = loader.find_app(module, reference.app)
    if order.entrypoint:
        raw = app.entrypoints[order.name].raw
        options = _typed(raw, order.options)
        return lambda: raw(*order.words, **options)
    function, given = _function(app, order)
    assert function.raw is not None
    options = _typed(function.raw, given)
    if not function.spec.is_generator:
        return lambda: function.remote(*order.words, **options)
    return lambda: [None for _ in function.remote_gen(*order.words, **options)] and None


def _function(app: App, order: running.Order) -> tuple[Function[..., Any], dict[str, Any]]:
    """The function, or the method of an object, and the options that are its own."""
    found = app.functions.get(order.name)
    if isinstance(found, Function):
        return found, order.options
    name, _, method = order.name.rpartition(".")
    definition = app.functions[name]
    assert isinstance(definition, Definition), "the reader has found it there"
    names = {parameter.name for parameter in definition.cls.parameters}
    values = {name: value for name, value in order.options.items() if name in names}
    options = {name: value for name, value in order.options.items() if name not in names}
    return getattr(definition.obj(values), method), options


def _typed(raw: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """Options as their parameters want them: datetimes have travelled as text."""
    dates = {name for name, hint in raw.__annotations__.items() if hint is datetime or "datetime" in str(hint)}
    return {name: datetime.fromisoformat(value) if name in dates else value for name, value in options.items()}


def _wait(descriptor: int) -> running.Go | None:
    with open(descriptor, "rb") as pipe:
        data = pipe.read()
    return running.go(data) if data else None


def _write(path: str, result: Any) -> None:
    if not isinstance(result, str | bytes):
        raise InvalidError(
            f"Function must return str or bytes when using `--write-result`; got {type(result).__name__}."
        )
    data = result.encode() if isinstance(result, str) else result
    Path(path).write_bytes(data)


def _tell(error: Exception) -> int:
    _, text = loader.user_traceback(error)
    sys.stdout.flush()
    sys.stderr.write(text if text.endswith("\n") else text + "\n")
    if isinstance(error, Error):
        for more in (error.detail, error.hint and f"Hint: {error.hint}"):
            if more:
                sys.stderr.write(more.rstrip() + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
