"""An exception of the user's code -> text: the user's frames and what they called, none of Portico's own."""

from __future__ import annotations

import os
import sysconfig
import traceback
from pathlib import Path

import portico

_OURS = str(Path(portico.__file__).parent) + os.sep
_LIBRARIES = (
    str(Path(portico.__file__).parents[1]) + os.sep,  # in a container: the layer with all that the runtime needs
    *{str(Path(path)) + os.sep for path in (sysconfig.get_path(name) for name in ("stdlib", "platstdlib")) if path},
)
_THREADS = os.path.join("concurrent", "futures", "thread.py")
_OUR_ERRORS = "portico.model.errors."


def user_traceback(error: BaseException) -> tuple[str, str]:
    """The cause in one line, and the whole text as Python would print it."""
    shown = traceback.TracebackException.from_exception(error, compact=True)
    _trim(shown, set())
    text = "".join(shown.format()).replace(f"\n{_OUR_ERRORS}", "\n").removeprefix(_OUR_ERRORS)
    return _cause(error), text


def user_file(error: BaseException) -> str | None:
    """The user's file that is at fault: the one with the syntax error, or the deepest one in the traceback."""
    if isinstance(error, SyntaxError) and error.filename and os.path.isabs(error.filename):
        return error.filename
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__) if is_user_file(frame.filename)]
    return frames[-1] if frames else None


def is_user_file(path: str) -> bool:
    """False for our own files, the standard library and installed packages."""
    if path.startswith((_OURS, "<")) or "site-packages" in path or "dist-packages" in path:
        return False
    return not path.startswith(_LIBRARIES)


def is_ours(path: str) -> bool:
    """Whether a file is one of Portico's, or of the machinery that runs the user's code in threads."""
    return path.startswith(_OURS) or path.endswith(_THREADS)


def _cause(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{os.path.basename(error.filename)}, line {error.lineno}"
        return f"{type(error).__name__}: {error.msg} ({place})"
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _trim(shown: traceback.TracebackException, seen: set[int]) -> None:
    """Begin each stack of the chain at its first user frame, and leave out what is ours below that."""
    if id(shown) in seen:
        return
    seen.add(id(shown))
    frames = [frame for frame in shown.stack if not _is_machinery(frame.filename)]
    first = next((place for place, frame in enumerate(frames) if is_user_file(frame.filename)), 0)
    shown.stack[:] = frames[first:]
    for other in (shown.__cause__, shown.__context__, *(getattr(shown, "exceptions", None) or ())):
        if other is not None:
            _trim(other, seen)


def _is_machinery(path: str) -> bool:
    return path.startswith((_OURS, "<frozen importlib")) or f"{os.sep}importlib{os.sep}" in path
