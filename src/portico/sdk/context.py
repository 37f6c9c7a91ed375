"""Where this process runs: on the user's side, or in a container. Set once, before the user's code is imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Surroundings:
    """An app that runs; `urls` has the URL of each of its endpoints, by function name."""

    app_name: str
    app_id: str
    urls: dict[str, str]


_container: Surroundings | None = None
_run: Surroundings | None = None


def enter_container(app_name: str, app_id: str, urls: dict[str, str]) -> None:
    """From now on this process is a container of that app."""
    global _container
    _container = Surroundings(app_name, app_id, urls)


def container() -> Surroundings | None:
    """The container that this process is, or None on the user's side."""
    return _container


def enter_run(app_name: str, app_id: str, urls: dict[str, str]) -> None:
    """From now on this process, on the user's side, belongs to a running app."""
    global _run
    _run = Surroundings(app_name, app_id, urls)


def running() -> Surroundings | None:
    """The app whose functions this process may call: its container's, or that of the run; None if there is none."""
    return _container or _run


def is_local() -> bool:
    """True on the user's side, False in a container."""
    return _container is None


@contextmanager
def enable_output() -> Iterator[None]:
    """Accepted for scripts that use it; Portico always shows its output."""
    yield
