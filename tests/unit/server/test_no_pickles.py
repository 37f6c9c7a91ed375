"""What users' programs have pickled is opaque to the server: reading a pickle is running code."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import portico

SOURCE = Path(portico.__file__).parent
ROOMS = ("api", "core", "engines", "images", "ingress", "model", "server", "store")
# what the server reads of the wire; the rest of it reads values, in containers and clients
DOCUMENTS = ("calls", "container", "control", "running", "spec", "websocket")
FILES = [path for room in ROOMS for path in sorted((SOURCE / room).rglob("*.py"))]
FILES += [SOURCE / "wire" / f"{name}.py" for name in DOCUMENTS]
# modules that turn bytes into objects by running what the bytes say, or into many more bytes
CODE = {
    "pickle",
    "cloudpickle",
    "dill",
    "marshal",
    "shelve",
    "copyreg",
    "yaml",
    "portico.wire.codec",
    "portico.wire.raised",
}
BOMBS = {"gzip", "bz2", "lzma", "tarfile", "zipfile"}
WRITING = {"dumps", "dump"}


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_there_is_something_to_look_at() -> None:
    """Else the tests below would say nothing."""
    assert len(FILES) > 80
    assert all(path.exists() for path in FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_server_module_reads_a_pickle_or_an_archive(path: Path) -> None:
    """The desk writes pickles of its own answers, and reads none; nothing that is compressed is unpacked."""
    tree = ast.parse(path.read_text())
    found = set(imports(tree))
    assert not found & BOMBS
    if str(path).endswith("api/desk.py"):
        found -= {"pickle"}
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _is(node.value, "pickle")}
        assert used == {"dumps"}
    if str(path).endswith("store/bytecode.py"):
        found -= {"marshal"}
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _is(node.value, "marshal")}
        assert used <= WRITING
    assert not found & CODE
    assert not {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & {
        "decompress",
        "unpack_archive",
    }


def test_a_server_does_not_even_have_the_code_for_it() -> None:
    """With everything imported that it is made of, what reads functions by value is not there."""
    code = (
        "import pkgutil, importlib, sys, portico\n"
        f"for room in {ROOMS!r}:\n"
        "    package = importlib.import_module(f'portico.{room}')\n"
        "    for module in pkgutil.walk_packages(package.__path__, f'portico.{room}.'):\n"
        "        if '.migrations' not in module.name: importlib.import_module(module.name)\n"
        "print('cloudpickle' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False"]


def _is(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name
