"""The order of `sys.path` in a container."""

from __future__ import annotations

from portico.runtime.boot import order

STDLIB = ["/py/lib/python311.zip", "/py/lib/python3.11", "/py/lib/python3.11/lib-dynload"]


def test_the_users_packages_come_before_the_runtimes() -> None:
    """Standard library, what the user installed, the interpreter's own packages, the runtime's."""
    own = [*STDLIB, "/venv/site-packages", "/editable"]
    assert order(own, ["/venv/site-packages"], ["/user"], ["/runtime"]) == [
        *STDLIB,
        "/user",
        "/venv/site-packages",
        "/editable",
        "/runtime",
    ]


def test_a_folder_is_listed_once_at_its_first_place() -> None:
    """The image's environment may be the interpreter's own, and the runtime may live there too."""
    own = [*STDLIB, "/venv/site-packages"]
    assert order(own, ["/venv/site-packages"], ["/venv/site-packages"], ["/venv/site-packages"]) == own


def test_an_interpreter_without_packages_of_its_own_gets_both() -> None:
    """Nothing is lost where there is no site-packages."""
    assert order(STDLIB, [], ["/user"], ["/runtime"]) == [*STDLIB, "/user", "/runtime"]
