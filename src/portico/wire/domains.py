"""Custom domains as users write them -> as DNS has them: ASCII, lower case."""

from __future__ import annotations

import re
from typing import Final

from portico.model.errors import InvalidError

MAX_NAME: Final = 253  # RFC 1035, as text
_LABEL: Final = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
_NOBODYS: Final = ("localhost", "localdomain")  # names that mean each machine itself
_HINT: Final = "For example api.example.com, or *.example.com for all names that have one label more."


def domain_name(text: object) -> str:
    """The name in ASCII and lower case, "api.example.com" or "*.example.com"; InvalidError says why it is none."""
    if not isinstance(text, str):
        raise InvalidError(f"Not a domain name: {text!r}.", hint="Domain names are strings.")
    reason = _not_bare(text)
    wild, name = text.startswith("*."), text.removeprefix("*.")
    if reason is None:
        try:
            name = _ascii(name)
        except ValueError as error:
            reason = f"{error}"
    reason = reason or _no_name(name, wild)
    if reason is not None:
        raise InvalidError(f"Not a domain name: {text!r}: {reason}.", hint=_HINT)
    return f"*.{name}" if wild else name


def check_foreign(name: str, own: str) -> str:
    """`name`, or InvalidError where it belongs to the server's own domain."""
    base = name.removeprefix("*.")
    if base == own or base.endswith(f".{own}"):
        raise InvalidError(
            f"{name} belongs to the server's own domain {own}: it cannot be a custom domain.",
            hint="Names there are made of labels: set label= for a name of your choice.",
        )
    return name


def shell_word(name: str) -> str:
    """A name as a shell takes it, which would look for files that fit a wildcard."""
    return f"'{name}'" if "*" in name else name


def _not_bare(text: str) -> str | None:
    """What stands there beside a name."""
    if "://" in text:
        return "leave out the scheme"
    if "/" in text or "?" in text or "#" in text:
        return "leave out the path"
    if _is_address(text):
        return "that is an IP address"
    if ":" in text:
        return "leave out the port: a domain holds for the port that the server listens on"
    if text.endswith("."):
        return "leave out the dot at the end"
    return None


def _ascii(name: str) -> str:
    """The A-labels of a name; ValueError where IDNA has none."""
    if name.isascii() and "xn--" not in name.lower():
        return name.lower()
    import idna  # 15 ms that most names need not pay

    return idna.encode(name, uts46=True).decode()


def _no_name(name: str, wild: bool) -> str | None:
    """Why an ASCII name is none."""
    labels = name.split(".")
    if "*" in name:
        return "a wildcard is one '*.' in front of a name"
    if "" in labels:
        return "it is empty" if not name else "a label is empty"
    if len(name) > MAX_NAME:
        return f"it has more than {MAX_NAME} characters"
    wrong = next((label for label in labels if not _LABEL.fullmatch(label)), None)
    if wrong is not None:
        return f"the label {wrong!r} is not 1 to 63 letters, digits and '-', without '-' at an end"
    if labels[-1] in _NOBODYS:
        return "that name means each machine itself"
    if labels[-1].isdigit():
        return "the last label is a number, as in an IP address"
    if len(labels) == 1:
        return "a wildcard needs two labels behind the '*.'" if wild else "it has one label only"
    return None


def _is_address(text: str) -> bool:
    if ":" not in text and not text[-1:].isdigit():
        return False
    import ipaddress  # 2 ms that `import modal` need not pay

    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True
