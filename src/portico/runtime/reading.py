"""Reads the user's file, in a process that ends afterwards: a request -> its reply. Nothing that the user's code raises
comes out of here."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

from portico.model.errors import Error, InvalidError
from portico.runtime import loader, sources, tracebacks
from portico.runtime.references import Reference, resolve
from portico.runtime.runnables import runnables
from portico.sdk.app import App
from portico.wire.reading import ReadReply, ReadRequest

_NOT_HERE = (
    "If only the image has it, import it inside the function, or below `with image.imports():` at the top of the file."
)
_NOT_A_PROGRAM = 'What should only run as a program belongs below `if __name__ == "__main__":`.'


def read(request: ReadRequest) -> ReadReply:
    """The reply; `output` is left to the caller."""
    try:
        reference = resolve(request)
    except Error as error:
        return _usage(error)
    watch = [str(reference.root / (reference.package or ""))]
    try:
        loader.import_fresh(reference.root)
        module = loader.import_entry(reference.entry, reference.root)
    except BaseException as error:
        return _failure(error, reference, watch)
    try:
        variable, app = loader.find_app(module, reference.app)
    except InvalidError as error:
        return _usage(error, reference, watch)
    try:
        return _describe(reference, request.name, module, variable, app)
    except Error as error:
        return _usage(error, reference, watch)


def _describe(reference: Reference, name: str | None, module: ModuleType, variable: str, app: App) -> ReadReply:
    if app.include_source:
        found = sources.project_sources(reference.root, reference.file, package=reference.package)
    else:
        found = sources.entry_source(reference.root, reference.file)
    found = sources.add_mounts(found, app.mounts)
    forgotten = [
        f"{name!r} has a web decorator but no `@app.function()` above it: it gets no URL."
        for name in loader.unregistered(module)
    ]
    spec = app.spec(replace(reference.entry, app=variable), name=name, warnings=[*found.warnings, *forgotten])
    return ReadReply(spec=spec, sources=found.files, watch=found.watch, runnables=runnables(app))


def _usage(error: Error, reference: Reference | None = None, watch: list[str] | None = None) -> ReadReply:
    return ReadReply(
        error=error.message,
        error_kind="usage",
        error_hint=error.hint,
        error_file=str(reference.file) if reference is not None else None,
        watch=watch or [],
    )


def _failure(error: BaseException, reference: Reference, watch: list[str]) -> ReadReply:
    """What the user's code raised."""
    cause, text = tracebacks.user_traceback(error)
    file = tracebacks.user_file(error)
    hint = None
    if isinstance(error, Error) and file is None:
        return _usage(error, reference, watch)
    if isinstance(error, Error):
        cause, hint = error.message, error.hint
        text = f"{text.rstrip()}\n{error.detail}\n" if error.detail else text
    elif isinstance(error, SystemExit):
        cause = f"{reference.file.name} ends the program while it is read: {_exit_words(error)}"
        hint = _NOT_A_PROGRAM
    elif isinstance(error, ModuleNotFoundError):
        hint = _NOT_HERE
    elif isinstance(error, ImportError) and "attempted relative import" in str(error):
        hint = "A file of a package is named as a module: -m package.module"
    return ReadReply(
        error=cause,
        error_kind="user",
        error_hint=hint,
        error_file=file or str(reference.file),
        traceback=text,
        watch=watch,
    )


def _exit_words(error: SystemExit) -> str:
    return "sys.exit()" if error.code is None else f"sys.exit({error.code!r})"
