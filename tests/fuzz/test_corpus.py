"""What the fuzzer began with, and what it has found, once more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
INPUTS = sorted(path.relative_to(CORPUS).as_posix() for path in CORPUS.glob("*/*"))


@pytest.mark.parametrize("name", INPUTS)
def test_what_holds_for_any_bytes_holds_for_these(name: str) -> None:
    """However they are cut: in single bytes, at some places, or not at all."""
    target = TARGETS[name.partition("/")[0]]
    data = (CORPUS / name).read_bytes()
    for how in {0, 1, 2, 3, data[0]}:
        target(bytes([how]) + data[1:])
