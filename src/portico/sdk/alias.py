"""`import modal` gives Portico, even where the official client is installed. No file is touched.

A finder in front of the import system answers for `modal` and everything below it, with our own module objects:
`modal` is `portico`, `modal.exception` is `portico.exception`, `modal.image` is `portico.sdk.image`, and so on.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

NAME = "modal"
_PUBLIC = "portico"


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and loads `modal…`: an import of it is an import of ours."""

    def __init__(self) -> None:
        self._own_specs: dict[str, importlib.machinery.ModuleSpec | None] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] != NAME:
            return None
        if _our_name(fullname) is None:
            # Not None: another finder would look for it in our own package's folder, and load a second copy of us.
            raise ModuleNotFoundError(f"No module named {fullname!r}: Portico does not offer it.", name=fullname)
        return importlib.machinery.ModuleSpec(fullname, self, is_package=fullname == NAME)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        name = _our_name(spec.name)
        assert name is not None, "find_spec has checked it"
        module = import_module(name)
        self._own_specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has put the alias's spec on our module; it keeps its own.
        alias = module.__spec__
        assert alias is not None
        module.__spec__ = self._own_specs.pop(alias.name)


def install() -> None:
    """Put the alias in front of the import system; a second call changes nothing."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    for name in [name for name in sys.modules if name.startswith(f"{NAME}.")]:
        del sys.modules[name]
    sys.modules[NAME] = import_module(_PUBLIC)
    sys.meta_path.insert(0, _Finder())


def _our_name(fullname: str) -> str | None:
    """Our module for `modal…`, or None where we have none."""
    rest = fullname.removeprefix(NAME).removeprefix(".")
    if not rest:
        return _PUBLIC
    if rest == "exception":
        return f"{_PUBLIC}.exception"
    ours = f"{_PUBLIC}.sdk.{rest}"
    return ours if "." not in rest and importlib.util.find_spec(ours) is not None else None
