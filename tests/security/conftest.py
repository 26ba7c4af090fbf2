"""Fixtures of the tests that attack a whole zenvoy."""

from __future__ import annotations

from tests.e2e.conftest import shared_zenvoy, zenvoy

__all__ = ["shared_zenvoy", "zenvoy"]
