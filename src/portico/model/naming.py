"""Names and addresses: the URL rule, and what names may look like. Pure functions of their arguments."""

from __future__ import annotations

import re

from portico.model.errors import InvalidError

MAX_LABEL = 63  # RFC 1035: one DNS label
_HASH = 6

_OBJECT_NAME = re.compile(r"^[a-zA-Z0-9\-_.]{1,64}$")
_APP_ID = re.compile(r"^ap-[a-zA-Z0-9]{22}$")
_USER_LABEL = re.compile(r"^(?![0-9]+$)(?!-)[a-z0-9-]{1,63}(?<!-)$")
_DNS_PART = re.compile(r"^(?!-)[a-z0-9-]{1,63}(?<!-)$")
_TAG = re.compile(r"^[a-zA-Z0-9._\-]{1,63}$")
_DEV_SUFFIX = re.compile(r"^[a-zA-Z0-9]{1,8}$")
_ENVIRONMENT = re.compile(r"^(?!en-)[a-zA-Z0-9][a-zA-Z0-9\-_]{0,63}$")
_WEB_SUFFIX = re.compile(r"^(?!-)(?!.*--)[a-z0-9-]{0,20}(?<!-)$")

MAIN = "main"  # the environment that is always there


def host_label(source: str, label: str, *, suffix: str = "") -> str:
    """The first label of an endpoint's host name, at most 63 characters.

    `source` is the workspace (with the environment's suffix), `label` what `auto_label` or the user gives, `suffix`
    is "" or "-dev". A longer name is cut, and the cut is marked with a hash of the name without its suffix.
    InvalidError for one that TLS refuses: after a workspace of one character, a label must not begin with "-".
    """
    base = f"{source}--{label}"
    if base[2:4] == "--":
        raise InvalidError(
            f"Invalid host name: {base!r} has '--' after two characters, which host names reserve.",
            hint="Give the function a label=, or the app a name, that begins with a letter or digit.",
        )
    if len(base) + len(suffix) <= MAX_LABEL:
        return base + suffix
    import hashlib  # 4 ms that `import modal` need not pay

    mark = hashlib.sha256(base.encode()).hexdigest()[:_HASH]
    return f"{base[: MAX_LABEL - _HASH - 1 - len(suffix)]}-{mark}{suffix}"


def auto_label(app: str, function: str) -> str:
    """`<app>-<function>`, lower-cased, with everything but letters, digits and "-" turned into "-"."""
    return re.sub(r"[^a-z0-9-]", "-", f"{app}-{function}".lower())


def call_host(environment: str, app: str, function: str) -> str:
    """The host that a function is called at, over the server's own socket. `app` is an app's name or its id.

    Names are case-sensitive and long, hosts are neither: so it is a hash of the names.
    """
    import hashlib

    return hashlib.sha256("\0".join((environment, app, function)).encode()).hexdigest()[:40] + ".calls"


def door_of(method: str) -> str:
    """What a method's socket has behind the container's address; a function, without a name here, has nothing.

    Paths of sockets are short: so it is a hash, and two methods of one class may not have the same.
    """
    import hashlib

    return f".{hashlib.sha256(method.encode()).hexdigest()[:_HASH]}" if method else ""


def check_object_name(name: str, kind: str) -> str:
    """`name`, or InvalidError when it cannot name an app, a secret or the like."""
    if not _OBJECT_NAME.fullmatch(name) or _APP_ID.fullmatch(name):
        raise InvalidError(
            f"Invalid {kind} name: {name!r}.",
            hint="Names have 1 to 64 characters: letters, digits, '-', '_' and '.'; and are not shaped like an app id.",
        )
    return name


def check_label(label: str) -> str:
    """`label`, or InvalidError when it cannot be a user's own label."""
    if not _USER_LABEL.fullmatch(label) or label[2:4] == "--":
        raise InvalidError(
            f"Invalid label: {label!r}.",
            hint="A label has at most 63 lower-case letters, digits and '-', does not begin or end with '-', "
            "is not a number, and has no '--' after two characters (a form that host names reserve).",
        )
    return label


def check_workspace(name: str) -> str:
    """`name`, or InvalidError. Two characters would put "--" where IDNA reserves it, and TLS clients refuse that."""
    if not _DNS_PART.fullmatch(name) or len(name) == 2 or name[2:4] == "--" or "--" in name or len(name) > 40:
        raise InvalidError(
            f"Invalid workspace name: {name!r}.",
            hint="A workspace has 1, or 3 to 40, lower-case letters, digits and single '-' "
            "(two characters would make host names that TLS refuses). Set PORTICO_WORKSPACE.",
        )
    return name


def workspace_from(user: str) -> str:
    """A workspace name made from a user's name."""
    name = re.sub(r"-+", "-", re.sub(r"[^a-z0-9-]", "-", user.lower())).strip("-")[:40].strip("-")
    return f"{name}-ws" if len(name) == 2 else name or "local"


def check_environment(name: str) -> str:
    """`name`, or InvalidError when it cannot name an environment."""
    if not _ENVIRONMENT.fullmatch(name):
        raise InvalidError(
            f"Invalid environment name: {name!r}.",
            hint="An environment has 1 to 64 letters, digits, '-' and '_', begins with a letter or digit, "
            "and not with 'en-'.",
        )
    return name


def check_web_suffix(suffix: str) -> str:
    """`suffix`, or InvalidError when it cannot follow the workspace in a label; "" is a suffix, too."""
    if not _WEB_SUFFIX.fullmatch(suffix):
        raise InvalidError(
            f"Invalid web suffix: {suffix!r}.",
            hint="It has at most 20 lower-case letters, digits and single '-', and does not begin or end with '-'.",
        )
    return suffix


def web_suffix_from(environment: str) -> str:
    """The suffix that an environment has when nobody says another: its name, as far as host names take it."""
    return re.sub(r"-+", "-", re.sub(r"[^a-z0-9-]", "-", environment.lower()))[:20].strip("-")


def source_of(workspace: str, web_suffix: str) -> str:
    """The first part of every label of an environment."""
    return f"{workspace}-{web_suffix}" if web_suffix else workspace


def check_tag(text: str) -> str:
    """`text`, or InvalidError when it cannot be a tag's key or value."""
    if not _TAG.fullmatch(text):
        raise InvalidError(
            f"Invalid tag: {text!r}.", hint="Tags have 1 to 63 characters: letters, digits, '.', '_' and '-'."
        )
    return text


def check_dev_suffix(text: str) -> str:
    """`text`, or InvalidError when it cannot end the label of an ephemeral app."""
    if not _DEV_SUFFIX.fullmatch(text):
        raise InvalidError(f"Invalid dev suffix: {text!r}.", hint="It has 1 to 8 letters and digits.")
    return text.lower()
