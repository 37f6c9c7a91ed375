"""For all tests."""

import os

# Containers have a /tmp of their own, so what they share with a test must not be there.
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", "/var/tmp")
