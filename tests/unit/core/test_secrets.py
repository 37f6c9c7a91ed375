"""What named secrets make of a function's environment."""

from __future__ import annotations

import pytest

from portico.core.secrets import SecretTable
from portico.model.errors import InvalidError, NotFoundError
from portico.model.spec import FunctionSpec, SecretSpec


def a_function(*secrets: SecretSpec, **env: str) -> FunctionSpec:
    return FunctionSpec(name="square", module="seed", qualname="square", secrets=secrets, env=env)


def test_the_later_wins() -> None:
    """Secrets in their order, named or not, then env=."""
    table = SecretTable()
    table.put("main", "kept", {"A": "kept", "B": "kept", "C": "kept"})
    inline, named = SecretSpec(values={"A": "inline", "B": "inline"}), SecretSpec(name="kept")
    assert table.variables(a_function(inline, named, C="env"), "main") == {"A": "kept", "B": "kept", "C": "env"}
    assert table.variables(a_function(named, inline, C="env"), "main") == {"A": "inline", "B": "inline", "C": "env"}


def test_a_secret_is_looked_for_where_the_app_is_or_where_it_says() -> None:
    """The environment that `from_name` names wins."""
    table = SecretTable()
    table.put("main", "kept", {"A": "main"})
    table.put("dev", "kept", {"A": "dev"})
    assert table.variables(a_function(SecretSpec(name="kept")), "dev") == {"A": "dev"}
    assert table.variables(a_function(SecretSpec(name="kept", environment="main")), "dev") == {"A": "main"}


def test_what_is_missing_is_named_with_the_command_that_makes_it() -> None:
    """A secret, or a key of it; the command says all keys, since it replaces them all."""
    table = SecretTable()
    with pytest.raises(NotFoundError, match="no secret 'kept' in the environment 'dev'") as caught:
        table.variables(a_function(SecretSpec(name="kept", required_keys=("A", "B"))), "dev")
    assert caught.value.hint == "portico secret create kept A=- B=- --env dev"
    table.put("main", "kept", {"X": "1"})
    with pytest.raises(InvalidError, match="lacks A, B") as lacking:
        table.variables(a_function(SecretSpec(name="kept", required_keys=("A", "X", "B"))), "main")
    assert lacking.value.hint == "portico secret create kept X=- A=- B=- --force"


def test_a_change_reaches_those_that_were_named_only() -> None:
    """What no app names is not kept in memory."""
    table = SecretTable()
    table.change("main", "other", {"A": "1"})
    assert repr(table) == "<SecretTable 0 secrets>"
    table.put("main", "kept", None)
    table.change("main", "kept", {"A": "1"})
    assert table.variables(a_function(SecretSpec(name="kept")), "main") == {"A": "1"}
    table.change("main", "kept", None)
    with pytest.raises(NotFoundError):
        table.variables(a_function(SecretSpec(name="kept")), "main")
