"""Which Python an image gets."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path

import pytest

from portico.images.interpreters import Interpreters, own_interpreter, parse_installed
from portico.model.errors import ImageBuildError


def entry(version: str, path: str, **more: str) -> dict[str, str]:
    return {"version": version, "path": path, "variant": "default", "implementation": "cpython"} | more


def test_shims_and_other_pythons_are_left_out() -> None:
    """A shim answers for another version than its name says; the newest comes first."""
    listed = [
        entry("3.12.1", "/home/me/.pyenv/shims/python3.12"),
        entry("3.12.1", "/home/me/.pyenv/versions/3.12.1/bin/python3.12"),
        entry("3.12.10", "/usr/bin/python3.12"),
        entry("3.13.0", "/usr/bin/pypy3", implementation="pypy"),
        entry("3.13.0", "/usr/bin/python3.13t", variant="freethreaded"),
        entry("3.15.0a1", "/usr/bin/python3.15"),
    ]
    found = parse_installed(["warning: something", json.dumps(listed)])
    assert [(python.version, str(python.path)) for python in found] == [
        ("3.12.10", "/usr/bin/python3.12"),
        ("3.12.1", "/home/me/.pyenv/versions/3.12.1/bin/python3.12"),
    ]


def test_no_list_is_an_empty_one() -> None:
    """When uv fails there is nothing to choose from."""
    assert parse_installed(["error: no"]) == []


async def test_the_servers_own_version_needs_no_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter below the server's virtual environment is taken without asking uv."""
    monkeypatch.setattr("portico.images.interpreters.run", None)
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    for version in (minor, platform.python_version()):
        assert await Interpreters(tmp_path).find(version, print) == own_interpreter()
    assert own_interpreter().own


async def test_versions_of_pyenv_are_found_behind_its_shims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """uv is shown the versions themselves, and no shim."""
    asked: list[str] = []

    async def listing(argv: list[str], *, env: dict[str, str], **_: object) -> int:
        asked.extend(env["PATH"].split(os.pathsep))
        return 0

    (tmp_path / "versions/3.12.1/bin").mkdir(parents=True)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}/shims:/usr/bin")
    monkeypatch.setattr("portico.images.interpreters.run", listing)
    await Interpreters(tmp_path).installed()
    assert asked == ["/usr/bin", f"{tmp_path}/versions/3.12.1/bin"]


async def test_a_python_that_cannot_be_had_is_an_error_with_the_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says which versions there are, and what uv said."""
    listed = json.dumps([entry("3.12.1", "/usr/bin/python3.12"), entry("3.6.15", "/usr/bin/python3.6")])

    async def fake_uv(argv: list[str], *, on_line: object, **_: object) -> int:
        assert callable(on_line)
        on_line(listed if "list" in argv else "error: no internet")
        return 0

    monkeypatch.setattr("portico.images.interpreters.run", fake_uv)
    lines: list[str] = []
    with pytest.raises(ImageBuildError, match=r"Python 3\.99 is not installed") as caught:
        await Interpreters(tmp_path).find("3.99", lines.append)
    assert "3.12" in str(caught.value.hint)
    assert "3.6" not in str(caught.value.hint)
    assert caught.value.detail is not None
    assert "no internet" in caught.value.detail
    assert "error: no internet" in lines
