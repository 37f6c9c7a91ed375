"""The text of a `.env` file -> its variables."""

from __future__ import annotations

import re
from collections.abc import Mapping

from portico.model.errors import InvalidError
from portico.model.variables import is_key

_LINE = re.compile(
    r"""
    ^[ \t]*(?:export[ \t]+)?
    (?P<key>[^\s=\#'"]+)[ \t]*
    (?:=[ \t]*
        (?: '(?P<raw>(?:\\'|[^'])*)'
          | "(?P<quoted>(?:\\.|[^"\\])*)"
          | (?P<plain>[^\r\n]*)
        )
    )?
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
_REFERENCE = re.compile(r"\$\{(?P<name>[^}:]+)(?::-(?P<default>[^}]*))?\}")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def parse_dotenv(text: str, environ: Mapping[str, str]) -> dict[str, str | None]:
    """The variables, in order; None for a key without "=". `${NAME}` and `${NAME:-default}` are filled in, from the
    file's earlier lines and from `environ`; not within single quotes. Quoted values may span lines.

    InvalidError that names a line which is none: its text may be the second line of a value, and is not shown.
    """
    variables: dict[str, str | None] = {}

    def fill_in(value: str) -> str:
        known = {**environ, **variables}
        return _REFERENCE.sub(lambda match: known.get(match["name"]) or match["default"] or "", value)

    for match in _LINE.finditer(text):
        if not is_key(match["key"]):
            line = text.count("\n", 0, match.start("key")) + 1
            raise InvalidError(
                f"Line {line} of the .env file does not begin with the name of an environment variable.",
                hint="Put quotes around values of several lines.",
            )
        if match["raw"] is not None:
            variables[match["key"]] = match["raw"].replace(r"\'", "'")
        elif match["quoted"] is not None:
            unescaped = _ESCAPE.sub(lambda escape: _ESCAPES.get(escape[1], escape[1]), match["quoted"])
            variables[match["key"]] = fill_in(unescaped)
        elif match["plain"] is not None:
            variables[match["key"]] = fill_in(re.sub(r"(^|\s)#.*", "", match["plain"]).strip())
        else:
            variables[match["key"]] = None
    return variables
