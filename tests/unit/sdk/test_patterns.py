"""Patterns of files, by the rules of `.dockerignore`."""

from pathlib import Path

import pytest

from portico import FilePatternMatcher
from portico.exception import InvalidError
from portico.sdk.patterns import ignore_function


@pytest.mark.parametrize(
    ("patterns", "path", "matches"),
    [
        (["*.py"], "a.py", True),
        (["*.py"], "sub/a.py", False),
        (["**/*.py"], "a.py", True),
        (["**/*.py"], "sub/deep/a.py", True),
        (["data"], "data/deep/x.bin", True),
        (["data/"], "data/x", True),
        (["/data"], "data/x", True),
        (["data"], "database", False),
        (["data/**"], "data/x/y", True),
        (["?.txt"], "a.txt", True),
        (["?.txt"], "ab.txt", False),
        (["[a-c].txt"], "b.txt", True),
        (["[!a-c].txt"], "b.txt", False),
        (["**/*.py", "!keep.py"], "keep.py", False),
        (["**/*.py", "!keep.py"], "other.py", True),
        (["a.b"], "axb", False),
        ([], "a", False),
    ],
)
def test_matching(patterns, path, matches):
    """A path matches by the last pattern that says something about it."""
    assert FilePatternMatcher(*patterns)(Path(path)) is matches
    assert (~FilePatternMatcher(*patterns))(Path(path)) is not matches


def test_from_file(tmp_path):
    """A file has one pattern a line, and comments."""
    (tmp_path / "ignore").write_text("# comment\n\n*.txt\n")
    matcher = FilePatternMatcher.from_file(tmp_path / "ignore")
    assert matcher(Path("a.txt"))
    assert not matcher(Path("# comment"))


def test_pruning():
    """Only where nothing below can be wanted again, a folder is left out unseen."""
    assert FilePatternMatcher("a").prunes
    assert not FilePatternMatcher("a", "!a/b").prunes
    assert not (~FilePatternMatcher("a")).prunes


@pytest.mark.parametrize("ignore", ["*.py", 3, [3]])
def test_neither_patterns_nor_function(ignore):
    """A bare string would be taken apart into letters."""
    with pytest.raises(InvalidError, match="`ignore=`"):
        ignore_function(ignore)
