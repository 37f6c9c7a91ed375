"""Names and addresses: the URL rule against URLs that exist, and what names may look like."""

import pytest

from portico.model import naming
from portico.model.errors import InvalidError

# What the rule must give, with the workspace, the app and the function (or class and method) that made it.
KNOWN = [
    (
        ("modal-labs", "example-spam-detect-llm", "fastapi-app-thun", "-dev"),
        "modal-labs--example-spam-detect-llm-fastapi-app-thun-ed2e0f-dev",
    ),
    (
        ("utkarshmer05", "variant-analysis-evo2", "evo2model-analyze-si", ""),
        "utkarshmer05--variant-analysis-evo2-evo2model-analyze-si-b52940",
    ),
    (
        ("ajiteshshukla1234", "variant-analysis-evo2", "evo2model-analy", ""),
        "ajiteshshukla1234--variant-analysis-evo2-evo2model-analy-012766",
    ),
    (
        ("khannaraghav90", "variant-analysis-evo2", "evo2model-anal", "-dev"),
        "khannaraghav90--variant-analysis-evo2-evo2model-anal-61f9e3-dev",
    ),
]
