"""Commands that run within the test process, which configure its log."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def log_configuration() -> Iterator[None]:
    """Give later tests the default log: loggers that were used keep the configuration of their first use otherwise."""
    yield
    structlog.reset_defaults()
    proxy = type(structlog.get_logger())
    for module in list(sys.modules.values()):
        for value in list(vars(module).values()):
            if type(value) is proxy:
                vars(value).pop("bind", None)
