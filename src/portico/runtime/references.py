"""What the user typed (`file.py`, `file.py::app`, `-m pkg.mod`) -> the file, its root and its place in the bundle."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from portico.model.errors import InvalidError
from portico.model.spec import EntrySpec
from portico.wire.reading import ReadRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A file that is there. root: the folder that the bundle mirrors. package: the top-level package's folder below
    it, for a module of a package. app: the name after "::"."""

    entry: EntrySpec
    file: Path
    root: Path
    package: str | None = None
    app: str | None = None


def resolve(request: ReadRequest) -> Reference:
    """The file that is meant; InvalidError when there is none."""
    place, _, app = request.ref.partition("::")
    if not place:
        raise InvalidError("No file is named.", hint="For example app.py, app.py::app, or -m package.module")
    find = _module if request.module else _script
    return find(place, Path(request.cwd), app or None)


def _script(place: str, cwd: Path, app: str | None) -> Reference:
    file = Path(os.path.abspath(cwd / Path(place).expanduser()))
    if file.is_dir():
        raise InvalidError(f"{place} is a folder, not a file.", hint="Name the Python file in it that has the app.")
    if not file.exists():
        dotted = "/" not in place and not place.endswith(".py")
        raise InvalidError(f"No such file: {place}", hint=f"A module is named with -m: -m {place}" if dotted else None)
    if file.suffix != ".py":
        raise InvalidError(f"{place} is not a Python file.", hint="Its name must end in .py.")
    entry = EntrySpec(module=file.stem.replace(".", "_"), path=file.name)
    return Reference(entry=entry, file=file, root=file.parent, app=app)


def _module(place: str, cwd: Path, app: str | None) -> Reference:
    if place.endswith(".py") or "/" in place:
        raise InvalidError(f"{place!r} is not the name of a module.", hint="Leave out -m to name a file.")
    top, *rest = place.split(".")
    for location in _locations(top, cwd):
        base = location.joinpath(*rest)
        for file in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
            if file.is_file():
                alone = not rest and file.name != "__init__.py"
                return Reference(
                    entry=EntrySpec(module=place),
                    file=file,
                    root=location.parent,
                    package=None if alone else top,
                    app=app,
                )
    raise InvalidError(f"No module named {place!r} was found from {cwd}.")


def _locations(top: str, cwd: Path) -> list[Path]:
    """Where a top-level module or package is, without its suffix; as `python -m` looks for it."""
    sys.path.insert(0, str(cwd))
    importlib.invalidate_caches()
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    finally:
        sys.path.remove(str(cwd))
    if spec is None:
        return []
    if spec.submodule_search_locations:
        return [Path(location) for location in spec.submodule_search_locations]
    return [Path(spec.origin).with_suffix("")] if spec.origin and spec.origin.endswith(".py") else []
