"""Local files that an image adds: where they are, and their place in the app's folder."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from portico.model.errors import InvalidError, UnsupportedError
from portico.sdk.patterns import Ignore

APP_FOLDER = PurePosixPath("/root")  # where files written for the original API expect their own folder


@dataclass(frozen=True, slots=True)
class LocalMount:
    """A local file or folder. `place` is where it goes in the app's folder ("" is that folder itself); `ignore` tells
    which paths of a folder, relative to it, stay away."""

    local: Path
    place: str
    ignore: Ignore | None = None


def place_of(remote_path: str, builder: str) -> str:
    """The place in the app's folder that a remote path means; UnsupportedError when it lies elsewhere."""
    path = PurePosixPath(remote_path)
    if path.is_absolute():
        if not path.is_relative_to(APP_FOLDER):
            raise UnsupportedError(
                f"`Image.{builder}` cannot put files at {remote_path!r}.",
                hint=f"The process engine can only add files below the app's folder: use a relative path, or one below "
                f"{APP_FOLDER}, which stands for it.",
            )
        path = path.relative_to(APP_FOLDER)
    if ".." in path.parts:
        raise InvalidError(f"`Image.{builder}`: the remote path {remote_path!r} must not contain '..'.")
    return "" if path == PurePosixPath() else path.as_posix()


def local_path(given: str | Path, builder: str, *, folder: bool) -> Path:
    """The local path, absolute; InvalidError when no such file (or folder) is there."""
    path = Path(given).expanduser().absolute()
    if folder and not path.is_dir():
        raise InvalidError(f"`Image.{builder}`: no such folder: {path}")
    if not folder and not path.is_file():
        raise InvalidError(f"`Image.{builder}`: no such file: {path}")
    return path


def module_mount(module: str, ignore: Ignore | None) -> LocalMount:
    """A Python module or package, at its place on the import path; InvalidError when it cannot be found."""
    place = module.replace(".", "/")
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is not None and spec.submodule_search_locations:
        return LocalMount(Path(next(iter(spec.submodule_search_locations))).absolute(), place, ignore)
    if spec is not None and spec.origin is not None and spec.origin.endswith(".py"):
        return LocalMount(Path(spec.origin).absolute(), f"{place}.py")
    raise InvalidError(f"`Image.add_local_python_source`: no Python module named {module!r} was found.")
