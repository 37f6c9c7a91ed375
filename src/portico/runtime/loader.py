"""From the user's file to the user's function: imports the entry, finds the app in it, and the function."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from portico.model.errors import InvalidError, NotFoundError
from portico.model.spec import EntrySpec, FunctionSpec
from portico.runtime.tracebacks import user_traceback as user_traceback
from portico.sdk.app import App
from portico.sdk.classes import Cls
from portico.sdk.partial import PartialFunction
from portico.wire import codec

_RESERVED = frozenset({"modal", "portico", "fastapi", "starlette", "pydantic", "uvicorn"})
_NO_APP = 'Make one: app = modal.App("name"), and put @app.function() above your functions.'


def import_entry(entry: EntrySpec, root: Path) -> ModuleType:
    """The user's module, imported with `root` at the front of the import path; raises what the user's code raises.

    A script is loaded by its path and known as `entry.module`. InvalidError when it would hide another module.
    """
    if not sys.path or sys.path[0] != str(root):
        sys.path.insert(0, str(root))
    _let_project_win(root)
    if entry.path is None:
        return importlib.import_module(entry.module)
    path = root / entry.path
    if entry.module in sys.stdlib_module_names or entry.module in _RESERVED:
        raise InvalidError(
            f"A file named {path.name} hides the module {entry.module!r}, which other code imports.",
            hint=f"Rename it: {entry.module}_app.py",
        )
    spec = importlib.util.spec_from_file_location(entry.module, path, loader=_script_loader(entry.module, path))
    assert spec is not None, "a loader is given"
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[entry.module] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(entry.module, None)
        raise
    return module


def find_app(module: ModuleType, name: str | None = None) -> tuple[str, App]:
    """The app of a module, and the name of the variable that holds it.

    `name` is that of a variable, of the app, or of one of its classes. InvalidError when there is no app, or when there
    are several and none is named; an app that another one has included does not count.
    """
    apps = _apps(module)
    file = module.__name__ if module.__package__ else Path(module.__file__ or module.__name__).name
    if name is not None:
        for variable, app in apps.items():
            if name in (variable, app.name):
                return variable, app
        held = getattr(module, name, None)
        if isinstance(held, Cls):
            return next((variable, app) for variable, app in apps.items() if name in app.functions)
        if held is not None and not isinstance(held, App):
            raise InvalidError(f"{name!r} in {file} is not an app but {type(held).__name__}.", hint=_known(file, apps))
        raise InvalidError(f"{file} has no app named {name!r}.", hint=_known(file, apps))
    included = {id(app) for outer in apps.values() for app in outer.included}
    candidates = {variable: app for variable, app in apps.items() if id(app) not in included} or apps
    if not candidates:
        raise InvalidError(f"{file} has no app.", hint=_NO_APP)
    if len(candidates) > 1:
        raise InvalidError(f"{file} has {len(candidates)} apps: {', '.join(candidates)}.", hint=_known(file, apps))
    return next(iter(candidates.items()))


def find_function(module: ModuleType, spec: FunctionSpec, app: str | None = None) -> Callable[..., Any]:
    """The user's own function, or class, for a specification that was made of this module.

    `app` is the variable that holds its app, where the file has several. NotFoundError when it is not there.
    """
    if spec.serialized is not None:
        return codec.load_function(spec.serialized)
    apps = _apps(module)
    for candidate in [apps[app]] if app in apps else list(apps.values()):
        function = candidate.functions.get(spec.name)
        if function is not None and function.raw is not None and function.spec.qualname == spec.qualname:
            return function.raw
    what = "function" if spec.cls is None else "class"
    raise NotFoundError(
        f"The module {module.__name__!r} has no {what} {spec.name!r} in the container.",
        hint="Is it only defined on some machines, inside an `if`?",
    )


def unregistered(module: ModuleType) -> list[str]:
    """The functions of a module that have a web decorator but no `@app.function`."""
    return [
        name
        for name, value in vars(module).items()
        if isinstance(value, PartialFunction) and value.raw.__module__ == module.__name__
    ]


class FreshLoader(importlib.machinery.SourceFileLoader):
    """Compiles the source each time: a compiled file counts as good for a second after an edit of the same size."""

    def get_code(self, fullname: str) -> Any:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


_fresh_roots: list[str] = []


def import_fresh(root: Path) -> None:
    """From now on everything below `root` is imported from its source, whatever compiled files lie there."""
    if not _fresh_roots:
        sys.path_hooks.insert(0, _fresh_hook)
    _fresh_roots.append(str(root))
    for path in [path for path in sys.path_importer_cache if _is_fresh(path)]:
        del sys.path_importer_cache[path]


def _fresh_hook(path: str) -> importlib.machinery.FileFinder:
    if not _is_fresh(path):
        raise ImportError(f"not below a root of the user: {path}")
    extensions = (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES)
    return importlib.machinery.FileFinder(path, extensions, (FreshLoader, importlib.machinery.SOURCE_SUFFIXES))


def _is_fresh(path: str) -> bool:
    # Packages that are installed below the root (a virtual environment in the project) do not change while we look.
    return "site-packages" not in path and any(
        path == root or path.startswith(os.path.join(root, "")) for root in _fresh_roots
    )


def _script_loader(name: str, path: Path) -> importlib.machinery.SourceFileLoader:
    loader = FreshLoader if _is_fresh(str(path.parent)) else importlib.machinery.SourceFileLoader
    return loader(name, str(path))


def _let_project_win(root: Path) -> None:
    """Forget modules that this warm process has imported and that the project has too: a fresh one would take those."""
    for name in {name.partition(".")[0] for name in sys.modules}:
        if name in sys.stdlib_module_names or name in ("portico", "modal", "__main__"):
            continue
        if not (root / f"{name}.py").is_file() and not (root / name / "__init__.py").is_file():
            continue
        origin = getattr(sys.modules.get(name), "__file__", None)
        if origin is None or not Path(origin).is_relative_to(root):
            for loaded in [loaded for loaded in sys.modules if loaded == name or loaded.startswith(f"{name}.")]:
                del sys.modules[loaded]


def _apps(module: ModuleType) -> dict[str, App]:
    """The apps that are global variables of a module, each once, under the first name that it has."""
    apps: dict[int, tuple[str, App]] = {}
    for name, value in vars(module).items():
        if isinstance(value, App):
            apps.setdefault(id(value), (name, value))
    return dict(apps.values())


def _known(file: str, apps: dict[str, App]) -> str:
    return "Name the one that you mean: " + " or ".join(f"{file}::{name}" for name in apps) if apps else _NO_APP
