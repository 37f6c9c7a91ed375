"""Which files a pattern means, by the rules of `.dockerignore`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from portico.model.errors import InvalidError

Ignore = Callable[[Path], bool]  # is this path, relative to the folder that is added, left out?


class FilePatternMatcher:
    """Tells whether a path matches any of the patterns; `~matcher` the reverse.

    `*` and `?` stay within one folder, `**` does not, `[a-z]` is a set; "!" before a pattern takes paths out again.
    What lies below a matching folder matches too. The last pattern that says something wins.
    """

    def __init__(self, *patterns: str) -> None:
        self._rules: list[tuple[bool, re.Pattern[str]]] = []
        for line in patterns:
            wanted, pattern = not line.strip().startswith("!"), line.strip().removeprefix("!").strip("/ ")
            if pattern:
                self._rules.append((wanted, re.compile(_expression(pattern), re.DOTALL)))
        self._inverted = False

    @classmethod
    def from_file(cls, file_path: str | Path) -> FilePatternMatcher:
        """The patterns of a file, one a line; empty lines and those with "#" in front do not count."""
        lines = Path(file_path).read_text("utf-8").splitlines()
        return cls(*(line for line in lines if not line.lstrip().startswith("#")))

    @property
    def prunes(self) -> bool:
        """True when nothing below a matching folder can be wanted again."""
        return not self._inverted and all(wanted for wanted, _ in self._rules)

    def __call__(self, path: Path) -> bool:
        text = path.as_posix()
        matched = False
        for wanted, rule in self._rules:
            if rule.fullmatch(text):
                matched = wanted
        return matched is not self._inverted

    def __invert__(self) -> FilePatternMatcher:
        other = FilePatternMatcher()
        other._rules, other._inverted = self._rules, not self._inverted
        return other


def ignore_function(ignore: object) -> Ignore | None:
    """`ignore=` as a function, None when nothing is left out; InvalidError when it is neither patterns nor callable."""
    if callable(ignore):
        return ignore
    if isinstance(ignore, Sequence) and not isinstance(ignore, str) and all(isinstance(item, str) for item in ignore):
        return FilePatternMatcher(*ignore) if ignore else None
    raise InvalidError("`ignore=` must be a list of patterns, or a function of a path.")


def _expression(pattern: str) -> str:
    """The pattern as a regular expression that also matches what lies below."""
    parts: list[str] = []
    for piece in re.findall(r"\*\*/|\*\*|\*|\?|\[[^\]]+\]|\\.|.", pattern, re.DOTALL):
        if piece == "**/":
            parts.append("(?:.*/)?")
        elif piece == "**":
            parts.append(".*")
        elif piece == "*":
            parts.append("[^/]*")
        elif piece == "?":
            parts.append("[^/]")
        elif len(piece) > 2 and piece[0] == "[":
            body = piece[1:-1].replace("\\", "\\\\")
            parts.append(f"[^{body[1:]}]" if body[0] in "!^" else f"[{body}]")
        else:
            parts.append(re.escape(piece[-1]))
    return "".join(parts) + "(?:/.*)?"


NON_PYTHON_FILES = ~FilePatternMatcher("**/*.py")
