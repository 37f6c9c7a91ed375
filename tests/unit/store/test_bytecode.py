"""Compiling users' modules ahead of time."""

from __future__ import annotations

import importlib.util
import marshal

import pytest

from portico.model.spec import FileEntry
from portico.store.bytecode import LARGEST, compile_long_module, compile_module, worth_compiling


def test_the_bytecode_is_never_checked_against_its_source() -> None:
    """The flags say hash-based and unchecked, so that the time stamps of links do not matter."""
    compiled = compile_module(b"x = 1\n", "a.py")
    assert compiled is not None
    assert compiled[:4] == importlib.util.MAGIC_NUMBER
    assert int.from_bytes(compiled[4:8], "little") == 1
    names: dict[str, object] = {}
    exec(marshal.loads(compiled[16:]), names)
    assert names["x"] == 1


@pytest.mark.parametrize("source", [b"def (:\n", b"x = 1\0\n", b"# coding: nonsense\n", b"\xff\xfe", b'"\\d"\n'])
def test_what_python_complains_of_is_left_to_the_container(source: bytes) -> None:
    """Errors and warnings appear where the module runs, not here."""
    assert compile_module(source, "a.py") is None


@pytest.mark.parametrize("source", [b"x = 1\n", b"def (:\n"])
def test_a_process_of_its_own_compiles_the_same(source: bytes) -> None:
    """And gives nothing where there is an error."""
    assert compile_long_module(source, "a.py") == compile_module(source, "a.py")


@pytest.mark.parametrize(
    ("path", "size", "worth"),
    [("a.py", 10, True), ("a.txt", 10, False), ("a.py", LARGEST + 1, False), ("a.py", 0, False)],
)
def test_only_modules_up_to_a_size_are_compiled(path: str, size: int, worth: bool) -> None:
    """Who deploys waits for it."""
    assert worth_compiling(FileEntry(path=path, digest="0" * 64, size=size)) is worth
