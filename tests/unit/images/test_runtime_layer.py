"""The folder with what a container's runtime needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from portico.images.layer import link_layer, runtime_distributions, runtime_entries


def test_the_layer_holds_the_runtime_and_nothing_of_the_server() -> None:
    """All that FastAPI needs is there, no database and no command line."""
    entries = runtime_entries()
    assert {"portico", "fastapi", "starlette", "pydantic_core", "uvicorn", "uvloop", "msgspec"} <= entries.keys()
    assert not {"sqlalchemy", "alembic", "aiosqlite", "rich", "uv", "pytest"} & entries.keys()
    assert all(place.exists() for place in entries.values())
    assert not [name for name in entries if name.endswith(".pth")]


def test_every_distribution_brings_its_metadata() -> None:
    """Libraries ask for each other's versions."""
    entries = runtime_entries()
    infos = [name for name in entries if name.endswith(".dist-info")]
    assert len(infos) >= len(runtime_distributions())


def test_the_layer_is_enough_to_import_the_runtime(tmp_path: Path) -> None:
    """An interpreter with the standard library and the layer imports the web framework, and cannot see more."""
    layer = link_layer(tmp_path, runtime_entries())
    program = (
        "import sys; sys.path.append(sys.argv[1])\n"
        "import fastapi, uvicorn, httptools, uvloop, websockets, python_multipart, msgspec, cloudpickle\n"
        "from importlib.metadata import version; version('portico')\n"
        "from importlib.util import find_spec; assert find_spec('portico.runtime')\n"
        "assert find_spec('sqlalchemy') is None"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", program, str(layer)], check=True)


def test_the_same_entries_are_the_same_folder(tmp_path: Path) -> None:
    """A second start makes nothing; a changed place makes a new folder."""
    (tmp_path / "code").mkdir()
    first = link_layer(tmp_path, {"a": tmp_path / "code"})
    inode = first.stat().st_ino
    assert link_layer(tmp_path, {"a": tmp_path / "code"}).stat().st_ino == inode
    assert link_layer(tmp_path, {"a": tmp_path}) != first


def test_a_damaged_layer_is_made_again(tmp_path: Path) -> None:
    """A link that was lost or moved comes back."""
    entries = {"a": tmp_path, "b": tmp_path}
    layer = link_layer(tmp_path / "layers", entries)
    (layer / "a").unlink()
    assert link_layer(tmp_path / "layers", entries) == layer
    assert (layer / "a").is_symlink()
    assert [path.name for path in (tmp_path / "layers").iterdir()] == [layer.name]
