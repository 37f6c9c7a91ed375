"""Settings and which of them holds where."""

from __future__ import annotations

import sys

import pytest

from portico.model.errors import InvalidError
from portico.model.policy import DEFAULT_MAX_BODY, Policies, Policy, Scope, Setting, check_value

HERE = Scope("main", "seed", "square")
ALL, MAIN, APP = Scope(), Scope("main"), Scope("main", "seed")


def of(setting: Setting, **values: str) -> Policies:
    """Policies with these values for "all", "main", "app" and "here"."""
    scopes = {"all": ALL, "main": MAIN, "app": APP, "here": HERE}
    return Policies(Policy(scopes[name], setting, value) for name, value in values.items())


@pytest.mark.parametrize(
    ("values", "protected"),
    [
        ({}, False),
        ({"all": "on"}, True),
        ({"main": "on"}, True),
        ({"app": "on"}, True),
        ({"here": "on"}, True),
        ({"all": "on", "app": "off"}, False),
        ({"all": "off", "main": "on"}, True),
    ],
)
def test_the_narrowest_setting_protects(values: dict[str, str], protected: bool) -> None:
    """An app may be taken out of what holds for all, and the other way round."""
    policies = of(Setting.REQUIRE_PROXY_AUTH, **values)
    assert policies.requires_proxy_auth(HERE) is protected
    assert policies.requires_proxy_auth(Scope("dev", "seed", "square")) is (values.get("all") == "on")


def test_each_level_has_a_rate_of_its_own() -> None:
    """All of them hold; the workspace's default can be changed and switched off."""
    assert Policies().rates(HERE, 200) == {ALL: 200}
    assert Policies().rates(HERE, None) == {}
    assert of(Setting.RATE_LIMIT, all="off").rates(HERE, 200) == {}
    assert of(Setting.RATE_LIMIT, all="50", here="5").rates(HERE, 200) == {ALL: 50, HERE: 5}
    assert of(Setting.RATE_LIMIT, here="5").rates(APP, 200) == {ALL: 200}


def test_the_narrowest_size_holds() -> None:
    """4 GiB where none is set."""
    assert Policies().max_body(HERE) == DEFAULT_MAX_BODY == 4 << 30
    assert of(Setting.MAX_BODY, all="unlimited").max_body(HERE) == sys.maxsize
    assert of(Setting.MAX_BODY, all="10", app="20").max_body(HERE) == 20


@pytest.mark.parametrize(
    ("setting", "text", "value"),
    [
        (Setting.REQUIRE_PROXY_AUTH, "on", "on"),
        (Setting.RATE_LIMIT, "off", "off"),
        (Setting.RATE_LIMIT, "0.5", "0.5"),
        (Setting.RATE_LIMIT, "200.0", "200"),
        (Setting.MAX_BODY, "10MiB", str(10 << 20)),
        (Setting.MAX_BODY, "4 gib", str(4 << 30)),
        (Setting.MAX_BODY, "17", "17"),
        (Setting.MAX_BODY, "unlimited", "unlimited"),
    ],
)
def test_values_have_one_form(setting: Setting, text: str, value: str) -> None:
    """As it is stored."""
    assert check_value(setting, text) == value


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        (Setting.REQUIRE_PROXY_AUTH, "yes"),
        (Setting.RATE_LIMIT, "0"),
        (Setting.RATE_LIMIT, "-1"),
        (Setting.RATE_LIMIT, "nan"),
        (Setting.RATE_LIMIT, "many"),
        (Setting.RATE_LIMIT, "1e9"),
        (Setting.MAX_BODY, "big"),
        (Setting.MAX_BODY, "-1"),
        (Setting.MAX_BODY, "off"),
    ],
)
def test_other_values_are_refused(setting: Setting, text: str) -> None:
    """With an error that names the setting."""
    with pytest.raises(InvalidError, match=setting.value):
        check_value(setting, text)
