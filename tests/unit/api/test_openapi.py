"""What the API says of itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from portico.api.fake import FakeServices
from portico.wire import control
from portico.wire.control import SettingInfo, TokenInfo
from tests.unit.api.test_token_door import ROUTES, ask


@pytest.fixture
def document(public_socket: Path, services: FakeServices) -> dict[str, Any]:
    """As it is served."""
    services.issued["ak-1"] = TokenInfo(id="ak-1", name="one", environment="main", created_at=0.0)
    response = ask(public_socket, "GET", "/v1/openapi.json", "Bearer ak-1.as-ak-1")
    assert response.status == 200
    return msgspec.json.decode(response.read())


def test_every_route_is_in_it(document: dict[str, Any]) -> None:
    """With its method; and what `wire/control.py` lists, too."""
    said = {
        (method.upper(), re.sub(r"{\w+}", "x", path)) for path, item in document["paths"].items() for method in item
    }
    assert said == {(m, t) for m, t in ROUTES if m != "HEAD" and "openapi" not in t}
    listed = re.findall(r"^    (GET|PUT|POST|PATCH|DELETE) +(/v1/[^ ?]+)", control.__doc__ or "", re.MULTILINE)
    assert {(m, re.sub(r"{\w+}", "x", p)) for m, p in listed if "openapi" not in p} == said


def test_its_schemas_are_those_of_the_documents(document: dict[str, Any]) -> None:
    """What the API's own types write is valid; something else is not."""
    schema = {"$ref": "#/components/schemas/SettingInfo", "components": document["components"]}
    validator = jsonschema_rs.Draft202012Validator(schema)
    good = SettingInfo(environment="main", app="shop", setting="rate_limit", value="5")
    assert validator.is_valid(msgspec.to_builtins(good))
    assert not validator.is_valid({"setting": 7, "value": None})
